//! The backend over a scripted `xl`: what it is told, how often, and what is made of its answers.

mod measured;
mod power;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::sync::Mutex;

use super::*;
use crate::exec::{Failure, Watch};
use crate::model::{CacheMode, Layer, NicLink, Secret};

/// What a command did when it was recorded, or shall do.
#[derive(Debug, Clone, Default)]
pub(super) struct Transcript {
    pub(super) exit: i32,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
}

/// A command as it went on a real Xen.
pub(super) fn transcript(name: &str) -> Transcript {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/transcripts/xl-4.17/{name}.txt"));
    let text = std::fs::read_to_string(file).unwrap();
    let (head, rest) = text.split_once("--- stdout\n").unwrap();
    let (stdout, stderr) = rest.split_once("--- stderr\n").unwrap();
    let exit = head.lines().find_map(|line| line.strip_prefix("exit: ")).unwrap().parse().unwrap();
    Transcript { exit, stdout: stdout.into(), stderr: stderr.to_owned() }
}

fn said(stdout: &str) -> Option<Transcript> {
    Some(Transcript { stdout: stdout.into(), ..Transcript::default() })
}

fn failed(stderr: &str) -> Option<Transcript> {
    Some(Transcript { exit: 1, stderr: stderr.to_owned(), ..Transcript::default() })
}

/// A definition of a guest without devices.
pub(super) fn definition(id: &str) -> ConfigFile {
    let boot = Boot::Kernel { kernel: "/bin/true".into(), ramdisk: None, cmdline: String::new() };
    ConfigFile {
        spec: DomainSpec {
            id: id.parse().unwrap(),
            title: String::new(),
            os: None,
            vcpus: 1,
            max_vcpus: 2,
            memory: MiB(32),
            max_memory: MiB(64),
            disks: Vec::new(),
            nics: Vec::new(),
            pci: None,
            disc: None,
            console: None,
            vnc_password: Secret::new(String::new()),
        },
        guest: Guest::Pv(boot),
        written: Vec::new(),
        screen: None,
    }
}

type Script = Box<dyn Fn(&str) -> Option<Transcript> + Send + Sync>;

/// Answers what the script says; `None`: it overruns its deadline.
struct Scripted {
    script: Script,
    told: Mutex<Vec<String>>,
}

impl Runner for Scripted {
    fn run(&self, command: &Command, watch: &mut Watch<'_>) -> Result<Output, ExecError> {
        assert!(command.deadline > Duration::ZERO);
        let words: Vec<String> = std::iter::once(&command.program)
            .chain(&command.args)
            .map(|word| word.to_str().unwrap().to_owned())
            .collect();
        let line = words.join(" ");
        self.told.lock().unwrap().push(line.clone());
        let answer = (self.script)(&line);
        let argv = words.into_iter().map(OsString::from).collect();
        let Some(answer) = answer else {
            return Err(ExecError { argv, failure: Failure::Timeout(command.deadline), stderr: String::new() });
        };
        String::from_utf8_lossy(&answer.stdout).lines().for_each(|line| (watch.line)(line));
        match answer.exit {
            0 => Ok(Output { stdout: answer.stdout, stderr: answer.stderr }),
            code => Err(ExecError { argv, failure: Failure::Exit(code), stderr: answer.stderr }),
        }
    }
}

const ID: &str = "5f1d3e0a-9f5c-4f43-8b6e-1d1f6a3f2a10";
const HEAD: &str = "Name ID Mem VCPUs State Time(s) UUID Reason-Code Security Label\n";

fn row(name: &str, domid: u32, flags: &str) -> String {
    format!("{HEAD}{name} {domid} 32 1 {flags} 0.0 {ID} - -\n")
}

struct Stage {
    xl: XlHypervisor,
    scripted: Arc<Scripted>,
    _dir: tempfile::TempDir,
}

