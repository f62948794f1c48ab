//! A frozen point of a VM, or the leaf that it writes to.

use chrono::NaiveDateTime;

use super::{SnapshotId, VmId, words};

words! {
    /// Stored: append-only.
    SnapshotKind {
        /// A point that was kept.
        Saved = "SAVED",
        /// What the VM writes to now; no list shows it.
        Run = "RUN",
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
