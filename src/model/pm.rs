//! The physical machine that runs the VMs.

use std::time::Duration;

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

/// What the processors and the memory of a host are used for, counted by its hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostUse {
    /// Logical CPUs.
    pub cpus: u32,
    pub threads_per_core: u32,
    /// What all CPUs together have worked since some moment; it never steps back.
    pub busy: Duration,
    pub memory: MiB,
    pub free: MiB,
}