impl Stage {
    /// With one domain defined.
    fn new(script: impl Fn(&str) -> Option<Transcript> + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let scripted = Arc::new(Scripted { script: Box::new(script), told: Mutex::default() });
        let file = definition(ID);
        let run_dir = dir.path().to_owned();
        let options = XlOptions {
            guest: file.guest.clone(),
            run_dir,
            teardown_timeout: Duration::from_millis(10),
            ..XlOptions::new(dir.path().to_owned())
        };
        let xl = XlHypervisor::with_runner(options, scripted.clone()).unwrap();
        xl.define(&file.spec).unwrap();
        Self { xl, scripted, _dir: dir }
    }

    fn told(&self, begin: &str) -> Vec<String> {
        let told = self.scripted.told.lock().unwrap();
        told.iter().filter(|line| line.starts_with(begin)).cloned().collect()
    }

    fn state(&self) -> PowerState {
        self.xl.domain(id()).unwrap().unwrap().state
    }
}

fn id() -> VmId {
    ID.parse().unwrap()
}

/// A QEMU at this socket that has one image open, and does what else it is told.
fn serving(socket: &Path, disks: &'static str) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            writeln!(stream, r#"{{"QMP": {{}}}}"#).unwrap();
            for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                let done = match line.unwrap() {
                    line if line.contains("query-block\"") => disks,
                    line if line.contains("qom-get") => "\"xvda0\"",
                    line if line.contains("query-vnc") => r#"{"enabled": true, "service": "5901"}"#,
                    _ => "{}",
                };
                writeln!(stream, r#"{{"return": {done}}}"#).unwrap();
            }
        }
    });
}

#[test]
fn a_guest_is_what_its_system_needs() {
    let dir = tempfile::tempdir().unwrap();
    let file = definition(ID);
    let guest_of = [(Os::Windows, Guest::Hvm)].into();
    let options = XlOptions { guest: file.guest.clone(), guest_of, ..XlOptions::new(dir.path().to_owned()) };
    let runner = Arc::new(Scripted { script: Box::new(|_| None), told: Mutex::default() });
    let xl = XlHypervisor::with_runner(options, runner).unwrap();
    for (os, hvm) in [(None, false), (Some(Os::Debian), false), (Some(Os::Windows), true)] {
        let spec = DomainSpec { os, ..file.spec.clone() };
        xl.define(&spec).unwrap();
        let kept = xl.inner.definitions.read(spec.id, Kept::Definition).unwrap().unwrap();
        assert_eq!((kept.guest == Guest::Hvm, xl.capabilities(&spec).live_disc), (hvm, hvm), "{os:?}");
    }
}

/// What a `kill -9` leaves between two calls: the guest stands still, and Xen would restart it on the image of before.
#[test]
fn a_guest_that_was_left_standing_goes_on_when_xen_knows_its_disks() {
    let flags = Arc::new(Mutex::new("--p---"));
    let now = Arc::clone(&flags);
    let stage = Stage::new(move |line| {
        let mut flags = now.lock().unwrap();
        if line == "xl unpause 7" {
            *flags = "-b----";
        }
        said(&if line == "xl list -v" { row("x", 7, &flags) } else { String::new() })
    });
    let definitions = &stage.xl.inner.definitions;
    let mut run = definition(ID);
    let layer = |file: &str| Layer { source: VolumeSource::File(file.into()), format: Format::Qcow2 };
    let (over, base) = (layer("/s/over.qcow2"), layer("/s/base.qcow2"));
    run.spec.disks = vec![DiskSpec {
        order: 0,
        source: base.source.clone(),
        format: Format::Qcow2,
        cache: CacheMode::Writeback,
        backing: Vec::new(),
    }];
    definitions.write(&run, Kept::Run).unwrap();
    definitions.mark(id(), Kept::Hold).unwrap();
    assert_eq!(stage.state(), PowerState::Running, "it is not paused in anybody's eyes but ours");

    // As long as nobody says what its disks are it does not move, and that is seen.
    let let_all_go = || stage.xl.inner.let_all_go(&stage.xl.inner.look(Age::Fresh).unwrap());
    let_all_go();
    while stage.state() == PowerState::Running {
        std::thread::yield_now();
    }
    let why = loop {
        match stage.xl.unpause(id()).unwrap_err().to_string() {
            busy if busy.contains("ask again in a moment") => {}
            why => break why,
        }
    };
    assert_eq!(why, "Xen refused: no QEMU serves the disks of the guest");
    assert!(stage.told("xl unpause").is_empty() && definitions.all().unwrap()[&id()].held);

    serving(
        &stage.xl.inner.options.run_dir.join("qmp-libxenstat-7"),
        concat!(
            r#"[{"qdev": "/machine/x", "inserted": {"node-name": "block1", "image": {"filename": "/s/over.qcow2", "#,
            r#""format": "qcow2", "backing-image": {"filename": "/s/base.qcow2", "format": "qcow2"}}}}]"#
        ),
    );
    while definitions.all().unwrap()[&id()].held {
        let_all_go();
    }
    let run = definitions.path(id(), Kept::Run).display().to_string();
    let told: Vec<String> = stage.told("xl ").into_iter().filter(|line| line != "xl list -v").collect();
    assert_eq!(told, [format!("xl config-update 7 {run}"), "xl unpause 7".to_owned()]);
    let disk = definitions.read(id(), Kept::Run).unwrap().unwrap().spec.disks.remove(0);
    assert_eq!(disk.chain(), [over, base]);
    assert_eq!(stage.state(), PowerState::Running);
}

