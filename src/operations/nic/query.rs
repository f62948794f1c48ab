//! Reads of NICs: rows alone.

use crate::error::Result;
use crate::model::{Nic, VmId};
use crate::operations::{Core, guard};
use crate::store::nics;

/// Those of a VM, the oldest first. Blocks for a query.
pub fn list(core: &Core, vm: VmId) -> Result<Vec<Nic>> {
    core.store.read(|c| {
        guard::seen_vm(c, core, vm)?;
        nics::of_vm(c, vm)
    })
}
