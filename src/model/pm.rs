//! The physical machine that runs the VMs.

use chrono::NaiveDateTime;

use super::{MiB, PmId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pm {
    pub id: PmId,
    pub name: String,
    /// Logical CPUs.
    pub cpu: u32,
    pub memory: MiB,
    pub ssh_pubkey: Option<String>,
    /// `fake`, `libvirt` or `xl`; a PM keeps its kind for life.
    pub hypervisor: String,
    pub heartbeat_at: NaiveDateTime,
    pub created_at: NaiveDateTime,
    pub updated_at: NaiveDateTime,
}
