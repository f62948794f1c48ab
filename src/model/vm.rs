//! Our record of a virtual machine. Its state is not here: the hypervisor alone knows it.

use chrono::NaiveDateTime;

use super::{MiB, PmId, Secret, TemplateId, VmId};

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
    /// PCI address of a virtual function handed through to the guest.
    pub pcivf: Option<String>,
    pub vnc_password: Secret,
    pub created_at: NaiveDateTime,
    pub recent_booted_at: Option<NaiveDateTime>,
    pub updated_at: NaiveDateTime,
}
