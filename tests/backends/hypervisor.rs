//! The laws of the hypervisor trait, over every backend that can be had here; then what is each one's own.

mod chains;
mod fake;
mod guest;
mod jobs;
mod libvirt;
mod live;
mod measured;
pub mod migration;
mod moved;
mod signs;
mod xl;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use pengx::error::{Error, ErrorKind, Result};
use pengx::hypervisor::{
    Capabilities, DomainType, FakeHypervisor, Hypervisor, LibvirtHypervisor, LibvirtOptions, Start,
};
use pengx::model::{
    CacheMode, DefinedDisk, DiskSpec, DomainSpec, DomainStatus, Format, Mac, MiB, NicLink, NicSpec, PowerState, Secret,
    VmId, VolumeSource,
};
use uuid::Uuid;

use self::chains::*;
use self::live::*;
use self::measured::*;
use self::signs::*;
use crate::harness::libvirt::Libvirtd;
use crate::harness::xen::is_too_slow;

/// After so long, what was waited for does not come.
const NEVER: Duration = Duration::from_secs(60);

/// A hypervisor and a place for disks.
struct Bench {
    hypervisor: Arc<dyn Hypervisor>,
    /// The same, when it is the fake.
    fake: Option<FakeHypervisor>,
    /// It is Xen's.
    xen: bool,
    /// Its guests reach their disks without a driver for Xen.
    emulated: bool,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new(hypervisor: Arc<dyn Hypervisor>) -> Self {
        Self::in_dir(hypervisor, tempfile::tempdir().unwrap())
    }

    fn in_dir(hypervisor: Arc<dyn Hypervisor>, dir: tempfile::TempDir) -> Self {
        Self { hypervisor, fake: None, xen: false, emulated: false, dir }
    }

    fn fake() -> Self {
        let fake = FakeHypervisor::new();
        Self { fake: Some(fake.clone()), ..Self::new(Arc::new(fake)) }
    }

    fn libvirt() -> Self {
        Self::new(Arc::new(connect(&Libvirtd::shared().uri)))
    }

    /// What a NIC can be plugged into.
    fn link(&self) -> NicLink {
        if self.xen { NicLink::Bridge("xenbr0".to_owned()) } else { NicLink::User }
    }

    fn can(&self) -> Capabilities {
        self.hypervisor.capabilities(&spec(&[]))
    }

    /// An image without content.
    fn disk(&self) -> PathBuf {
        let file = self.dir.path().join(format!("{}.raw", Uuid::new_v4()));
        std::fs::File::create_new(&file).unwrap().set_len(1 << 20).unwrap();
        file
    }

    /// A domain of its own, which is gone when the test is.
    fn vm(&self, disks: &[PathBuf]) -> Vm<'_> {
        self.vm_with(&spec(disks))
    }

    fn vm_with(&self, spec: &DomainSpec) -> Vm<'_> {
        let vm = Vm { id: spec.id, hypervisor: &*self.hypervisor };
        self.hypervisor.define(spec).unwrap();
        vm
    }
}

fn connect(uri: &str) -> LibvirtHypervisor {
    connect_with(uri, Duration::from_secs(1))
}

fn connect_with(uri: &str, device_timeout: Duration) -> LibvirtHypervisor {
    let options = LibvirtOptions {
        call_timeout: Duration::from_secs(30),
        power_timeout: NEVER,
        device_timeout,
        domain_type: DomainType::Qemu,
        ..LibvirtOptions::default()
    };
    LibvirtHypervisor::new(uri, options).unwrap()
}

fn disk_spec(order: u32, file: &Path) -> DiskSpec {
    DiskSpec {
        backing: Vec::new(),
        order,
        source: VolumeSource::File(file.to_owned()),
        format: Format::Raw,
        cache: CacheMode::Writeback,
    }
}

fn spec(disks: &[PathBuf]) -> DomainSpec {
    DomainSpec {
        id: VmId(Uuid::new_v4()),
        title: "test".to_owned(),
        os: None,
        vcpus: 1,
        max_vcpus: 2,
        memory: MiB(32),
        max_memory: MiB(64),
        disks: (0..).zip(disks).map(|(order, file)| disk_spec(order, file)).collect(),
        nics: Vec::new(),
        pci: None,
        disc: None,
        console: None,
        vnc_password: Secret::new("12345678".to_owned()),
    }
}

fn nic(number: u8, link: NicLink) -> NicSpec {
    let random = Uuid::new_v4().into_bytes();
    NicSpec { mac: Mac([0x52, 0x54, 0x00, random[0], random[1], number]), link }
}

