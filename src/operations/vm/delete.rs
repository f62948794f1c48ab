//! Deletes a VM and its snapshots: everything can still come back until its rows go, and goes for good right after.

use crate::error::Result;
use crate::model::{Compensation, TaskKind, VmId};
use crate::operations::{Core, Operation, snapshot};
use crate::store::{disks, nics, snapshots, vms};
use crate::tasks::Work;

use super::{changes_its_vm, state_now, wrong_state};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteVm {
    pub vm: VmId,
}

impl Operation for DeleteVm {
    const KIND: TaskKind = TaskKind::VmDelete;
    type Output = ();

    changes_its_vm!();

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let machine = snapshot::family(core, self.vm)?;
        let name = format!("vm {}", machine.vm.name);
        let state = state_now(core, self.vm)?;
        if state.is_active() {
            return Err(wrong_state(name, state, "shut it down before deleting it"));
        }
        // Where a storlink is gone, nothing could be undone either, so nothing is begun there.
        machine.disks.iter().try_for_each(|disk| machine.driver(core, disk)?.usage().map(drop))?;
        work.step(&Compensation::Redefine { vm: self.vm }, || core.hypervisor.undefine(self.vm))?;
        let mut purge = Vec::new();
        for disk in &machine.disks {
            let (storlink, volume) = (disk.storlink, disk.volume.clone());
            let driver = machine.driver(core, disk)?;
            let undo = Compensation::RestoreVolume { storlink, volume: volume.clone() };
            work.step(&undo, || driver.set_aside(&volume))?;
            purge.push(Compensation::PurgeVolume { storlink, volume });
        }
        core.inventory.refresh(self.vm)?;
        work.settle(&format!("{name} is deleted"), &purge, |tx| {
            nics::remove_of_vm(tx, self.vm)?;
            disks::remove_of_vm(tx, self.vm)?;
            let ids: Vec<_> = snapshots::of_vm(tx, self.vm)?.iter().map(|snapshot| snapshot.id).collect();
            disks::remove_of_snapshots(tx, &ids)?;
            vms::set_snapshot(tx, self.vm, None)?;
            snapshots::remove_of_vm(tx, self.vm)?;
            vms::remove(tx, self.vm)
        })
    }
}