/// The list that told of the hold is older than its end.
#[test]
fn a_guest_that_is_not_held_any_more_stays_as_it_is() {
    let stage = with("--p---");
    stage.xl.inner.definitions.mark(id(), Kept::Hold).unwrap();
    let old = stage.xl.inner.look(Age::Fresh).unwrap();
    stage.xl.inner.definitions.remove(id(), Kept::Hold).unwrap();
    assert!(old.is_held(id()));
    stage.xl.inner.let_go_on(id()).unwrap();
    assert!(stage.told("xl unpause").is_empty());
    assert_eq!(stage.state(), PowerState::Paused);
}

#[test]
fn a_guest_is_paused_once() {
    let stage = with("--p---");
    stage.xl.pause(id()).unwrap();
    assert!(stage.told("xl pause").is_empty());
}

#[test]
fn what_the_host_is_used_for_is_what_xen_counts() {
    let lists = Mutex::new(0);
    let stage = Stage::new(move |line| match line {
        "xl info" => Some(transcript("info")),
        "xl list -v" => {
            let mut lists = lists.lock().unwrap();
            *lists += 1;
            let zero = "00000000-0000-0000-0000-000000000000";
            let dom0 = |time| format!("{HEAD}Domain-0 0 768 2 r----- {time} {zero} - -\n");
            // The guest ends, and another one begins.
            said(&match *lists {
                1 => dom0("10.0") + &format!("x 7 32 1 -b---- 5.5 {ID} - -\n"),
                2 => dom0("10.5") + &format!("x 8 32 1 -b---- 0.3 {ID} - -\n"),
                _ => dom0("11.5") + &format!("x 8 32 1 -b---- 0.2 {ID} - -\n"),
            })
        }
        _ => None,
    });
    let look = || {
        stage.xl.inner.seen.touch();
        stage.xl.host_use().unwrap().unwrap()
    };
    let first = look();
    assert_eq!((first.cpus, first.threads_per_core, first.memory, first.free), (2, 1, MiB(2047), MiB(1256)));
    let busy: Vec<u128> = [first, look(), look()].map(|counted| counted.busy.as_millis()).into();
    assert_eq!(busy, [15_500, 16_300, 17_300]);
    assert_eq!(stage.told("xl info").len(), 1, "once a second");
}

/// One domain in this state; what is not a list works.
fn with(flags: &'static str) -> Stage {
    Stage::new(move |line| said(&if line == "xl list -v" { row("x", 7, flags) } else { String::new() }))
}

#[test]
fn a_domain_is_shown_as_what_it_is() {
    for (flags, state) in [
        ("-b----", PowerState::Running),
        ("--p---", PowerState::Paused),
        ("---s--", PowerState::Shutdown),
        ("---sc-", PowerState::Crashed),
        ("--psr-", PowerState::Running),
        ("-----d", PowerState::Shutdown),
    ] {
        assert_eq!(with(flags).state(), state, "{flags}");
    }
    let off = Stage::new(|_| said(HEAD));
    assert_eq!(off.state(), PowerState::Shutdown);
    assert_eq!(off.xl.domains().unwrap().len(), 1);
}

