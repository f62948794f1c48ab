//! KVM and QEMU through libvirt.
//!
//! The backend exists whether libvirtd runs or not: it connects by itself, again after every loss, and until then answers
//! `Unavailable`. No call outlives its deadline, though libvirt's own calls have none. What libvirt says of its domains
//! is the truth; nothing is remembered but the place of a screen, which cannot move while a domain runs.

mod block_jobs;
mod calls;
mod definition;
mod devices;
mod domain_xml;
mod errors;
mod ffi;
mod link;
mod measured;
mod states;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use virt::domain::Domain;
use virt_sys as sys;

pub(super) use self::domain_xml::target;

use self::calls::{Calls, Missed};
use self::errors::{Deed, Fault};
use self::link::{Connection, Link};
use self::states::power_state;
use super::{
    BlockJob, BlockJobStatus, Capabilities, Changed, Hypervisor, HypervisorInfo, MigrationTarget, Start, Transit, Verb,
    bridges,
};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{
    Definition, DiskSpec, DomainSpec, DomainStats, DomainStatus, Format, GuestAddress, GuestSize, HostUse, Mac, MiB,
    NicSpec, PowerState, Screenshot, VmId, VolumeSource,
};

/// The most calls at once that only look. They share a connection, of which libvirtd serves five; while five are stuck it
/// reads nothing more of it, not even keep-alive.
const LOOKING: usize = 4;
/// Lists come one after the other.
const LISTING: usize = 1;
/// The most calls at once that end a guest.
const ENDING: usize = 4;
/// The most calls at once that measure all guests. A guest that hangs while it is measured holds one up; the next goes by it.
const MEASURING: usize = 2;
/// The most calls at once that a guest may hold up. libvirtd has 20 threads for the calls of all its clients; with lists,
/// those that end guests and those that measure them these leave it three.
const RISKY: usize = 10;

/// How long a guest agent may take for each of the two answers that make a ping, in seconds.
const AGENT_PATIENCE: i32 = 2;

/// Whether guests get hardware virtualisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainType {
    Kvm,
    /// Emulated: slow, and works everywhere.
    Qemu,
    /// KVM where libvirt offers it.
    Auto,
}

#[derive(Debug, Clone)]
pub struct LibvirtOptions {
    /// The deadline of a call that only asks or tells libvirt.
    pub call_timeout: Duration,
    /// The deadline of starting and powering off, for which libvirt waits for QEMU.
    pub power_timeout: Duration,
    /// How long a guest may take to let go of a device.
    pub device_timeout: Duration,
    /// The deadline of moving a guest to other images, before which QEMU brings what it holds to the disk.
    pub block_timeout: Duration,
    /// The most bytes per second that a block job moves; 0 is no limit.
    pub block_rate: u64,
    pub domain_type: DomainType,
}

impl Default for LibvirtOptions {
    fn default() -> Self {
        Self {
            call_timeout: Duration::from_secs(10),
            power_timeout: Duration::from_secs(60),
            device_timeout: Duration::from_secs(20),
            block_timeout: Duration::from_secs(60),
            block_rate: 0,
            domain_type: DomainType::Auto,
        }
    }
}

pub struct LibvirtHypervisor {
    options: LibvirtOptions,
    /// libvirtd holds a list up while it ends a guest that hangs.
    listing: Lane,
    looking: Lane,
    ending: Lane,
    measuring: Lane,
    /// For what needs the answer of a guest's QEMU. One that hangs, because its storage does, takes a call of these for as
    /// long as it hangs, and one only.
    risky: Lane,
}

/// Calls and their connections.
struct Lane(Arc<Ways>);

struct Ways {
    uri: String,
    /// The longest that connecting may take.
    patience: Duration,
    calls: Calls,
    /// Whether all calls go over one connection. One that takes long must have its own: the library forgets to send what
    /// another thread wants to say over the same connection just when it has handed out an answer, until something is
    /// heard, which may be the next keep-alive only.
    shared: bool,
    /// One for all, or one for each thread.
    links: Mutex<Vec<Arc<Link>>>,
}

impl LibvirtHypervisor {
    /// Begins to connect to a libvirtd of this host and does not wait for it.
    pub fn new(uri: &str, options: LibvirtOptions) -> Result<Self> {
        if uri.contains('\0') {
            return Err(Error::invalid("hypervisor", "must not have control characters"));
        }
        let lane = |most, shared| Lane::open(uri, options.call_timeout, Calls::new(most), shared);
        Ok(Self {
            listing: lane(LISTING, false)?,
            looking: lane(LOOKING, true)?,
            ending: lane(ENDING, false)?,
            measuring: lane(MEASURING, false)?,
            risky: lane(RISKY, false)?,
            options,
        })
    }

