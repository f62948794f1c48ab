//! Guests that move between two real Xen hosts, as `tests/xen/two.sh` makes them: this one, and `dom0-2`, which the same
//! program is started in for each thing that is asked of it. Both have `/srv/shared`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pengx::error::{Error, ErrorKind, Result};
use pengx::exec::SystemRunner;
use pengx::host::authorized_keys;
use pengx::hypervisor::{Guest, Hypervisor, MigrationTarget, Settlement, Transit, XlHypervisor, XlOptions};
use pengx::model::{
    CacheMode, DiskSpec, DomainSpec, Format, Mac, MiB, NicLink, NicSpec, PmId, PowerState, Secret, VmId, VolumeSource,
};
use uuid::Uuid;

use crate::backends::hypervisor::migration::{
    Near, Side, Two, a_guest_moves_there_and_back, end, running, settled, transits,
    what_is_expected_is_off_until_it_comes, what_is_not_expected_is_not_taken,
};
use crate::harness::counters::{Counter, at_one_moment};
use crate::harness::guest::{golden, next_beat};
use crate::harness::tool::qemu_img;
use crate::harness::wait::wait_within;
use crate::harness::xen::{linux, shared, xl};

const SHARED: &str = "/srv/shared";
/// As its configuration file says, which `pengx migration-receive` reads.
const DATA: &str = "/var/lib/pengx-two";
const ORDER: &str = "PENGX_TEST_ORDER";
/// A guest without hands, as every order names it.
const HVM: &str = "hvm";

fn side(hvm: bool, number: u8) -> Near<XlHypervisor> {
    let options = XlOptions {
        guest: if hvm { Guest::Hvm } else { linux() },
        call_timeout: Duration::from_secs(60),
        power_timeout: Duration::from_secs(240),
        program: "/usr/bin/pengx".into(),
        ..XlOptions::new(Path::new(DATA).join("domains"))
    };
    let hypervisor = XlHypervisor::new(options, Arc::new(SystemRunner::new())).expect("a control domain of Xen");
    let to = MigrationTarget {
        address: IpAddr::from(Ipv4Addr::new(10, 99, 0, number)),
        port: 22,
        user: "root".to_owned(),
        key: "/root/.ssh/pengx".into(),
        known_hosts: "/root/.ssh/known_hosts".into(),
    };
    Near { hypervisor, to }
}

fn image(id: VmId, order: u32, hvm: bool) -> PathBuf {
    Path::new(SHARED).join(format!("{id}-{order}.{}", if hvm { "raw" } else { "qcow2" }))
}

/// The same on both hosts.
fn spec(id: VmId, hvm: bool, bridge: &str) -> DomainSpec {
    let disk = |order| DiskSpec {
        order,
        source: VolumeSource::File(image(id, order, hvm)),
        format: if hvm { Format::Raw } else { Format::Qcow2 },
        cache: CacheMode::Writeback,
        backing: Vec::new(),
    };
    let memory = MiB(if hvm { 64 } else { 96 });
    let mut mac = [0, 0x16, 0x3e, 0, 0, 0];
    mac[3..].copy_from_slice(&id.0.as_bytes()[..3]);
    DomainSpec {
        id,
        title: "moves".to_owned(),
        os: None,
        vcpus: 1,
        max_vcpus: 1,
        memory,
        max_memory: memory,
        disks: if hvm { vec![disk(0)] } else { vec![disk(0), disk(1)] },
        nics: vec![NicSpec { mac: Mac(mac), link: NicLink::Bridge(bridge.to_owned()) }],
        pci: None,
        disc: None,
        console: None,
        vnc_password: Secret::new("12345678".to_owned()),
    }
}

/// The other host.
struct Far {
    hvm: bool,
}

