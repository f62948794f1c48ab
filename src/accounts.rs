//! `pengx user` and `pengx token`: the accounts, kept from the command line. Works beside a running server, on the same
//! database; it takes no lock of the data directory and starts no task.

use std::sync::Arc;

use chrono::NaiveDateTime;

use crate::cli::{TokenCommand, UserCommand};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::{NameRules, RandomIds, SystemClock, User};
use crate::operations::{Login, Registry};
use crate::store::Store;
use crate::terminal;

/// What to print; nothing where there is nothing to tell.
pub fn user(config: &Config, command: UserCommand) -> Result<String> {
    let registry = open(config)?;
    match command {
        UserCommand::Add { name, role, sees, hash } => {
            let secret = if hash { terminal::hash()? } else { terminal::new_password()? };
            let login = if hash { Login::Hash(&secret) } else { Login::Password(&secret) };
            registry.add_seeing(&name, login, role, sees.rules())?;
        }
        UserCommand::Password { name } => {
            // Before somebody types one for nothing.
            registry.find(&name)?;
            registry.set_password(&name, &terminal::new_password()?)?;
        }
        UserCommand::Role { name, role } => registry.set_role(&name, role)?,
        UserCommand::Sees { name, sees, .. } => registry.set_sees(&name, sees.rules().as_ref())?,
        UserCommand::Remove { name } => registry.remove(&name)?,
        UserCommand::List => {
            return Ok(registry.users()?.iter().map(line).collect::<Vec<_>>().join("\n"));
        }
    }
    Ok(String::new())
}

fn line(user: &User) -> String {
    let sees = match user.sees.as_ref().map(NameRules::to_string) {
        None => "all".to_owned(),
        Some(none) if none.is_empty() => "none".to_owned(),
        Some(rules) => rules.replace('\n', ", "),
    };
    format!("{}\t{}\t{}\t{sees}", user.name, user.role, time(user.created_at))
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
