//! Keeps what a VM is as a snapshot that nobody asked for, when something else takes its place.

use crate::error::Result;
use crate::model::{Disk, DiskOwner, Snapshot, SnapshotId, SnapshotKind, Vm};
use crate::operations::Core;
use crate::store::{Conn, disks, snapshots};

/// On what the VM runs on now.
pub(in crate::operations) fn automatic(core: &Core, vm: &Vm, desc: String) -> Snapshot {
    let created_at = core.clock.now();
    Snapshot {
        id: SnapshotId(core.ids.uuid()),
        vm: vm.id,
        name: format!("before-restore {} UTC", created_at.format("%Y-%m-%d %H:%M:%S")),
        kind: SnapshotKind::Automatic,
        parent: vm.snapshot,
        desc,
        created_at,
    }
}

/// Gives the VM's disks, as they are, to the snapshot; the VM has none afterwards. Nothing moves but rows.
pub(in crate::operations) fn keep(tx: &mut Conn, kept: &Snapshot, now: &[Disk]) -> Result<()> {
    snapshots::insert(tx, kept)?;
    now.iter().try_for_each(|d| disks::hand_over(tx, d.id, DiskOwner::Snapshot(kept.id), d.order, d.backing))
}