    fn lane(&self, verb: Verb) -> &Lane {
        match verb {
            Verb::Domains => &self.listing,
            Verb::Destroy => &self.ending,
            Verb::Stats => &self.measuring,
            // It only looks, but QEMU or its guest has to answer.
            Verb::BlockJob | Verb::AgentAnswers | Verb::Addresses | Verb::Screenshot => &self.risky,
            _ if verb.is_effect() => &self.risky,
            _ => &self.looking,
        }
    }

    /// One deed over a connection, on a thread of the backend's own, within a deadline that includes connecting.
    fn call<T: Send + 'static>(
        &self,
        verb: Verb,
        vm: Option<VmId>,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        self.call_in_time(verb, vm, move |connection, _| work(connection))
    }

    /// The same for a deed of more than one call.
    fn call_in_time<T: Send + 'static>(
        &self,
        verb: Verb,
        vm: Option<VmId>,
        work: impl FnOnce(&Connection, Patience) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let deed = Deed { verb, vm };
        let patience = match verb {
            Verb::Start | Verb::Destroy => self.options.power_timeout,
            Verb::OverlayDisks | Verb::StartBlockJob | Verb::Pivot | Verb::AbortBlockJob => self.options.block_timeout,
            _ => self.options.call_timeout,
        };
        let lane = self.lane(verb);
        if let Some(vm) = vm.filter(|vm| self.risky.0.calls.is_stuck_with(*vm))
            && std::ptr::eq(lane, &self.risky)
        {
            return Err(lane.unavailable().context(format!("an earlier call for {vm} is stuck")));
        }
        let deadline = Instant::now() + patience;
        let connected = deadline.min(Instant::now() + self.options.call_timeout);
        let ways = Arc::clone(&lane.0);
        let answer = lane.0.calls.run(deadline, vm, move |thread| {
            let link = ways.link(thread)?;
            let connection = link.connection(connected)?;
            work(&connection, Patience { until: deadline }).map_err(|fault| match fault {
                Fault::Ours(error) => error,
                Fault::Libvirt(cause) if errors::is_lost(&cause) || !connection.is_alive() => {
                    link.lost(&connection).caused_by(cause)
                }
                Fault::Libvirt(cause) => {
                    let now = match vm {
                        Some(id) if errors::is_wrong_state(&cause) => connection.state_now(id),
                        _ => PowerState::Unknown,
                    };
                    errors::explain(cause, deed, now)
                }
            })
        });
        answer.unwrap_or_else(|missed| Err(lane.missed(missed, patience)))
    }

    /// One deed to one domain.
    fn act(
        &self,
        verb: Verb,
        id: VmId,
        work: impl FnOnce(&Domain) -> Result<(), virt::error::Error> + Send + 'static,
    ) -> Result<()> {
        self.call_in_time(verb, Some(id), move |connection, patience| {
            let domain = connection.find(id)?;
            patience.check()?;
            Ok(work(&domain)?)
        })
    }
}

/// How long the caller waits. Afterwards others act on the same domain, so a deed that has only looked so far, because
/// libvirtd hung, must not begin any more.
#[derive(Clone, Copy)]
struct Patience {
    until: Instant,
}

impl Patience {
    fn check(self) -> Result<(), Fault> {
        if Instant::now() < self.until {
            return Ok(());
        }
        // Nobody hears it.
        Err(Error::unavailable("libvirt answered too late and").into())
    }
}

impl Lane {
    /// Begins to connect and does not wait for it.
    fn open(uri: &str, patience: Duration, calls: Calls, shared: bool) -> Result<Self> {
        let first = Arc::new(Link::new(uri, patience)?);
        Ok(Self(Arc::new(Ways { uri: uri.to_owned(), patience, calls, shared, links: Mutex::new(vec![first]) })))
    }

    fn unavailable(&self) -> Error {
        link::unavailable(&self.0.uri)
    }

    fn missed(&self, missed: Missed, patience: Duration) -> Error {
        let why = match missed {
            Missed::AllStuck => "all calls are stuck".to_owned(),
            Missed::NotBegun => format!("no call came free within {} s", patience.as_secs()),
            Missed::StillRunning => format!("no answer within {} s", patience.as_secs()),
            Missed::Broken(error) => return error,
        };
        self.unavailable().context(why)
    }
}