struct Vm<'a> {
    id: VmId,
    hypervisor: &'a dyn Hypervisor,
}

impl Vm<'_> {
    fn status(&self) -> DomainStatus {
        self.hypervisor.domain(self.id).unwrap().expect("it is defined")
    }

    fn state(&self) -> PowerState {
        self.status().state
    }

    fn start(&self, how: Start) {
        start_patiently(|| self.hypervisor.start(self.id, how)).unwrap();
    }
}

impl Drop for Vm<'_> {
    fn drop(&mut self) {
        for step in [self.hypervisor.destroy(self.id), self.hypervisor.undefine(self.id)] {
            if let Err(error) = step {
                println!("vm {} is left behind: {}", self.id, error.story());
            }
        }
    }
}

/// What a busy machine is too slow for is tried again.
fn start_patiently(start: impl Fn() -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + 2 * NEVER;
    loop {
        match start() {
            Err(late) if is_too_slow(&late) && Instant::now() < deadline => println!("again: {late}"),
            done => return done,
        }
    }
}

/// Rings when the hypervisor says that something changed.
struct Bell {
    rings: Arc<(Mutex<u64>, Condvar)>,
}

impl Bell {
    fn on(hypervisor: &dyn Hypervisor) -> Self {
        let rings = Arc::new((Mutex::new(0), Condvar::new()));
        let of_listener = Arc::clone(&rings);
        hypervisor.watch(Arc::new(move || {
            *of_listener.0.lock().unwrap() += 1;
            of_listener.1.notify_all();
        }));
        Self { rings }
    }

