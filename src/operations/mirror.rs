//! Moves a guest that runs, or is paused, from its disks to copies of them on another storlink.
//!
//! Law: whatever moment anything stops at, one image of each disk shows all that its guest was told is written, and it is
//! known which. Until the guest stands still for its pivots that is the old one. It runs on only when the old image of each
//! disk that has moved is set aside, so of a guest that died the old image is the right one for as long as it has its name.

use crate::error::{Error, ErrorKind, Result};
use crate::hypervisor::BlockJob;
use crate::model::{Compensation, Disk, DiskMove, Layer, MiB, PowerState, VmId, VolumeSource};
use crate::storage::{Content, Control, NewVolume};
use crate::store::{Conn, disks, vms};
use crate::tasks::Work;

use super::copies::{Copies, Told, making, written_meanwhile};
use super::domain::Machine;
use super::vm::state_now;
use super::{Core, chain, guard};

/// Copies the disks while their guest goes on, until the copies are but for the last writes the same. Undone, the guest is
/// where it was.
pub(super) fn copy(core: &Core, work: &mut Work<'_>, machine: &Machine, copies: &Copies) -> Result<()> {
    let vm = machine.vm.id;
    for (_, copy) in &copies.pairs {
        let make = NewVolume { format: copy.format, size: copy.size, content: Content::Zeros };
        let reporter = work.reporter();
        let control = Control { cancel: reporter.cancel_flag(), progress: &|_| {} };
        work.step(&making(copy), || copies.driver.create(&copy.volume, &make, &control))?;
    }
    for (disk, copy) in &copies.pairs {
        let to = Layer { source: copies.driver.source(&copy.volume)?, format: copy.format };
        let undo = Compensation::StopMirror { vm, order: disk.order };
        let begun = work.step(&undo, || core.hypervisor.start_block_job(vm, disk.order, &BlockJob::Mirror { to }));
        begun.map_err(|error| powered_off(core, machine, error))?;
    }
    let told = Told::new(work, copies.pairs.iter().map(|(disk, _)| disk));
    for (disk, copy) in &copies.pairs {
        let checkpoint = || work.checkpoint();
        let ready =
            chain::until_ready(core, vm, disk.order, &checkpoint, &|job| told.copied(disk, job.done, job.total));
        ready.map_err(|error| ended(core, machine, copies, copy, error))?;
    }
    Ok(())
}

/// The point of no return: the guest stands still for some milliseconds, and goes on from its copies.
pub(super) fn pivot(core: &Core, work: &mut Work<'_>, machine: &Machine, copies: &Copies) -> Result<()> {
    let vm = machine.vm.id;
    for (disk, _) in &copies.pairs {
        // Needless from the moment that its row is gone, and not before.
        work.step(&making(disk), || Ok(()))?;
    }
    let state = state_now(core, vm)?;
    work.commit()?;
    let running = state == PowerState::Running;
    let undo = Compensation::FinishMove { vm, disks: copies.pairs.iter().map(planned).collect(), paused: !running };
    let paused = work.step(&undo, || if running { core.hypervisor.pause(vm) } else { Ok(()) });
    paused.map_err(|error| powered_off(core, machine, error))?;
    // It writes nothing any more; what is not in both images yet will be, if the jobs are still there.
    for (disk, copy) in &copies.pairs {
        match core.hypervisor.block_job(vm, disk.order).map_err(|error| powered_off(core, machine, error))? {
            Some(job) if job.ready => {}
            _ => return Err(stopped(core, machine, copies, copy)),
        }
    }
    for (n, (disk, copy)) in copies.pairs.iter().enumerate() {
        pivot_one(core, work, machine, copies, disk, copy)
            .map_err(|error| half_way(core, machine, copies, n, error))?;
    }
    if !running {
        return Ok(());
    }
    match work.act(|| core.hypervisor.unpause(vm)) {
        // It went off meanwhile, or somebody else has resumed it.
        Err(needless)
            if matches!(needless.kind(), ErrorKind::WrongState { .. })
                && state_now(core, vm)? != PowerState::Paused =>
        {
            Ok(())
        }
        done => done,
    }
}

fn pivot_one(
    core: &Core,
    work: &mut Work<'_>,
    machine: &Machine,
    copies: &Copies,
    disk: &Disk,
    copy: &Disk,
) -> Result<()> {
    let (vm, driver) = (machine.vm.id, machine.driver(core, disk)?);
    work.act(|| core.hypervisor.pivot(vm, disk.order))?;
    if core.hypervisor.chain(vm, disk.order)?.first() != Some(&copies.driver.source(&copy.volume)?) {
        let (order, name) = (disk.order, &machine.vm.name);
        return Err(Error::refused("the hypervisor", format!("disk {order} of vm {name} has not moved")));
    }
    work.act(|| driver.set_aside(&disk.volume))
}

/// A failure after some disks have moved, which stay moved.
fn half_way(core: &Core, machine: &Machine, copies: &Copies, moved: usize, error: Error) -> Error {
    let orders: Vec<String> = copies.pairs.iter().take(moved).map(|(disk, _)| disk.order.to_string()).collect();
    if orders.is_empty() {
        return powered_off(core, machine, error);
    }
    let (name, storlink) = (&machine.vm.name, &copies.storlink.name);
    let so_far = format!("of vm {name} is on storlink {storlink} now: disk {}", orders.join(", disk "));
    match error.kind() {
        ErrorKind::Refused { by, why } => Error::refused(by.clone(), format!("{why}; {so_far}")).caused_by(error),
        ErrorKind::WrongState { what, is, .. } => Error::wrong_state(what.clone(), is.clone(), so_far).caused_by(error),
        _ => error,
    }
}

