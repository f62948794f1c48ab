//! Deleting VMs later: somebody asks for it, the VM is off and stays, and goes with its disks when it is said so.
//!
//! Law: what is asked for is forgotten only together with the VM.

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Deletion, Right, ShortId, TaskKind, VmId};
use crate::store::{deletions, tenants};
use crate::tasks::Work;

use super::vm::{DeleteVm, PoweroffVm, changes_its_vm, noun, power_off, state_now};
use super::{Core, Operation, guard, number};

/// The oldest first, but those that are being carried out, and those of VMs that the caller does not see.
pub fn list(core: &Core) -> Result<Vec<Deletion>> {
    core.store.read(|c| {
        let seen = guard::Sight::of(c, core)?;
        let all = deletions::all(c)?;
        Ok(all.into_iter().filter(|deletion| deletion.task.is_none() && seen.shows(deletion.vm)).collect())
    })
}

/// Notes that a VM of this host is to be deleted, takes it away from its tenant, and pulls its plug, for which nobody waits.
/// Asked twice, it is noted once.
pub fn ask(core: &Core, vm: VmId) -> Result<()> {
    core.caller().require(Right::Operate, "delete a vm")?;
    let (id, now) = (ShortId::new(core.ids.uuid()), core.clock.now());
    core.store.note_tx(|tx| {
        guard::vm(tx, core, vm)?;
        number::number_all(tx, now)?;
        tenants::end_tenancy(tx, vm)?;
        deletions::ask(tx, vm, &id, now)
    })?;
    if core.inventory.of(vm).state.is_active() {
        core.submit_blocking(PoweroffVm { vm })?;
    }
    Ok(())
}

/// Begins to delete all that was asked for, and waits for none. What fails stays on the list, and is in the log. VMs of other
/// hosts wait for theirs.
pub fn carry_out(core: &Core) -> Result<()> {
    core.caller().require(Right::Operate, "delete vms")?;
    for Deletion { vm, .. } in list(core)? {
        match core.submit_blocking(DeleteAsked { vm }) {
            Ok(handle) => core.store.note_tx(|tx| deletions::set_task(tx, vm, handle.id))?,
            Err(away) if matches!(away.kind(), ErrorKind::Unavailable { .. }) => return Err(away),
            Err(why) => tracing::warn!(vm = %vm, error = why.story(), "a vm that is to be deleted stays"),
        }
    }
    Ok(())
}

/// As [`DeleteVm`], of one that somebody may have started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DeleteAsked {
    vm: VmId,
}

impl Operation for DeleteAsked {
    const KIND: TaskKind = TaskKind::VmDelete;
    type Output = ();

    changes_its_vm!();

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let name = noun(core, self.vm)?;
        if !core.store.read(|c| deletions::is_asked(c, self.vm))? {
            return Err(Error::wrong_state(name, "not to be deleted", "nobody asked for it"));
        }
        if state_now(core, self.vm)?.is_active() {
            power_off(core, work, self.vm, &name)?;
        }
        DeleteVm { vm: self.vm }.run(core, work)
    }
}
