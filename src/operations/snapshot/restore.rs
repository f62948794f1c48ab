//! Puts a VM back on what a snapshot froze, in fresh overlays of it; what it ran on until then is kept as a snapshot of its
//! own, unless nothing was ever written to it. With the start that a client asked for in the same call it is one change: it
//! happens as a whole or not at all.

use crate::error::{Error, Result};
use crate::hypervisor::Start;
use crate::model::{Compensation, Disk, DomainSpec, Snapshot, SnapshotId, Storlink, TaskKind, VmId};
use crate::operations::domain::Machine;
use crate::operations::vm::{changes_its_vm, state_now, wrong_state};
use crate::operations::{Core, Operation, chain, guard, iso};
use crate::store::{Conn, disks, vms};
use crate::tasks::Work;

use super::{EMPTY_OVERLAY, Needs, automatic, keep, leaf};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestoreSnapshot {
    pub vm: VmId,
    pub snapshot: SnapshotId,
}

impl Operation for RestoreSnapshot {
    const KIND: TaskKind = TaskKind::SnapshotRestore;
    type Output = ();

    changes_its_vm!();

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        Plan::make(core, self.vm, self.snapshot)?.carry_out(core, work, false)
    }
}

/// Restores the snapshot and starts the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartSnapshot {
    pub vm: VmId,
    pub snapshot: SnapshotId,
}

impl Operation for StartSnapshot {
    const KIND: TaskKind = TaskKind::SnapshotStart;
    type Output = ();

    changes_its_vm!();

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let plan = Plan::make(core, self.vm, self.snapshot)?;
        // All that a start needs is there.
        iso::of_vm(core, &plan.now.vm)?;
        plan.carry_out(core, work, true)
    }
}

/// What will be done; nothing has been touched yet.
struct Plan {
    now: Machine,
    /// The same on what the snapshot froze.
    then: Machine,
    /// Of `then`, without the overlays.
    spec: DomainSpec,
    snapshot: Snapshot,
    /// Where the overlay of each disk of `then` comes to be.
    places: Vec<Storlink>,
    /// What is now becomes this snapshot; else it goes.
    kept: Option<Snapshot>,
}

impl Plan {
    fn make(core: &Core, vm: VmId, id: SnapshotId) -> Result<Self> {
        let now = Machine::load(core, vm)?;
        let snapshot = core.store.read(|c| guard::snapshot(c, vm, id))?;
        let state = state_now(core, vm)?;
        if state.is_active() {
            let name = format!("vm {}", now.vm.name);
            return Err(wrong_state(name, state, "shut it down before restoring a snapshot"));
        }
        let then = Machine::with(core, vm, |c| disks::of_snapshot(c, id))?;
        let spec = then.spec(core)?;
        chain::allow_one_more(core, &then)?;
        for machine in [&now, &then] {
            machine.disks.iter().try_for_each(|disk| chain::of(core, machine, disk).map(drop))?;
        }
        let places = then.disks.iter().map(|disk| place(&now, disk)).collect::<Result<Vec<_>>>()?;
        for storlink in &places {
            // Where a storlink is gone, nothing could be undone either, so nothing is begun there.
            (core.volumes)(storlink)?.usage()?;
        }
        let keep = core.settings.keep_replaced_leaf && !is_untouched(core, &now)?;
        let why = || format!("kept when snapshot {} was restored", snapshot.name);
        let kept = keep.then(|| automatic(core, &now.vm, why()));
        Ok(Self { now, then, spec, snapshot, places, kept })
    }

    fn carry_out(self, core: &Core, work: &mut Work<'_>, start: bool) -> Result<()> {
        let vm = self.now.vm.id;
        let mut needs = Needs::default();
        self.places.iter().for_each(|storlink| needs.add(storlink, EMPTY_OVERLAY));
        needs.reserve(core, work)?;
        let overlays = chain::make_overlays(core, work, &self.then, |disk| place(&self.now, disk))?;
        let disks = overlays.iter().map(|overlay| overlay.spec.clone()).collect();
        let spec = DomainSpec { disks, ..self.spec.clone() };
        work.step(&Compensation::Redefine { vm }, || core.hypervisor.define(&spec))?;
        let mut purge = Vec::new();
        if self.kept.is_none() {
            for disk in &self.now.disks {
                let (storlink, volume) = (disk.storlink, disk.volume.clone());
                let driver = self.now.driver(core, disk)?;
                let undo = Compensation::RestoreVolume { storlink, volume: volume.clone() };
                work.step(&undo, || driver.set_aside(&volume))?;
                purge.push(Compensation::PurgeVolume { storlink, volume });
            }
        }
        if start {
            work.step(&Compensation::Destroy { vm }, || core.hypervisor.start(vm, Start::Running))?;
            core.inventory.refresh(vm)?;
        }
        let leaf = leaf(core, vm, &self.then.disks, &overlays);
        let booted = start.then(|| core.clock.now());
        work.settle(&self.outcome(start), &purge, |tx| {
            self.replace(tx, &leaf)?;
            booted.map_or(Ok(()), |now| vms::set_booted(tx, vm, now))
        })
    }

    /// The rows of what is now make way for those of the overlays.
    fn replace(&self, tx: &mut Conn, leaf: &[Disk]) -> Result<()> {
        let vm = self.now.vm.id;
        match &self.kept {
            Some(kept) => keep(tx, kept, &self.now.disks)?,
            None => disks::remove_of_vm(tx, vm)?,
        }
        leaf.iter().try_for_each(|disk| disks::insert(tx, disk))?;
        vms::set_snapshot(tx, vm, Some(self.snapshot.id))
    }

    fn outcome(&self, start: bool) -> String {
        let (vm, snapshot) = (&self.now.vm.name, &self.snapshot.name);
        let done = match start {
            true => format!("vm {vm} is started from snapshot {snapshot}"),
            false => format!("vm {vm} is restored to snapshot {snapshot}"),
        };
        match &self.kept {
            Some(kept) => format!("{done}; what it was before is kept as snapshot {}", kept.name),
            None => done,
        }
    }
}

/// The storlink of the disk that is replaced, or of the one that the VM boots from.
fn place(now: &Machine, disk: &Disk) -> Result<Storlink> {
    let replaced = now.disks.iter().find(|leaf| leaf.order == disk.order).or_else(|| now.disks.first());
    let storlink = replaced.and_then(|leaf| now.storlinks.get(&leaf.storlink)).cloned();
    storlink.ok_or_else(|| Error::internal(format!("vm {} has no disk", now.vm.id)))
}

/// Whether all that the VM writes to are overlays that hold nothing: then they show what a snapshot shows.
fn is_untouched(core: &Core, machine: &Machine) -> Result<bool> {
    for disk in &machine.disks {
        if disk.backing.is_none() || !machine.driver(core, disk)?.layer(&disk.volume, disk.format)?.is_blank {
            return Ok(false);
        }
    }
    Ok(true)
}
