//! `pengx user` and `pengx token`: the accounts, kept from the command line. Works beside a running server, on the same
//! database; it takes no lock of the data directory and starts no task.

use std::sync::Arc;

use chrono::NaiveDateTime;

use crate::cli::{TokenCommand, UserCommand};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::{RandomIds, SystemClock};
use crate::operations::Registry;
use crate::store::Store;
use crate::terminal;

/// What to print; nothing where there is nothing to tell.
pub fn user(config: &Config, command: UserCommand) -> Result<String> {
    let registry = open(config)?;
    match command {
        UserCommand::Add { name, role } => registry.add(&name, &terminal::new_password()?, role)?,
        UserCommand::Password { name } => {
            // Before somebody types one for nothing.
            registry.find(&name)?;
            registry.set_password(&name, &terminal::new_password()?)?;
        }
        UserCommand::Role { name, role } => registry.set_role(&name, role)?,
        UserCommand::Remove { name } => registry.remove(&name)?,
        UserCommand::List => {
            let line = |u: &crate::model::User| format!("{}\t{}\t{}", u.name, u.role, time(u.created_at));
            return Ok(registry.users()?.iter().map(line).collect::<Vec<_>>().join("\n"));
        }
    }
    Ok(String::new())
}

/// What to print, as [`user`].
pub fn token(config: &Config, command: TokenCommand) -> Result<String> {
    let registry = open(config)?;
    match command {
        TokenCommand::Create { user, name, expires_days } => {
            let (_, token) = registry.create_token(&user, &name, expires_days)?;
            Ok(token.reveal().to_owned())
        }
        TokenCommand::Revoke { id } => registry.revoke(id).map(|()| String::new()),
        TokenCommand::List => {
            let line = |t: &crate::operations::Listed| {
                let end = t.expires_at.map_or_else(|| "never".to_owned(), time);
                format!("{}\t{}\t{}\t{end}\t{}", t.id, t.user, time(t.created_at), t.name)
            };
            Ok(registry.tokens()?.iter().map(line).collect::<Vec<_>>().join("\n"))
        }
    }
}

fn open(config: &Config) -> Result<Registry> {
    let dir = &config.data_dir;
    // Accounts may be made before the first server runs, which makes its directory.
    if config.database_url.starts_with("sqlite://") {
        std::fs::create_dir_all(dir).map_err(|why| Error::invalid("data_dir", format!("{}: {why}", dir.display())))?;
    }
    let store = Store::open(&config.database_url)?;
    store.migrate()?;
    Ok(Registry::new(store, Arc::new(SystemClock), Arc::new(RandomIds)))
}

fn time(at: NaiveDateTime) -> String {
    at.format("%Y-%m-%d %H:%M:%S").to_string()
}
