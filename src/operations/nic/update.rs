//! Records another IP address of a NIC. Neither the guest nor the hypervisor hears of it.

use std::net::IpAddr;

use crate::error::Result;
use crate::model::{NicId, TaskKind, VmId};
use crate::operations::vm::{changes_its_vm, noun};
use crate::operations::{Core, Operation};
use crate::store::nics;
use crate::tasks::Work;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpdateNic {
    pub vm: VmId,
    pub nic: NicId,
    pub ip: IpAddr,
}

impl Operation for UpdateNic {
    const KIND: TaskKind = TaskKind::NicUpdate;
    type Output = ();

    changes_its_vm!();

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let name = noun(core, self.vm)?;
        let nic = core.store.read(|c| super::find(c, self.vm, self.nic))?;
        let outcome = format!("interface {} of {name} has the address {}", nic.name, self.ip);
        work.settle(&outcome, &[], |tx| nics::set_ip(tx, nic.id, &self.ip.to_string()))
    }
}
