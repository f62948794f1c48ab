//! What a hypervisor can do. Backends are policy free: each verb does one thing once; waiting, retrying and ordering
//! belong to operations. Every call blocks, and ends within the backend's deadline.

mod arp;
mod bridges;
mod connect;
mod description;
mod fake;
mod libvirt;
mod migration;
mod timed;
mod verb;
mod xl;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::error::{Error, Result};
use crate::model::{
    Definition, DiskSpec, DomainSpec, DomainStats, DomainStatus, GuestAddress, GuestSize, HostUse, Layer, Mac, MiB,
    NicSpec, Screenshot, VmId, VolumeSource,
};

pub use connect::{Options, connect};
pub use fake::{Answer, FakeHypervisor};
pub use libvirt::{DomainType, LibvirtHypervisor, LibvirtOptions};
pub use migration::{MigrationTarget, Settlement, Transit, settle};
pub use timed::Timed;
pub use verb::Verb;
pub use xl::{Boot, Guest, XlHypervisor, XlOptions, receive_guest, send_guest};

/// Called when something changed; it may block and may ask the hypervisor.
pub type Changed = Arc<dyn Fn() + Send + Sync>;

/// One hypervisor on this host.
///
/// Laws, held by one test suite over every backend: undoing verbs are idempotent (absent or off is success), and so is
/// pausing what is paused; a verb that is refused changes nothing; after a verb returned `Ok`, [`Hypervisor::domain`]
/// shows its effect. An effect that was answered with `Unavailable` may have happened all the same, or happen later: who
/// cares looks again.
pub trait Hypervisor: Send + Sync {
    /// `fake`, `libvirt`, `xl`; for records, never for decisions.
    fn kind(&self) -> &'static str;

    /// Version and size of the host. Asks the hypervisor, so it also tells whether it answers.
    fn info(&self) -> Result<HypervisorInfo>;

    /// What the host is used for, where the kernel that we run on sees a part of it only. `None`: the kernel sees it all.
    fn host_use(&self) -> Result<Option<HostUse>>;

    /// What can be done to this domain on this host.
    fn capabilities(&self, spec: &DomainSpec) -> Capabilities;

    /// Every domain, ours or not, in one call.
    fn domains(&self) -> Result<Vec<DomainStatus>>;

    /// `None`: the hypervisor does not know it.
    fn domain(&self, id: VmId) -> Result<Option<DomainStatus>>;

    /// What is defined of a domain, ours or not. `None`: the hypervisor does not know it.
    fn defined(&self, id: VmId) -> Result<Option<Definition>>;

    /// Creates or replaces the definition; a running domain is not touched.
    fn define(&self, spec: &DomainSpec) -> Result<()>;

    /// Drops the definition of a domain that is off; absent is success.
    fn undefine(&self, id: VmId) -> Result<()>;

    /// Refused when a disk is missing or held by another domain.
    fn start(&self, id: VmId, how: Start) -> Result<()>;

    /// Asks the guest once; it may not listen. A paused guest cannot be asked.
    fn request_shutdown(&self, id: VmId) -> Result<()>;

    /// Asks the guest once; it may not listen. A paused guest cannot be asked.
    fn request_reboot(&self, id: VmId) -> Result<()>;

    /// Pulls the plug; absent or off is success.
    fn destroy(&self, id: VmId) -> Result<()>;

    fn pause(&self, id: VmId) -> Result<()>;

    fn unpause(&self, id: VmId) -> Result<()>;

    /// Plugs vCPUs into a running or paused guest until it has `count`; it cannot have fewer than it has, nor more than
    /// `max_vcpus` of the spec that it was started with.
    fn set_vcpus(&self, id: VmId, count: u32) -> Result<()>;

    /// Asks a running or paused guest to live with so much memory, at most what it was started with. It may take its time,
    /// or not listen: [`Hypervisor::memory`] tells.
    fn set_memory(&self, id: VmId, memory: MiB) -> Result<()>;

    /// What a running or paused guest lives with now.
    fn memory(&self, id: VmId) -> Result<MiB>;

    /// What a running or paused guest has of vCPUs, and the most memory that it can be given.
    fn size(&self, id: VmId) -> Result<GuestSize>;

    /// Plugs a disk into a running or paused guest; one that is plugged in already is success, and another one in its place is
    /// `WrongState`. The definition is not touched, here and in the verbs below.
    fn attach_disk(&self, id: VmId, disk: &DiskSpec) -> Result<()>;

    /// Pulls the disk of this order out of a running guest, and returns when the guest has let it go; absent is success.
    /// `Timeout` when the guest holds on to it: the disk then stays.
    fn detach_disk(&self, id: VmId, order: u32) -> Result<()>;

    /// Plugs a NIC into a running or paused guest; one with this MAC address that is plugged in already is success.
    fn attach_nic(&self, id: VmId, nic: &NicSpec) -> Result<()>;

