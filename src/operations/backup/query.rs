//! Reads of backups: rows alone.

use crate::error::{Error, Result};
use crate::model::{Backup, VmId};
use crate::operations::{Core, guard, hidden};
use crate::store::{Conn, backups, vms};

/// Of one VM, the oldest first; also of one that was deleted. Blocks for a query, as does the other one.
pub fn of_vm(core: &Core, vm: VmId) -> Result<Vec<Backup>> {
    core.store.read(|c| {
        let found = backups::of_vm(c, vm)?;
        let (some, there) = (!found.is_empty(), vms::find(c, vm)?);
        let shown = seen(c, core, found)?;
        match there {
            Some(vm) => core.caller.require_sight(&vm.name)?,
            None if some && shown.is_empty() => return Err(hidden()),
            None if !some => return Err(Error::not_found("vm", vm)),
            None => {}
        }
        Ok(shown)
    })
}

/// Of every VM that there is or was, the oldest first.
pub fn list(core: &Core) -> Result<Vec<Backup>> {
    core.store.read(|c| {
        let all = backups::all(c)?;
        seen(c, core, all)
    })
}

fn seen(c: &mut Conn, core: &Core, mut all: Vec<Backup>) -> Result<Vec<Backup>> {
    if !core.caller.sees_all() {
        let names = vms::names(c)?;
        all.retain(|backup| guard::sees_backup(core, backup, names.get(&backup.vm).map(String::as_str)));
    }
    Ok(all)
}
