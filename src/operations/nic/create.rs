//! Gives a VM a NIC, at once if it runs.

use std::net::IpAddr;

use crate::error::{Error, Result};
use crate::model::{Compensation, DomainSpec, NicId, NicLink, NicSpec, TaskKind, VmId};
use crate::operations::domain::Machine;
use crate::operations::vm::{changes_its_vm, state_now, unless_off};
use crate::operations::{Core, Operation, bridge, guard};
use crate::store::nics;
use crate::tasks::Work;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateNic {
    pub vm: VmId,
    /// A number or the name of a bridge.
    pub network: String,
    /// For the record; the guest is not told.
    pub ip: Option<IpAddr>,
}

impl Operation for CreateNic {
    const KIND: TaskKind = TaskKind::NicCreate;
    type Output = NicId;

    changes_its_vm!();

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<NicId> {
        let vm = self.vm;
        let machine = Machine::load(core, vm)?;
        let name = format!("vm {}", machine.vm.name);
        let active = state_now(core, vm)?.is_active();
        let mut spec = machine.spec(core)?;
        let can = core.hypervisor.capabilities(&spec);
        if spec.nics.len() >= usize::try_from(can.max_nics).unwrap_or(usize::MAX) {
            return Err(guard::unsupported(format!("give {name} more than {} interfaces", can.max_nics)));
        }
        if active && !can.live_nics {
            return Err(guard::unsupported(format!("plug an interface into {name} while it runs; shut it down first")));
        }
        let link = link(core, &spec, &self.network)?;
        let known = core.store.read(|c| nics::of_vm(c, vm))?;
        let beside: Vec<_> = known.iter().map(|nic| (nic.name.as_str(), nic.mac)).collect();
        let mut nic = super::draft(core, vm, &self.network, can.mac_prefix, &beside)?;
        nic.ip = self.ip.map(|ip| ip.to_string());
        let plug = NicSpec { mac: nic.mac, link };
        spec.nics.push(plug.clone());
        work.step(&Compensation::Redefine { vm }, || core.hypervisor.define(&spec))?;
        if active {
            // The last step, because taking it back needs the guest's good will.
            let undo = Compensation::DetachNic { vm, mac: nic.mac };
            unless_off(core, vm, work.step(&undo, || core.hypervisor.attach_nic(vm, &plug)))?;
        }
        let outcome = format!("interface {} of {name} is created", nic.name);
        work.settle(&outcome, &[], |tx| nics::insert(tx, &nic))
    }
}

/// `Invalid` on `interface_name` when the site has no such bridge.
pub fn check(core: &Core, vm: VmId, network: &str) -> Result<()> {
    let spec = Machine::load(core, vm)?.spec(core)?;
    link(core, &spec, network).map(drop)
}

fn link(core: &Core, spec: &DomainSpec, network: &str) -> Result<NicLink> {
    let can = core.hypervisor.capabilities(spec);
    let link = bridge::resolve(core, &bridge::name(core, network), &can)?;
    link.map_err(|why| Error::invalid("interface_name", why))
}
