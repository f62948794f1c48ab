//! Applies a compensation. Each looks before it acts, and doing one twice changes nothing.

use crate::error::{ErrorKind, Result};
use crate::model::{Compensation, StorlinkId};
use crate::storage::VolumeDriver;

use super::domain::Machine;
use super::{Core, guard};

pub(super) fn apply(core: &Core, compensation: &Compensation) -> Result<()> {
    match compensation {
        Compensation::DeleteVolume { storlink, volume } => driver(core, *storlink)?.remove(volume),
        Compensation::RestoreVolume { storlink, volume } => driver(core, *storlink)?.restore(volume),
        Compensation::PurgeVolume { storlink, volume } => driver(core, *storlink)?.purge(volume),
        Compensation::Undefine { vm } => core.hypervisor.undefine(*vm),
        Compensation::Redefine { vm } => redefine(core, *vm),
        Compensation::Destroy { vm } => {
            core.hypervisor.destroy(*vm)?;
            core.inventory.refresh()
        }
    }
}

fn driver(core: &Core, id: StorlinkId) -> Result<Box<dyn VolumeDriver>> {
    let storlink = core.store.read(|c| guard::storlink(c, &core.pm, id))?;
    (core.volumes)(&storlink)
}

/// Without its rows there is nothing that the domain could be defined from, and nobody who misses it.
fn redefine(core: &Core, vm: crate::model::VmId) -> Result<()> {
    match Machine::load(core, vm) {
        Ok(machine) => core.hypervisor.define(&machine.spec(core)?),
        Err(gone) if matches!(gone.kind(), ErrorKind::NotFound { what: "vm", .. }) => Ok(()),
        Err(other) => Err(other),
    }
}
