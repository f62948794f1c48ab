//! A complete hypervisor in memory: the backend of demonstrations and of most tests. It obeys the laws of the trait and
//! refuses what libvirt refuses; its guests do what they are asked at once.
//!
//! [`FakeHypervisor`] is a handle: clones share one world, so a test can take the server down and up around it.

mod chains;
mod faults;
mod measured;
mod migration;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use self::chains::Job;
use self::faults::Faults;
use self::measured::Meter;
use self::migration::Half;
use super::{
    BlockJob, BlockJobStatus, Capabilities, Changed, Hypervisor, HypervisorInfo, MigrationTarget, Start, Transit, Verb,
};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{
    DefinedDisk, Definition, DiskSpec, DomainSpec, DomainStats, DomainStatus, Format, GuestAddress, GuestSize, HostUse,
    Mac, MiB, NicLink, NicSpec, PowerState, Screenshot, VmId, VncEndpoint, VolumeSource,
};

pub use self::faults::Answer;

const FIRST_SCREEN: u16 = 5900;

#[derive(Clone)]
pub struct FakeHypervisor {
    world: Arc<World>,
}

struct World {
    state: Mutex<State>,
    listeners: Mutex<Vec<Changed>>,
    faults: Faults,
}

struct State {
    domains: BTreeMap<VmId, Domain>,
    bridges: Vec<String>,
    screens: u16,
    /// How many runs there were.
    runs: u32,
    /// Where guests are reached.
    addresses: BTreeMap<VmId, Vec<GuestAddress>>,
    can: Capabilities,
    jobs_are_held: bool,
    /// What guests say when they have come up: to their console, and whether through their agent.
    greeting: (String, bool),
    /// Guests that are to come from another host.
    expected: BTreeSet<VmId>,
    reached: BTreeMap<IpAddr, Weak<World>>,
    /// How far the next guest gets that is sent.
    broken: Option<(Transit, Transit)>,
}

struct Domain {
    spec: DomainSpec,
    /// `None` when off.
    run: Option<Run>,
    /// How the last run ended.
    ended: PowerState,
    /// The guest does not obey.
    deaf: bool,
    /// What a migration has left of its run.
    half: Option<Half>,
}

#[derive(Clone)]
struct Run {
    paused: bool,
    screen: u16,
    number: u32,
    meter: Meter,
    /// What it was started with and what was plugged in since, whatever was defined meanwhile.
    has: DomainSpec,
    /// By the order of the disk.
    jobs: BTreeMap<u32, Job>,
}

impl Run {
    /// Nobody else may read it.
    fn writes(&self, image: &VolumeSource) -> bool {
        let disks = self.has.disks.iter().any(|disk| disk.source == *image);
        disks || self.jobs.values().any(|job| job.writes(image))
    }

    /// Nobody else may write it.
    fn reads(&self, image: &VolumeSource) -> bool {
        self.has.disks.iter().any(|disk| disk.backing.iter().any(|layer| layer.source == *image))
    }
}

fn path(disk: &DiskSpec) -> &Path {
    let VolumeSource::File(file) = &disk.source;
    file
}

impl Default for FakeHypervisor {
    fn default() -> Self {
        Self::new()
    }
}

/// What tests do to it. Nothing here counts as a call.
impl FakeHypervisor {
    pub fn new() -> Self {
        let state = State {
            domains: BTreeMap::new(),
            bridges: ["xenbr0", "xenbr1", "virbr0"].map(str::to_owned).to_vec(),
            screens: 0,
            runs: 0,
            addresses: BTreeMap::new(),
            can: everything(),
            jobs_are_held: false,
            greeting: ("fake login: ".to_owned(), true),
            expected: BTreeSet::new(),
            reached: BTreeMap::new(),
            broken: None,
        };
        let world = World { state: Mutex::new(state), listeners: Mutex::default(), faults: Faults::default() };
        Self { world: Arc::new(world) }
    }

    /// The next call of `verb` fails; may be given several times.
    pub fn fail_next(&self, verb: Verb, answer: Answer) {
        self.world.faults.fail_next(verb, answer);
    }

