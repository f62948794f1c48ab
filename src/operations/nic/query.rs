//! Reads of NICs: rows alone.

use crate::error::{Error, Result};
use crate::model::{Nic, VmId};
use crate::operations::Core;
use crate::store::{nics, vms};

/// Those of a VM, the oldest first. Blocks for a query.
pub fn list(core: &Core, vm: VmId) -> Result<Vec<Nic>> {
    core.store.read(|c| {
        vms::find(c, vm)?.ok_or_else(|| Error::not_found("vm", vm))?;
        nics::of_vm(c, vm)
    })
}
