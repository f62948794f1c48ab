//! Deletes a snapshot. What reads from its disks gets what they hold first: the one that a running guest may have open takes
//! a disk's place, by being written down into it, and every other one gets a copy. That costs what was written since, and
//! not what the disks are large.
//!
//! The merge destroys what the snapshot froze, so all of it comes after the point of no return: there the snapshot is
//! `Going`, its disks stay its own in the rows until each has been merged, and the task keeps its locks.

use crate::error::{Error, Result};
use crate::model::{
    Compensation, Disk, DiskOwner, Lane, MiB, PowerState, Snapshot, SnapshotId, SnapshotKind, Storlink, TaskKind, VmId,
};
use crate::operations::domain::Machine;
use crate::operations::vm::{changes_its_vm, state_now};
use crate::operations::{Core, Operation, chain, guard};
use crate::store::{Conn, disks, snapshots, vms};
use crate::tasks::Work;

use super::{Needs, family, is_in_use};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteSnapshot {
    pub vm: VmId,
    pub snapshot: SnapshotId,
}

impl Operation for DeleteSnapshot {
    const KIND: TaskKind = TaskKind::SnapshotDelete;
    type Output = ();

    changes_its_vm!();

    fn lane(&self) -> Lane {
        Lane::Long
    }

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let plan = Plan::make(core, self.vm, self.snapshot)?;
        plan.needs(core)?.reserve(core, work)?;
        let mut forward = Vec::new();
        for disk in &plan.lone {
            let (storlink, volume) = (disk.storlink, disk.volume.clone());
            let driver = plan.family.driver(core, disk)?;
            let undo = Compensation::RestoreVolume { storlink, volume: volume.clone() };
            work.step(&undo, || driver.set_aside(&volume))?;
            forward.push(Compensation::PurgeVolume { storlink, volume });
        }
        forward.extend(plan.merges());
        if !plan.merges.is_empty() {
            work.reporter().progress(50, "merging what it holds into what reads from it");
        }
        work.settle(&plan.outcome(), &forward, |tx| plan.drop_snapshot(tx))
    }
}

/// What will be done; nothing has been touched yet.
struct Plan {
    snapshot: Snapshot,
    family: Machine,
    paused: bool,
    /// Disks that nothing reads from.
    lone: Vec<Disk>,
    merges: Vec<Merge>,
}

/// A disk of the snapshot that something reads from.
struct Merge {
    base: Disk,
    /// Takes its place.
    top: Disk,
    /// Get a copy of it.
    others: Vec<Disk>,
}

impl Plan {
    fn make(core: &Core, vm: VmId, id: SnapshotId) -> Result<Self> {
        let machine = Machine::load(core, vm)?;
        let snapshot = core.store.read(|c| {
            let snapshot = guard::snapshot(c, vm, id)?;
            has_no_children(c, &snapshot).map(|()| snapshot)
        })?;
        let state = state_now(core, vm)?;
        let mut plan = Self {
            snapshot,
            family: family(core, vm)?,
            paused: state == PowerState::Paused,
            lone: Vec::new(),
            merges: Vec::new(),
        };
        plan.sort();
        if !plan.merges.is_empty() {
            // What the definition will be made of at the end is there.
            machine.spec(core)?;
        }
        for merge in &plan.merges {
            let concerned = std::iter::once(&merge.top).chain(&merge.others).chain(plan.on(&merge.top));
            for disk in concerned {
                chain::of(core, &plan.family, disk)?;
            }
            if state.is_active() && is_in_use(&plan.family, merge.top.id) {
                chain::live_chains(core, &machine)?;
            }
        }
        Ok(plan)
    }

    /// What reads from a disk.
    fn on(&self, disk: &Disk) -> impl Iterator<Item = &Disk> {
        let id = disk.id;
        self.family.disks.iter().filter(move |above| above.backing == Some(id))
    }

