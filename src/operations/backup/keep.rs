//! Keeps what a VM is now as an automatic snapshot, when something else takes its place.

use chrono::NaiveDateTime;

use crate::error::Result;
use crate::model::{DiskOwner, Snapshot, SnapshotId, SnapshotKind, Vm};
use crate::store::{Conn, disks, snapshots};

/// Gives all disks of the VM, as they are, to a snapshot; the VM has none afterwards. Nothing moves but rows.
pub(super) fn keep_present(tx: &mut Conn, vm: &Vm, id: SnapshotId, now: NaiveDateTime) -> Result<()> {
    snapshots::insert(
        tx,
        &Snapshot {
            id,
            vm: vm.id,
            name: format!("before-restore {}", now.format("%Y-%m-%d %H:%M:%S")),
            kind: SnapshotKind::Automatic,
            parent: vm.snapshot,
            desc: String::new(),
            created_at: now,
        },
    )?;
    for disk in disks::of_vm(tx, vm.id)? {
        disks::hand_over(tx, disk.id, DiskOwner::Snapshot(id), disk.order, disk.backing)?;
    }
    Ok(())
}