#[test]
fn however_many_ask_xen_is_asked_once_a_second() {
    let stage = with("-b----");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..100).for_each(|_| drop(stage.xl.domains().unwrap())));
        }
    });
    let lists = stage.told("xl list").len();
    assert!(lists <= 3, "{lists} lists");
}

#[test]
fn a_change_of_ours_is_shown_at_once() {
    let paused = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stage = Stage::new(move |line| {
        if line == "xl pause 7" {
            paused.store(true, std::sync::atomic::Ordering::SeqCst);
        }
        let flags = if paused.load(std::sync::atomic::Ordering::SeqCst) { "--p---" } else { "-b----" };
        said(&if line == "xl list -v" { row("x", 7, flags) } else { String::new() })
    });
    assert_eq!(stage.state(), PowerState::Running);
    stage.xl.pause(id()).unwrap();
    assert_eq!(stage.state(), PowerState::Paused);
    assert_eq!(stage.told("xl pause"), ["xl pause 7"]);
}

#[test]
fn half_of_a_migration_is_no_guest_of_this_host() {
    for name in ["pengx--incoming", "pengx--migratedaway"] {
        let stage =
            Stage::new(move |line| said(&if line == "xl list -v" { row(name, 7, "--p---") } else { String::new() }));
        assert_eq!(stage.state(), PowerState::Shutdown);
        let said = stage.xl.start(id(), Start::Running).unwrap_err().to_string();
        assert_eq!(said, format!("Xen refused: vm {ID} is on its way between two hosts"));
        stage.xl.destroy(id()).unwrap();
        assert!(stage.told("xl create").is_empty() && stage.told("xl destroy").is_empty(), "{name}");
    }
}

#[test]
fn a_uuid_that_is_live_is_not_started_again() {
    for (flags, why) in [
        ("-b----", format!("vm {ID} is RUNNING; it must be off to be started")),
        ("--p---", format!("vm {ID} is PAUSED; it must be off to be started")),
        ("-----d", "Xen refused: domain 7 of its last run is still being torn down; try again".to_owned()),
    ] {
        let stage = with(flags);
        assert_eq!(stage.xl.start(id(), Start::Running).unwrap_err().to_string(), why);
        assert!(stage.told("xl create").is_empty());
    }
}

#[test]
fn a_failed_start_leaves_nothing() {
    let there = Mutex::new(false);
    let stage = Stage::new(move |line| {
        let mut there = there.lock().unwrap();
        match line {
            // It was killed in the middle.
            _ if line.starts_with("xl create") => {
                *there = true;
                None
            }
            "xl destroy 7" => {
                *there = false;
                said("")
            }
            "xl list -v" => said(&if *there { row("x", 7, "--p---") } else { HEAD.to_owned() }),
            _ => None,
        }
    });
    let error = stage.xl.start(id(), Start::Paused).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable { .. }), "{error:?}");
    assert_eq!(stage.told("xl destroy"), ["xl destroy 7"]);
    assert_eq!(stage.state(), PowerState::Shutdown);
    assert!(!stage.xl.inner.look(Age::Fresh).unwrap().has_run(id()));
}

