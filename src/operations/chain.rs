//! Backing chains: what a disk of a VM reads from, overlays that a running guest is moved onto, and folding them back.
//!
//! Law: whatever moment anything stops at, each disk still shows all that its guest was told is written. Rows say what a
//! chain must be; the images' own headers are compared with them before and after every change.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::hypervisor::{BlockJob, BlockJobStatus};
use crate::model::{
    Compensation, Disk, DiskId, DiskSpec, Format, Layer, OverlayOf, PowerState, Storlink, VmId, VolumeName,
    VolumeSource,
};
use crate::storage::{Content, Control, NewVolume, VolumeDriver};
use crate::tasks::Work;

use super::domain::{Machine, disk_spec};
use super::vm::state_now;
use super::{Core, guard};

/// How often a block job is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A job that has moved nothing for so long stands still.
const STALL: Duration = Duration::from_secs(600);

/// The images of a disk, the one that is written to first; every header says what the rows say.
///
/// # Errors
/// `Refused` names the image that is missing, broken, or on another one than it must be.
pub(super) fn of(core: &Core, machine: &Machine, disk: &Disk) -> Result<Vec<Layer>> {
    let source = machine.driver(core, disk)?.source(&disk.volume).map_err(|error| machine.lost(disk, error))?;
    let mut chain = vec![Layer { source, format: disk.format }];
    chain.extend(machine.backing(core, disk)?);
    let below = machine.below.get(&disk.id).into_iter().flatten();
    for (n, image) in std::iter::once(disk).chain(below).enumerate() {
        let said = machine.driver(core, image)?.layer(&image.volume, image.format)?;
        let wanted = backing_by(chain.get(n + 1));
        if said.backing != wanted {
            let (is, must) = (word(said.backing), word(wanted));
            let why = format!("volume {} is on {is}, and its record says {must}; run pengx check", image.volume);
            return Err(Error::refused("the storage", why));
        }
        let (is, must) = (said.facts.virtual_bytes, image.size.bytes());
        if is != must {
            let why = format!("volume {} shows {is} bytes, and its record says {must}; run pengx check", image.volume);
            return Err(Error::refused("the storage", why));
        }
    }
    Ok(chain)
}

/// A backing file as a header says it, and the word for its format.
type Said = Option<(PathBuf, Option<String>)>;

/// What the header of an image must say that is on `next`.
pub(super) fn backing_by(next: Option<&Layer>) -> Said {
    let next = next?;
    let VolumeSource::File(path) = &next.source;
    Some((path.clone(), Some(next.format.word().to_owned())))
}

fn word(said: Said) -> String {
    match said {
        Some((path, Some(format))) => format!("{} ({format})", path.display()),
        Some((path, None)) => format!("{} (of no stated format)", path.display()),
        None => "nothing".to_owned(),
    }
}

/// Refuses one more overlay where a chain is as long as the settings allow.
pub(super) fn allow_one_more(core: &Core, machine: &Machine) -> Result<()> {
    let most = core.settings.max_chain;
    let longest = machine.disks.iter().map(|disk| 1 + machine.below.get(&disk.id).map_or(0, Vec::len)).max();
    match longest {
        Some(length) if length >= most => {
            let is = format!("on chains of {length} images, and {most} are allowed");
            Err(Error::wrong_state(format!("vm {}", machine.vm.name), is, "delete a snapshot first"))
        }
        _ => Ok(()),
    }
}

/// An overlay on a disk of a VM.
pub(super) struct Overlay {
    pub(super) disk: DiskId,
    /// As its row would be; the volume is qcow2.
    pub(super) id: DiskId,
    pub(super) volume: VolumeName,
    pub(super) storlink: Storlink,
    /// What the hypervisor is told of it.
    pub(super) spec: DiskSpec,
}

impl Overlay {
    fn record(&self) -> OverlayOf {
        OverlayOf { disk: self.disk, storlink: self.storlink.id, volume: self.volume.clone() }
    }
}

/// Makes an empty overlay for every disk of the VM, on the storlink that `place` names for it.
pub(super) fn make_overlays(
    core: &Core,
    work: &mut Work<'_>,
    machine: &Machine,
    place: impl Fn(&Disk) -> Result<Storlink>,
) -> Result<Vec<Overlay>> {
    let mut overlays = Vec::new();
    for disk in &machine.disks {
        let storlink = place(disk)?;
        let driver = (core.volumes)(&storlink)?;
        if !driver.info().formats.contains(&Format::Qcow2) {
            return Err(guard::unsupported(format!("put an overlay on storlink {}", storlink.name)));
        }
        let below = of(core, machine, disk)?;
        let id = DiskId(core.ids.uuid());
        let volume = VolumeName::new(id, Format::Qcow2);
        let make = NewVolume { format: Format::Qcow2, size: disk.size, content: Content::Overlay(below.clone()) };
        let undo = Compensation::DeleteVolume { storlink: storlink.id, volume: volume.clone() };
        let reporter = work.reporter();
        let control = Control { cancel: reporter.cancel_flag(), progress: &|_| {} };
        work.step(&undo, || driver.create(&volume, &make, &control))?;
        let row = Disk { id, format: Format::Qcow2, volume: volume.clone(), ..disk.clone() };
        let spec = disk_spec(driver.as_ref(), &row, below)?;
        overlays.push(Overlay { disk: disk.id, id, volume, storlink, spec });
    }
    Ok(overlays)
}