    /// Looks once, and again after each ring only: so it was pushed.
    fn until(&self, what: &str, mut is: impl FnMut() -> bool) {
        let deadline = Instant::now() + NEVER;
        loop {
            let heard = *self.rings.0.lock().unwrap();
            if is() {
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let rings = self.rings.0.lock().unwrap();
            let late = self.rings.1.wait_timeout_while(rings, left, |now| *now == heard).unwrap().1;
            assert!(!late.timed_out(), "nobody said that {what}");
        }
    }
}

#[track_caller]
fn wrong_state(result: Result<()>) {
    let error = result.expect_err("the state forbids it");
    assert!(matches!(error.kind(), ErrorKind::WrongState { .. }), "{error:?}");
}

#[track_caller]
fn not_found(result: Result<()>, id: VmId) {
    let error = result.expect_err("it is not there");
    assert_eq!(*error.kind(), ErrorKind::NotFound { what: "vm", id: id.to_string() }, "{error:?}");
}

#[track_caller]
fn refused(result: Result<()>) -> String {
    let error: Error = result.expect_err("the hypervisor refuses it");
    match error.kind() {
        ErrorKind::Refused { why, .. } => why.clone(),
        _ => panic!("{error:?}"),
    }
}

#[track_caller]
fn unsupported(result: Result<()>) {
    let error = result.expect_err("the backend says that it cannot");
    assert!(matches!(error.kind(), ErrorKind::Unsupported { .. }), "{error:?}");
}

/// Each law is a test of each backend. Those that need what [`Capabilities`] of a backend deny are not laws of it.
macro_rules! laws {
    (everywhere: $($law:ident),+; with_live_chains: $($live:ident),+; with_user_network: $($user:ident),+ $(;)?) => {
        mod laws_of_fake { tests!(super::Bench::fake: $($law),+, $($live),+, $($user),+); }
        mod laws_of_libvirt { tests!(super::Bench::libvirt: $($law),+, $($live),+, $($user),+); }
        mod laws_of_xl_pv { tests!(in_dom0 super::xl::pv: $($law),+, $($live),+); }
        mod laws_of_xl_hvm { tests!(in_dom0 super::xl::hvm: $($law),+); }
    };
}

macro_rules! tests {
    ($bench:path: $($law:ident),+) => { $(#[test] fn $law() { super::$law(&$bench()); })+ };
    (in_dom0 $bench:path: $($law:ident),+) => {
        $(#[test] #[ignore = "needs a Xen control domain: make test-xen"] fn $law() { super::$law(&$bench()); })+
    };
}

laws! {
    everywhere:
    what_is_defined_is_off_and_listed,
    a_definition_is_replaced_and_a_running_domain_not_touched,
    what_is_defined_is_told_with_every_file,
    undefine_refuses_what_runs_and_may_be_repeated,
    power_goes_through_its_states,
    destroy_may_be_repeated,
    what_is_off_cannot_be_asked_anything,
    what_is_absent_is_not_found,
    a_missing_disk_is_named_and_the_domain_stays_off,
    a_missing_bridge_is_refused_and_the_domain_stays_off,
    a_disk_belongs_to_one_running_domain,
    a_paused_guest_cannot_be_asked,
    changes_are_pushed,
    one_and_all_agree,
    as_many_devices_as_promised,
    it_says_what_it_is,
    strange_names_are_no_bridges,
    what_is_off_or_absent_cannot_be_changed,
    a_disk_is_plugged_in_until_the_power_goes,
    what_is_plugged_in_and_defined_is_there_after_the_next_start,
    a_disk_that_is_missing_or_taken_is_not_plugged_in,
    an_interface_is_plugged_in_once,
    what_is_not_plugged_in_is_pulled_out_already,
    a_guest_that_does_not_listen_keeps_its_devices,
    vcpus_are_plugged_in_up_to_the_most,
    memory_is_at_most_what_it_was_started_with,
    discs_come_and_go,
    a_domain_starts_with_its_disc_and_not_without,
    as_many_devices_as_promised_can_be_plugged_in,
    a_disk_is_on_its_whole_chain,
    a_missing_image_of_a_chain_is_named,
    a_backing_image_serves_many_and_nobody_writes_to_it,
    an_agent_that_is_not_there_does_not_answer,
    what_a_guest_uses_is_told_while_it_is_on,
    nobody_knows_where_a_silent_guest_is_reached,
    a_screen_is_a_picture_while_it_is_on,
    a_description_is_a_document_without_secrets;
    with_live_chains:
    all_disks_move_onto_overlays_or_none,
    an_overlay_of_something_else_is_refused,
    the_leaf_is_committed_and_the_guest_moves,
    an_image_in_the_middle_is_committed,
    a_disk_is_mirrored_elsewhere_and_the_guest_moves,
    what_is_aborted_leaves_the_guest_where_it_is,
    a_disk_has_one_job_and_each_disk_its_own,
    a_job_that_makes_no_sense_is_refused,
    a_job_ends_with_its_guest,
    a_definition_does_not_move_a_running_guest;
    with_user_network:
    a_nic_without_a_cable_is_there_and_a_console_has_its_file;
}

fn what_is_defined_is_off_and_listed(bench: &Bench) {
    let vm = bench.vm(&[]);
    let off = DomainStatus { id: vm.id, state: PowerState::Shutdown, vnc: None, number: None };
    assert_eq!(vm.status(), off);
    assert!(bench.hypervisor.domains().unwrap().contains(&off));
}

fn what_is_defined_is_told_with_every_file(bench: &Bench) {
    let (first, second, other) = (bench.disk(), bench.disk(), bench.disk());
    let mut spec = spec(&[first.clone(), second.clone()]);
    spec.nics = vec![nic(2, bench.link()), nic(1, bench.link())];
    let vm = bench.vm_with(&spec);
    let told = bench.hypervisor.defined(vm.id).unwrap().unwrap();
    assert_eq!(told.name, format!("pengx-{}", vm.id));
    assert_eq!((told.vcpus, told.memory, told.max_memory), (spec.vcpus, spec.memory, spec.max_memory));
    let format = spec.disks[0].format.word();
    let disk =
        |order, file: &PathBuf| DefinedDisk { order: Some(order), file: Some(file.clone()), format: format.to_owned() };
    assert_eq!(told.disks, [disk(0, &first), disk(1, &second)]);
    let mut macs = vec![spec.nics[0].mac, spec.nics[1].mac];
    macs.sort();
    assert_eq!(told.macs, macs);
    assert_eq!(told.files, [first.clone(), second.clone()].into());
    // What runs stays in use, whatever is defined meanwhile.
    vm.start(Start::Paused);
    spec.disks[0].source = VolumeSource::File(other.clone());
    spec.disks.truncate(1);
    bench.hypervisor.define(&spec).unwrap();
    let told = bench.hypervisor.defined(vm.id).unwrap().unwrap();
    assert_eq!((told.disks, told.files), (vec![disk(0, &other)], [first, second, other].into()));
    assert_eq!(bench.hypervisor.defined(VmId(Uuid::new_v4())).unwrap(), None);
}

fn a_definition_is_replaced_and_a_running_domain_not_touched(bench: &Bench) {
    let mut spec = spec(&[bench.disk()]);
    let vm = bench.vm_with(&spec);
    vm.start(Start::Paused);
    let before = vm.status();
    spec.vcpus = 2;
    spec.disks.clear();
    bench.hypervisor.define(&spec).unwrap();
    assert_eq!(vm.status(), before);
    bench.hypervisor.destroy(vm.id).unwrap();
    vm.start(Start::Paused);
    assert_eq!(vm.state(), PowerState::Paused);
}

fn undefine_refuses_what_runs_and_may_be_repeated(bench: &Bench) {
    let vm = bench.vm(&[]);
    vm.start(Start::Paused);
    wrong_state(bench.hypervisor.undefine(vm.id));
    assert_eq!(vm.state(), PowerState::Paused);
    bench.hypervisor.destroy(vm.id).unwrap();
    assert_eq!(vm.state(), PowerState::Shutdown, "still defined");
    for _ in 0..2 {
        bench.hypervisor.undefine(vm.id).unwrap();
        assert_eq!(bench.hypervisor.domain(vm.id).unwrap(), None);
    }
}

fn power_goes_through_its_states(bench: &Bench) {
    let vm = bench.vm(&[bench.disk()]);
    let hypervisor = &bench.hypervisor;
    vm.start(Start::Paused);
    let paused = vm.status();
    assert_eq!(paused.state, PowerState::Paused);
    let screen = paused.vnc.expect("a screen");
    assert_eq!(screen.host, "127.0.0.1");
    assert!(screen.port >= 5900);
    wrong_state(hypervisor.start(vm.id, Start::Running));
    assert_eq!(vm.state(), PowerState::Paused);
    hypervisor.unpause(vm.id).unwrap();
    assert_eq!(vm.state(), PowerState::Running);
    wrong_state(hypervisor.unpause(vm.id));
    wrong_state(hypervisor.start(vm.id, Start::Running));
    for _ in 0..2 {
        hypervisor.pause(vm.id).unwrap();
        assert_eq!(vm.state(), PowerState::Paused);
    }
    hypervisor.destroy(vm.id).unwrap();
    vm.start(Start::Running);
    assert_eq!(vm.state(), PowerState::Running);
    // Xen has a power button for a guest without drivers, and no other.
    match hypervisor.request_reboot(vm.id) {
        asked if bench.xen && bench.emulated => unsupported(asked),
        asked => asked.unwrap(),
    }
    hypervisor.request_shutdown(vm.id).unwrap();
}

fn destroy_may_be_repeated(bench: &Bench) {
    let vm = bench.vm(&[]);
    bench.hypervisor.destroy(vm.id).unwrap();
    vm.start(Start::Paused);
    for _ in 0..2 {
        bench.hypervisor.destroy(vm.id).unwrap();
        assert_eq!(vm.status(), DomainStatus { id: vm.id, state: PowerState::Shutdown, vnc: None, number: None });
    }
    bench.hypervisor.destroy(VmId(Uuid::new_v4())).unwrap();
}

fn what_is_off_cannot_be_asked_anything(bench: &Bench) {
    let vm = bench.vm(&[]);
    let hypervisor = &bench.hypervisor;
    for refusal in [
        hypervisor.request_shutdown(vm.id),
        hypervisor.request_reboot(vm.id),
        hypervisor.pause(vm.id),
        hypervisor.unpause(vm.id),
    ] {
        let error = refusal.as_ref().expect_err("it is off");
        assert!(error.to_string().starts_with(&format!("vm {} is SHUTDOWN; it must be ", vm.id)), "{error}");
        wrong_state(refusal);
    }
    assert_eq!(vm.state(), PowerState::Shutdown);
}

fn what_is_absent_is_not_found(bench: &Bench) {
    let (hypervisor, id) = (&bench.hypervisor, VmId(Uuid::new_v4()));
    assert_eq!(hypervisor.domain(id).unwrap(), None);
    not_found(hypervisor.start(id, Start::Running), id);
    not_found(hypervisor.request_shutdown(id), id);
    not_found(hypervisor.request_reboot(id), id);
    not_found(hypervisor.pause(id), id);
    not_found(hypervisor.unpause(id), id);
}

fn a_missing_disk_is_named_and_the_domain_stays_off(bench: &Bench) {
    let missing = bench.dir.path().join("missing.raw");
    let vm = bench.vm(&[bench.disk(), missing.clone()]);
    let why = refused(bench.hypervisor.start(vm.id, Start::Running));
    assert!(why.contains(missing.to_str().unwrap()), "{why}");
    assert_eq!(vm.state(), PowerState::Shutdown);
    std::fs::copy(bench.disk(), missing).unwrap();
    vm.start(Start::Paused);
}

fn a_missing_bridge_is_refused_and_the_domain_stays_off(bench: &Bench) {
    let mut spec = spec(&[]);
    spec.nics = vec![nic(1, NicLink::Bridge("pengx-none0".to_owned()))];
    let vm = bench.vm_with(&spec);
    let why = refused(bench.hypervisor.start(vm.id, Start::Running));
    assert!(why.contains("pengx-none0"), "{why}");
    assert_eq!(vm.state(), PowerState::Shutdown);
}

fn a_disk_belongs_to_one_running_domain(bench: &Bench) {
    let disk = bench.disk();
    let (one, two) = (bench.vm(std::slice::from_ref(&disk)), bench.vm(std::slice::from_ref(&disk)));
    one.start(Start::Paused);
    let why = refused(bench.hypervisor.start(two.id, Start::Paused));
    assert!(why.contains(disk.to_str().unwrap()), "{why}");
    assert_eq!((one.state(), two.state()), (PowerState::Paused, PowerState::Shutdown));
    bench.hypervisor.destroy(one.id).unwrap();
    two.start(Start::Paused);
}

fn a_paused_guest_cannot_be_asked(bench: &Bench) {
    let vm = bench.vm(&[]);
    vm.start(Start::Paused);
    wrong_state(bench.hypervisor.request_shutdown(vm.id));
    wrong_state(bench.hypervisor.request_reboot(vm.id));
    assert_eq!(vm.state(), PowerState::Paused);
}

fn changes_are_pushed(bench: &Bench) {
    let vm = bench.vm(&[]);
    let bell = Bell::on(&*bench.hypervisor);
    std::thread::scope(|scope| {
        scope.spawn(|| vm.start(Start::Paused));
        bell.until("it was started", || vm.state() == PowerState::Paused);
    });
    std::thread::scope(|scope| {
        scope.spawn(|| bench.hypervisor.unpause(vm.id).unwrap());
        bell.until("it was unpaused", || vm.state() == PowerState::Running);
    });
    std::thread::scope(|scope| {
        scope.spawn(|| bench.hypervisor.destroy(vm.id).unwrap());
        bell.until("it was destroyed", || vm.state() == PowerState::Shutdown);
    });
}

fn one_and_all_agree(bench: &Bench) {
    let vms = [bench.vm(&[]), bench.vm(&[]), bench.vm(&[])];
    vms[1].start(Start::Paused);
    vms[2].start(Start::Running);
    // Twice, since what is learned in the first round is used in the second.
    for _ in 0..2 {
        let all = bench.hypervisor.domains().unwrap();
        assert!(vms.iter().all(|vm| all.contains(&vm.status())), "{all:?}");
    }
    let ports: BTreeSet<_> = vms.iter().filter_map(|vm| vm.status().vnc).map(|vnc| vnc.port).collect();
    assert_eq!(ports.len(), 2, "a screen for each that runs");
    // A new run may have its screen elsewhere.
    bench.hypervisor.destroy(vms[1].id).unwrap();
    vms[1].start(Start::Paused);
    assert!(bench.hypervisor.domains().unwrap().contains(&vms[1].status()));
}

fn as_many_devices_as_promised(bench: &Bench) {
    let mut spec = spec(&[]);
    let can = bench.hypervisor.capabilities(&spec);
    let disks: Vec<_> = (0..can.max_disks).map(|_| bench.disk()).collect();
    spec.disks = self::spec(&disks).disks;
    spec.nics = (0..can.max_nics).map(|n| nic(n as u8, bench.link())).collect();
    (spec.vcpus, spec.max_vcpus) = (can.max_vcpus, can.max_vcpus);
    let vm = bench.vm_with(&spec);
    vm.start(Start::Paused);
    assert_eq!(vm.state(), PowerState::Paused);
}

fn it_says_what_it_is(bench: &Bench) {
    let info = bench.hypervisor.info().unwrap();
    assert!(["fake", "libvirt", "xl"].contains(&bench.hypervisor.kind()));
    assert!(!info.version.is_empty() && info.cpus > 0 && info.memory > MiB(0), "{info:?}");
}

fn strange_names_are_no_bridges(bench: &Bench) {
    for name in ["", "lo", "..", "a/b", "no-such-bridge0", "a\0b"] {
        assert!(!bench.hypervisor.has_bridge(name).unwrap(), "{name:?}");
    }
}
