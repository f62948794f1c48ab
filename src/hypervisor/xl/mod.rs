//! Xen through its own tool `xl`, in a control domain.
//!
//! What Xen says of its domains is the truth; a domain is found by its uuid, and commands are given the number of one
//! incarnation of it, which no other has for a minute after it. What Xen does not keep, definitions and the images below
//! a disk, lies in a directory of ours. Every command has a deadline; one that overruns is ended with all that it started.

mod chains;
mod claims;
mod config_file;
mod console;
mod definitions;
mod devices;
mod errors;
mod hold;
mod host;
mod hotplug;
mod images;
mod measured;
mod migration;
mod parse;
mod power;
mod processes;
mod qmp;
mod seen;
mod syntax;
mod transfer;
mod watch;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use self::claims::Claims;
use self::config_file::ConfigFile;
use self::definitions::{Definitions, Kept};
use self::devices::MAX_DISKS;
use self::hold::Holds;
use self::migration::Leaving;
use self::parse::{Details, Row, RunState};
use self::seen::{Age, Seen, Sight};
use super::{
    BlockJob, BlockJobStatus, Capabilities, Changed, Hypervisor, HypervisorInfo, MigrationTarget, Start, Transit, Verb,
    bridges,
};
use crate::error::{Error, ErrorKind, Result};
use crate::exec::{Command, ExecError, Output, Runner};
use crate::model::{
    DefinedDisk, Definition, DiskSpec, DomainSpec, DomainStats, DomainStatus, Format, GuestAddress, GuestSize, HostUse,
    Mac, MiB, NicSpec, Os, PowerState, Screenshot, VmId, VolumeSource,
};

pub(super) use host::is_control_domain;
pub use migration::receive_guest;
pub use transfer::send as send_guest;

/// Who refuses.
const BY: &str = "Xen";

/// What a guest is on Xen, and what it boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guest {
    /// A whole machine with a BIOS; it boots its first disk, else its disc.
    Hvm,
    /// Its kernel knows Xen.
    Pv(Boot),
    /// As PV, with the processor's help instead of Xen's for its memory.
    Pvh(Boot),
}

/// What a guest without a BIOS boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// Files of this host.
    Kernel { kernel: PathBuf, ramdisk: Option<PathBuf>, cmdline: String },
    /// A program of Xen that finds a kernel in the first disk: `pygrub`.
    Loader(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hvm,
    Pv,
    Pvh,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Hvm => "hvm",
            Self::Pv => "pv",
            Self::Pvh => "pvh",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Hvm, Self::Pv, Self::Pvh].into_iter().find(|kind| kind.word() == word)
    }
}

impl Guest {
    fn kind(&self) -> Kind {
        match self {
            Self::Hvm => Kind::Hvm,
            Self::Pv(_) => Kind::Pv,
            Self::Pvh(_) => Kind::Pvh,
        }
    }

    fn kernel_files(&self) -> Vec<PathBuf> {
        match self {
            Self::Pv(Boot::Kernel { kernel, ramdisk, .. }) | Self::Pvh(Boot::Kernel { kernel, ramdisk, .. }) => {
                std::iter::once(kernel).chain(ramdisk).cloned().collect()
            }
            _ => Vec::new(),
        }
    }
}

#[derive(Debug, Clone)]
pub struct XlOptions {
    /// Where definitions are kept.
    pub dir: PathBuf,
    /// What guests that are defined from now on are.
    pub guest: Guest,
    /// The same, by their system.
    pub guest_of: HashMap<Os, Guest>,
    /// Whether a screen asks for its password. QEMU as Debian 12 builds it for Xen cannot, and then no guest starts; without
    /// it everybody who can reach this host's loopback address reaches the screen.
    pub screen_password: bool,
    /// The deadline of a call that only asks or tells Xen.
    pub call_timeout: Duration,
    /// The deadline of starting, powering off, plugging in and pulling out, for which Xen runs scripts and waits for QEMU. It
    /// waits 10 s for a guest.
    pub power_timeout: Duration,
    /// How long a guest may take to acknowledge that it was asked to power off or reboot.
    pub request_timeout: Duration,
    /// How long a guest may take to be moved to another host.
    pub migration_timeout: Duration,
    /// How long the last run of a guest may take to be gone when it is started again.
    pub teardown_timeout: Duration,
    /// The most bytes per second that a block job moves; 0 is no limit.
    pub block_rate: u64,
    /// This program, as a child of `xl` runs it.
    pub program: PathBuf,
    /// Where Xen puts the sockets of its QEMUs.
    pub run_dir: PathBuf,
}