    fn sort(&mut self) {
        let owner = DiskOwner::Snapshot(self.snapshot.id);
        let of_it: Vec<Disk> = self.family.disks.iter().filter(|disk| disk.owner == owner).cloned().collect();
        for base in of_it {
            let mut on: Vec<Disk> = self.on(&base).cloned().collect();
            if on.is_empty() {
                self.lone.push(base);
                continue;
            }
            // At most one can be open: no image that a guest holds is ever copied into, and none loses its place but this one.
            let at = on.iter().position(|above| is_in_use(&self.family, above.id)).unwrap_or(0);
            let top = on.swap_remove(at);
            self.merges.push(Merge { base, top, others: on });
        }
    }

    /// What the merges may write: what `top` holds into `base`, what `base` holds into each of the others.
    fn needs(&self, core: &Core) -> Result<Needs> {
        let mut needs = Needs::default();
        for merge in &self.merges {
            needs.add(self.storlink(&merge.base)?, self.held(core, &merge.top)?);
            for other in &merge.others {
                needs.add(self.storlink(other)?, self.held(core, &merge.base)?);
            }
        }
        for disk in &self.lone {
            // Where a storlink is gone, nothing could be undone either, so nothing is begun there.
            needs.add(self.storlink(disk)?, MiB(0));
        }
        Ok(needs)
    }

    fn storlink(&self, disk: &Disk) -> Result<&Storlink> {
        let storlink = self.family.storlinks.get(&disk.storlink);
        storlink.ok_or_else(|| Error::internal(format!("disk {} without its storlink", disk.id)))
    }

    fn held(&self, core: &Core, disk: &Disk) -> Result<MiB> {
        let said = self.family.driver(core, disk)?.layer(&disk.volume, disk.format)?;
        Ok(MiB::from_bytes_ceil(said.facts.allocated_bytes))
    }

    /// For the journal, which is applied from its end: copies first, for only then has each disk one that takes its place;
    /// and volumes go when all is merged.
    fn merges(&self) -> Vec<Compensation> {
        let vm = self.family.vm.id;
        let mut entries = Vec::new();
        for Merge { top, .. } in &self.merges {
            entries.push(Compensation::PurgeVolume { storlink: top.storlink, volume: top.volume.clone() });
        }
        for Merge { base, top, .. } in &self.merges {
            entries.push(Compensation::MergeDown { vm, top: top.id, base: base.id, paused: self.paused });
        }
        for Merge { base, others, .. } in &self.merges {
            entries.extend(others.iter().map(|top| Compensation::PullUp { vm, top: top.id, base: base.id }));
        }
        entries
    }

    fn outcome(&self) -> String {
        format!("snapshot {} of vm {} is deleted", self.snapshot.name, self.family.vm.name)
    }

    fn drop_snapshot(&self, tx: &mut Conn) -> Result<()> {
        let Snapshot { id, parent, .. } = self.snapshot;
        self.lone.iter().try_for_each(|disk| disks::remove(tx, disk.id))?;
        snapshots::set_parent_of_children(tx, id, parent)?;
        if self.family.vm.snapshot == Some(id) {
            vms::set_snapshot(tx, self.family.vm.id, parent)?;
        }
        if self.merges.is_empty() {
            snapshots::remove(tx, id)
        } else {
            snapshots::set_kind(tx, id, SnapshotKind::Going)
        }
    }
}

/// Those that nobody asked for do not count: they go to its parent.
fn has_no_children(c: &mut Conn, snapshot: &Snapshot) -> Result<()> {
    let all = snapshots::of_vm(c, snapshot.vm)?;
    let children = all.iter().filter(|s| s.parent == Some(snapshot.id) && s.kind == SnapshotKind::Saved);
    let names: Vec<&str> = children.map(|child| child.name.as_str()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let is = format!("the parent of {}", names.join(", "));
    Err(Error::wrong_state(format!("snapshot {}", snapshot.name), is, "delete what was taken on it first"))
}
