//! Freezes all disks of a VM at one instant, running or not: it goes on in overlays, and what it wrote until then is the
//! snapshot's.

use crate::error::{Error, Result};
use crate::model::{
    Access, Compensation, DiskOwner, DomainSpec, Lock, Name, PowerState, Resource, Snapshot, SnapshotId, SnapshotKind,
    Storlink, StorlinkId, TaskKind, VmId,
};
use crate::operations::chain::{self, Overlay};
use crate::operations::domain::Machine;
use crate::operations::vm::{noun, state_now, unless_off};
use crate::operations::{Core, Operation, guard};
use crate::store::{disks, snapshots, vms};
use crate::tasks::Work;

use super::{EMPTY_OVERLAY, Needs, leaf};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeSnapshot {
    pub vm: VmId,
    pub name: Name,
    /// Where the VM goes on.
    pub storlink: StorlinkId,
    pub desc: String,
}

impl Operation for TakeSnapshot {
    const KIND: TaskKind = TaskKind::SnapshotTake;
    type Output = Snapshot;

    fn subject(&self, core: &Core) -> Result<String> {
        noun(core, self.vm)
    }

    fn locks(&self) -> Vec<Lock> {
        vec![
            Lock { resource: Resource::Vm(self.vm), access: Access::Changes },
            Lock { resource: Resource::Storlink(self.storlink), access: Access::Uses },
        ]
    }

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<Snapshot> {
        let vm = self.vm;
        let Plan { machine, spec, state, storlink, needs } = Plan::make(&self, core)?;
        needs.reserve(core, work)?;
        let overlays = chain::make_overlays(core, work, &machine, |_| Ok(storlink.clone()))?;
        unless_off(core, vm, chain::switch(core, work, vm, state, &overlays))?;
        let spec = DomainSpec { disks: overlays.iter().map(|overlay| overlay.spec.clone()).collect(), ..spec };
        work.step(&Compensation::Redefine { vm }, || core.hypervisor.define(&spec))?;
        goes_on_in(core, vm, &machine.vm.name, &overlays)?;

        let snapshot = Snapshot {
            id: SnapshotId(core.ids.uuid()),
            vm,
            name: self.name.to_string(),
            kind: SnapshotKind::Saved,
            parent: machine.vm.snapshot,
            desc: self.desc,
            created_at: core.clock.now(),
        };
        let outcome = format!("snapshot {} of vm {} is taken", snapshot.name, machine.vm.name);
        work.settle(&outcome, &[], |tx| {
            snapshots::insert(tx, &snapshot)?;
            for disk in &machine.disks {
                disks::hand_over(tx, disk.id, DiskOwner::Snapshot(snapshot.id), disk.order, disk.backing)?;
            }
            leaf(core, vm, &machine.disks, &overlays).iter().try_for_each(|disk| disks::insert(tx, disk))?;
            vms::set_snapshot(tx, vm, Some(snapshot.id))
        })?;
        Ok(snapshot)
    }
}

/// What will be done; nothing has been touched yet.
struct Plan {
    machine: Machine,
    /// The domain as it is without the overlays.
    spec: DomainSpec,
    state: PowerState,
    storlink: Storlink,
    needs: Needs,
}

impl Plan {
    fn make(wish: &TakeSnapshot, core: &Core) -> Result<Self> {
        let machine = Machine::load(core, wish.vm)?;
        let storlink = core.store.read(|c| guard::storlink(c, &core.pm, wish.storlink))?;
        // Where a storlink is gone, nothing could be undone either, so nothing is begun there.
        (core.volumes)(&storlink)?.usage()?;
        let state = state_now(core, wish.vm)?;
        let spec = machine.spec(core)?;
        if state.is_active() {
            chain::live_chains(core, &machine)?;
        }
        chain::allow_one_more(core, &machine)?;
        let mut needs = Needs::default();
        for disk in &machine.disks {
            chain::of(core, &machine, disk)?;
            needs.add(&storlink, EMPTY_OVERLAY);
        }
        Ok(Self { machine, spec, state, storlink, needs })
    }
}

/// A guest that somebody else started meanwhile, on what was to stand still, must not be taken for one on the overlays.
fn goes_on_in(core: &Core, vm: VmId, name: &str, overlays: &[Overlay]) -> Result<()> {
    let state = state_now(core, vm)?;
    if !state.is_active() {
        return Ok(());
    }
    for overlay in overlays {
        if core.hypervisor.chain(vm, overlay.spec.order)?.first() != Some(&overlay.spec.source) {
            let is = format!("{state}, started by somebody else meanwhile");
            return Err(Error::wrong_state(format!("vm {name}"), is, "try again"));
        }
    }
    Ok(())
}
