//! One run of an operation, as it is recorded.

use std::fmt;

use chrono::NaiveDateTime;

use super::{BackupId, PmId, StorlinkId, TaskId, TemplateId, VmId, words};

words! {
    /// Stored: append-only.
    TaskKind {
        StorlinkCreate = "storlink.create",
        TemplateAdd = "template.add",
        VmCreate = "vm.create",
        VmDelete = "vm.delete",
        VmStart = "vm.start",
        VmShutdown = "vm.shutdown",
        VmPoweroff = "vm.poweroff",
        StorlinkUpdate = "storlink.update",
        StorlinkDelete = "storlink.delete",
        TemplateNew = "template.new",
        TemplateUpdate = "template.update",
        TemplateDelete = "template.delete",
        TemplateStart = "template.start",
        TemplateShutdown = "template.shutdown",
        TemplatePoweroff = "template.poweroff",
        VmUpdate = "vm.update",
        VmEdit = "vm.edit",
        VmReboot = "vm.reboot",
        VmReset = "vm.reset",
        VmResume = "vm.resume",
        VmSuspend = "vm.suspend",
        DiskCreate = "disk.create",
        DiskDelete = "disk.delete",
        NicCreate = "nic.create",
        NicDelete = "nic.delete",
        NicUpdate = "nic.update",
        PmAuthorizeKeys = "pm.authorize_keys",
        SnapshotTake = "snapshot.take",
        SnapshotDelete = "snapshot.delete",
        SnapshotRestore = "snapshot.restore",
        SnapshotStart = "snapshot.start",
        VmCopy = "vm.copy",
        VmSmigrate = "vm.smigrate",
        TemplateCreate = "template.create",
        BackupCreate = "backup.create",
        BackupDelete = "backup.delete",
        BackupRestore = "backup.restore",
        BackupVerify = "backup.verify",
        BackupProve = "backup.prove",
        VolumeDelete = "volume.delete",
        SiteRepair = "site.repair",
    }
}

words! {
    /// Stored: append-only.
    TaskState {
        /// Waits for its locks or for a thread.
        Queued = "queued",
        Running = "running",
        Success = "success",
        Failure = "failure",
        /// The process died; what the task had done was undone, or is being undone.
        Interrupted = "interrupted",
    }
}

impl TaskState {
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// Which threads run it: a long task never keeps a short one waiting for a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    Quick,
    Long,
}

/// Something that a task locks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    Vm(VmId),
    Template(TemplateId),
    Storlink(StorlinkId),
    Backup(BackupId),
    /// A name that is about to be taken, within a kind of object.
    Name(&'static str, String),
}

/// The stored form: `vm:<uuid>`.
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vm(id) => write!(f, "vm:{id}"),
            Self::Template(id) => write!(f, "template:{id}"),
            Self::Storlink(id) => write!(f, "storlink:{id}"),
            Self::Backup(id) => write!(f, "backup:{id}"),
            Self::Name(what, name) => write!(f, "{what}-name:{name}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Shared with others that use it.
    Uses,
    /// Exclusive.
    Changes,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lock {
    pub resource: Resource,
    pub access: Access,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    pub id: TaskId,
    pub kind: TaskKind,
    /// What it is about, for people: `vm web1`.
    pub subject: String,
    pub state: TaskState,
    pub percent: u32,
    /// What it does now.
    pub step: String,
    /// Name of the error's kind; `None` unless it failed.
    pub error: Option<String>,
    /// The outcome in one sentence; empty while it runs.
    pub message: String,
    pub pm: PmId,
    /// Which run of the server owns it.
    pub process: uuid::Uuid,
    pub created_at: NaiveDateTime,
    pub started_at: Option<NaiveDateTime>,
    pub ended_at: Option<NaiveDateTime>,
    /// The name of the account that started it, if one did.
    pub account: Option<String>,
}