/// As it is said over there and read here.
fn written(answer: Result<String>) -> String {
    match answer {
        Ok(text) => format!("ok {text}"),
        Err(error) => match error.kind() {
            ErrorKind::NotFound { id, .. } => format!("not_found {id}"),
            ErrorKind::WrongState { what, is, .. } => format!("wrong_state {what} is {is}"),
            ErrorKind::Refused { why, .. } => format!("refused {why}"),
            _ => format!("unavailable {}", error.story()),
        },
    }
}

fn read(line: &str) -> Result<String> {
    let (kind, rest) = line.split_once(' ').unwrap();
    Err(match kind {
        "ok" => return Ok(rest.to_owned()),
        "not_found" => Error::not_found("guest of vm", rest),
        "wrong_state" => Error::wrong_state(rest, "so", "another"),
        "refused" => Error::refused("dom0-2", rest),
        _ => Error::unavailable(format!("dom0-2: {rest}")),
    })
}

fn ssh(command: &str) -> String {
    let options =
        ["-o", "BatchMode=yes", "-o", "ControlMaster=auto", "-o", "ControlPath=/run/two", "-o", "ControlPersist=yes"];
    let said =
        Command::new("ssh").args(options).args(["-i", "/root/.ssh/lab", "root@10.99.0.2", command]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success(), "{command}: {out} {err}");
    out.into_owned()
}

impl Far {
    fn ask(&self, verb: &str, id: VmId, bridge: &str) -> Result<String> {
        let program = std::env::current_exe().unwrap();
        let kind = if self.hvm { HVM } else { "pv" };
        let said = ssh(&format!(
            "{ORDER}='{verb} {kind} {id} {bridge}' {} --ignored --exact --nocapture xen::migration::an_order_of_the_other_host",
            program.display()
        ));
        let line = said.lines().find_map(|line| line.split_once("ANSWER ").map(|(_, answer)| answer));
        read(line.unwrap_or_else(|| panic!("{verb}: {said}")))
    }

    fn tell(&self, verb: &str, id: VmId) -> Result<()> {
        self.ask(verb, id, "xenbr0").map(drop)
    }
}

/// The other host may bring what is expected here, and nothing else.
fn admit() {
    let key = std::fs::read_to_string("/root/.ssh/peer.pub").unwrap();
    let words: Vec<&str> = key.split_whitespace().take(2).collect();
    let key = words.join(" ").parse().unwrap();
    authorized_keys::write(Path::new("/root/.ssh/authorized_keys"), &[(PmId(Uuid::from_u128(2)), key)]).unwrap();
}

/// What this host does for a test of the other one.
#[test]
#[ignore = "asked by the other host of tests/xen/two.sh"]
fn an_order_of_the_other_host() {
    // Run with all others, nobody has asked.
    let Ok(order) = std::env::var(ORDER) else { return };
    let words: Vec<&str> = order.split(' ').collect();
    let [verb, kind, id, bridge] = words[..] else { panic!("{order}") };
    admit();
    let (side, id) = (side(kind == HVM, 1), id.parse().unwrap());
    let spec = spec(id, kind == HVM, bridge);
    let done = |done: Result<()>| done.map(|()| String::new());
    let answer = match verb {
        "define" => done(side.define(&spec)),
        "undefine" => done(side.undefine(id)),
        "start" => done(side.start(id)),
        "pause" => done(side.pause(id)),
        "destroy" => done(side.destroy(id)),
        "state" => side.state(id).map(|state| format!("{state:?}")),
        "expect" => done(side.expect(&spec)),
        "send" => done(side.send(id)),
        "transit" => side.transit(id).map(|transit| format!("{transit:?}")),
        "take_over" => done(side.take_over(id)),
        "give_up" => done(side.give_up(id)),
        _ => panic!("{order}"),
    };
    println!("\nANSWER {}", written(answer));
}

