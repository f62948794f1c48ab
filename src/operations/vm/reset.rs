//! Pulls the plug and starts again, as the rows say now.

use crate::error::Result;
use crate::hypervisor::Start;
use crate::model::{Compensation, TaskKind, VmId};
use crate::operations::{Core, Operation};
use crate::store::vms;
use crate::tasks::Work;

use super::power::bootable;
use super::{changes_its_vm, noun, state_now, wrong_state};

/// A VM whose plug was pulled and that did not start is started once more by the journal, also by the next process; if that
/// is refused too, it stays off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetVm {
    pub vm: VmId,
}

impl Operation for ResetVm {
    const KIND: TaskKind = TaskKind::VmReset;
    type Output = ();

    changes_its_vm!();

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let name = noun(core, self.vm)?;
        let state = state_now(core, self.vm)?;
        if !state.is_active() {
            return Err(wrong_state(name, state, "it is off; start it instead"));
        }
        // Before the plug is pulled: all that a start needs is there.
        let spec = bootable(core, self.vm)?;
        work.act(|| core.hypervisor.define(&spec))?;
        work.step(&Compensation::Start { vm: self.vm }, || core.hypervisor.destroy(self.vm))?;
        work.act(|| core.hypervisor.start(self.vm, Start::Running))?;
        core.inventory.refresh(self.vm)?;
        let now = core.clock.now();
        work.settle(&format!("{name} is reset"), &[], |tx| vms::set_booted(tx, self.vm, now))
    }
}