impl XlOptions {
    /// HVM guests, and what suits a host that is not overloaded.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            guest: Guest::Hvm,
            guest_of: HashMap::new(),
            screen_password: false,
            call_timeout: Duration::from_secs(20),
            power_timeout: Duration::from_secs(120),
            request_timeout: Duration::from_secs(10),
            migration_timeout: Duration::from_secs(6 * 3600),
            teardown_timeout: Duration::from_secs(10),
            block_rate: 0,
            // Found now: it may be replaced while we run.
            program: std::env::current_exe().unwrap_or_else(|_| "/usr/bin/pengx".into()),
            run_dir: PathBuf::from("/run/xen"),
        }
    }

    fn guest_for(&self, spec: &DomainSpec) -> &Guest {
        spec.os.and_then(|os| self.guest_of.get(&os)).unwrap_or(&self.guest)
    }
}

pub struct XlHypervisor {
    inner: Arc<Inner>,
}

struct Inner {
    options: XlOptions,
    runner: Arc<dyn Runner>,
    definitions: Definitions,
    seen: Seen,
    claims: Claims,
    holds: Arc<Holds>,
    leaving: Leaving,
    /// Shared by those who start a domain; alone, crashed ones are ended.
    starting: RwLock<()>,
}

impl XlHypervisor {
    /// Looks at files of this host only. `Invalid` when it is no control domain of Xen, or we are not its root.
    pub fn new(options: XlOptions, runner: Arc<dyn Runner>) -> Result<Self> {
        host::check()?;
        Self::with_runner(options, runner)
    }