    /// As [`Hypervisor::detach_disk`].
    fn detach_nic(&self, id: VmId, mac: Mac) -> Result<()>;

    /// Puts a disc into the drive of a running or paused guest, or takes it out, whether the guest has locked it or not.
    fn change_disc(&self, id: VmId, disc: Option<&VolumeSource>) -> Result<()>;

    /// The images of a running or paused guest's disk, the one that it writes to first. They are those that it was started
    /// with, plugged in or moved to, whatever the headers of the images say.
    fn chain(&self, id: VmId, order: u32) -> Result<Vec<VolumeSource>>;

    /// Moves disks of a running or paused guest onto overlays, all at one instant or none: from there on it writes to the
    /// overlay, and what it wrote before stands still. Each overlay is there already, qcow2; it is opened in the cache mode
    /// that the disk has. The definition may follow its guest, here and in the verbs below: who relies on it defines it.
    ///
    /// # Errors
    /// `Refused` when a disk is not on the very chain that is `backing` of its overlay (so also when this was done before),
    /// `WrongState` when a block job is on one.
    fn overlay_disks(&self, id: VmId, overlays: &[DiskSpec]) -> Result<()>;

    /// Begins to move data under a disk of a running or paused guest, which goes on meanwhile; one job for each disk. A job
    /// that fails, for want of space or because the image is too small, is gone and changes nothing of what the guest sees.
    ///
    /// # Errors
    /// `WrongState` when a job is there, `Refused` when the job does not fit the chain, or an image is missing or in use.
    fn start_block_job(&self, id: VmId, order: u32, job: &BlockJob) -> Result<()>;

    /// How far the job is. `None`: there is none, or none any more; [`Hypervisor::chain`] tells how it ended. A job outlives
    /// the connection to the hypervisor, and ends with its guest.
    fn block_job(&self, id: VmId, order: u32) -> Result<Option<BlockJobStatus>>;

    /// Ends a job that is ready: the guest moves to the other image, and what it had before stands still, closed. Returns
    /// when it has moved.
    ///
    /// # Errors
    /// `WrongState` when no job is ready, so nothing was begun; `Refused` when the guest stayed where it was, or was powered
    /// off meanwhile.
    fn pivot(&self, id: VmId, order: u32) -> Result<()>;

    /// Ends a job without its effect; none, or a guest that is off or absent, is success. Returns when no job touches any
    /// image any more. A job that was about to end by itself, or a pivot that nobody heard the end of, may have come first:
    /// [`Hypervisor::chain`] tells.
    fn abort_block_job(&self, id: VmId, order: u32) -> Result<()>;

    /// On the host that a guest is to be moved to, before it is sent: its definition is kept, and it is let in when it comes.
    ///
    /// # Errors
    /// `Refused` where it could not live: an image, a bridge or memory is missing, or the domain is here already.
    /// `Unsupported` where nothing can be moved, here and in the verbs below.
    fn expect_guest(&self, spec: &DomainSpec) -> Result<()>;

    /// Moves a running guest, which goes on meanwhile but for a moment, to a host that expects it. Its images are on storage
    /// that both hosts reach by the same paths. Returns when it runs there, and is none of this host's guests any more; the
    /// definition stays. When `cancel` is set, it ends soon, and says so.
    ///
    /// # Errors
    /// After any error [`Hypervisor::transit`] of both hosts tells what is where, and [`settle`] where the guest belongs.
    fn send_guest(&self, id: VmId, to: &MigrationTarget, cancel: &AtomicBool) -> Result<()>;

    /// What this host has of a guest that moves, or has moved.
    fn transit(&self, id: VmId) -> Result<Transit>;

    /// From here on the guest is one of this host's and runs, whatever a migration has left of it here; it is expected no more.
    /// One that is here already is success. Whoever still receives it is ended, and what has come stays. Only to be called where
    /// [`settle`] says so: it may run elsewhere, or not be whole.
    ///
    /// # Errors
    /// `NotFound` when nothing of it is here, `Refused` while somebody sends it, or when its disks did not come along.
    fn take_over(&self, id: VmId) -> Result<()>;

    /// Ends what a migration has left of it here, as well as what is just being received; it is expected no more. Absent is
    /// success. Only to be called where [`settle`] says so.
    ///
    /// # Errors
    /// `WrongState` for a guest of this host like any other.
    fn give_up(&self, id: VmId) -> Result<()>;

    /// Whether an agent in a running guest answers, within a few seconds.
    fn agent_answers(&self, id: VmId) -> Result<bool>;

    /// What every running or paused guest has used, ours or not, in one call. One that does not answer is left out, or told of
    /// in part; one that hangs just then may spoil that one call for all.
    fn stats(&self) -> Result<Vec<DomainStats>>;

    /// Where a running guest is reached: as its agent says, else as addresses were leased to it, else as this host has reached
    /// it lately. Empty when nobody knows, and for a guest that is off or absent.
    fn addresses(&self, id: VmId) -> Result<Vec<GuestAddress>>;

