//! Changes what people call a VM and say of it.

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Access, Compensation, Lock, Name, Resource, TaskKind, Vm, VmId};
use crate::operations::domain::Machine;
use crate::operations::{Core, Operation};
use crate::store::vms;
use crate::tasks::Work;

use super::noun;

/// What is `None` stays. The guest notices nothing of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditVm {
    pub vm: VmId,
    pub name: Option<Name>,
    pub desc: Option<String>,
}

impl Operation for EditVm {
    const KIND: TaskKind = TaskKind::VmEdit;
    type Output = ();

    fn subject(&self, core: &Core) -> Result<String> {
        noun(core, self.vm)
    }

    fn locks(&self) -> Vec<Lock> {
        let name = self.name.iter().map(|name| Resource::Name("vm", name.to_string()));
        let resources = name.chain([Resource::Vm(self.vm)]);
        resources.map(|resource| Lock { resource, access: Access::Changes }).collect()
    }

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let mut machine = Machine::load(core, self.vm)?;
        let old = machine.vm.clone();
        let name = self.name.map_or_else(|| old.name.clone(), Name::into_string);
        let desc = self.desc.unwrap_or_else(|| old.desc.clone());
        let renamed = name != old.name;
        if renamed && core.store.read(|c| vms::find_by_name(c, &name))?.is_some() {
            return Err(Error::new(ErrorKind::Exists { what: "vm", name }));
        }
        if !renamed && desc == old.desc {
            return work.settle(&format!("vm {name} is as it was"), &[], |_| Ok(()));
        }
        machine.vm = Vm { name, desc, updated_at: core.clock.now(), ..old };
        if renamed {
            // Nothing is begun for a hypervisor that could not be told.
            core.hypervisor.info()?;
            let spec = machine.spec(core)?;
            work.step(&Compensation::Redefine { vm: self.vm }, || core.hypervisor.define(&spec))?;
        }
        work.settle(&format!("vm {} is edited", machine.vm.name), &[], |tx| vms::update(tx, &machine.vm))
    }
}
