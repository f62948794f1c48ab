//! Finding what an operation names, or saying why it cannot be had: it is not there, or it is another host's.

use std::collections::HashSet;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{
    Backup, BackupId, Lock, Pm, Resource, Snapshot, SnapshotId, SnapshotKind, Storlink, StorlinkId, Template,
    TemplateId, Vm, VmId,
};
use crate::store::{Conn, backups, snapshots, storlinks, templates, vms};

use super::{Core, hidden};

/// `Forbidden` if one of them is of a VM that the caller may not see, or of a name that a VM shall get and nobody would then
/// see. What is not there hides nothing.
pub(super) fn locks(core: &Core, locks: &[Lock]) -> Result<()> {
    if core.caller.sees_all() {
        return Ok(());
    }
    core.store.read(|c| {
        locks.iter().try_for_each(|lock| match &lock.resource {
            Resource::Vm(id) => vms::find(c, *id)?.map_or(Ok(()), |vm| core.caller.require_sight(&vm.name)),
            Resource::Backup(id) => match backups::find(c, *id)? {
                Some(found) => backup(c, core, found.vm, *id).map(drop),
                None => Ok(()),
            },
            Resource::Name("vm", name) => core.caller.require_sight(name),
            Resource::Template(_) | Resource::Storlink(_) | Resource::Name(..) => Ok(()),
        })
    })
}

/// By the name that its VM had then, which a restore gives it again, and by the one that it has now, if it is there.
pub(super) fn sees_backup(core: &Core, backup: &Backup, now: Option<&str>) -> bool {
    core.caller.sees(&backup.config.name) && now.is_none_or(|name| core.caller.sees(name))
}

/// A backup of this VM, which may be deleted; another VM's is not there.
pub(super) fn backup(c: &mut Conn, core: &Core, vm: VmId, id: BackupId) -> Result<Backup> {
    let found = backups::find(c, id)?.filter(|backup| backup.vm == vm);
    let found = found.ok_or_else(|| Error::not_found("backup", id))?;
    let now = vms::find(c, vm)?;
    if sees_backup(core, &found, now.as_ref().map(|vm| vm.name.as_str())) { Ok(found) } else { Err(hidden()) }
}

/// A VM of the site that the caller may see.
pub(super) fn seen_vm(c: &mut Conn, core: &Core, id: VmId) -> Result<Vm> {
    let vm = vms::find(c, id)?.ok_or_else(|| Error::not_found("vm", id))?;
    core.caller.require_sight(&vm.name)?;
    Ok(vm)
}

/// Which VMs the caller sees, at one moment.
pub(super) struct Sight(Option<HashSet<VmId>>);

impl Sight {
    pub(super) fn of(c: &mut Conn, core: &Core) -> Result<Self> {
        if core.caller.sees_all() {
            return Ok(Self(None));
        }
        let seen = vms::names(c)?.into_iter().filter(|(_, name)| core.caller.sees(name));
        Ok(Self(Some(seen.map(|(vm, _)| vm).collect())))
    }

    pub(super) fn shows(&self, vm: VmId) -> bool {
        self.0.as_ref().is_none_or(|seen| seen.contains(&vm))
    }
}

/// A VM of this host. Another host's hypervisor is not ours to command: a VM must never run twice.
pub(super) fn vm(c: &mut Conn, core: &Core, id: VmId) -> Result<Vm> {
    let vm = seen_vm(c, core, id)?;
    if vm.pm != core.pm.id {
        return Err(Error::wrong_state(format!("vm {}", vm.name), format!("on pm {}", vm.pm), "ask the server there"));
    }
    Ok(vm)
}

pub(super) fn template(c: &mut Conn, id: TemplateId) -> Result<Template> {
    templates::find(c, id)?.ok_or_else(|| Error::not_found("template", id))
}

/// A template of this host: another host's may be running there.
pub(super) fn own_template(c: &mut Conn, pm: &Pm, id: TemplateId) -> Result<Template> {
    let found = template(c, id)?;
    if found.pm != pm.id {
        let (what, is) = (format!("template {}", found.name), format!("on pm {}", found.pm));
        return Err(Error::wrong_state(what, is, "ask the server there"));
    }
    Ok(found)
}

/// A snapshot of this VM; another VM's is not there, and one that is going is not there any more.
pub(super) fn snapshot(c: &mut Conn, vm: VmId, id: SnapshotId) -> Result<Snapshot> {
    let found = snapshots::find(c, id)?.filter(|found| found.vm == vm && found.kind != SnapshotKind::Going);
    found.ok_or_else(|| Error::not_found("snapshot", id))
}

/// A storlink that this host can reach: its own, or a shared one.
pub(super) fn storlink(c: &mut Conn, pm: &Pm, id: StorlinkId) -> Result<Storlink> {
    let storlink = storlinks::find(c, id)?.ok_or_else(|| Error::not_found("storlink", id))?;
    if !reaches(pm, &storlink) {
        let is = format!("on pm {} and not shared", storlink.pm);
        return Err(Error::wrong_state(
            format!("storlink {}", storlink.name),
            is,
            "use one of this host, or a shared one",
        ));
    }
    Ok(storlink)
}

pub(super) fn reaches(pm: &Pm, storlink: &Storlink) -> bool {
    storlink.pm == pm.id || storlink.shared
}

/// What the hypervisor's capabilities rule out, told before anything is touched: `give vm web1 more than 64 disks`.
pub(super) fn unsupported(what: String) -> Error {
    Error::new(ErrorKind::Unsupported { what, by: "this hypervisor".to_owned() })
}
