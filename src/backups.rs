//! `pengx backup`: backups looked at from the command line, with the database and the storlinks alone. Works beside a running
//! server and without one; it takes no lock, starts no task, and writes nothing.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use chrono::NaiveDateTime;

use crate::cli::BackupCommand;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::exec::SystemRunner;
use crate::host;
use crate::model::{Backup, BackupId, PmId, Storlink};
use crate::operations::backup::read_again;
use crate::storage::{self, Control};
use crate::store::{Store, backups, disks, storlinks};

/// Whether all is well. Each line is told as soon as it is known.
pub fn run(config: &Config, command: BackupCommand, tell: &mut dyn FnMut(&str)) -> Result<bool> {
    let store = open(config)?;
    match command {
        BackupCommand::List => {
            store.read(backups::all)?.iter().for_each(|backup| tell(&listed(backup)));
            Ok(true)
        }
        BackupCommand::Verify { ids, all } => {
            let wanted = if all { store.read(backups::all)? } else { find(&store, &ids)? };
            let pm = match config.pm_uuid {
                Some(id) => Some(id),
                None => host::known_identity(&config.data_dir)?,
            };
            let mut all_well = true;
            for backup in &wanted {
                let (is_well, said) = verify(&store, pm, backup, all)?;
                all_well &= is_well;
                tell(&format!("{}\t{}\t{}\t{said}", backup.id, backup.config.name, backup.name));
            }
            Ok(all_well)
        }
    }
}

fn listed(backup: &Backup) -> String {
    let (id, vm, of, name) = (backup.id, backup.vm, &backup.config.name, &backup.name);
    let time = |at: NaiveDateTime| at.format("%Y-%m-%d %H:%M:%S").to_string();
    let or_never = |at: Option<NaiveDateTime>| at.map_or_else(|| "never".to_owned(), time);
    let (verified, proven) = (or_never(backup.verified_at), or_never(backup.proven_at));
    format!("{id}\t{vm}\t{of}\t{name}\t{}\t{verified}\t{proven}", time(backup.created_at))
}

fn find(store: &Store, ids: &[BackupId]) -> Result<Vec<Backup>> {
    let find = |id: &BackupId| store.read(|c| backups::find(c, *id))?.ok_or_else(|| Error::not_found("backup", id));
    ids.iter().map(find).collect()
}

/// Whether one backup is well, and what is said of it. One that is elsewhere counts only for who named it.
fn verify(store: &Store, pm: Option<PmId>, backup: &Backup, all: bool) -> Result<(bool, String)> {
    let read = || store.read(|c| Ok((disks::of_backup(c, backup.id)?, storlinks::find(c, backup.storlink)?)));
    let (disks, storlink) = read()?;
    let Some(storlink) = storlink.filter(|_| !disks.is_empty()) else { return deleted(store, backup) };
    if let Some(elsewhere) = elsewhere(pm, &storlink) {
        return Ok((all, elsewhere));
    }
    let driver = storage::open(&storlink, Arc::new(SystemRunner))?;
    if let Err(gone) = driver.usage() {
        return Ok((false, format!("not read: {gone}")));
    }
    let control = Control { cancel: &AtomicBool::new(false), progress: &|_| {} };
    match read_again(driver.as_ref(), backup, &disks, &control) {
        Ok(()) => Ok((true, "good".to_owned())),
        Err(_) if store.read(|c| backups::find(c, backup.id))?.is_none() => deleted(store, backup),
        Err(why) if matches!(why.kind(), ErrorKind::Refused { .. }) => Ok((false, format!("bad: {why}"))),
        Err(why) => Ok((false, format!("not read: {why}"))),
    }
}

/// A server went on meanwhile.
fn deleted(store: &Store, backup: &Backup) -> Result<(bool, String)> {
    match store.read(|c| backups::find(c, backup.id))? {
        Some(_) => Ok((false, "bad: its record has no disks".to_owned())),
        None => Ok((true, "deleted meanwhile".to_owned())),
    }
}

fn elsewhere(pm: Option<PmId>, storlink: &Storlink) -> Option<String> {
    let reached = storlink.shared || pm == Some(storlink.pm);
    (!reached).then(|| format!("elsewhere: storlink {} is on pm {} and not shared", storlink.name, storlink.pm))
}

/// A database that is not there is not made: nothing would be in it.
fn open(config: &Config) -> Result<Store> {
    if let Some(path) = config.database_url.strip_prefix("sqlite://")
        && !std::path::Path::new(path).exists()
    {
        return Err(Error::invalid("database_url", format!("{path} is not there")));
    }
    let store = Store::open(&config.database_url)?;
    store.migrate()?;
    Ok(store)
}
