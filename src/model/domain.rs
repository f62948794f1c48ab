//! What a hypervisor is told about a domain, and what it says of one.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{Format, Layer, Mac, MiB, Os, PciAddress, Secret, VmId, VolumeSource, words};

/// Everything a hypervisor needs to define a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainSpec {
    pub id: VmId,
    /// What people call it; the hypervisor only shows it to them.
    pub title: String,
    /// What its guest is said to be; `None`: nothing says.
    pub os: Option<Os>,
    pub vcpus: u32,
    /// So many can be plugged into the running guest; at least `vcpus`.
    pub max_vcpus: u32,
    pub memory: MiB,
    pub max_memory: MiB,
    /// By order; the first boots.
    pub disks: Vec<DiskSpec>,
    pub nics: Vec<NicSpec>,
    /// A device of the host that is the guest's alone.
    pub pci: Option<PciAddress>,
    /// The ISO image in the drive; the drive is always there. The guest boots it when no disk boots.
    pub disc: Option<VolumeSource>,
    /// An empty file, to which all goes that the guest writes to its serial console.
    pub console: Option<VolumeSource>,
    pub vnc_password: Secret,
}

/// Whether the host's page cache stands between guest and storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheMode {
    /// O_DIRECT.
    None,
    /// Where the file system has no O_DIRECT; the guest's flushes still reach the disk.
    Writeback,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSpec {
    /// The backend makes the target from it: 0 is `vda` or `xvda`.
    pub order: u32,
    pub source: VolumeSource,
    pub format: Format,
    pub cache: CacheMode,
    /// The rest of its chain, from the next image to the last.
    pub backing: Vec<Layer>,
}

impl DiskSpec {
    /// The whole chain.
    pub fn chain(&self) -> Vec<Layer> {
        let leaf = Layer { source: self.source.clone(), format: self.format };
        std::iter::once(leaf).chain(self.backing.iter().cloned()).collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicSpec {
    pub mac: Mac,
    pub link: NicLink,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NicLink {
    /// A bridge of the host, by the host's name for it.
    Bridge(String),
    /// QEMU's user networking: outward only, no bridge needed.
    User,
    /// Nothing: the guest sees a NIC without a cable, and no packet ever leaves it.
    Unplugged,
}

words! {
    /// The state of a domain, in the native API's words.
    PowerState {
        Running = "RUNNING",
        Paused = "PAUSED",
        /// Off, ended in order.
        Shutdown = "SHUTDOWN",
        /// Off, because it died.
        Crashed = "CRASHED",
        /// The hypervisor does not answer.
        Unknown = "UNKNOWN",
    }
}

impl PowerState {
    /// Whether the domain holds its disks open.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainStatus {
    pub id: VmId,
    pub state: PowerState,
    /// Where its screen is; `None` when it is off.
    pub vnc: Option<VncEndpoint>,
    /// The hypervisor's number of this run of it; `None` when it is off.
    pub number: Option<u32>,
}

/// How large a running or paused guest is, whatever was defined since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestSize {
    /// Plugged in now.
    pub vcpus: u32,
    /// The most memory that it can be given.
    pub max_memory: MiB,
}

/// What is defined of a domain, as far as records can say otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Definition {
    pub name: String,
    pub vcpus: u32,
    pub memory: MiB,
    pub max_memory: MiB,
    /// By order.
    pub disks: Vec<DefinedDisk>,
    /// In their order.
    pub macs: Vec<Mac>,
    /// Every file that it names, defined or running, also those that a disk reads from or is copied to.
    pub files: BTreeSet<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DefinedDisk {
    /// `None`: a place that no disk of ours has.
    pub order: Option<u32>,
    /// `None`: something else than a file.
    pub file: Option<PathBuf>,
    pub format: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VncEndpoint {
    pub host: String,
    pub port: u16,
}
