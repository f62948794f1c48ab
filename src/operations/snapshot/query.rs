//! Reads of snapshots: rows alone.

use crate::error::{Error, Result};
use crate::model::{Snapshot, SnapshotKind, VmId};
use crate::operations::Core;
use crate::store::{snapshots, vms};

/// Oldest first; one that is going is not there any more. Blocks for a query.
pub fn list(core: &Core, vm: VmId) -> Result<Vec<Snapshot>> {
    core.store.read(|c| {
        vms::find(c, vm)?.ok_or_else(|| Error::not_found("vm", vm))?;
        let mut all = snapshots::of_vm(c, vm)?;
        all.retain(|snapshot| snapshot.kind != SnapshotKind::Going);
        Ok(all)
    })
}
