//! The files of a storlink with their owners.

use chrono::{NaiveDateTime, TimeDelta};

use crate::error::{Error, ErrorKind, Result};
use crate::model::{MiB, Storlink, StorlinkId, VolumeFile, VolumeFiles};
use crate::operations::{Core, guard};
use crate::storage::VolumeDriver;

use super::{Owner, OwnerKind, Owners};

/// All that lies on a storlink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    pub storlink: StorlinkId,
    /// By name.
    pub entries: Vec<Entry>,
    /// So many more files are there.
    pub unlisted: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub file: VolumeFile,
    pub owner: Owner,
    /// Of an orphan: from when on it may be removed.
    pub free_at: Option<NaiveDateTime>,
}

/// What the owners of one kind have together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Total {
    pub kind: OwnerKind,
    pub count: usize,
    pub size: MiB,
    pub allocated: MiB,
}

impl Ledger {
    /// Of the kinds that there are.
    pub fn totals(&self) -> Vec<Total> {
        let total = |kind: &OwnerKind| {
            let of_kind = || self.entries.iter().filter(|entry| entry.owner.kind == *kind).map(|entry| &entry.file);
            Total {
                kind: *kind,
                count: of_kind().count(),
                size: MiB::from_bytes_ceil(of_kind().map(|file| file.bytes).fold(0, u64::saturating_add)),
                allocated: MiB::from_bytes_ceil(
                    of_kind().map(|file| file.allocated_bytes).fold(0, u64::saturating_add),
                ),
            }
        };
        OwnerKind::ALL.iter().map(total).filter(|total| total.count > 0).collect()
    }
}

/// The files on a storlink that this host reaches; its storage is asked now.
///
/// # Errors
/// `Forbidden` unless the caller sees every VM: they own most of the files.
pub async fn list(core: &Core, id: StorlinkId) -> Result<Ledger> {
    if !core.caller.sees_all() {
        let what = "list the volumes of a storlink unless you see every vm";
        return Err(Error::new(ErrorKind::Forbidden { what: what.to_owned() }));
    }
    let storlink = core.read(move |core| core.store.read(|c| guard::storlink(c, &core.pm, id))).await?;
    core.read_storage(Some(id), move |core| entries(core, &storlink, (core.volumes)(&storlink)?.as_ref())).await
}

fn entries(core: &Core, storlink: &Storlink, driver: &dyn VolumeDriver) -> Result<Ledger> {
    let files = driver.files()?;
    assign(core, storlink, driver, files)
}

/// The rows are read after the files, and name every file that was there and is no orphan. Those that seem to be orphans are
/// looked at again: whoever removed one may have forgotten it in the meantime. An error is the database's.
pub(in crate::operations) fn assign(
    core: &Core,
    storlink: &Storlink,
    driver: &dyn VolumeDriver,
    VolumeFiles { files, unlisted }: VolumeFiles,
) -> Result<Ledger> {
    let owners = core.store.read(Owners::read)?;
    let mut entries = Vec::with_capacity(files.len());
    for file in files {
        let owner = owners.of(storlink.id, &file);
        let is_orphan = owner.kind == OwnerKind::Orphan;
        if is_orphan && is_gone(driver, &file) {
            continue;
        }
        let free_at = is_orphan.then(|| free_at(core, &file));
        entries.push(Entry { file, owner, free_at });
    }
    Ok(Ledger { storlink: storlink.id, entries, unlisted })
}

fn is_gone(driver: &dyn VolumeDriver, file: &VolumeFile) -> bool {
    let Ok(name) = file.name.parse() else { return false };
    driver.file(&name).is_ok_and(|now| now.is_none_or(|now| now.inode != file.inode))
}

/// From when on an orphan may be removed. One that changes all the time, never.
pub(in crate::operations) fn free_at(core: &Core, file: &VolumeFile) -> NaiveDateTime {
    let quarantine = TimeDelta::from_std(core.settings.orphan_quarantine).unwrap_or_default();
    file.changed_at.checked_add_signed(quarantine).unwrap_or(file.changed_at)
}
