//! Deletes a disk of a VM: a guest that runs lets it go first, and it can still come back until its row goes.

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Compensation, Disk, DiskId, PowerState, TaskKind, VmId};
use crate::operations::domain::Machine;
use crate::operations::vm::{changes_its_vm, state_now, unless_off, wrong_state};
use crate::operations::{Core, Operation, guard};
use crate::store::disks;
use crate::tasks::Work;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteDisk {
    pub vm: VmId,
    pub disk: DiskId,
}

impl Operation for DeleteDisk {
    const KIND: TaskKind = TaskKind::DiskDelete;
    type Output = ();

    changes_its_vm!();

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let vm = self.vm;
        let mut machine = Machine::load(core, vm)?;
        let name = format!("vm {}", machine.vm.name);
        let disk = take(&mut machine.disks, self.disk).ok_or_else(|| Error::not_found("disk", self.disk))?;
        if disk.order == 0 {
            let is = format!("the one that {name} boots from");
            return Err(Error::wrong_state(format!("disk {}", disk.id), is, "it goes only with its vm"));
        }
        let state = state_now(core, vm)?;
        if state == PowerState::Paused {
            return Err(wrong_state(name, state, "resume it first, so that its guest can let go of the disk"));
        }
        let driver = machine.driver(core, &disk)?;
        // Where a storlink is gone, nothing could be undone either, so nothing is begun there.
        driver.usage()?;
        let spec = machine.spec(core)?;
        if state.is_active() {
            if !core.hypervisor.capabilities(&spec).live_disks {
                return Err(guard::unsupported(format!("pull a disk out of {name} while it runs; shut it down first")));
            }
            let undo = Compensation::AttachDisk { vm, disk: disk.id };
            let detached = work.step(&undo, || core.hypervisor.detach_disk(vm, disk.order));
            unless_off(core, vm, detached).map_err(|error| held(error, &name, &disk))?;
        }
        work.step(&Compensation::Redefine { vm }, || core.hypervisor.define(&spec))?;
        let (storlink, volume) = (disk.storlink, disk.volume.clone());
        let undo = Compensation::RestoreVolume { storlink, volume: volume.clone() };
        work.step(&undo, || driver.set_aside(&volume))?;
        let outcome = format!("disk {} of {name} is deleted", disk.order);
        work.settle(&outcome, &[Compensation::PurgeVolume { storlink, volume }], |tx| disks::remove(tx, disk.id))
    }
}

fn take(disks: &mut Vec<Disk>, id: DiskId) -> Option<Disk> {
    let at = disks.iter().position(|disk| disk.id == id)?;
    Some(disks.remove(at))
}

/// A guest that does not let go, in words that say of which disk.
fn held(error: Error, name: &str, disk: &Disk) -> Error {
    let ErrorKind::Timeout { after, .. } = *error.kind() else { return error };
    let action = format!("the guest of {name} did not let go of disk {}", disk.order);
    Error::new(ErrorKind::Timeout { action, after }).caused_by(error)
}
