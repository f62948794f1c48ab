//! A frozen point of a VM.

use chrono::NaiveDateTime;

use super::{SnapshotId, VmId, words};

words! {
    /// Stored: append-only.
    SnapshotKind {
        /// A point that was asked for.
        Saved = "SAVED",
        /// What a restore replaced, kept so that nothing is lost.
        Automatic = "AUTOMATIC",
        /// One that was deleted, until all that reads from its disks has what they hold.
        Going = "GOING",
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub id: SnapshotId,
    pub vm: VmId,
    pub name: String,
    pub kind: SnapshotKind,
    /// What the VM ran on when it was taken; `None` is the VM as it was made.
    pub parent: Option<SnapshotId>,
    pub desc: String,
    pub created_at: NaiveDateTime,
}
