//! Our record of a virtual machine. What its hypervisor says of it goes before what is recorded here.

use chrono::NaiveDateTime;

use super::{Iso, MiB, PciAddress, PmId, PowerState, Secret, SnapshotId, TemplateId, VmId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vm {
    pub id: VmId,
    pub template: Option<TemplateId>,
    pub pm: PmId,
    pub name: String,
    /// Virtual CPUs.
    pub cpu: u32,
    pub memory: MiB,
    pub maxmem: MiB,
    pub desc: String,
    /// The virtual function that is handed through to the guest.
    pub pcivf: Option<PciAddress>,
    /// The disc in its drive.
    pub iso: Option<Iso>,
    pub vnc_password: Secret,
    /// What it runs on: the snapshot that was taken or restored last. `None` is the VM as it was made.
    pub snapshot: Option<SnapshotId>,
    pub seen: Seen,
    pub created_at: NaiveDateTime,
    pub recent_booted_at: Option<NaiveDateTime>,
    pub updated_at: NaiveDateTime,
}

/// What the host of a VM, or of a template, saw of its domain last. The host itself asks its hypervisor; this is for the
/// other hosts of the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub state: PowerState,
    pub vnc_port: Option<u16>,
}

impl Default for Seen {
    fn default() -> Self {
        Self { state: PowerState::Shutdown, vnc_port: None }
    }
}
