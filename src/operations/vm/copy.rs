//! Copies a VM with all its disks, whether it runs or not: the copy is another VM, and is left off.

use std::collections::HashMap;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{
    Access, Compensation, DiskOwner, Lane, Lock, Name, Resource, Seen, Storlink, StorlinkId, TaskKind, Vm, VmId,
};
use crate::operations::chain::{self, Still};
use crate::operations::copies::{Copies, written_meanwhile};
use crate::operations::domain::{Machine, Plug};
use crate::operations::{Core, Operation, guard, nic};
use crate::store::nics::NewNic;
use crate::store::{disks, nics, vms};
use crate::tasks::Work;

use super::{new_vnc_password, noun, state_now};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyVm {
    pub vm: VmId,
    pub name: Name,
    /// Where the copies of its disks go.
    pub storlink: StorlinkId,
}

impl Operation for CopyVm {
    const KIND: TaskKind = TaskKind::VmCopy;
    type Output = VmId;

    fn lane(&self) -> Lane {
        Lane::Long
    }

    fn subject(&self, core: &Core) -> Result<String> {
        noun(core, self.vm)
    }

    fn locks(&self) -> Vec<Lock> {
        vec![
            Lock { resource: Resource::Vm(self.vm), access: Access::Changes },
            Lock { resource: Resource::Name("vm", self.name.to_string()), access: Access::Changes },
            Lock { resource: Resource::Storlink(self.storlink), access: Access::Uses },
        ]
    }

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<VmId> {
        let Plan { source, copies, machine, nics } = Plan::make(&self, core)?;
        copy_disks(core, work, &source, &copies)?;
        let vm = machine.vm.id;
        let spec = machine.spec(core)?;
        work.step(&Compensation::Undefine { vm }, || core.hypervisor.define(&spec))?;
        core.inventory.refresh(vm)?;
        work.settle(&format!("vm {} is copied as vm {}", source.vm.name, self.name), &[], |tx| {
            vms::insert(tx, &machine.vm)?;
            machine.disks.iter().try_for_each(|disk| disks::insert(tx, disk))?;
            nics.iter().try_for_each(|nic| nics::insert(tx, nic).map(|_| ()))
        })?;
        Ok(vm)
    }
}

/// Copies disks of a VM as they are at one instant. Its guest goes on meanwhile, and is back on its own disks when this
/// returns.
pub(in crate::operations) fn copy_disks(
    core: &Core,
    work: &mut Work<'_>,
    source: &Machine,
    copies: &Copies,
) -> Result<()> {
    let mut overlays = Vec::new();
    if state_now(core, source.vm.id)?.is_active() {
        chain::live_chains(core, source)?;
        for disk in &source.disks {
            overlays.extend(source.storlinks.get(&disk.storlink).map(|own| (own, written_meanwhile(disk))));
        }
    }
    copies.reserve(core, work, &overlays)?;
    let still = Still::hold(core, work, source)?;
    copies.make(work, &still)?;
    still.release(core, work)
}

/// What will be made; nothing has been touched yet.
struct Plan {
    source: Machine,
    copies: Copies,
    /// The other VM.
    machine: Machine,
    nics: Vec<NewNic>,
}

impl Plan {
    fn make(wish: &CopyVm, core: &Core) -> Result<Self> {
        let source = Machine::load(core, wish.vm)?;
        let storlink = core.store.read(|c| {
            if vms::find_by_name(c, wish.name.as_str())?.is_some() {
                return Err(Error::new(ErrorKind::Exists { what: "vm", name: wish.name.to_string() }));
            }
            guard::storlink(c, &core.pm, wish.storlink)
        })?;
        // Nothing is copied for a hypervisor that could not be told of it.
        core.hypervisor.info()?;
        let id = VmId(core.ids.uuid());
        let copies = Copies::plan(core, &source, storlink.clone(), DiskOwner::Vm(id), |_| true)?;
        let nics = draft_nics(core, &source, id)?;
        let machine = wish.machine(core, id, &source, storlink, &copies, &nics);
        Ok(Self { source, copies, machine, nics })
    }
}

/// The same names on the same bridges; MAC addresses and IP addresses are one VM's alone.
fn draft_nics(core: &Core, source: &Machine, id: VmId) -> Result<Vec<NewNic>> {
    let like = core.store.read(|c| nics::of_vm(c, source.vm.id))?;
    let switches: Vec<String> = like.iter().map(|nic| nic.switch.clone()).collect();
    let can = core.hypervisor.capabilities(&source.spec(core)?);
    let mut nics = nic::draft_all(core, id, &switches, can.mac_prefix)?;
    for (nic, like) in nics.iter_mut().zip(like) {
        nic.name = like.name;
    }
    Ok(nics)
}

impl CopyVm {
    fn machine(
        &self,
        core: &Core,
        id: VmId,
        source: &Machine,
        storlink: Storlink,
        copies: &Copies,
        nics: &[NewNic],
    ) -> Machine {
        let now = core.clock.now();
        Machine {
            vm: Vm {
                id,
                name: self.name.to_string(),
                // A virtual function is one VM's at a time.
                pcivf: None,
                seen: Seen::default(),
                vnc_password: new_vnc_password(core),
                snapshot: None,
                created_at: now,
                recent_booted_at: None,
                updated_at: now,
                ..source.vm.clone()
            },
            disks: copies.pairs.iter().map(|(_, copy)| copy.clone()).collect(),
            plugs: nics.iter().map(|nic| Plug { mac: nic.mac, switch: nic.switch.clone() }).collect(),
            below: HashMap::new(),
            storlinks: [(storlink.id, storlink)].into(),
        }
    }
}