/// Moves a guest that runs onto overlays of its disks, all at one instant. When it is undone, what the guest wrote since is
/// folded back. A guest that is off needs nothing.
pub(super) fn switch(
    core: &Core,
    work: &mut Work<'_>,
    vm: VmId,
    state: PowerState,
    overlays: &[Overlay],
) -> Result<()> {
    if !state.is_active() {
        return Ok(());
    }
    let undo = Compensation::FoldOverlays {
        vm,
        overlays: overlays.iter().map(Overlay::record).collect(),
        paused: state == PowerState::Paused,
    };
    let specs: Vec<DiskSpec> = overlays.iter().map(|overlay| overlay.spec.clone()).collect();
    work.step(&undo, || core.hypervisor.overlay_disks(vm, &specs))
}

/// What a VM's disks hold at one instant, to be read in peace: nobody writes to it until [`Still::release`].
pub(super) struct Still {
    vm: VmId,
    paused: bool,
    overlays: Vec<OverlayOf>,
    /// By order, each with the chain to read.
    pub(super) disks: Vec<(Disk, Vec<Layer>)>,
}

impl Still {
    /// Moves a guest that runs onto overlays for the time of the task; a guest that is off stands still anyway.
    pub(super) fn hold(core: &Core, work: &mut Work<'_>, machine: &Machine) -> Result<Self> {
        let vm = machine.vm.id;
        let state = state_now(core, vm)?;
        let mut disks = Vec::new();
        for disk in &machine.disks {
            disks.push((disk.clone(), of(core, machine, disk)?));
        }
        let mut still = Self { vm, paused: state == PowerState::Paused, overlays: Vec::new(), disks };
        if state.is_active() {
            live_chains(core, machine)?;
            let beside = |disk: &Disk| {
                let storlink = machine.storlinks.get(&disk.storlink).cloned();
                storlink.ok_or_else(|| Error::internal(format!("disk {} without its storlink", disk.id)))
            };
            let overlays = make_overlays(core, work, machine, beside)?;
            switch(core, work, vm, state, &overlays)?;
            still.overlays = overlays.iter().map(Overlay::record).collect();
        }
        Ok(still)
    }

    /// Folds what the guest wrote meanwhile back into its disks, and removes the overlays.
    pub(super) fn release(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        if self.overlays.is_empty() {
            return Ok(());
        }
        work.act(|| {
            fold_all(core, self.vm, &self.overlays, self.paused)?;
            for overlay in &self.overlays {
                let storlink = core.store.read(|c| guard::storlink(c, &core.pm, overlay.storlink))?;
                (core.volumes)(&storlink)?.remove(&overlay.volume)?;
            }
            Ok(())
        })
    }
}

/// Refuses where the hypervisor cannot move data under a guest that runs.
pub(super) fn live_chains(core: &Core, machine: &Machine) -> Result<()> {
    let spec = machine.spec(core)?;
    if core.hypervisor.capabilities(&spec).live_chains {
        return Ok(());
    }
    Err(guard::unsupported(format!("copy the disks of vm {} while it runs; shut it down first", machine.vm.name)))
}

/// Brings what overlays hold back into the disks of a VM, whatever came between; done twice, it changes nothing.
pub(super) fn fold_all(core: &Core, vm: VmId, overlays: &[OverlayOf], paused: bool) -> Result<()> {
    let machine = match Machine::load(core, vm) {
        Ok(machine) => machine,
        Err(gone) if matches!(gone.kind(), ErrorKind::NotFound { .. }) => return Ok(()),
        Err(other) => return Err(other),
    };
    for overlay in overlays {
        let disk = machine.disks.iter().find(|disk| disk.id == overlay.disk);
        let Some(disk) = disk else { return Err(Error::internal(format!("disk {} is gone", overlay.disk))) };
        let storlink = core.store.read(|c| guard::storlink(c, &core.pm, overlay.storlink))?;
        let driver = (core.volumes)(&storlink)?;
        let mut below = vec![Layer { source: machine.driver(core, disk)?.source(&disk.volume)?, format: disk.format }];
        below.extend(machine.backing(core, disk)?);
        fold(core, vm, disk.order, driver.as_ref(), &overlay.volume, &below)?;
    }
    // libvirt has followed its guest in the definition.
    core.hypervisor.define(&machine.spec(core)?)?;
    // Whoever died in the middle of a fold may have left it so.
    if !paused && state_now(core, vm)? == PowerState::Paused {
        core.hypervisor.unpause(vm)?;
    }
    Ok(())
}