impl Side for Far {
    fn define(&self, spec: &DomainSpec) -> Result<()> {
        self.tell("define", spec.id)
    }
    fn undefine(&self, id: VmId) -> Result<()> {
        self.tell("undefine", id)
    }
    fn start(&self, id: VmId) -> Result<()> {
        self.tell("start", id)
    }
    fn pause(&self, id: VmId) -> Result<()> {
        self.tell("pause", id)
    }
    fn destroy(&self, id: VmId) -> Result<()> {
        self.tell("destroy", id)
    }
    fn state(&self, id: VmId) -> Result<Option<PowerState>> {
        let all = [
            None,
            Some(PowerState::Running),
            Some(PowerState::Paused),
            Some(PowerState::Shutdown),
            Some(PowerState::Crashed),
        ];
        let said = self.ask("state", id, "xenbr0")?;
        Ok(all.into_iter().find(|state| format!("{state:?}") == said).unwrap_or_else(|| panic!("{said}")))
    }
    fn expect(&self, spec: &DomainSpec) -> Result<()> {
        let Some(NicSpec { link: NicLink::Bridge(bridge), .. }) = spec.nics.first() else { panic!("{spec:?}") };
        self.ask("expect", spec.id, bridge).map(drop)
    }
    fn send(&self, id: VmId) -> Result<()> {
        self.tell("send", id)
    }
    fn transit(&self, id: VmId) -> Result<Transit> {
        let all =
            [Transit::Absent, Transit::Here, Transit::Moving, Transit::Suspended, Transit::Sent, Transit::Arrived];
        let said = self.ask("transit", id, "xenbr0")?;
        Ok(all.into_iter().find(|transit| format!("{transit:?}") == said).unwrap_or_else(|| panic!("{said}")))
    }
    fn take_over(&self, id: VmId) -> Result<()> {
        self.tell("take_over", id)
    }
    fn give_up(&self, id: VmId) -> Result<()> {
        self.tell("give_up", id)
    }
}

/// Two hosts, and what is on both in the end.
struct Hosts {
    here: Near<XlHypervisor>,
    there: Far,
    made: Mutex<Vec<VmId>>,
}

impl Hosts {
    fn new(hvm: bool) -> Self {
        admit();
        let there = Far { hvm };
        assert_eq!(there.state(VmId(Uuid::new_v4())).unwrap(), None, "it lets this one in as well");
        Self { here: side(hvm, 2), there, made: Mutex::default() }
    }

    fn hvm(&self) -> bool {
        self.there.hvm
    }

    fn counters(&self, id: VmId) -> [Counter; 2] {
        let (system, extra) = (image(id, 0, false), image(id, 1, false));
        [Counter::system(system, Format::Qcow2), Counter::extra(extra, Format::Qcow2)]
    }

    /// Nothing it wrote was lost, wherever it was; and how long it stood still at most, by its own clock.
    fn assert_whole(&self, id: VmId) {
        let counts = at_one_moment(&self.counters(id)).unwrap_or_else(|why| panic!("{why}"));
        let last = counts[0].last;
        println!("{last} numbers, at most {} ms apart", counts[0].longest_gap(1..last));
        for order in 0..2 {
            qemu_img(&["check", "-q", image(id, order, false).to_str().unwrap()]);
        }
    }
}

