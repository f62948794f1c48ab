//! The command line: `pengx serve`, `pengx routes`, `pengx schema`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::Given;

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
}

/// Each may also come from the environment, or from the configuration file under its name in snake case.
#[derive(Debug, Args)]
pub struct Serve {
    /// TOML file; /etc/pengx/pengx.toml if it is there.
    #[arg(long, env = "PENGX_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Default 127.0.0.1:8000; port 0 picks a free one.
    #[arg(long, env = "PENGX_LISTEN", value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// sqlite://PATH or postgres://…; default pengx.db in the data directory.
    #[arg(long, env = "PENGX_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,
    /// auto, a libvirt URI, or fake:/// for an imaginary one.
    #[arg(long, env = "PENGX_HYPERVISOR", value_name = "URI")]
    hypervisor: Option<String>,
    /// Default /var/lib/pengx for root, else below $XDG_DATA_HOME.
    #[arg(long, env = "PENGX_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Serve an address that is not loopback although nobody needs to log in.
    #[arg(long)]
    insecure: bool,
}

impl From<Serve> for Given {
    fn from(serve: Serve) -> Self {
        Self {
            config: serve.config,
            listen: serve.listen,
            database_url: serve.database_url,
            hypervisor: serve.hypervisor,
            data_dir: serve.data_dir,
            insecure: serve.insecure,
        }
    }
}
