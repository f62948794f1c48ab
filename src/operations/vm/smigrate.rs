//! Moves the disks of a VM to another storlink, flattened, while its guest goes on if it runs. What its snapshots have
//! frozen stays where it is.

use crate::error::{Error, Result};
use crate::model::{Access, Compensation, Disk, DiskOwner, Lane, Lock, Resource, StorlinkId, TaskKind, VmId};
use crate::operations::chain;
use crate::operations::copies::{Copies, making};
use crate::operations::domain::Machine;
use crate::operations::{Core, Operation, guard, mirror};
use crate::tasks::Work;

use super::{copy_disks, noun, state_now};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SmigrateVm {
    pub vm: VmId,
    pub storlink: StorlinkId,
}

impl Operation for SmigrateVm {
    const KIND: TaskKind = TaskKind::VmSmigrate;
    type Output = ();

    fn lane(&self) -> Lane {
        Lane::Long
    }

    fn subject(&self, core: &Core) -> Result<String> {
        noun(core, self.vm)
    }

    fn locks(&self) -> Vec<Lock> {
        vec![
            Lock { resource: Resource::Vm(self.vm), access: Access::Changes },
            Lock { resource: Resource::Storlink(self.storlink), access: Access::Uses },
        ]
    }

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let vm = self.vm;
        let mut machine = Machine::load(core, vm)?;
        let name = format!("vm {}", machine.vm.name);
        let active = state_now(core, vm)?.is_active();
        let copies = self.plan(core, &machine)?;
        if active {
            chain::live_chains(core, &machine)?;
            copies.reserve(core, work, &[(&copies.storlink, mirror::growth(&copies))])?;
            mirror::copy(core, work, &machine, &copies)?;
            mirror::pivot(core, work, &machine, &copies)?;
            follow(&mut machine, &copies);
            let spec = machine.spec(core)?;
            work.act(|| core.hypervisor.define(&spec))?;
        } else {
            copy_disks(core, work, &machine, &copies)?;
            follow(&mut machine, &copies);
            let spec = machine.spec(core)?;
            work.step(&Compensation::Redefine { vm }, || core.hypervisor.define(&spec))?;
        }
        let outcome = format!("{name} is moved to storlink {}", copies.storlink.name);
        let needless: Vec<_> = copies.pairs.iter().map(|(disk, _)| making(disk)).collect();
        work.settle(&outcome, &needless, |tx| mirror::replace(tx, vm, &copies.pairs))
    }
}

impl SmigrateVm {
    /// A disk moves if any image that it reads from is elsewhere.
    fn plan(&self, core: &Core, machine: &Machine) -> Result<Copies> {
        let storlink = core.store.read(|c| guard::storlink(c, &core.pm, self.storlink))?;
        let elsewhere = |disk: &Disk| {
            let below = machine.below.get(&disk.id).into_iter().flatten();
            std::iter::once(disk).chain(below).any(|image| image.storlink != self.storlink)
        };
        if !machine.disks.iter().any(elsewhere) {
            let (what, is) = (format!("vm {}", machine.vm.name), format!("on storlink {} already", storlink.name));
            return Err(Error::wrong_state(what, is, "name another one"));
        }
        Copies::plan(core, machine, storlink, DiskOwner::Vm(self.vm), elsewhere)
    }
}

/// The machine with the copies in the place of its disks.
fn follow(machine: &mut Machine, copies: &Copies) {
    for (disk, copy) in &copies.pairs {
        machine.disks.iter_mut().filter(|known| known.id == disk.id).for_each(|known| *known = copy.clone());
    }
    machine.storlinks.insert(copies.storlink.id, copies.storlink.clone());
}
