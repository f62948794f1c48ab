//! A disk: a VM's or a template's use of one volume.

use chrono::NaiveDateTime;

use super::{DiskId, Format, MiB, StorlinkId, TemplateId, VmId, VolumeName};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiskOwner {
    Vm(VmId),
    Template(TemplateId),
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
}
