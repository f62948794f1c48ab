//! Makes a VM for a tenant: it gets a number, and is started as soon as its disks are there.

use crate::error::{Error, Result};
use crate::model::{Compensation, Lane, Lock, MiB, Name, Resource, TaskKind, Tenancy, VmId, VmNumber};
use crate::operations::vm::CreateVm;
use crate::operations::{Core, Operation, number};
use crate::store::{numbers, tenants, vms};
use crate::tasks::Work;

use super::named;

/// The VM, its number and whose it is are one transaction; the start that follows is in it too, so that it is made good
/// after a crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateForTenant {
    pub tenant: String,
    /// What the tenant calls it. Where another VM has that name already, the number makes it another one.
    pub hostname: Option<Name>,
    /// One that was reserved; else whichever was reserved first, or is free.
    pub number: Option<VmNumber>,
    pub swap: MiB,
    /// All but its name.
    pub vm: CreateVm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MadeForTenant {
    pub vm: VmId,
    pub number: VmNumber,
}

impl Operation for CreateForTenant {
    const KIND: TaskKind = TaskKind::VmCreate;
    type Output = MadeForTenant;

    fn lane(&self) -> Lane {
        self.vm.lane()
    }

    fn subject(&self, core: &Core) -> Result<String> {
        core.store.read(|c| named(c, &self.tenant))?;
        Ok(match &self.hostname {
            Some(name) => format!("vm {name} for {}", self.tenant),
            None => format!("a vm for {}", self.tenant),
        })
    }

    fn locks(&self) -> Vec<Lock> {
        // Of the name that is wished for; one with a number in it is taken with its number.
        let mut locks =
            CreateVm { name: self.hostname.clone().unwrap_or_else(|| self.vm.name.clone()), ..self.vm.clone() }.locks();
        if self.hostname.is_none() {
            locks.retain(|lock| !matches!(lock.resource, Resource::Name(..)));
        }
        locks
    }

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<MadeForTenant> {
        let number = number::claim(core, work.task(), self.number)?;
        let name = self.name(core, number)?;
        let (tenant, swap) = (self.tenant, self.swap);
        let start = |vm| vec![Compensation::Start { vm }];
        let (vm, ()) = CreateVm { name, ..self.vm }.make(core, work, start, |tx, vm| {
            numbers::keep_promise(tx, number, vm.id)?;
            let tenant = named(tx, &tenant)?.id;
            tenants::begin_tenancy(tx, &Tenancy { vm: vm.id, tenant, swap, since: vm.created_at })
        })?;
        Ok(MadeForTenant { vm, number })
    }
}

impl CreateForTenant {
    /// Names of VMs are unique in a site, those of a tenant's machines need not be.
    fn name(&self, core: &Core, number: VmNumber) -> Result<Name> {
        let name = match &self.hostname {
            None => format!("ct{number}"),
            Some(wish) if core.store.read(|c| vms::find_by_name(c, wish.as_str()))?.is_none() => {
                return Ok(wish.clone());
            }
            Some(wish) => format!("{wish}-{number}"),
        };
        core.caller.require_sight(&name)?;
        name.parse().map_err(|why: String| Error::invalid("name", why))
    }
}