    /// Every call of `verb` fails until [`FakeHypervisor::heal`].
    pub fn fail_every(&self, verb: Verb, answer: Answer) {
        self.world.faults.fail_every(verb, answer);
    }

    /// The `n`-th effect from now fails, of whatever verb; 1 is the next.
    pub fn fail_effect(&self, n: u64, answer: Answer) {
        self.world.faults.fail_effect(n, answer);
    }

    /// `false`: everything is `Unavailable` until `true`. Listeners hear of both.
    pub fn set_reachable(&self, reachable: bool) {
        self.world.faults.set_reachable(reachable);
        self.world.changed();
    }

    /// Calls of `verb` wait until released, a minute at most.
    pub fn hold(&self, verb: Verb) {
        self.world.faults.hold(verb);
    }

    pub fn release(&self, verb: Verb) {
        self.world.faults.release(verb);
    }

    /// Whether so many calls of `verb` were waiting at once before `within` was over.
    pub fn wait_held(&self, verb: Verb, count: usize, within: Duration) -> bool {
        self.world.faults.wait_held(verb, count, within)
    }

    /// No fault, no gate, reachable.
    pub fn heal(&self) {
        self.world.faults.heal();
    }

    /// How often `verb` was called, refused or not.
    pub fn calls(&self, verb: Verb) -> u64 {
        self.world.faults.calls(verb)
    }

    pub fn all_calls(&self) -> u64 {
        self.world.faults.all_calls()
    }

    /// Calls that change something and that reached the hypervisor.
    pub fn effects(&self) -> u64 {
        self.world.faults.effects()
    }

    /// The guest hears nothing: neither shutdown nor reboot, and it gives up neither memory nor devices. False when there is no such domain.
    pub fn set_deaf(&self, id: VmId, deaf: bool) -> bool {
        let mut state = self.world.lock();
        state.domains.get_mut(&id).map(|domain| domain.deaf = deaf).is_some()
    }

    /// Puts the screen of a running domain to where a test has one. False when it does not run.
    pub fn put_screen(&self, id: VmId, port: u16) -> bool {
        let put = |domain: &mut Domain| domain.run.as_mut().map(|run| run.screen = port).is_some();
        let put = self.world.lock().domains.get_mut(&id).is_some_and(put);
        self.world.changed();
        put
    }

    /// The domain dies of itself. False when it does not run.
    pub fn crash(&self, id: VmId) -> bool {
        self.end(id, PowerState::Crashed)
    }

    /// The guest switches itself off. False when it does not run.
    pub fn power_off_inside(&self, id: VmId) -> bool {
        self.end(id, PowerState::Shutdown)
    }

    fn end(&self, id: VmId, how: PowerState) -> bool {
        let ended = self.world.lock().domains.get_mut(&id).is_some_and(|domain| domain.end(how));
        self.world.changed();
        ended
    }

    /// What a running domain has now: what it was started with and what was plugged in since. `None` when it is off.
    pub fn running(&self, id: VmId) -> Option<DomainSpec> {
        let state = self.world.lock();
        state.domains.get(&id).and_then(|domain| domain.run.as_ref()).map(|run| run.has.clone())
    }

    /// What it says that it can do.
    pub fn set_capabilities(&self, change: impl FnOnce(&mut Capabilities)) {
        change(&mut self.world.lock().can);
    }

    /// `true`: block jobs that are begun from now on move nothing, until `false`.
    pub fn hold_jobs(&self, hold: bool) {
        self.world.lock().hold_jobs(hold);
    }

    /// What guests write to their console when they are started, and whether their agent answers.
    pub fn set_greeting(&self, console: &str, agent: bool) {
        self.world.lock().greeting = (console.to_owned(), agent);
    }

    /// Where a guest is reached while it runs.
    pub fn set_addresses(&self, id: VmId, addresses: Vec<GuestAddress>) {
        self.world.lock().addresses.insert(id, addresses);
    }

    /// So much time passes at once for every guest that is not paused: its counters grow.
    pub fn let_pass(&self, time: Duration) {
        let mut state = self.world.lock();
        let runs = state.domains.values_mut().filter_map(|domain| domain.run.as_mut());
        runs.for_each(|run| run.meter.pass(time));
    }

