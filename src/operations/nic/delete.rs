//! Takes a NIC from a VM. A guest that runs keeps it until it is off: pulling the network out of it would be a disaster.

use crate::error::Result;
use crate::model::{Compensation, NicId, TaskKind, VmId};
use crate::operations::domain::Machine;
use crate::operations::vm::changes_its_vm;
use crate::operations::{Core, Operation};
use crate::store::nics;
use crate::tasks::Work;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteNic {
    pub vm: VmId,
    pub nic: NicId,
}

impl Operation for DeleteNic {
    const KIND: TaskKind = TaskKind::NicDelete;
    type Output = ();

    changes_its_vm!();

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let vm = self.vm;
        let mut machine = Machine::load(core, vm)?;
        let nic = core.store.read(|c| super::find(c, vm, self.nic))?;
        machine.plugs.retain(|plug| plug.mac != nic.mac);
        let spec = machine.spec(core)?;
        // Nothing is begun that a hypervisor which is away could neither be told nor told back.
        core.hypervisor.info()?;
        work.step(&Compensation::Redefine { vm }, || core.hypervisor.define(&spec))?;
        let outcome = format!("interface {} of vm {} is deleted", nic.name, machine.vm.name);
        work.settle(&outcome, &[], |tx| nics::remove(tx, nic.id))
    }
}