    /// What the screen of a running or paused guest shows, of bounded size.
    ///
    /// # Errors
    /// `Unsupported` where a guest of this kind has no screen that a picture can be taken of.
    fn screenshot(&self, id: VmId) -> Result<Screenshot>;

    /// The document of a domain in libvirt's form, for readers: as it runs, or as it is defined when it is off. The password of
    /// its screen is not in it. `None`: the hypervisor does not know it.
    fn description(&self, id: VmId) -> Result<Option<String>>;

    /// Calls `changed` after any domain changed its state, and when the hypervisor went away or came back, for as long as
    /// the backend lives. It says that something changed, not what: the one who listens reads [`Hypervisor::domains`].
    fn watch(&self, changed: Changed);

    /// Whether a bridge of this name is there to attach NICs to. A name that no bridge can have is not there.
    fn has_bridge(&self, name: &str) -> Result<bool>;
}

/// Moves data under a disk while its guest runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockJob {
    /// Writes what `top` holds into the image right below it, and takes `top` out of the chain. If the guest writes to
    /// `top`, the job gets ready and waits for [`Hypervisor::pivot`]; else it ends by itself.
    Commit { top: VolumeSource, base: VolumeSource },
    /// Copies all that the guest sees into an image that is there, empty and of the right size. When it is ready, the image
    /// is as the guest's but for what it has just written, which follows; [`Hypervisor::pivot`] waits for the last of it.
    Mirror { to: Layer },
}

impl BlockJob {
    /// Refuses what makes no sense on this chain.
    fn check(&self, by: &str, chain: &[Layer]) -> Result<()> {
        let place = |image: &VolumeSource| {
            let found = chain.iter().position(|layer| layer.source == *image);
            found.ok_or_else(|| Error::refused(by, format!("{} is not in the chain of the disk", path(image))))
        };
        let why = match self {
            Self::Commit { top, base } if place(base)? != place(top)? + 1 => {
                format!("{} is not right below {}", path(base), path(top))
            }
            Self::Mirror { to } if chain.iter().any(|layer| layer.source == to.source) => {
                format!("{} is in the chain of the disk already", path(&to.source))
            }
            _ => return Ok(()),
        };
        Err(Error::refused(by, why))
    }
}

/// In bytes; what remains may grow while the guest writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockJobStatus {
    /// At most `total`.
    pub done: u64,
    /// Never 0.
    pub total: u64,
    /// It only waits for [`Hypervisor::pivot`].
    pub ready: bool,
}

/// How the vCPUs come up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Running,
    /// Everything is in place, no instruction runs.
    Paused,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HypervisorInfo {
    /// For people: `QEMU 7.2.22 through libvirt 9.0.0`.
    pub version: String,
    pub cpus: u32,
    pub memory: MiB,
}

/// What a backend can do to one domain, asked before the first step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Formats that a disk can have.
    pub formats: &'static [crate::model::Format],
    /// Most vCPUs and disks of one domain.
    pub max_vcpus: u32,
    pub max_disks: u32,
    pub max_nics: u32,
    /// NICs without a bridge.
    pub user_network: bool,
    pub pause: bool,
    /// What can be changed while it runs.
    pub live_vcpus: bool,
    pub live_memory: bool,
    pub live_disks: bool,
    pub live_nics: bool,
    pub live_disc: bool,
    /// Overlays and block jobs.
    pub live_chains: bool,
    /// Whether it can be moved to another host while it runs.
    pub live_migration: bool,
    /// Whether a guest can run on an image with clusters that zstd made smaller.
    pub zstd: bool,
    /// The three bytes that begin every MAC address here.
    pub mac_prefix: [u8; 3],
}

/// Why a disk is not plugged in where another one is.
fn place_taken(id: VmId, order: u32) -> Error {
    Error::wrong_state(
        format!("vm {id}"),
        format!("running with another disk in place {order}"),
        "pull that one out first",
    )
}

fn path(image: &VolumeSource) -> std::path::Display<'_> {
    let VolumeSource::File(file) = image;
    file.display()
}

/// Why a disk is not moved onto an overlay of something else.
fn not_on_this(by: &str, overlay: &DiskSpec) -> Error {
    let why = format!("{} is not an overlay of what disk {} is on", path(&overlay.source), overlay.order);
    Error::refused(by, why)
}

/// Why no second job is begun on a disk, and why it is not moved meanwhile.
fn job_runs(id: VmId, order: u32) -> Error {
    Error::wrong_state(format!("vm {id}"), format!("moving the data of disk {order}"), "wait for the block job")
}

/// Why a disk is not moved to the other image, or no job is there that could.
fn not_ready(id: VmId, order: u32) -> Error {
    Error::wrong_state(format!("vm {id}"), format!("without a block job on disk {order} that is ready"), "wait for one")
}
