//! A full, self-contained copy of a VM's disks, which outlives the VM.

use chrono::NaiveDateTime;

use super::{BackupId, MiB, StorlinkId, VmId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    pub id: BackupId,
    /// Perhaps deleted since.
    pub vm: VmId,
    pub name: String,
    pub storlink: StorlinkId,
    /// Of all its disks, as the guest saw them.
    pub size: MiB,
    pub desc: String,
    pub created_at: NaiveDateTime,
}
