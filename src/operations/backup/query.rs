//! Reads of backups: rows alone.

use crate::error::{Error, Result};
use crate::model::{Backup, VmId};
use crate::operations::Core;
use crate::store::{backups, vms};

/// Of one VM, the oldest first; also of one that was deleted. Blocks for a query, as does the other one.
pub fn of_vm(core: &Core, vm: VmId) -> Result<Vec<Backup>> {
    core.store.read(|c| {
        let found = backups::of_vm(c, vm)?;
        if found.is_empty() {
            vms::find(c, vm)?.ok_or_else(|| Error::not_found("vm", vm))?;
        }
        Ok(found)
    })
}

/// Of every VM that there is or was, the oldest first.
pub fn list(core: &Core) -> Result<Vec<Backup>> {
    core.store.read(backups::all)
}