    /// The bridges of the host.
    pub fn set_bridges(&self, names: &[&str]) {
        self.world.lock().bridges = names.iter().map(|&name| name.to_owned()).collect();
    }

    /// Everything that is defined, by id.
    pub fn definitions(&self) -> Vec<DomainSpec> {
        self.world.lock().domains.values().map(|domain| domain.spec.clone()).collect()
    }

    /// Every state, by id.
    pub fn states(&self) -> Vec<(VmId, PowerState)> {
        self.world.lock().domains.iter().map(|(id, domain)| (*id, domain.state())).collect()
    }
}

impl World {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The listeners are called without any lock: they may ask.
    fn changed(&self) {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for changed in listeners {
            changed();
        }
    }

    fn read<T>(&self, verb: Verb, read: impl FnOnce(&State) -> T) -> Result<T> {
        let lost = self.faults.enter(verb)?;
        let value = read(&self.lock());
        lost.map_or(Ok(value), |kind| Err(Error::new(kind)))
    }

    fn effect(&self, verb: Verb, effect: impl FnOnce(&mut State) -> Result<()>) -> Result<()> {
        let lost = self.faults.enter(verb)?;
        effect(&mut self.lock())?;
        self.changed();
        lost.map_or(Ok(()), |kind| Err(Error::new(kind)))
    }
}

impl State {
    fn domain(&mut self, id: VmId) -> Result<&mut Domain> {
        self.domains.get_mut(&id).ok_or_else(|| Error::not_found("vm", id))
    }

    /// The run of a domain, paused or not; else the refusal of `verb`.
    fn run(&mut self, id: VmId, verb: Verb) -> Result<&mut Run> {
        let domain = self.domain(id)?;
        let refusal = verb.wrong_state(id, domain.state());
        domain.run.as_mut().ok_or(refusal)
    }

    /// A domain whose guest can be asked something; else the refusal of `verb`.
    fn listening(&mut self, id: VmId, verb: Verb) -> Result<&mut Domain> {
        let domain = self.domain(id)?;
        match domain.state() {
            PowerState::Running => Ok(domain),
            other => Err(verb.wrong_state(id, other)),
        }
    }

    /// Whether a domain can open what its spec names, or why it cannot.
    fn check(&self, id: VmId, spec: &DomainSpec) -> Result<()> {
        spec.disks.iter().try_for_each(|disk| self.check_disk(id, disk))?;
        spec.nics.iter().try_for_each(|nic| self.check_nic(nic))?;
        check_disc(spec.console.as_ref())?;
        check_disc(spec.disc.as_ref())
    }

    fn check_disk(&self, id: VmId, disk: &DiskSpec) -> Result<()> {
        self.check_image(id, &disk.source, true)?;
        disk.backing.iter().try_for_each(|layer| self.check_image(id, &layer.source, false))
    }

    /// It is there, and no other domain stands in the way.
    fn check_image(&self, id: VmId, image: &VolumeSource, to_write: bool) -> Result<()> {
        let VolumeSource::File(file) = image;
        check_file(file)?;
        let others = self.domains.iter().filter(|(other, _)| **other != id);
        let mut runs = others.filter_map(|(_, domain)| domain.run.as_ref());
        if runs.any(|run| run.writes(image) || (to_write && run.reads(image))) {
            return Err(refused(format!("Is another process using the image [{}]?", file.display())));
        }
        Ok(())
    }

    fn check_nic(&self, nic: &NicSpec) -> Result<()> {
        match &nic.link {
            NicLink::Bridge(name) if !self.bridges.contains(name) => {
                Err(refused(format!("Cannot get interface MTU on '{name}': No such device")))
            }
            NicLink::Bridge(_) | NicLink::User | NicLink::Unplugged => Ok(()),
        }
    }