impl Two for Hosts {
    fn here(&self) -> &dyn Side {
        &self.here
    }
    fn there(&self) -> &dyn Side {
        &self.there
    }
    fn spec(&self) -> DomainSpec {
        let id = VmId(Uuid::new_v4());
        self.made.lock().unwrap().push(id);
        if self.hvm() {
            std::fs::copy(shared("hvm-counter.img"), image(id, 0, true)).unwrap();
        } else {
            std::fs::copy(golden(), image(id, 0, false)).unwrap();
            qemu_img(&["create", "-q", "-f", "qcow2", image(id, 1, false).to_str().unwrap(), "16M"]);
        }
        spec(id, self.hvm(), "xenbr0")
    }
    fn lives(&self, spec: &DomainSpec) {
        if self.hvm() {
            next_beat(&image(spec.id, 0, true), Format::Raw, super::SECTOR_1);
            return;
        }
        for counter in self.counters(spec.id) {
            let last = counter.so_far().map_or(0, |count| count.last);
            counter.until_past(last + 1);
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for id in self.made.get_mut().unwrap().iter() {
            for end in ["", "--incoming", "--migratedaway"] {
                let destroy = format!("xl destroy pengx-{id}{end} 2>/dev/null; true");
                ssh(&destroy);
                drop(Command::new("sh").args(["-c", &destroy]).status());
            }
        }
    }
}

#[test]
#[ignore = "needs two Xen hosts: make test-xen-two"]
fn a_counting_guest_moves_there_and_back() {
    let hosts = Hosts::new(false);
    a_guest_moves_there_and_back(&hosts);
    let id = hosts.made.lock().unwrap()[0];
    hosts.assert_whole(id);
}

#[test]
#[ignore = "needs two Xen hosts: make test-xen-two"]
fn a_guest_with_a_bios_moves_there_and_back() {
    a_guest_moves_there_and_back(&Hosts::new(true));
}

#[test]
#[ignore = "needs two Xen hosts: make test-xen-two"]
fn what_cannot_go_or_come_stays() {
    let hosts = Hosts::new(false);
    what_is_not_expected_is_not_taken(&hosts);
    what_is_expected_is_off_until_it_comes(&hosts);
}

/// A host that nobody reaches, and one who changes his mind.
#[test]
#[ignore = "needs two Xen hosts: make test-xen-two"]
fn a_guest_that_does_not_get_away_goes_on() {
    let hosts = Hosts::new(false);
    let spec = running(&hosts);
    let nobody = MigrationTarget { address: IpAddr::from(Ipv4Addr::new(10, 99, 0, 77)), ..hosts.here.to.clone() };
    let never = AtomicBool::new(false);
    let error = hosts.here.hypervisor.send_guest(spec.id, &nobody, &never).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable { .. }), "{error:?}");
    assert_eq!(hosts.here().state(spec.id).unwrap(), Some(PowerState::Running));

    hosts.there().expect(&spec).unwrap();
    let cancel = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let sent = scope.spawn(|| hosts.here.hypervisor.send_guest(spec.id, &hosts.here.to, &cancel));
        until_there(&spec, "--incoming");
        assert_eq!(transits(&hosts, spec.id), (Transit::Moving, Transit::Moving));
        assert_eq!(hosts.here().state(spec.id).unwrap(), Some(PowerState::Running));
        cancel.store(true, Ordering::Relaxed);
        sent.join().unwrap()
    });
    assert!(matches!(sent.unwrap_err().kind(), ErrorKind::Cancelled { .. }));
    assert_eq!(settled(&hosts, &spec), Settlement::Source);
    end(&hosts, spec.id);
    hosts.assert_whole(spec.id);
}

/// Until the other host lists it so.
fn until_there(spec: &DomainSpec, end: &str) {
    let name = format!("pengx-{}{end} ", spec.id);
    wait_within(Duration::from_secs(240), &name, || Ok(ssh("xl list").contains(&name)));
}

/// The way between the hosts is cut for longer than ssh waits; then the one who sends is killed, and nobody tells the other
/// host, as if this one had lost its power just then.
#[test]
#[ignore = "needs two Xen hosts: make test-xen-two"]
fn a_host_that_hears_nothing_more_gives_up_what_it_has() {
    let hosts = Hosts::new(false);
    let spec = running(&hosts);
    let id = spec.id;

    hosts.there().expect(&spec).unwrap();
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| hosts.here().send(id));
        until_there(&spec, "--incoming");
        let cut = Cut::new();
        assert!(matches!(
            sent.join().unwrap().unwrap_err().kind(),
            ErrorKind::Refused { .. } | ErrorKind::Unavailable { .. }
        ));
        assert_eq!(hosts.here().transit(id).unwrap(), Transit::Here);
        hosts.lives(&spec);
        drop(cut);
    });
    assert_eq!(settled(&hosts, &spec), Settlement::Source);

    hosts.there().expect(&spec).unwrap();
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| hosts.here().send(id));
        until_there(&spec, "--incoming");
        ssh("kill -STOP $(ps -o ppid= -p $(pgrep -f '[x]l migrate-receive'))");
        drop(Command::new("pkill").args(["-KILL", "-f", "[x]l migrate -s"]).status());
        sent.join().unwrap().unwrap_err();
    });
    // Neither knows yet: this one's ssh has not given up.
    assert_eq!(transits(&hosts, id), (Transit::Moving, Transit::Moving));
    assert_eq!(settled(&hosts, &spec), Settlement::Source);
    end(&hosts, id);
    hosts.assert_whole(id);
}

