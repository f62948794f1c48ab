//! A full, self-contained copy of a VM's disks, which outlives the VM.

use chrono::NaiveDateTime;
use serde::{Deserialize, Serialize};

use super::{BackupId, Mac, MiB, StorlinkId, TemplateId, VmId};

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
    pub config: BackupConfig,
    /// SHA-256 of the manifest that lies beside the images, in hexadecimal.
    pub manifest: String,
    /// When every block was last found as it was written.
    pub verified_at: Option<NaiveDateTime>,
    /// When a guest last booted from it.
    pub proven_at: Option<NaiveDateTime>,
}

/// What it takes to make the VM again, besides its disks. Stored as JSON, in the row and in the manifest: fields are
/// append-only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackupConfig {
    pub name: String,
    pub desc: String,
    /// Virtual CPUs.
    pub cpu: u32,
    /// In MiB.
    pub memory: MiB,
    pub maxmem: MiB,
    pub template: Option<TemplateId>,
    pub nics: Vec<BackupNic>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupNic {
    pub name: String,
    pub mac: Mac,
    pub switch: String,
    pub ip: Option<String>,
}