    fn with_runner(options: XlOptions, runner: Arc<dyn Runner>) -> Result<Self> {
        let definitions = Definitions::open(&options.dir)?;
        let inner = Inner {
            options,
            runner,
            definitions,
            seen: Seen::default(),
            claims: Claims::default(),
            holds: Arc::default(),
            leaving: Leaving::default(),
            starting: RwLock::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

fn unsupported(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported { what: what.to_owned(), by: BY.to_owned() })
}

fn is_running(row: &Row) -> bool {
    row.state == RunState::Running
}

fn is_active(row: &Row) -> bool {
    matches!(row.state, RunState::Running | RunState::Paused | RunState::Suspended)
}

impl Inner {
    fn tool<A: Into<OsString>>(
        &self,
        program: &str,
        deadline: Duration,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Output, ExecError> {
        self.runner.run_quietly(&Command::new(program, deadline).args(args).for_the_host())
    }

    fn xl<A: Into<OsString>>(
        &self,
        deadline: Duration,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Output, ExecError> {
        self.tool("xl", deadline, args)
    }

    fn file(&self, spec: &DomainSpec) -> ConfigFile {
        let screen = self.options.screen_password.then(|| spec.vnc_password.clone());
        let guest = self.options.guest_for(spec).clone();
        ConfigFile { spec: spec.clone(), guest, written: Vec::new(), screen }
    }

    /// Of one domain by its number, or of all.
    fn details(&self, domid: Option<u32>) -> Result<Vec<Details>> {
        let args = ["list".to_owned(), "-l".to_owned()].into_iter().chain(domid.map(|domid| domid.to_string()));
        let said = self.xl(self.options.call_timeout, args).map_err(errors::explain)?;
        parse::details(&said.stdout)
    }

    fn details_of(&self, row: &Row) -> Result<Details> {
        let found = self.details(Some(row.domid))?.into_iter().find(|details| details.domid == row.domid);
        found.ok_or_else(|| Error::refused(BY, format!("domain {} ended meanwhile", row.domid)))
    }

    /// The domain, if it is as the verb needs it. What was seen within the last second will do for going ahead, but not for a
    /// refusal.
    fn find(&self, verb: Verb, id: VmId, fits: impl Fn(&Row) -> bool) -> Result<Row> {
        for age in [Age::Recent, Age::Fresh] {
            let sight = self.look(age)?;
            if let Some(row) = sight.row(id).filter(|row| fits(row)) {
                return Ok(row.clone());
            }
            if age == Age::Fresh {
                return Err(refusal(verb, id, &sight));
            }
        }
        Err(Error::internal("a look that neither found nor refused"))
    }

    fn find_active(&self, verb: Verb, id: VmId) -> Result<Row> {
        self.find(verb, id, is_active)
    }

    /// As [`Inner::act_to`], where nobody knows how the domain looks afterwards.
    fn act(
        &self,
        verb: Verb,
        id: VmId,
        fits: impl Fn(&Row) -> bool,
        command: impl FnOnce(&Row) -> Result<()>,
    ) -> Result<()> {
        self.act_to(verb, id, fits, |row| command(row).map(|()| None))
    }

    /// One command to one domain, and the state that this puts it in, if that is known. When it fails because the domain is not
    /// any more as it was when we looked, that is said.
    fn act_to(
        &self,
        verb: Verb,
        id: VmId,
        fits: impl Fn(&Row) -> bool,
        command: impl FnOnce(&Row) -> Result<Option<RunState>>,
    ) -> Result<()> {
        let row = self.find(verb, id, &fits)?;
        let done = command(&row);
        match &done {
            Ok(Some(state)) if *state == row.state => {}
            Ok(Some(state)) => self.show(id, Some(Row { state: *state, ..row.clone() })),
            _ => self.seen.touch(),
        }
        match done {
            Err(error) if matches!(error.kind(), ErrorKind::Refused { .. }) => {
                let sight = self.look(Age::Fresh)?;
                match sight.row(id) {
                    Some(now) if now.domid == row.domid && fits(now) => Err(error),
                    _ => Err(refusal(verb, id, &sight).caused_by(error)),
                }
            }
            other => other.map(drop),
        }
    }

    /// `xl VERB DOMID ARGS…`, for which Xen waits for nobody.
    fn tell<const N: usize>(&self, row: &Row, verb: &str, args: [String; N]) -> Result<()> {
        let words = [verb.to_owned(), row.domid.to_string()].into_iter().chain(args);
        self.xl(self.options.call_timeout, words).map(drop).map_err(errors::explain)
    }

    fn defined(&self, id: VmId) -> Result<Option<Definition>> {
        let sight = self.look(Age::Recent)?;
        let details = match sight.row(id) {
            Some(row) => self.details(Some(row.domid))?.into_iter().find(|details| details.domid == row.domid),
            None => None,
        };
        let Some(file) = self.definitions.read(id, Kept::Definition)? else {
            return Ok(details.map(foreign));
        };
        let spec = &file.spec;
        let mut definition = Definition {
            name: config_file::domain_name(id),
            vcpus: spec.vcpus,
            memory: spec.memory,
            max_memory: spec.max_memory,
            disks: spec.disks.iter().map(defined_disk).collect(),
            macs: spec.nics.iter().map(|nic| nic.mac).collect(),
            files: files(spec),
        };
        definition.disks.sort_by_key(|disk| disk.order);
        definition.macs.sort();
        if let Some(details) = details {
            definition.files.extend(live_files(&details).filter(|file| file != self.definitions.blank()));
            if let Some(run) = self.definitions.read(id, Kept::Run)? {
                definition.files.extend(files(&run.spec));
            }
        }
        Ok(Some(definition))
    }
}

/// Why the verb does nothing to it.
fn refusal(verb: Verb, id: VmId, sight: &Sight) -> Error {
    match sight.state(id) {
        None => Error::not_found("vm", id),
        Some(_) if sight.is_rebooting(id) => Error::refused(BY, format!("vm {id} is rebooting; ask again in a moment")),
        Some(state) => verb.wrong_state(id, state),
    }
}

fn path(VolumeSource::File(file): &VolumeSource) -> PathBuf {
    file.clone()
}

fn files(spec: &DomainSpec) -> std::collections::BTreeSet<PathBuf> {
    let images = spec.disks.iter().flat_map(DiskSpec::chain).map(|layer| path(&layer.source));
    images.chain(spec.disc.iter().map(path)).chain(spec.console.iter().map(path)).collect()
}

fn live_files(details: &Details) -> impl Iterator<Item = PathBuf> {
    details.disks.iter().map(|disk| PathBuf::from(&disk.path)).filter(|file| file.is_absolute())
}

fn defined_disk(disk: &DiskSpec) -> DefinedDisk {
    DefinedDisk { order: Some(disk.order), file: Some(path(&disk.source)), format: disk.format.word().to_owned() }
}

/// Somebody else's domain is as it runs; there is nothing else of it.
fn foreign(details: Details) -> Definition {
    let kind = details.kind;
    let mut disks: Vec<DefinedDisk> = details
        .disks
        .iter()
        .filter(|disk| disk.writable)
        .map(|disk| DefinedDisk {
            order: devices::order(kind, &disk.place),
            file: Some(PathBuf::from(&disk.path)).filter(|file| file.is_absolute()),
            format: disk.format.clone(),
        })
        .collect();
    disks.sort_by_key(|disk| disk.order);
    let mut macs: Vec<Mac> = details.nics.iter().filter_map(|nic| nic.mac.parse().ok()).collect();
    macs.sort();
    Definition {
        vcpus: details.vcpus,
        memory: details.memory,
        max_memory: details.max_memory,
        disks,
        macs,
        files: live_files(&details).collect(),
        name: details.name,
    }
}

impl Hypervisor for XlHypervisor {
    fn kind(&self) -> &'static str {
        "xl"
    }

    fn info(&self) -> Result<HypervisorInfo> {
        let info = self.inner.info()?;
        Ok(HypervisorInfo { version: format!("Xen {}", info.version), cpus: info.cpus, memory: info.memory })
    }

    fn host_use(&self) -> Result<Option<HostUse>> {
        self.inner.host_use().map(Some)
    }

    fn capabilities(&self, spec: &DomainSpec) -> Capabilities {
        Capabilities {
            formats: &[Format::Qcow2, Format::Raw],
            max_vcpus: 32,
            max_disks: MAX_DISKS,
            max_nics: 8,
            user_network: false,
            pause: true,
            live_vcpus: true,
            live_memory: true,
            live_disks: true,
            live_nics: true,
            live_disc: self.inner.options.guest_for(spec).kind() == Kind::Hvm,
            live_chains: true,
            live_migration: spec.pci.is_none(),
            // Debian builds the QEMU that serves Xen without it.
            zstd: false,
            mac_prefix: [0x00, 0x16, 0x3e],
        }
    }

    fn domains(&self) -> Result<Vec<DomainStatus>> {
        self.inner.statuses(Age::Recent)
    }

    fn domain(&self, id: VmId) -> Result<Option<DomainStatus>> {
        let sight = self.inner.look(Age::Recent)?;
        Ok(self.inner.status(&sight, id))
    }

    fn defined(&self, id: VmId) -> Result<Option<Definition>> {
        self.inner.defined(id)
    }

    fn define(&self, spec: &DomainSpec) -> Result<()> {
        let done = self.inner.definitions.write(&self.inner.file(spec), Kept::Definition);
        self.inner.show(spec.id, None);
        done
    }

    fn undefine(&self, id: VmId) -> Result<()> {
        let sight = self.inner.look(Age::Fresh)?;
        let state = sight.state(id).unwrap_or(PowerState::Shutdown);
        if state.is_active() {
            return Err(Verb::Undefine.wrong_state(id, state));
        }
        // What is left of its last run would be a stranger's from then on.
        self.inner.end_all(id, &sight)?;
        let done = self.inner.definitions.forget(id);
        self.inner.seen.touch();
        done
    }

    fn start(&self, id: VmId, how: Start) -> Result<()> {
        self.inner.start(id, how)
    }

    fn request_shutdown(&self, id: VmId) -> Result<()> {
        self.inner.request(Verb::RequestShutdown, id, "shutdown")
    }

    fn request_reboot(&self, id: VmId) -> Result<()> {
        self.inner.request(Verb::RequestReboot, id, "reboot")
    }

    fn destroy(&self, id: VmId) -> Result<()> {
        self.inner.destroy(id)
    }

    fn pause(&self, id: VmId) -> Result<()> {
        // Xen counts, and a guest that was paused twice stands still until it was resumed twice.
        let fits = |row: &Row| is_running(row) || self.inner.definitions.has(id, Kept::Hold);
        let paused = self
            .inner
            .act_to(Verb::Pause, id, fits, |row| self.inner.tell(row, "pause", []).map(|()| Some(RunState::Paused)));
        match paused {
            Err(error) if matches!(error.kind(), ErrorKind::WrongState { .. }) => {
                let state = self.inner.look(Age::Recent)?.state(id);
                if state == Some(PowerState::Paused) { Ok(()) } else { Err(error) }
            }
            other => other,
        }
    }

    fn unpause(&self, id: VmId) -> Result<()> {
        let is_paused = |row: &Row| matches!(row.state, RunState::Paused | RunState::Suspended);
        self.inner.act_to(Verb::Unpause, id, is_paused, |row| {
            if row.state == RunState::Suspended {
                return self.inner.resume(row).map(|()| None);
            }
            if self.inner.look(Age::Recent)?.is_held(id) {
                return self.inner.let_go_on(id).map(|()| None);
            }
            self.inner.tell(row, "unpause", []).map(|()| Some(RunState::Running))
        })
    }

    fn set_vcpus(&self, id: VmId, count: u32) -> Result<()> {
        self.inner.set_vcpus(id, count)
    }

    fn set_memory(&self, id: VmId, memory: MiB) -> Result<()> {
        self.inner.act(Verb::SetMemory, id, is_active, |row| {
            let most = self.inner.details_of(row)?.max_memory;
            if memory > most {
                return Err(Error::refused(BY, format!("the guest was started with at most {most} MiB")));
            }
            self.inner.tell(row, "mem-set", [format!("{memory}m")])?;
            self.inner.amend_run(row, |run| run.spec.memory = memory)
        })
    }

    fn memory(&self, id: VmId) -> Result<MiB> {
        self.inner.find_active(Verb::Memory, id).map(|row| row.memory)
    }

    fn size(&self, id: VmId) -> Result<GuestSize> {
        let row = self.inner.find_active(Verb::Size, id)?;
        let details = self.inner.details_of(&row)?;
        Ok(GuestSize { vcpus: self.inner.vcpus(&row)?, max_memory: details.max_memory })
    }

    fn attach_disk(&self, id: VmId, disk: &DiskSpec) -> Result<()> {
        self.inner.attach_disk(id, disk)
    }

    fn detach_disk(&self, id: VmId, order: u32) -> Result<()> {
        self.inner.detach_disk(id, order)
    }

    fn attach_nic(&self, id: VmId, nic: &NicSpec) -> Result<()> {
        self.inner.attach_nic(id, nic)
    }

    fn detach_nic(&self, id: VmId, mac: Mac) -> Result<()> {
        self.inner.detach_nic(id, mac)
    }

    fn change_disc(&self, id: VmId, disc: Option<&VolumeSource>) -> Result<()> {
        self.inner.change_disc(id, disc)
    }

    fn chain(&self, id: VmId, order: u32) -> Result<Vec<VolumeSource>> {
        self.inner.chain(id, order, Verb::Chain)
    }

    fn overlay_disks(&self, id: VmId, overlays: &[DiskSpec]) -> Result<()> {
        self.inner.overlay_disks(id, overlays)
    }

    fn start_block_job(&self, id: VmId, order: u32, job: &BlockJob) -> Result<()> {
        self.inner.start_block_job(id, order, job)
    }

    fn block_job(&self, id: VmId, order: u32) -> Result<Option<BlockJobStatus>> {
        self.inner.block_job(id, order)
    }

    fn pivot(&self, id: VmId, order: u32) -> Result<()> {
        self.inner.pivot(id, order)
    }

    fn abort_block_job(&self, id: VmId, order: u32) -> Result<()> {
        self.inner.abort_block_job(id, order)
    }

    fn expect_guest(&self, spec: &DomainSpec) -> Result<()> {
        self.inner.expect_guest(&self.inner.file(spec))
    }

    fn send_guest(&self, id: VmId, to: &MigrationTarget, cancel: &AtomicBool) -> Result<()> {
        self.inner.send_guest(id, to, cancel)
    }

    fn transit(&self, id: VmId) -> Result<Transit> {
        self.inner.transit(id)
    }

    fn take_over(&self, id: VmId) -> Result<()> {
        self.inner.take_over(id)
    }

    fn give_up(&self, id: VmId) -> Result<()> {
        self.inner.give_up(id)
    }

    /// Xen has no way to an agent.
    fn agent_answers(&self, id: VmId) -> Result<bool> {
        self.inner.find_active(Verb::AgentAnswers, id).map(|_| false)
    }

    fn stats(&self) -> Result<Vec<DomainStats>> {
        self.inner.stats()
    }

    fn addresses(&self, id: VmId) -> Result<Vec<GuestAddress>> {
        self.inner.addresses(id)
    }

    fn screenshot(&self, id: VmId) -> Result<Screenshot> {
        self.inner.screenshot(id)
    }

    fn description(&self, id: VmId) -> Result<Option<String>> {
        self.inner.description(id)
    }

    fn watch(&self, changed: Changed) {
        watch::start(&self.inner, changed);
    }

    fn has_bridge(&self, name: &str) -> Result<bool> {
        bridges::host_has_bridge(name)
    }
}

/// Whether there is something at this path, without a look through a mount that may be dead.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[cfg(test)]
mod tests;
