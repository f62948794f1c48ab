//! Reads of disks: rows alone.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::model::{BackupId, Disk, SnapshotId, StorlinkLevel, TemplateId, VmId};
use crate::operations::{Core, guard};
use crate::store::{Conn, disks, storlinks};

/// A disk as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskView {
    pub disk: Disk,
    /// Of its storlink: what kind of thing its volume is.
    pub level: StorlinkLevel,
}

/// What a VM runs on, by order. Blocks for a query, as do those below.
pub fn of_vm(core: &Core, vm: VmId) -> Result<Vec<DiskView>> {
    core.store.read(|c| {
        guard::seen_vm(c, core, vm)?;
        let disks = disks::of_vm(c, vm)?;
        views(c, disks)
    })
}

/// What VMs are made from, by order.
pub fn of_template(core: &Core, template: TemplateId) -> Result<Vec<DiskView>> {
    core.store.read(|c| {
        guard::template(c, template)?;
        let disks = disks::of_template(c, template)?;
        views(c, disks)
    })
}

/// What a snapshot of this VM froze; another VM's snapshot is not there.
pub fn of_snapshot(core: &Core, vm: VmId, id: SnapshotId) -> Result<Vec<DiskView>> {
    core.store.read(|c| {
        guard::seen_vm(c, core, vm)?;
        guard::snapshot(c, vm, id)?;
        let disks = disks::of_snapshot(c, id)?;
        views(c, disks)
    })
}

/// The copies in a backup of this VM, which may be deleted; another VM's backup is not there.
pub fn of_backup(core: &Core, vm: VmId, id: BackupId) -> Result<Vec<DiskView>> {
    core.store.read(|c| {
        guard::backup(c, core, vm, id)?;
        let disks = disks::of_backup(c, id)?;
        views(c, disks)
    })
}

fn views(c: &mut Conn, disks: Vec<Disk>) -> Result<Vec<DiskView>> {
    let levels: HashMap<_, _> = storlinks::all(c)?.into_iter().map(|storlink| (storlink.id, storlink.level)).collect();
    let view = |disk: Disk| match levels.get(&disk.storlink) {
        Some(level) => Ok(DiskView { level: *level, disk }),
        None => Err(Error::internal(format!("disk {} without its storlink", disk.id))),
    };
    disks.into_iter().map(view).collect()
}
