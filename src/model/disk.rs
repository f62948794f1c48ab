//! A disk: the use of one volume by a VM, a template, a snapshot or a backup.

use std::fmt;

use chrono::NaiveDateTime;

use super::{BackupId, DiskId, Format, MiB, SnapshotId, StorlinkId, TemplateId, VmId, VolumeName};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiskOwner {
    Vm(VmId),
    Template(TemplateId),
    Snapshot(SnapshotId),
    Backup(BackupId),
}

/// `vm <uuid>`, for sentences.
impl fmt::Display for DiskOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vm(id) => write!(f, "vm {id}"),
            Self::Template(id) => write!(f, "template {id}"),
            Self::Snapshot(id) => write!(f, "snapshot {id}"),
            Self::Backup(id) => write!(f, "backup {id}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    pub id: DiskId,
    pub owner: DiskOwner,
    /// 0 is the disk that boots; the guest's target (`vda`, `xvda`) follows from it.
    pub order: u32,
    pub size: MiB,
    pub format: Format,
    pub storlink: StorlinkId,
    pub volume: VolumeName,
    pub desc: Option<String>,
    pub created_at: NaiveDateTime,
    /// The disk of a snapshot from which it reads what it does not hold itself; `None` when it is self-contained.
    pub backing: Option<DiskId>,
}