fn planned((disk, copy): &(Disk, Disk)) -> DiskMove {
    DiskMove { disk: disk.id, to: copy.id, storlink: copy.storlink, volume: copy.volume.clone() }
}

/// The rows of disks that have moved.
pub(super) fn replace(tx: &mut Conn, vm: VmId, pairs: &[(Disk, Disk)]) -> Result<()> {
    for (disk, copy) in pairs {
        disks::remove(tx, disk.id)?;
        disks::insert(tx, copy)?;
    }
    // The manual's process: the VM was made anew.
    pairs.iter().try_for_each(|(_, copy)| vms::set_created(tx, vm, copy.created_at))
}

/// After a failure, or the death of the process, past the point of no return: each disk is where its guest has it, and the
/// guest goes on.
pub(super) fn finish(core: &Core, vm: VmId, moves: &[DiskMove], paused: bool) -> Result<()> {
    let machine = match Machine::load(core, vm) {
        Ok(machine) => machine,
        Err(gone) if matches!(gone.kind(), ErrorKind::NotFound { what: "vm", .. }) => return Ok(()),
        Err(other) => return Err(other),
    };
    let (now, mut moved) = (core.clock.now(), Vec::new());
    for DiskMove { disk, to, storlink, volume } in moves {
        // Else its row has followed already.
        let Some(disk) = machine.disks.iter().find(|known| known.id == *disk) else { continue };
        let (storlink, volume) = (*storlink, volume.clone());
        let copy = Disk { id: *to, storlink, volume, created_at: now, backing: None, ..disk.clone() };
        if has_moved(core, &machine, disk, &copy)? {
            moved.push((disk.clone(), copy));
        }
    }
    // Before the guest goes on: from then on the copies alone are right.
    if !moved.is_empty() {
        core.store.write_tx(|tx| replace(tx, vm, &moved))?;
    }
    if !paused && state_now(core, vm)? == PowerState::Paused {
        core.hypervisor.unpause(vm)?;
    }
    core.hypervisor.define(&Machine::load(core, vm)?.spec(core)?)
}

/// Whether the guest is on the copy, or was when it died. A job that is still there is stopped first: what it may still do
/// would make the answer wrong.
fn has_moved(core: &Core, machine: &Machine, disk: &Disk, copy: &Disk) -> Result<bool> {
    let vm = machine.vm.id;
    let (old, storlink) =
        (machine.driver(core, disk)?, core.store.read(|c| guard::storlink(c, &core.pm, copy.storlink))?);
    if !state_now(core, vm)?.is_active() {
        return Ok(!old.exists(&disk.volume)?);
    }
    core.hypervisor.abort_block_job(vm, disk.order)?;
    let is_on = core.hypervisor.chain(vm, disk.order)?;
    let new = (core.volumes)(&storlink)?.source(&copy.volume)?;
    if is_on.first() == Some(&new) {
        return Ok(true);
    }
    if is_on.first() == Some(&old.source(&disk.volume)?) {
        return Ok(false);
    }
    let file =
        is_on.first().map_or_else(|| "nothing".to_owned(), |VolumeSource::File(path)| path.display().to_string());
    let (order, name) = (disk.order, &machine.vm.name);
    Err(Error::refused("pengx", format!("disk {order} of vm {name} is on {file}, and no task of pengx put it there")))
}

/// Why a copy did not get ready.
fn ended(core: &Core, machine: &Machine, copies: &Copies, copy: &Disk, error: Error) -> Error {
    let error = powered_off(core, machine, error);
    if !matches!(error.kind(), ErrorKind::Refused { .. }) {
        return error;
    }
    match core.hypervisor.block_job(machine.vm.id, copy.order) {
        Ok(None) => stopped(core, machine, copies, copy).caused_by(error),
        _ => error,
    }
}

/// A job that ended of itself, most often because the storage was full or broken.
fn stopped(core: &Core, machine: &Machine, copies: &Copies, copy: &Disk) -> Error {
    let (order, name, storlink) = (copy.order, &machine.vm.name, &copies.storlink.name);
    let free = match (core.volumes)(&copies.storlink).and_then(|driver| driver.usage()) {
        Ok(usage) => format!("{} MiB are free there", usage.free),
        Err(away) => away.to_string(),
    };
    let why = format!("copying disk {order} of vm {name} to storlink {storlink} ended early; {free}");
    Error::refused("the hypervisor", why)
}

/// A guest that switches itself off takes the copying with it.
fn powered_off(core: &Core, machine: &Machine, error: Error) -> Error {
    match (error.kind(), state_now(core, machine.vm.id)) {
        (ErrorKind::Cancelled { .. }, _) => error,
        (_, Ok(state)) if !state.is_active() => {
            let needs = "it went off while its disks were copied; they are where they were";
            Error::wrong_state(format!("vm {}", machine.vm.name), state.word(), needs).caused_by(error)
        }
        _ => error,
    }
}

/// What a guest that goes on writing meanwhile may need in its copies.
pub(super) fn growth(copies: &Copies) -> MiB {
    copies.pairs.iter().map(|(disk, _)| written_meanwhile(disk)).sum()
}