impl Ways {
    fn link(&self, thread: usize) -> Result<Arc<Link>> {
        let number = if self.shared { 0 } else { thread };
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        while links.len() <= number {
            links.push(Arc::new(Link::new(&self.uri, self.patience)?));
        }
        links.get(number).map(Arc::clone).ok_or_else(|| Error::internal("a thread without a connection"))
    }
}

impl Connection {
    fn find(&self, id: VmId) -> Result<Domain, virt::error::Error> {
        self.connect.lookup_domain_by_uuid(id.0)
    }

    fn find_if_there(&self, id: VmId) -> Result<Option<Domain>, Fault> {
        match self.find(id) {
            Ok(domain) => Ok(Some(domain)),
            Err(error) if errors::is_absent(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn undefine(&self, id: VmId, patience: Patience) -> Result<(), Fault> {
        let Some(domain) = self.find_if_there(id)? else { return Ok(()) };
        // libvirt would make a running domain transient instead of refusing.
        let state = power_state(ffi::state(&domain)?);
        if domain.is_active()? {
            return Err(Verb::Undefine.wrong_state(id, state).into());
        }
        let everything = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
            | sys::VIR_DOMAIN_UNDEFINE_NVRAM;
        patience.check()?;
        match domain.undefine_flags(everything) {
            Err(error) if !errors::is_absent(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn request_reboot(&self, id: VmId, patience: Patience) -> Result<(), Fault> {
        let domain = self.find(id)?;
        // libvirt refuses to shut a paused guest down, and yet takes this, to no effect until it is unpaused.
        if power_state(ffi::state(&domain)?) == PowerState::Paused {
            return Err(Verb::RequestReboot.wrong_state(id, PowerState::Paused).into());
        }
        patience.check()?;
        Ok(domain.reboot(sys::VIR_DOMAIN_REBOOT_ACPI_POWER_BTN)?)
    }

    fn destroy(&self, id: VmId, patience: Patience) -> Result<(), Fault> {
        let Some(domain) = self.find_if_there(id)? else { return Ok(()) };
        patience.check()?;
        match domain.destroy() {
            Err(error) if errors::is_absent(&error) => Ok(()),
            Err(error) if errors::is_wrong_state(&error) && !domain.is_active()? => Ok(()),
            Err(error) => Err(error.into()),
            Ok(()) => Ok(()),
        }
    }

    fn offers_kvm(&self) -> bool {
        *self.kvm.get_or_init(|| self.connect.domain_capabilities(None, Some("x86_64"), None, Some("kvm"), 0).is_ok())
    }

    fn info(&self) -> Result<HypervisorInfo, Fault> {
        let node = self.connect.node_info()?;
        let qemu = self.connect.hyp_version().map(version).unwrap_or_else(|_| "of unknown version".to_owned());
        let libvirt = version(self.connect.lib_version()?);
        Ok(HypervisorInfo {
            version: format!("QEMU {qemu} through libvirt {libvirt}"),
            cpus: node.cpus,
            memory: MiB(node.memory >> 10),
        })
    }
}

impl Hypervisor for LibvirtHypervisor {
    fn kind(&self) -> &'static str {
        "libvirt"
    }

    fn info(&self) -> Result<HypervisorInfo> {
        self.call(Verb::Info, None, Connection::info)
    }

    fn host_use(&self) -> Result<Option<HostUse>> {
        Ok(None)
    }

    fn capabilities(&self, _spec: &DomainSpec) -> Capabilities {
        Capabilities {
            formats: &[Format::Qcow2, Format::Raw],
            max_vcpus: 255,
            max_disks: 64,
            max_nics: 32,
            user_network: true,
            pause: true,
            live_vcpus: true,
            live_memory: true,
            live_disks: true,
            live_nics: true,
            live_disc: true,
            live_chains: true,
            live_migration: false,
            zstd: true,
            mac_prefix: [0x52, 0x54, 0x00],
        }
    }

    fn domains(&self) -> Result<Vec<DomainStatus>> {
        self.call(Verb::Domains, None, Connection::statuses)
    }

    fn domain(&self, id: VmId) -> Result<Option<DomainStatus>> {
        self.call(Verb::Domain, Some(id), move |connection| connection.status(id))
    }

    fn defined(&self, id: VmId) -> Result<Option<Definition>> {
        self.call(Verb::Defined, Some(id), move |connection| {
            let Some(domain) = connection.find_if_there(id)? else { return Ok(None) };
            let document = |flags| match domain.xml_desc(flags) {
                Ok(document) => Ok(Some(document)),
                Err(error) if errors::is_absent(&error) => Ok(None),
                Err(error) => Err(error),
            };
            let running = if domain.is_active()? { document(0)? } else { None };
            let Some(defined) = document(sys::VIR_DOMAIN_XML_INACTIVE)? else { return Ok(None) };
            Ok(Some(definition::read(&defined, running.as_deref())?))
        })
    }

    fn define(&self, spec: &DomainSpec) -> Result<()> {
        let (plain, kvm) = (domain_xml::write(spec, false)?, domain_xml::write(spec, true)?);
        let wanted = self.options.domain_type;
        self.call(Verb::Define, Some(spec.id), move |connection| {
            let document = match wanted {
                DomainType::Qemu => plain,
                DomainType::Kvm => kvm,
                DomainType::Auto => {
                    if connection.offers_kvm() {
                        kvm
                    } else {
                        plain
                    }
                }
            };
            connection.connect.define_domain_xml_flags(&document, 0)?;
            Ok(())
        })
    }

    fn undefine(&self, id: VmId) -> Result<()> {
        self.call_in_time(Verb::Undefine, Some(id), move |connection, patience| connection.undefine(id, patience))
    }

    fn start(&self, id: VmId, how: Start) -> Result<()> {
        let flags = match how {
            Start::Running => sys::VIR_DOMAIN_NONE,
            Start::Paused => sys::VIR_DOMAIN_START_PAUSED,
        };
        self.act(Verb::Start, id, move |domain| domain.create_with_flags(flags))
    }

    fn request_shutdown(&self, id: VmId) -> Result<()> {
        self.act(Verb::RequestShutdown, id, |domain| domain.shutdown_flags(sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN))
    }

    fn request_reboot(&self, id: VmId) -> Result<()> {
        self.call_in_time(Verb::RequestReboot, Some(id), move |connection, patience| {
            connection.request_reboot(id, patience)
        })
    }

    fn destroy(&self, id: VmId) -> Result<()> {
        self.call_in_time(Verb::Destroy, Some(id), move |connection, patience| connection.destroy(id, patience))
    }

    fn pause(&self, id: VmId) -> Result<()> {
        self.act(Verb::Pause, id, Domain::suspend)
    }

    fn unpause(&self, id: VmId) -> Result<()> {
        self.act(Verb::Unpause, id, Domain::resume)
    }

    fn set_vcpus(&self, id: VmId, count: u32) -> Result<()> {
        self.call_in_time(Verb::SetVcpus, Some(id), move |connection, patience| {
            connection.set_vcpus(id, count, patience)
        })
    }

    fn set_memory(&self, id: VmId, memory: MiB) -> Result<()> {
        let kib = devices::kib(memory)?;
        self.act(Verb::SetMemory, id, move |domain| domain.set_memory_flags(kib, sys::VIR_DOMAIN_MEM_LIVE).map(drop))
    }

    fn memory(&self, id: VmId) -> Result<MiB> {
        self.call(Verb::Memory, Some(id), move |connection| connection.memory(id))
    }

    fn attach_disk(&self, id: VmId, disk: &DiskSpec) -> Result<()> {
        let disk = disk.clone();
        self.call_in_time(Verb::AttachDisk, Some(id), move |connection, patience| {
            connection.attach_disk(id, &disk, patience)
        })
    }

    fn detach_disk(&self, id: VmId, order: u32) -> Result<()> {
        self.detach(Verb::DetachDisk, id, |device| device.is_disk(order))
    }

    fn attach_nic(&self, id: VmId, nic: &NicSpec) -> Result<()> {
        let nic = nic.clone();
        self.call_in_time(Verb::AttachNic, Some(id), move |connection, patience| {
            connection.attach_nic(id, &nic, patience)
        })
    }

    fn detach_nic(&self, id: VmId, mac: Mac) -> Result<()> {
        self.detach(Verb::DetachNic, id, |device| device.is_nic(mac))
    }

    fn change_disc(&self, id: VmId, disc: Option<&VolumeSource>) -> Result<()> {
        let disc = disc.cloned();
        self.call_in_time(Verb::ChangeDisc, Some(id), move |connection, patience| {
            connection.change_disc(id, disc.as_ref(), patience)
        })
    }

    fn size(&self, id: VmId) -> Result<GuestSize> {
        self.call(Verb::Size, Some(id), move |connection| {
            let domain = connection.find(id)?;
            let state = power_state(ffi::state(&domain)?);
            if !state.is_active() {
                return Err(Verb::Size.wrong_state(id, state).into());
            }
            let info = domain.info()?;
            Ok(GuestSize { vcpus: info.nr_virt_cpu, max_memory: MiB(info.max_mem >> 10) })
        })
    }

    fn chain(&self, id: VmId, order: u32) -> Result<Vec<VolumeSource>> {
        let disk = self.live_disk(Verb::Chain, id, order)?;
        Ok(disk.chain.into_iter().map(|layer| layer.source).collect())
    }

    fn overlay_disks(&self, id: VmId, overlays: &[DiskSpec]) -> Result<()> {
        let overlays = overlays.to_vec();
        self.call_in_time(Verb::OverlayDisks, Some(id), move |connection, patience| {
            connection.overlay_disks(id, &overlays, patience)
        })
    }

    fn start_block_job(&self, id: VmId, order: u32, job: &BlockJob) -> Result<()> {
        let (job, rate) = (job.clone(), self.options.block_rate);
        self.call_in_time(Verb::StartBlockJob, Some(id), move |connection, patience| {
            connection.start_block_job(id, order, &job, rate, patience)
        })
    }

    fn block_job(&self, id: VmId, order: u32) -> Result<Option<BlockJobStatus>> {
        self.call(Verb::BlockJob, Some(id), move |connection| connection.block_job(id, order))
    }

    fn pivot(&self, id: VmId, order: u32) -> Result<()> {
        self.end_with_pivot(id, order)
    }

    fn abort_block_job(&self, id: VmId, order: u32) -> Result<()> {
        self.end_without_effect(id, order)
    }

    fn expect_guest(&self, _spec: &DomainSpec) -> Result<()> {
        Err(no_migration())
    }

    fn send_guest(&self, _id: VmId, _to: &MigrationTarget, _cancel: &AtomicBool) -> Result<()> {
        Err(no_migration())
    }

    fn transit(&self, _id: VmId) -> Result<Transit> {
        Err(no_migration())
    }

    fn take_over(&self, _id: VmId) -> Result<()> {
        Err(no_migration())
    }

    fn give_up(&self, _id: VmId) -> Result<()> {
        Err(no_migration())
    }

    fn agent_answers(&self, id: VmId) -> Result<bool> {
        self.call(Verb::AgentAnswers, Some(id), move |connection| {
            let domain = connection.find(id)?;
            // libvirt asks none that is paused.
            if power_state(ffi::state(&domain)?) == PowerState::Paused {
                return Ok(false);
            }
            match domain.qemu_agent_command(r#"{"execute":"guest-ping"}"#, AGENT_PATIENCE, 0) {
                Ok(_) => Ok(true),
                Err(silent) if errors::is_agent_silent(&silent) => Ok(false),
                Err(error) => Err(error.into()),
            }
        })
    }

    fn stats(&self) -> Result<Vec<DomainStats>> {
        self.call(Verb::Stats, None, |connection| Ok(ffi::all_stats(&connection.connect, measured::read)?))
    }

    fn addresses(&self, id: VmId) -> Result<Vec<GuestAddress>> {
        self.call(Verb::Addresses, Some(id), move |connection| connection.addresses(id))
    }

    fn screenshot(&self, id: VmId) -> Result<Screenshot> {
        self.call_in_time(Verb::Screenshot, Some(id), move |connection, patience| connection.screenshot(id, patience))
    }

    fn description(&self, id: VmId) -> Result<Option<String>> {
        self.call(Verb::Description, Some(id), move |connection| connection.description(id))
    }

    fn watch(&self, changed: Changed) {
        match self.looking.0.link(0) {
            Ok(link) => link.listen(changed),
            Err(why) => tracing::error!(error = why.story(), "nobody listens to libvirt's events"),
        }
    }

    fn has_bridge(&self, name: &str) -> Result<bool> {
        bridges::host_has_bridge(name)
    }
}

fn no_migration() -> Error {
    Error::new(ErrorKind::Unsupported {
        what: "move a running guest to another host".to_owned(),
        by: "libvirt".to_owned(),
    })
}

/// libvirt's numbers are `major * 1,000,000 + minor * 1,000 + release`.
fn version(number: u32) -> String {
    format!("{}.{}.{}", number / 1_000_000, number / 1_000 % 1_000, number % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_for_people() {
        assert_eq!(version(7_002_022), "7.2.22");
        assert_eq!(version(9_000_000), "9.0.0");
    }
}