#[test]
fn what_a_dead_qemu_hides_is_in_use_all_the_same() {
    let stage = Stage::new(|line| match line {
        "xl list -v" => said(&row("x", 7, "-b----")),
        "xl list -l" => said("[]"),
        _ => None,
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    let disk = DiskSpec {
        order: 0,
        source: VolumeSource::File(file.path().to_owned()),
        format: Format::Raw,
        cache: crate::model::CacheMode::Writeback,
        backing: Vec::new(),
    };
    let mut run = definition(ID);
    run.spec.disks.push(disk.clone());
    stage.xl.inner.definitions.write(&run, Kept::Run).unwrap();
    let mut other = definition("00000000-0000-4000-8000-000000000001");
    other.spec.disks.push(disk);
    stage.xl.define(&other.spec).unwrap();
    let said = stage.xl.start(other.spec.id, Start::Running).unwrap_err().to_string();
    assert_eq!(said, format!("Xen refused: {} is in use by domain x", file.path().display()));
}

#[test]
fn a_guest_that_says_nothing_was_asked() {
    let silent = "libxl: error: libxl_domain.c:854:pvcontrol_cb: guest didn't acknowledge control request: -9";
    for answer in [None, failed(silent), said("")] {
        let told = answer.clone();
        let stage = Stage::new(move |line| match line {
            "xl list -v" => said(&row("x", 7, "-b----")),
            _ => answer.clone(),
        });
        stage.xl.request_shutdown(id()).unwrap();
        stage.xl.request_reboot(id()).unwrap();
        assert_eq!(stage.told("xl shutdown"), ["xl shutdown -F 7"], "{told:?}");
    }
}

#[test]
fn there_is_no_reset_button_for_a_guest_without_drivers() {
    let stage = Stage::new(|line| match line {
        "xl list -v" => said(&row("x", 7, "-b----")),
        _ => Some(transcript("reboot-hvm-button")),
    });
    let said = stage.xl.request_reboot(id()).unwrap_err().to_string();
    assert_eq!(said, "Xen cannot ask a guest without a driver for Xen to reboot; reset it, or shut it down");
}

#[test]
fn a_device_that_is_there_after_it_was_to_go_is_held_by_its_guest() {
    let list = transcript("list-long-plugged");
    let of = "0d3a9f44-5b0c-4a0e-9d53-6f6c1f0b7a01";
    for slow in [true, false] {
        let list = list.clone();
        let stage = Stage::new(move |line| match line {
            "xl list -v" => said(&row("x", 1, "-b----").replace(ID, of)),
            _ if line.starts_with("xl list -l") => Some(list.clone()),
            _ if slow => None,
            _ => failed("libxl_device_disk_safe_remove failed."),
        });
        let of = of.parse().unwrap();
        for held in [stage.xl.detach_disk(of, 2), stage.xl.detach_nic(of, Mac([0, 0x16, 0x3e, 0, 0, 4]))] {
            let error = held.unwrap_err();
            // Xen's own wait for the guest is over long before.
            let unsure = matches!(error.kind(), ErrorKind::Unavailable { .. });
            assert!(if slow { unsure } else { matches!(error.kind(), ErrorKind::Timeout { .. }) }, "{error:?}");
        }
        stage.xl.detach_disk(of, 9).unwrap();
        assert_eq!(stage.told("xl block-detach"), ["xl block-detach 1 xvdc"]);
        assert_eq!(stage.told("xl network-detach"), ["xl network-detach 1 2"]);
    }
}

#[test]
fn xen_that_is_away_is_said_to_be() {
    let stage = Stage::new(|_| None);
    let error = stage.xl.domains().unwrap_err();
    assert_eq!(error.to_string(), "Xen (xl took more than 20 s; is xenstored alive?) does not answer");
    for unsure in [stage.xl.pause(id()), stage.xl.start(id(), Start::Running), stage.xl.destroy(id())] {
        assert!(matches!(unsure.unwrap_err().kind(), ErrorKind::Unavailable { .. }));
    }
}

#[test]
fn output_that_nobody_knows_is_never_a_state() {
    let stage = Stage::new(|_| said("Nom ID Mém\n"));
    let said = stage.xl.domain(id()).unwrap_err().to_string();
    assert_eq!(said, "Xen refused: xl said what pengx does not understand: \"Nom ID Mém\"");
}

#[test]
fn a_crash_is_noted_and_what_it_held_is_freed() {
    let there = Mutex::new(true);
    let stage = Stage::new(move |line| {
        let mut there = there.lock().unwrap();
        *there &= line != "xl destroy 7";
        said(&if line == "xl list -v" && *there { row("x", 7, "---sc-") } else { HEAD.to_owned() })
    });
    assert_eq!(stage.state(), PowerState::Crashed);
    stage.xl.watch(Arc::new(|| {}));
    while stage.told("xl destroy").is_empty() {
        std::thread::yield_now();
    }
    assert_eq!(stage.state(), PowerState::Crashed, "it stays so until it is started");
}

#[test]
fn a_guest_whose_qemu_has_ended_has_crashed() {
    // It waits, it was paused, it stands still for a moment; and it waits for a QEMU that is not there yet.
    for (flags, held, qemu, crashed) in [
        ("-b----", false, true, true),
        ("--p---", false, true, false),
        ("--p---", true, true, true),
        ("-b----", false, false, false),
    ] {
        let there = Mutex::new(true);
        let stage = Stage::new(move |line| {
            let mut there = there.lock().unwrap();
            // No process serves a domain of this number.
            *there &= line != "xl destroy 4294967295";
            said(&if line == "xl list -v" && *there { row("x", u32::MAX, flags) } else { HEAD.to_owned() })
        });
        let inner = &stage.xl.inner;
        if qemu {
            drop(UnixListener::bind(inner.monitor_path(u32::MAX)).unwrap());
        }
        if held {
            inner.definitions.mark(id(), Kept::Hold).unwrap();
        }
        inner.clean_up(&inner.look(Age::Fresh).unwrap()).unwrap();
        let state = stage.state();
        assert_eq!((state == PowerState::Crashed, state.is_active()), (crashed, !crashed), "{flags} {held} {qemu}");
    }
}

#[test]
fn only_what_a_bridge_carries_is_plugged_in() {
    let mut spec = definition(ID).spec;
    let stage = with("-b----");
    spec.nics = vec![NicSpec { mac: Mac([0, 0x16, 0x3e, 0, 0, 1]), link: NicLink::Unplugged }];
    let said = stage.xl.define(&spec).unwrap_err().to_string();
    assert_eq!(said, "Xen cannot give a guest an interface without a bridge");
}

/// What `xl migrate` says, and what is made of it.
#[test]
fn why_a_guest_was_not_sent_is_said() {
    let to = MigrationTarget {
        address: "10.0.0.2".parse().unwrap(),
        port: 22,
        user: "root".to_owned(),
        key: "/k".into(),
        known_hosts: "/h".into(),
    };
    for (stderr, why) in [
        (
            "xc: error: Failed to enable logdirty: 95,22,0 (22 = Invalid argument): Internal error\n\
             Migration failed, failed to suspend at sender.",
            "Xen cannot move a PV guest that runs: its hypervisor was built without CONFIG_SHADOW_PAGING, as Debian's is",
        ),
        (
            "xc: error: Bad mfn 0 for p2m frame list list: Internal error\nMigration failed, failed to suspend at sender.",
            "Xen cannot move a PV guest whose kernel does not run yet, or cannot be moved",
        ),
        (
            "pengx: pengx refused: vm 1 is not expected here\nlibxl: error: libxl_utils.c:505:libxl_read_exactly: \
             file/stream truncated reading banner from migration receiver stream",
            "the host at 10.0.0.2 refused: vm 1 is not expected here",
        ),
        (
            "ssh: connect to host 10.0.0.2 port 22: No route to host\nlibxl: error: libxl_utils.c:505:libxl_read_exactly: \
             file/stream truncated reading banner from migration receiver stream",
            "the host at 10.0.0.2 (ssh: connect to host 10.0.0.2 port 22: No route to host) does not answer",
        ),
    ] {
        let stage = Stage::new(move |line| match line {
            "xl list -v" => said(&row(&format!("pengx-{ID}"), 7, "-b----")),
            line if line.starts_with("xl migrate") => failed(stderr),
            _ => said(""),
        });
        stage.xl.inner.definitions.write(&definition(ID), definitions::Kept::Run).unwrap();
        let error = stage.xl.send_guest(id(), &to, &AtomicBool::new(false)).unwrap_err();
        assert_eq!(error.to_string(), why);
        assert_eq!(stage.state(), PowerState::Running);
        let told = stage.told("xl migrate");
        assert_eq!(told.len(), 1);
        assert!(
            told[0].starts_with("xl migrate -s  7 exec ssh -F none ") && told[0].ends_with(&format!(" 10.0.0.2 {ID}"))
        );
    }
}
