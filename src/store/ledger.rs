//! What the rows say about files on storlinks: which volume is whose.

use std::collections::HashMap;

use diesel::prelude::*;

use super::rows::parse;
use super::schema::{backups, snapshots, templates, vms as vms_of};
use super::{Conn, disks};
use crate::error::Result;
use crate::model::{BackupId, Disk, DiskOwner, StorlinkId, VmId};

/// A volume that has an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    pub disk: Disk,
    /// The VM that it is of, or was.
    pub vm: Option<VmId>,
    /// `vm web1`, for sentences.
    pub by: String,
}

/// A backup, which has a file of its own beside its disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedBackup {
    pub id: BackupId,
    pub vm: VmId,
    pub storlink: StorlinkId,
    /// `backup monday of vm web1`, for sentences.
    pub by: String,
}

/// Every disk of the site, and every backup, in five queries.
pub fn owned(c: &mut Conn) -> Result<(Vec<Owned>, Vec<OwnedBackup>)> {
    let (mut names, mut vms) = (HashMap::new(), HashMap::new());
    let all: Vec<(String, String)> = vms_of::table.select((vms_of::id, vms_of::name)).load(&mut c.0)?;
    names.extend(all.into_iter().map(|(id, name)| (format!("vm {id}"), format!("vm {name}"))));
    let all: Vec<(String, String)> = templates::table.select((templates::id, templates::name)).load(&mut c.0)?;
    names.extend(all.into_iter().map(|(id, name)| (format!("template {id}"), format!("template {name}"))));
    let of_vm = |names: &HashMap<String, String>, vm: VmId| {
        let vm = format!("vm {vm}");
        names.get(&vm).cloned().unwrap_or(vm)
    };
    let all: Vec<(String, String, String)> =
        snapshots::table.select((snapshots::id, snapshots::name, snapshots::vm)).load(&mut c.0)?;
    for (id, name, vm) in all {
        let (owner, vm) = (format!("snapshot {id}"), parse("snapshots.vm", &vm)?);
        let by = format!("snapshot {name} of {}", of_vm(&names, vm));
        names.insert(owner.clone(), by);
        vms.insert(owner, vm);
    }
    let all: Vec<(String, String, String, i32)> = backups::table
        .order((backups::created_at, backups::id))
        .select((backups::id, backups::name, backups::vm, backups::storlink))
        .load(&mut c.0)?;
    let mut of_backups = Vec::new();
    for (id, name, vm, storlink) in all {
        let (owner, vm) = (format!("backup {id}"), parse("backups.vm", &vm)?);
        let by = format!("backup {name} of {}", of_vm(&names, vm));
        names.insert(owner.clone(), by.clone());
        vms.insert(owner, vm);
        of_backups.push(OwnedBackup { id: parse("backups.id", &id)?, vm, storlink: StorlinkId(storlink), by });
    }
    let owned = |disk: Disk| {
        let owner = disk.owner.to_string();
        let vm = if let DiskOwner::Vm(vm) = disk.owner { Some(vm) } else { vms.get(&owner).copied() };
        Owned { disk, vm, by: names.get(&owner).cloned().unwrap_or(owner) }
    };
    Ok((disks::all(c)?.into_iter().map(owned).collect(), of_backups))
}