/// Brings what the overlay of a disk holds into the image below it, and the guest with it if it runs. Then the overlay is
/// set aside, and that tells a second time that the first one got so far: what the guest has written to the image since
/// must not be overwritten.
pub(super) fn fold(
    core: &Core,
    vm: VmId,
    order: u32,
    driver: &dyn VolumeDriver,
    overlay: &VolumeName,
    below: &[Layer],
) -> Result<()> {
    if !driver.exists(overlay)? {
        return Ok(());
    }
    let (top, Some(base)) = (driver.source(overlay)?, below.first()) else {
        return Err(Error::internal("an overlay of nothing"));
    };
    if !state_now(core, vm)?.is_active() {
        let control = Control { cancel: &AtomicBool::new(false), progress: &|_| {} };
        driver.commit(overlay, below, &control)?;
        return driver.set_aside(overlay);
    }
    let running = core.hypervisor.chain(vm, order)?;
    if running.first() == Some(&top) {
        return fold_live(core, vm, order, driver, overlay, &top, &base.source);
    }
    if running.contains(&top) {
        let why = format!("somebody has put another image on {overlay}, the overlay of disk {order} of vm {vm}");
        return Err(Error::refused("pengx", why));
    }
    driver.set_aside(overlay)
}

/// Between the pivot and the setting aside the guest must not write, or a crash of everything in that moment would make
/// the overlay look newer than it is; so it is paused for these two calls.
fn fold_live(
    core: &Core,
    vm: VmId,
    order: u32,
    driver: &dyn VolumeDriver,
    overlay: &VolumeName,
    top: &VolumeSource,
    base: &VolumeSource,
) -> Result<()> {
    if core.hypervisor.block_job(vm, order)?.is_none() {
        let job = BlockJob::Commit { top: top.clone(), base: base.clone() };
        core.hypervisor.start_block_job(vm, order, &job)?;
    }
    until_ready(core, vm, order, &|| Ok(()), &|_| {})?;
    let was_running = state_now(core, vm)? == PowerState::Running;
    if was_running {
        core.hypervisor.pause(vm)?;
    }
    let answer = core.hypervisor.pivot(vm, order);
    // An answer may be lost; where the guest is, tells. While nobody can tell, or the overlay cannot be set aside, it stays
    // paused, until this is tried again.
    let moved = core.hypervisor.chain(vm, order)?.first() == Some(base);
    if moved {
        driver.set_aside(overlay)?;
    }
    if was_running {
        core.hypervisor.unpause(vm)?;
    }
    if moved {
        return Ok(());
    }
    let why = format!("disk {order} of vm {vm} has not moved off {overlay}");
    answer.and_then(|()| Err(Error::refused("the hypervisor", why)))
}

/// Waits until a job is ready for its pivot.
///
/// # Errors
/// `Refused` when the job is gone, `Timeout` when it stands still, and whatever `checkpoint` says.
pub(super) fn until_ready(
    core: &Core,
    vm: VmId,
    order: u32,
    checkpoint: &dyn Fn() -> Result<()>,
    progress: &dyn Fn(BlockJobStatus),
) -> Result<()> {
    let ended = || Error::refused("the hypervisor", format!("the block job on disk {order} of vm {vm} ended early"));
    follow(core, vm, order, checkpoint, &mut |job| {
        let status = job.ok_or_else(ended)?;
        progress(status);
        Ok(status.ready)
    })
}

/// Waits until there is no job any more: one that needs no pivot.
///
/// # Errors
/// `Timeout` when it stands still, and whatever `checkpoint` says.
pub(super) fn until_over(core: &Core, vm: VmId, order: u32, progress: &dyn Fn(BlockJobStatus)) -> Result<()> {
    follow(core, vm, order, &|| Ok(()), &mut |job| {
        job.map(progress);
        Ok(job.is_none())
    })
}

fn follow(
    core: &Core,
    vm: VmId,
    order: u32,
    checkpoint: &dyn Fn() -> Result<()>,
    done: &mut dyn FnMut(Option<BlockJobStatus>) -> Result<bool>,
) -> Result<()> {
    let mut moved = (Instant::now(), None);
    loop {
        checkpoint()?;
        let job = core.hypervisor.block_job(vm, order)?;
        if done(job)? {
            return Ok(());
        }
        if moved.1 != job {
            moved = (Instant::now(), job);
        }
        if moved.0.elapsed() >= STALL {
            let action = format!("the block job on disk {order} of vm {vm} stands still");
            return Err(Error::new(ErrorKind::Timeout { action, after: STALL }));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}
