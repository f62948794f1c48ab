//! Applies a compensation. Each looks before it acts, and doing one twice changes nothing.

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Compensation, DomainSpec, StorlinkId, VmId};
use crate::storage::VolumeDriver;

use super::domain::Machine;
use super::{Core, guard};

pub(super) fn apply(core: &Core, compensation: &Compensation) -> Result<()> {
    match compensation {
        Compensation::DeleteVolume { storlink, volume } => driver(core, *storlink)?.remove(volume),
        Compensation::RestoreVolume { storlink, volume } => driver(core, *storlink)?.restore(volume),
        Compensation::PurgeVolume { storlink, volume } => driver(core, *storlink)?.purge(volume),
        Compensation::Undefine { vm } => core.hypervisor.undefine(*vm),
        Compensation::Redefine { vm } => redefine(core, *vm),
        Compensation::Destroy { vm } => {
            core.hypervisor.destroy(*vm)?;
            core.inventory.refresh()
        }
        Compensation::DetachDisk { vm, order } => if_active(core, *vm, || core.hypervisor.detach_disk(*vm, *order)),
        Compensation::DetachNic { vm, mac } => if_active(core, *vm, || core.hypervisor.detach_nic(*vm, *mac)),
        Compensation::AttachDisk { vm, disk } => as_rows_say(core, *vm, |spec| {
            let disk = spec.disks.iter().find(|known| known.id == *disk);
            disk.map_or(Ok(()), |disk| core.hypervisor.attach_disk(*vm, disk))
        }),
        Compensation::ResetMemory { vm } => as_rows_say(core, *vm, |spec| core.hypervisor.set_memory(*vm, spec.memory)),
        Compensation::ResetDisc { vm } => {
            as_rows_say(core, *vm, |spec| core.hypervisor.change_disc(*vm, spec.disc.as_ref()))
        }
    }
}

/// A domain that is off has nothing plugged in.
fn if_active(core: &Core, vm: VmId, undo: impl FnOnce() -> Result<()>) -> Result<()> {
    match core.hypervisor.domain(vm)? {
        Some(domain) if domain.state.is_active() => undo(),
        _ => Ok(()),
    }
}

fn as_rows_say(core: &Core, vm: VmId, undo: impl FnOnce(&DomainSpec) -> Result<()>) -> Result<()> {
    if_active(core, vm, || match Machine::load(core, vm) {
        Ok(machine) => undo(&machine.spec(core)?),
        Err(gone) if is_gone(&gone) => Ok(()),
        Err(other) => Err(other),
    })
}

fn driver(core: &Core, id: StorlinkId) -> Result<Box<dyn VolumeDriver>> {
    let storlink = core.store.read(|c| guard::storlink(c, &core.pm, id))?;
    (core.volumes)(&storlink)
}

/// Without its rows there is nothing that the domain could be defined from, and nobody who misses it.
fn redefine(core: &Core, vm: VmId) -> Result<()> {
    match Machine::load(core, vm) {
        Ok(machine) => core.hypervisor.define(&machine.spec(core)?),
        Err(gone) if is_gone(&gone) => Ok(()),
        Err(other) => Err(other),
    }
}

fn is_gone(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound { what: "vm", .. })
}
