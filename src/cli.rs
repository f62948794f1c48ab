//! The command line: `pengx serve`, `pengx routes`, `pengx schema`, `pengx check`, `pengx user`, `pengx token`, `pengx backup`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::Given;
use crate::model::{BackupId, NameRules, Role, TokenId};

#[derive(Debug, Parser)]
#[command(name = "pengx", version, about = "Manages virtual machines behind the pengx XML API")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the API until SIGTERM.
    Serve(Serve),
    /// Print every URI with its methods and the number of its row in the API's contract.
    Routes,
    /// Print the RELAX NG grammar of every answer, or of one request or answer.
    Schema {
        /// As the grammar names it: vm-create, vms.
        start: Option<String>,
    },
    /// Say what does not agree between records, storage and hypervisor: status 1 if something does not, 2 if not everything
    /// could be looked at.
    Check(Check),
    /// Keep the accounts. Passwords are read from standard input.
    User(User),
    /// Keep the bearer tokens of accounts.
    Token(Token),
    /// Look at backups, beside a running server or without one. Changes nothing.
    Backup(Backup),
    /// What a key of another host is let in for: takes the guest in that SSH_ORIGINAL_COMMAND names, if it is expected.
    #[command(hide = true)]
    MigrationReceive(Place),
    /// What sends a guest to another host calls between Xen and ssh.
    #[command(hide = true)]
    MigrationSend(MigrationSend),
}

#[derive(Debug, Args)]
pub struct MigrationSend {
    /// The number of the domain.
    pub domid: u32,
    /// The socket of the QEMU that serves its disks.
    pub monitor: PathBuf,
    /// The ssh that it is sent through.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub ssh: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    place: Place,
    /// auto, or a libvirt URI.
    #[arg(long, env = "PENGX_HYPERVISOR", value_name = "URI")]
    hypervisor: Option<String>,
    /// Repair what is safe, while no server runs.
    #[arg(long)]
    repair: bool,
}

#[derive(Debug, Args)]
pub struct User {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Add a user; from the first one on, everybody must log in.
    Add {
        /// At most 64 characters, and no colon.
        name: String,
        /// admin: everything; operator: VMs, templates and tasks; viewer: looks at all but secrets.
        #[arg(long)]
        role: Role,
        #[command(flatten)]
        sees: Sees,
        /// Standard input holds the hash of the password, $6$ of crypt(3), in the place of the password.
        #[arg(long)]
        hash: bool,
    },
    /// Print every user: name, role, when it was added (UTC), which VMs it sees.
    List,
    /// Give a user another password.
    Password { name: String },
    /// Give a user another role.
    Role { name: String, role: Role },
    /// Say which VMs a user sees from now on.
    Sees {
        name: String,
        #[command(flatten)]
        sees: Sees,
        /// Every VM, as a user does that was added without rules.
        #[arg(long, required_unless_present = "rules", conflicts_with = "rules")]
        all: bool,
    },
    /// Remove a user, with its tokens.
    Remove { name: String },
}

/// Without any of these, every VM; with them a VM whose name fits one. Who does not see every VM may not change storlinks and PMs.
#[derive(Debug, Args)]
#[group(id = "rules", multiple = true)]
pub struct Sees {
    /// The VM of this name; like the next two, as often as needed.
    #[arg(long, value_name = "NAME")]
    sees_exact: Vec<String>,
    /// VMs whose names begin so.
    #[arg(long, value_name = "TEXT")]
    sees_prefix: Vec<String>,
    /// VMs whose names end so.
    #[arg(long, value_name = "TEXT")]
    sees_suffix: Vec<String>,
    /// No VM.
    #[arg(long, conflicts_with_all = ["sees_exact", "sees_prefix", "sees_suffix"])]
    sees_none: bool,
}

impl Sees {
    /// `None`: every VM.
    pub fn rules(self) -> Option<NameRules> {
        let rules = NameRules { exact: self.sees_exact, prefix: self.sees_prefix, suffix: self.sees_suffix };
        (self.sees_none || rules != NameRules::default()).then_some(rules)
    }
}

#[derive(Debug, Args)]
pub struct Token {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Print a new token of a user. It is not shown again.
    Create {
        user: String,
        /// What it is for.
        #[arg(long, default_value = "", value_name = "TEXT")]
        name: String,
        /// It is good for ever without this.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        expires_days: Option<u32>,
    },
    /// Print every token: id, user, when it was made and when it expires (UTC), name.
    List,
    /// Make a token worthless.
    Revoke { id: TokenId },
}

#[derive(Debug, Args)]
pub struct Backup {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: BackupCommand,
}

#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Print every backup: id, VM's id, VM's name, name, and when it was made, last verified and last proven (UTC).
    List,
    /// Read every byte of backups again. Prints a line for each; status 1 if one is not what it was.
    Verify {
        #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
        ids: Vec<BackupId>,
        /// Every backup that this host can reach.
        #[arg(long)]
        all: bool,
    },
}

/// Where the configuration and the database are.
#[derive(Debug, Args)]
pub struct Place {
    /// TOML file; /etc/pengx/pengx.toml if it is there.
    #[arg(long, env = "PENGX_CONFIG", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// sqlite://PATH or postgres://…; default pengx.db in the data directory.
    #[arg(long, env = "PENGX_DATABASE_URL", value_name = "URL", hide_env_values = true, global = true)]
    database_url: Option<String>,
    /// Default /var/lib/pengx for root, else below $XDG_DATA_HOME.
    #[arg(long, env = "PENGX_DATA_DIR", value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
}

/// Each may also come from the environment, or from the configuration file under its name in snake case.
#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    place: Place,
    /// Default 127.0.0.1:8000; port 0 picks a free one.
    #[arg(long, env = "PENGX_LISTEN", value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// auto, xl:/// for Xen, a libvirt URI, or fake:/// for an imaginary one.
    #[arg(long, env = "PENGX_HYPERVISOR", value_name = "URI")]
    hypervisor: Option<String>,
    /// Serve an address that is not loopback although no account exists; everybody may then do everything.
    #[arg(long)]
    insecure: bool,
}

impl From<Serve> for Given {
    fn from(serve: Serve) -> Self {
        Self { listen: serve.listen, hypervisor: serve.hypervisor, insecure: serve.insecure, ..serve.place.into() }
    }
}

impl From<Place> for Given {
    fn from(place: Place) -> Self {
        Self { config: place.config, database_url: place.database_url, data_dir: place.data_dir, ..Self::default() }
    }
}

impl Check {
    /// The second one: whether to repair.
    pub fn split(self) -> (Given, bool) {
        (Given { hypervisor: self.hypervisor, ..self.place.into() }, self.repair)
    }
}

impl User {
    pub fn split(self) -> (Given, UserCommand) {
        (self.place.into(), self.command)
    }
}

impl Backup {
    pub fn split(self) -> (Given, BackupCommand) {
        (self.place.into(), self.command)
    }
}

impl Token {
    pub fn split(self) -> (Given, TokenCommand) {
        (self.place.into(), self.command)
    }
}
