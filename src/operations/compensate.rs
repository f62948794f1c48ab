//! Applies a compensation. Each looks before it acts, and doing one twice changes nothing.

use crate::error::{Error, ErrorKind, Result};
use crate::hypervisor::Start;
use crate::model::{Compensation, DiskOwner, DomainSpec, StorlinkId, StorlinkLevel, StorlinkType, Vm, VmId};
use crate::storage::VolumeDriver;
use crate::store::{disks, vms};

use super::domain::Machine;
use super::{Core, chain, guard, iso, mirror, snapshot, storlink};

pub(super) fn apply(core: &Core, compensation: &Compensation) -> Result<()> {
    match compensation {
        Compensation::DeleteVolume { storlink, volume } => {
            // A disk that has moved on to it, or has not moved off it, needs it.
            match core.store.read(|c| disks::holder(c, *storlink, volume))? {
                Some(_) => Ok(()),
                None => driver(core, *storlink)?.remove(volume),
            }
        }
        Compensation::RestoreVolume { storlink, volume } => driver(core, *storlink)?.restore(volume),
        Compensation::PurgeVolume { storlink, volume } => driver(core, *storlink)?.purge(volume),
        Compensation::Undefine { vm } => core.hypervisor.undefine(*vm),
        Compensation::Redefine { vm } => redefine(core, *vm),
        Compensation::Destroy { vm } => {
            core.hypervisor.destroy(*vm)?;
            core.inventory.refresh(*vm)
        }
        Compensation::DetachDisk { vm, order } => if_active(core, *vm, || core.hypervisor.detach_disk(*vm, *order)),
        Compensation::DetachNic { vm, mac } => if_active(core, *vm, || core.hypervisor.detach_nic(*vm, *mac)),
        Compensation::AttachDisk { vm, disk } => as_rows_say(core, *vm, |spec| {
            let row = core.store.read(|c| disks::find(c, *disk))?.filter(|row| row.owner == DiskOwner::Vm(*vm));
            let disk = row.and_then(|row| spec.disks.iter().find(|known| known.order == row.order));
            disk.map_or(Ok(()), |disk| core.hypervisor.attach_disk(*vm, disk))
        }),
        Compensation::ResetMemory { vm } => with_row(core, *vm, |row| {
            // The row may be ahead of the guest, until its next start.
            let most = core.hypervisor.size(*vm)?.max_memory;
            core.hypervisor.set_memory(*vm, row.memory.min(most))
        }),
        Compensation::ResetDisc { vm } => {
            with_row(core, *vm, |row| core.hypervisor.change_disc(*vm, iso::if_there(core, row)?.as_ref()))
        }
        Compensation::AdoptVcpus { vm } => with_row(core, *vm, |row| {
            let has = core.hypervisor.size(*vm)?.vcpus;
            if has <= row.cpu {
                return Ok(());
            }
            tracing::warn!(vm = %vm, vcpus = has, "vCPUs that were plugged in stay: its row follows");
            core.store.write_tx(|tx| vms::update(tx, &Vm { cpu: has, ..row.clone() }))
        }),
        Compensation::FoldOverlays { vm, overlays, paused } => chain::fold_all(core, *vm, overlays, *paused),
        Compensation::Start { vm } => start(core, *vm),
        Compensation::MergeDown { vm, top, base, paused } => snapshot::merge_down(core, *vm, *top, *base, *paused),
        Compensation::PullUp { vm, top, base } => snapshot::pull_up(core, *vm, *top, *base),
        Compensation::StopMirror { vm, order } => if_active(core, *vm, || core.hypervisor.abort_block_job(*vm, *order)),
        Compensation::FinishMove { vm, disks, paused } => mirror::finish(core, *vm, disks, *paused),
        Compensation::Unmark { link, storlink } => unmark(core, link, *storlink),
    }
}

/// A domain that is off has nothing plugged in, also one that goes off just now.
fn if_active(core: &Core, vm: VmId, undo: impl FnOnce() -> Result<()>) -> Result<()> {
    match core.hypervisor.domain(vm)? {
        Some(domain) if domain.state.is_active() => match undo() {
            Err(off) if matches!(off.kind(), ErrorKind::WrongState { .. }) => Ok(()),
            done => done,
        },
        _ => Ok(()),
    }
}

/// For what needs no more of the rows than the VM's own.
fn with_row(core: &Core, vm: VmId, undo: impl FnOnce(&Vm) -> Result<()>) -> Result<()> {
    if_active(core, vm, || core.store.read(|c| vms::find(c, vm))?.map_or(Ok(()), |row| undo(&row)))
}

/// A start that is refused now would be refused again: the domain stays off, as its state says, and nothing waits for it.
fn start(core: &Core, vm: VmId) -> Result<()> {
    if core.hypervisor.domain(vm)?.is_none_or(|domain| domain.state.is_active()) {
        return Ok(());
    }
    match core.hypervisor.start(vm, Start::Running) {
        Ok(()) => {
            let now = core.clock.now();
            core.store.write_tx(|tx| vms::set_booted(tx, vm, now))?;
        }
        Err(away) if matches!(away.kind(), ErrorKind::Unavailable { .. } | ErrorKind::Internal) => return Err(away),
        Err(refused) => tracing::warn!(vm = %vm, error = refused.story(), "it is off and was not started again"),
    }
    core.inventory.refresh(vm)
}

fn as_rows_say(core: &Core, vm: VmId, undo: impl FnOnce(&DomainSpec) -> Result<()>) -> Result<()> {
    if_active(core, vm, || match Machine::load(core, vm) {
        Ok(machine) => undo(&machine.spec(core)?),
        Err(gone) if is_gone(&gone) => Ok(()),
        Err(other) => Err(other),
    })
}

/// A directory that is gone has no mark.
fn unmark(core: &Core, link: &str, storlink: uuid::Uuid) -> Result<()> {
    let place = storlink::draft(core, storlink, link, StorlinkType::Local, StorlinkLevel::File);
    match (core.volumes)(&place)?.unmark() {
        Err(gone) if matches!(gone.kind(), ErrorKind::Refused { .. }) => Ok(()),
        done => done,
    }
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