    /// As [`State::run`], for a verb that a deaf guest does not answer.
    fn letting_go(&mut self, id: VmId, verb: Verb) -> Result<&mut DomainSpec> {
        let deaf = self.domain(id)?.deaf;
        let has = &mut self.run(id, verb)?.has;
        if deaf {
            let action = format!("the guest of vm {id} did not let go");
            return Err(Error::new(ErrorKind::Timeout { action, after: Duration::from_secs(5) }));
        }
        Ok(has)
    }

    fn start(&mut self, id: VmId, how: Start) -> Result<()> {
        let domain = self.domains.get(&id).ok_or_else(|| Error::not_found("vm", id))?;
        if domain.run.is_some() {
            return Err(Verb::Start.wrong_state(id, domain.state()));
        }
        if domain.half.is_some() || self.expected.contains(&id) {
            return Err(refused(format!("vm {id} is on its way between two hosts")));
        }
        self.check(id, &domain.spec)?;
        let has = domain.spec.clone();
        if let Some(VolumeSource::File(console)) = &has.console {
            std::fs::write(console, &self.greeting.0).map_err(|e| refused(format!("{}: {e}", console.display())))?;
        }
        let screen = FIRST_SCREEN.saturating_add(self.screens);
        self.screens = self.screens.wrapping_add(1) % 1000;
        self.runs = self.runs.wrapping_add(1);
        let (paused, number) = (how == Start::Paused, self.runs);
        let run = Run { paused, screen, number, meter: Meter::new(paused), has, jobs: BTreeMap::new() };
        self.domain(id)?.run = Some(run);
        Ok(())
    }
}

impl Domain {
    fn new(spec: DomainSpec) -> Self {
        Self { spec, run: None, ended: PowerState::Shutdown, deaf: false, half: None }
    }

    fn state(&self) -> PowerState {
        match &self.run {
            Some(Run { paused: true, .. }) => PowerState::Paused,
            Some(_) => PowerState::Running,
            None if self.half.as_ref().is_some_and(Half::is_shown) => PowerState::Paused,
            None => self.ended,
        }
    }

    fn status(&self) -> DomainStatus {
        let vnc = self.run.as_ref().map(|run| VncEndpoint { host: "127.0.0.1".to_owned(), port: run.screen });
        let number = self.run.as_ref().map(|run| run.number);
        DomainStatus { id: self.spec.id, state: self.state(), vnc, number }
    }

    fn definition(&self) -> Definition {
        let has = self.run.as_ref().map(|run| &run.has);
        let jobs = self.run.as_ref().map(|run| run.jobs.values().filter_map(Job::target));
        let disks = self.spec.disks.iter().chain(has.into_iter().flat_map(|has| &has.disks));
        let disk_files = disks.flat_map(DiskSpec::chain).map(|layer| layer.source);
        let discs = self.spec.disc.iter().chain(has.and_then(|has| has.disc.as_ref())).cloned();
        let files = disk_files.chain(discs).chain(jobs.into_iter().flatten().cloned());
        let disk = |disk: &DiskSpec| DefinedDisk {
            order: Some(disk.order),
            file: Some(path(disk).to_owned()),
            format: disk.format.word().to_owned(),
        };
        let mut definition = Definition {
            name: format!("pengx-{}", self.spec.id),
            vcpus: self.spec.vcpus,
            memory: self.spec.memory,
            max_memory: self.spec.max_memory,
            disks: self.spec.disks.iter().map(disk).collect(),
            macs: self.spec.nics.iter().map(|nic| nic.mac).collect(),
            files: files.map(|VolumeSource::File(file)| file).collect(),
        };
        definition.macs.sort();
        definition.disks.sort_by_key(|disk| disk.order);
        definition
    }

    fn end(&mut self, how: PowerState) -> bool {
        let ended = self.run.take().is_some();
        if ended {
            self.ended = how;
        }
        ended
    }
}

