//! What a hypervisor tells of a guest that runs: what it has used, where it is reached, how its screen looks.

use std::net::IpAddr;

use super::{Mac, VmId};

/// What a running or paused guest has used since it started. What the hypervisor cannot tell is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainStats {
    pub id: VmId,
    /// What all its vCPUs have worked together.
    pub cpu_nanos: u64,
    /// What each vCPU that is plugged in has worked.
    pub vcpu_nanos: Vec<u64>,
    /// What it has now.
    pub memory_kib: u64,
    /// The most that it can be given.
    pub max_memory_kib: u64,
    /// What its programs use, if the guest tells.
    pub memory_used_kib: Option<u64>,
    /// Bytes that the guest received and sent, read and wrote, over all interfaces and disks that it has now.
    pub net_rx: u64,
    pub net_tx: u64,
    pub disk_read: u64,
    pub disk_written: u64,
}

/// An address at which a guest is reached, or says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestAddress {
    /// The guest's name for it where the guest told, else the host's, or nothing.
    pub interface: String,
    pub mac: Option<Mac>,
    pub ip: IpAddr,
    /// 0 where nobody knows.
    pub prefix: u8,
}

/// A picture of a screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screenshot {
    /// `image/png`, or what the hypervisor makes.
    pub media_type: String,
    pub bytes: Vec<u8>,
}
