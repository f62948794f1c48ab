//! Reads of snapshots: rows alone.

use crate::error::Result;
use crate::model::{Snapshot, SnapshotKind, VmId};
use crate::operations::{Core, guard};
use crate::store::snapshots;

/// Oldest first; one that is going is not there any more. Blocks for a query.
pub fn list(core: &Core, vm: VmId) -> Result<Vec<Snapshot>> {
    core.store.read(|c| {
        guard::seen_vm(c, core, vm)?;
        let mut all = snapshots::of_vm(c, vm)?;
        all.retain(|snapshot| snapshot.kind != SnapshotKind::Going);
        Ok(all)
    })
}