impl Hypervisor for FakeHypervisor {
    fn kind(&self) -> &'static str {
        "fake"
    }

    fn info(&self) -> Result<HypervisorInfo> {
        self.world.read(Verb::Info, |_| HypervisorInfo {
            version: "fake hypervisor in memory".to_owned(),
            cpus: 16,
            memory: MiB(64 << 10),
        })
    }

    fn host_use(&self) -> Result<Option<HostUse>> {
        Ok(None)
    }

    fn capabilities(&self, _spec: &DomainSpec) -> Capabilities {
        self.world.lock().can.clone()
    }

    fn domains(&self) -> Result<Vec<DomainStatus>> {
        self.world.read(Verb::Domains, |state| state.domains.values().map(Domain::status).collect())
    }

    fn domain(&self, id: VmId) -> Result<Option<DomainStatus>> {
        self.world.read(Verb::Domain, |state| state.domains.get(&id).map(Domain::status))
    }

    fn defined(&self, id: VmId) -> Result<Option<Definition>> {
        self.world.read(Verb::Defined, |state| state.domains.get(&id).map(Domain::definition))
    }

    fn define(&self, spec: &DomainSpec) -> Result<()> {
        self.world.effect(Verb::Define, |state| {
            match state.domains.get_mut(&spec.id) {
                Some(domain) => domain.spec = spec.clone(),
                None => {
                    state.domains.insert(spec.id, Domain::new(spec.clone()));
                }
            }
            Ok(())
        })
    }

    fn undefine(&self, id: VmId) -> Result<()> {
        self.world.effect(Verb::Undefine, |state| match state.domains.get(&id) {
            Some(domain) if domain.run.is_some() => Err(Verb::Undefine.wrong_state(id, domain.state())),
            _ => {
                state.domains.remove(&id);
                Ok(())
            }
        })
    }

    fn start(&self, id: VmId, how: Start) -> Result<()> {
        self.world.effect(Verb::Start, |state| state.start(id, how))
    }

    fn request_shutdown(&self, id: VmId) -> Result<()> {
        self.world.effect(Verb::RequestShutdown, |state| {
            let domain = state.listening(id, Verb::RequestShutdown)?;
            if !domain.deaf {
                domain.end(PowerState::Shutdown);
            }
            Ok(())
        })
    }

    fn request_reboot(&self, id: VmId) -> Result<()> {
        self.world.effect(Verb::RequestReboot, |state| state.listening(id, Verb::RequestReboot).map(drop))
    }

    fn destroy(&self, id: VmId) -> Result<()> {
        self.world.effect(Verb::Destroy, |state| {
            if let Some(domain) = state.domains.get_mut(&id) {
                domain.half.take_if(|half| half.is_shown());
                domain.end(PowerState::Shutdown);
            }
            Ok(())
        })
    }

    fn pause(&self, id: VmId) -> Result<()> {
        self.world.effect(Verb::Pause, |state| {
            let run = state.run(id, Verb::Pause)?;
            run.paused = true;
            run.meter.pause(true);
            Ok(())
        })
    }

    fn unpause(&self, id: VmId) -> Result<()> {
        self.world.effect(Verb::Unpause, |state| match state.run(id, Verb::Unpause)? {
            run @ Run { paused: true, .. } => {
                run.paused = false;
                run.meter.pause(false);
                Ok(())
            }
            Run { .. } => Err(Verb::Unpause.wrong_state(id, PowerState::Running)),
        })
    }

    fn set_vcpus(&self, id: VmId, count: u32) -> Result<()> {
        self.world.effect(Verb::SetVcpus, |state| {
            let has = &mut state.run(id, Verb::SetVcpus)?.has;
            if count < has.vcpus || count > has.max_vcpus {
                return Err(refused(format!("vcpus {count} are not from {} to {}", has.vcpus, has.max_vcpus)));
            }
            has.vcpus = count;
            Ok(())
        })
    }

    fn set_memory(&self, id: VmId, memory: MiB) -> Result<()> {
        self.world.effect(Verb::SetMemory, |state| {
            let deaf = state.domain(id)?.deaf;
            let has = &mut state.run(id, Verb::SetMemory)?.has;
            if memory > has.max_memory {
                return Err(refused(format!("cannot set memory higher than max memory, {} MiB", has.max_memory)));
            }
            if !deaf {
                has.memory = memory;
            }
            Ok(())
        })
    }

    fn memory(&self, id: VmId) -> Result<MiB> {
        self.world.read(Verb::Memory, |state| {
            let domain = state.domains.get(&id).ok_or_else(|| Error::not_found("vm", id))?;
            let run = domain.run.as_ref().ok_or_else(|| Verb::Memory.wrong_state(id, domain.state()))?;
            Ok(run.has.memory)
        })?
    }

    fn size(&self, id: VmId) -> Result<GuestSize> {
        self.world.read(Verb::Size, |state| {
            let domain = state.domains.get(&id).ok_or_else(|| Error::not_found("vm", id))?;
            let run = domain.run.as_ref().ok_or_else(|| Verb::Size.wrong_state(id, domain.state()))?;
            Ok(GuestSize { vcpus: run.has.vcpus, max_memory: run.has.max_memory })
        })?
    }

    fn attach_disk(&self, id: VmId, disk: &DiskSpec) -> Result<()> {
        self.world.effect(Verb::AttachDisk, |state| {
            let known = state.run(id, Verb::AttachDisk)?.has.disks.iter().find(|d| d.order == disk.order).cloned();
            match known {
                Some(known) if known == *disk => return Ok(()),
                Some(_) => return Err(super::place_taken(id, disk.order)),
                None => {}
            }
            state.check_disk(id, disk)?;
            state.run(id, Verb::AttachDisk)?.has.disks.push(disk.clone());
            Ok(())
        })
    }

    fn detach_disk(&self, id: VmId, order: u32) -> Result<()> {
        self.world.effect(Verb::DetachDisk, |state| {
            if state.run(id, Verb::DetachDisk)?.has.disks.iter().any(|disk| disk.order == order) {
                state.letting_go(id, Verb::DetachDisk)?.disks.retain(|disk| disk.order != order);
            }
            Ok(())
        })
    }

    fn attach_nic(&self, id: VmId, nic: &NicSpec) -> Result<()> {
        self.world.effect(Verb::AttachNic, |state| {
            if state.run(id, Verb::AttachNic)?.has.nics.iter().any(|known| known.mac == nic.mac) {
                return Ok(());
            }
            state.check_nic(nic)?;
            state.run(id, Verb::AttachNic)?.has.nics.push(nic.clone());
            Ok(())
        })
    }

    fn detach_nic(&self, id: VmId, mac: Mac) -> Result<()> {
        self.world.effect(Verb::DetachNic, |state| {
            if state.run(id, Verb::DetachNic)?.has.nics.iter().any(|nic| nic.mac == mac) {
                state.letting_go(id, Verb::DetachNic)?.nics.retain(|nic| nic.mac != mac);
            }
            Ok(())
        })
    }

    fn change_disc(&self, id: VmId, disc: Option<&VolumeSource>) -> Result<()> {
        self.world.effect(Verb::ChangeDisc, |state| {
            check_disc(disc)?;
            state.run(id, Verb::ChangeDisc)?.has.disc = disc.cloned();
            Ok(())
        })
    }

    fn chain(&self, id: VmId, order: u32) -> Result<Vec<VolumeSource>> {
        self.world.read(Verb::Chain, |state| {
            let disk = state.disk(id, order, Verb::Chain)?;
            Ok(disk.chain().into_iter().map(|layer| layer.source).collect())
        })?
    }

    fn overlay_disks(&self, id: VmId, overlays: &[DiskSpec]) -> Result<()> {
        self.world.effect(Verb::OverlayDisks, |state| state.overlay_disks(id, overlays))
    }

    fn start_block_job(&self, id: VmId, order: u32, job: &BlockJob) -> Result<()> {
        self.world.effect(Verb::StartBlockJob, |state| state.start_block_job(id, order, job))
    }

    fn block_job(&self, id: VmId, order: u32) -> Result<Option<BlockJobStatus>> {
        self.world.read(Verb::BlockJob, |state| {
            state.disk(id, order, Verb::BlockJob)?;
            let run = state.domains.get(&id).and_then(|domain| domain.run.as_ref());
            Ok(run.and_then(|run| run.jobs.get(&order)).map(Job::status))
        })?
    }

    fn pivot(&self, id: VmId, order: u32) -> Result<()> {
        self.world.effect(Verb::Pivot, |state| state.pivot(id, order))
    }

    fn abort_block_job(&self, id: VmId, order: u32) -> Result<()> {
        self.world.effect(Verb::AbortBlockJob, |state| {
            if state.domains.get(&id).is_some_and(|domain| domain.run.is_some()) {
                state.disk(id, order, Verb::AbortBlockJob)?;
                state.run(id, Verb::AbortBlockJob)?.jobs.remove(&order);
            }
            Ok(())
        })
    }

    fn expect_guest(&self, spec: &DomainSpec) -> Result<()> {
        self.world.effect(Verb::ExpectGuest, |state| state.expect(spec))
    }

    fn send_guest(&self, id: VmId, to: &MigrationTarget, _cancel: &AtomicBool) -> Result<()> {
        let lost = self.world.faults.enter(Verb::SendGuest)?;
        let sent = self.send(id, to);
        self.world.changed();
        sent.and(lost.map_or(Ok(()), |kind| Err(Error::new(kind))))
    }

    fn transit(&self, id: VmId) -> Result<Transit> {
        self.world.read(Verb::Transit, |state| state.transit(id))
    }

    fn take_over(&self, id: VmId) -> Result<()> {
        self.world.effect(Verb::TakeOver, |state| state.take_over(id))
    }

    fn give_up(&self, id: VmId) -> Result<()> {
        self.world.effect(Verb::GiveUp, |state| state.give_up(id))
    }

    fn agent_answers(&self, id: VmId) -> Result<bool> {
        self.world.read(Verb::AgentAnswers, |state| {
            let domain = state.domains.get(&id).ok_or_else(|| Error::not_found("vm", id))?;
            match domain.state() {
                PowerState::Running => Ok(state.greeting.1 && !domain.deaf),
                PowerState::Paused => Ok(false),
                off => Err(Verb::AgentAnswers.wrong_state(id, off)),
            }
        })?
    }

    fn stats(&self) -> Result<Vec<DomainStats>> {
        self.world.read(Verb::Stats, |state| {
            let runs = state.domains.values().filter_map(|domain| domain.run.as_ref());
            runs.map(Run::stats).collect()
        })
    }

    fn addresses(&self, id: VmId) -> Result<Vec<GuestAddress>> {
        self.world.read(Verb::Addresses, |state| {
            let runs = state.domains.get(&id).is_some_and(|domain| domain.run.is_some());
            state.addresses.get(&id).filter(|_| runs).cloned().unwrap_or_default()
        })
    }

    fn screenshot(&self, id: VmId) -> Result<Screenshot> {
        self.world.read(Verb::Screenshot, |state| {
            let domain = state.domains.get(&id).ok_or_else(|| Error::not_found("vm", id))?;
            match domain.state() {
                state if state.is_active() => Ok(measured::screenshot()),
                off => Err(Verb::Screenshot.wrong_state(id, off)),
            }
        })?
    }

    fn description(&self, id: VmId) -> Result<Option<String>> {
        self.world.read(Verb::Description, |state| state.domains.get(&id).map(Domain::description).transpose())?
    }

    fn watch(&self, changed: Changed) {
        self.world.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(changed);
    }

    fn has_bridge(&self, name: &str) -> Result<bool> {
        self.world.read(Verb::HasBridge, |state| state.bridges.iter().any(|bridge| bridge == name))
    }
}

fn everything() -> Capabilities {
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
        live_migration: true,
        zstd: true,
        mac_prefix: [0x00, 0x16, 0x3e],
    }
}

fn check_file(file: &Path) -> Result<()> {
    if file.exists() {
        return Ok(());
    }
    Err(refused(format!("Cannot access storage file '{}': No such file or directory", file.display())))
}

fn check_disc(disc: Option<&VolumeSource>) -> Result<()> {
    disc.map_or(Ok(()), |VolumeSource::File(file)| check_file(file))
}

fn refused(why: String) -> Error {
    Error::new(ErrorKind::Refused { by: "the fake hypervisor".to_owned(), why })
}