/// No way between the two hosts while it is there.
struct Cut;

impl Cut {
    fn new() -> Self {
        Self::set("down");
        Self
    }

    fn set(to: &str) {
        let link = "ip -o link | sed -n 's/^[0-9]*: \\([a-z0-9]*\\):.* 52:54:00:99:.*/\\1/p'";
        let done = Command::new("sh").args(["-c", &format!("ip link set $({link}) {to}")]).status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        Self::set("up");
    }
}

/// What is to be seen of it here when whoever sends it is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    Suspended,
    Sent,
}

/// Whoever sends or receives it is killed, at the worst moments; the guest runs exactly once, and has lost nothing.
#[test]
#[ignore = "needs two Xen hosts: make test-xen-two"]
fn whoever_dies_a_guest_runs_exactly_once() {
    let hosts = Hosts::new(false);
    let spec = running(&hosts);
    let id = spec.id;
    // The one who receives it, in the middle of its memory; then the one who sends it, at two moments.
    let mut reached = Vec::new();
    for moment in [None, Some(Moment::Suspended), Some(Moment::Sent)] {
        if hosts.here().transit(id).unwrap() == Transit::Absent {
            // It was whole over there.
            hosts.here().undefine(id).unwrap();
            hosts.here().expect(&spec).unwrap();
            hosts.there().send(id).unwrap();
            hosts.here().take_over(id).unwrap();
            hosts.there().undefine(id).unwrap();
        }
        hosts.there().expect(&spec).unwrap();
        std::thread::scope(|scope| {
            let sent = scope.spawn(|| hosts.here().send(id));
            match moment {
                None => {
                    until_there(&spec, "--incoming");
                    ssh("pkill -KILL -f '[x]l migrate-receive'");
                }
                Some(moment) => kill_sender(id, moment, || sent.is_finished()),
            }
            let sent = sent.join().unwrap();
            let was = transits(&hosts, id);
            reached.push((moment, sent.is_ok(), was));
            // The last moment may pass between two looks; then it is all there.
            let passed = matches!(moment, Some(Moment::Sent)) && was == (Transit::Absent, Transit::Here);
            assert!(sent.is_err() || passed, "{moment:?}: {was:?}");
        });
        let home = settled(&hosts, &spec);
        println!("{moment:?}: {:?}, {home:?}", reached.last().unwrap());
    }
    end(&hosts, id);
    hosts.assert_whole(id);
}

/// As soon as the list of this host shows that it has come so far, if it is not over before.
fn kill_sender(id: VmId, moment: Moment, is_over: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(240);
    let name = format!("pengx-{id}");
    while !is_over() {
        assert!(Instant::now() < deadline, "never {moment:?}");
        let list = xl(&["list"]);
        let line = list.lines().find(|line| line.starts_with(&name)).unwrap_or_default();
        let is = match moment {
            Moment::Suspended => line.split_whitespace().nth(4).is_some_and(|state| state.starts_with("---s")),
            Moment::Sent => line.starts_with(&format!("{name}--migratedaway")),
        };
        if is {
            // It may be over just now.
            drop(Command::new("pkill").args(["-KILL", "-f", "[x]l migrate -s"]).status());
            return;
        }
    }
}
