//! What is left to do when a snapshot has been deleted: its disks are merged with what reads from them, one at a time. Each
//! merge begins by looking how far it is, in the rows, in the headers and at the guest, so that it can be begun again after
//! whatever it was stopped by, also when the guest was powered off meanwhile or its hypervisor's process died.
//!
//! Law: until the one transaction at the end of a merge the rows say what the chains were before it, and both ends of the
//! change show the guest the same.

use std::sync::atomic::AtomicBool;

use crate::error::{Error, ErrorKind, Result};
use crate::hypervisor::BlockJob;
use crate::model::{Disk, DiskId, DiskOwner, Layer, PowerState, VmId};
use crate::operations::domain::Machine;
use crate::operations::vm::state_now;
use crate::operations::{Core, chain};
use crate::storage::Control;
use crate::store::{Conn, disks, snapshots};

use super::{family, leaf_on};

/// See [`crate::model::Compensation::MergeDown`].
pub(in crate::operations) fn merge_down(core: &Core, vm: VmId, top: DiskId, base: DiskId, paused: bool) -> Result<()> {
    let Some(family) = there(family(core, vm))? else { return Ok(()) };
    // Its row goes last.
    if let Some(top) = find(&family, top) {
        let merge = Merge { core, family: &family, top, base: needed(&family, base)? };
        merge.bring_down()?;
        core.store.write_tx(|tx| merge.take_place(tx))?;
    }
    let machine = Machine::load(core, vm)?;
    if leaf_on(&machine, base).is_some() {
        core.hypervisor.define(&machine.spec(core)?)?;
        // Whoever died in the middle of a pivot may have left it so.
        if !paused && state_now(core, vm)? == PowerState::Paused {
            core.hypervisor.unpause(vm)?;
        }
    }
    Ok(())
}

/// See [`crate::model::Compensation::PullUp`]. No guest has `top` open: of what is on a disk, the one that may be open is
/// merged down.
pub(in crate::operations) fn pull_up(core: &Core, vm: VmId, top: DiskId, base: DiskId) -> Result<()> {
    let Some(family) = there(family(core, vm))? else { return Ok(()) };
    let top = needed(&family, top)?;
    if top.backing != Some(base) {
        return Ok(());
    }
    let base = needed(&family, base)?;
    let below = layers(core, &family, base)?;
    let driver = family.driver(core, top)?;
    let said = driver.layer(&top.volume, top.format)?.backing;
    // Its header is the last that changes.
    if said != chain::backing_by(below.get(1)) {
        driver.pull(&top.volume, &below, &Control { cancel: &AtomicBool::new(false), progress: &|_| {} })?;
    }
    core.store.write_tx(|tx| disks::hand_over(tx, top.id, top.owner, top.order, base.backing))
}

struct Merge<'a> {
    core: &'a Core,
    family: &'a Machine,
    top: &'a Disk,
    base: &'a Disk,
}

impl Merge<'_> {
    /// Until `base` holds all that `top` held, nothing is on `top` any more, and `top` is set aside, which tells that it
    /// came so far.
    fn bring_down(&self) -> Result<()> {
        let Self { core, family, top, base } = *self;
        let driver = family.driver(core, top)?;
        let below = layers(core, family, base)?;
        if matches!(top.owner, DiskOwner::Vm(_)) {
            return chain::fold(core, family.vm.id, top.order, driver.as_ref(), &top.volume, &below);
        }
        if !driver.exists(&top.volume)? {
            return Ok(());
        }
        if !self.commit_live(&below)? {
            driver.commit(&top.volume, &below, &Control { cancel: &AtomicBool::new(false), progress: &|_| {} })?;
        }
        for above in family.disks.iter().filter(|above| above.backing == Some(top.id)) {
            let driver = family.driver(core, above)?;
            if driver.layer(&above.volume, above.format)?.backing != chain::backing_by(below.first()) {
                driver.reattach(&above.volume, &below)?;
            }
        }
        driver.set_aside(&top.volume)
    }

    /// In the middle of what a guest has open only its hypervisor can do it. False: no guest has it open.
    fn commit_live(&self, below: &[Layer]) -> Result<bool> {
        let Self { core, family, top, .. } = *self;
        let vm = family.vm.id;
        let Some(leaf) = leaf_on(family, top.id) else { return Ok(false) };
        if !state_now(core, vm)?.is_active() {
            return Ok(false);
        }
        let Some(base) = below.first() else { return Err(Error::internal("an overlay of nothing")) };
        let source = family.driver(core, top)?.source(&top.volume)?;
        // What it has let go of it has written down.
        if core.hypervisor.chain(vm, leaf.order)?.contains(&source) {
            if core.hypervisor.block_job(vm, leaf.order)?.is_none() {
                let job = BlockJob::Commit { top: source.clone(), base: base.source.clone() };
                core.hypervisor.start_block_job(vm, leaf.order, &job)?;
            }
            chain::until_over(core, vm, leaf.order, &|_| {})?;
            if core.hypervisor.chain(vm, leaf.order)?.contains(&source) {
                let why = format!("the block job on disk {} of vm {} ended early", leaf.order, family.vm.name);
                return Err(Error::refused("the hypervisor", why));
            }
        }
        Ok(true)
    }

    /// `base` stands where `top` stood, and the snapshot goes with the last of its disks.
    fn take_place(&self, tx: &mut Conn) -> Result<()> {
        let Self { top, base, .. } = *self;
        for above in disks::on(tx, top.id)? {
            disks::hand_over(tx, above.id, above.owner, above.order, Some(base.id))?;
        }
        disks::remove(tx, top.id)?;
        disks::hand_over(tx, base.id, top.owner, top.order, base.backing)?;
        match base.owner {
            DiskOwner::Snapshot(id) if disks::of_snapshot(tx, id)?.is_empty() => snapshots::remove(tx, id),
            _ => Ok(()),
        }
    }
}

/// The disk and what it reads from.
fn layers(core: &Core, family: &Machine, disk: &Disk) -> Result<Vec<Layer>> {
    let source = family.driver(core, disk)?.source(&disk.volume).map_err(|error| family.lost(disk, error))?;
    let mut layers = vec![Layer { source, format: disk.format }];
    layers.extend(family.backing(core, disk)?);
    Ok(layers)
}

fn find(family: &Machine, id: DiskId) -> Option<&Disk> {
    family.disks.iter().find(|disk| disk.id == id)
}

fn needed(family: &Machine, id: DiskId) -> Result<&Disk> {
    find(family, id).ok_or_else(|| Error::internal(format!("disk {id} is gone before it was merged")))
}

/// `None`: the VM is gone with all that it had.
fn there(family: Result<Machine>) -> Result<Option<Machine>> {
    match family {
        Ok(family) => Ok(Some(family)),
        Err(gone) if matches!(gone.kind(), ErrorKind::NotFound { what: "vm", .. }) => Ok(None),
        Err(other) => Err(other),
    }
}
