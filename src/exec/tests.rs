use std::path::Path;

use super::*;
use crate::error::{Error, ErrorKind};

const LONG: Duration = Duration::from_secs(60);

/// Children of tests may be shells; those of the product never are.
fn sh(script: &str) -> Command {
    Command::new("sh", LONG).args(["-c", script])
}

fn run(command: &Command) -> Result<Output, ExecError> {
    SystemRunner.run_quietly(command)
}

fn kind(e: ExecError) -> ErrorKind {
    Error::from(e).kind().clone()
}

#[test]
fn the_child_gets_the_arguments_as_they_are() {
    let out = run(&Command::new("printf", LONG).args(["%s|", "a b", "", "$(id)", "-x", "é"])).unwrap();
    assert_eq!(String::from_utf8(out.stdout).unwrap(), "a b||$(id)|-x|é|");
}

#[test]
fn the_child_sees_a_fixed_world() {
    let ours = tempfile::NamedTempFile::new().unwrap();
    let out = run(&sh("env | sort; pwd; cat; readlink /proc/$$/fd/*; true")).unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    let lines: Vec<_> = said.lines().filter(|l| !l.starts_with("PWD=") && !l.starts_with("_=")).collect();
    // Nothing came from standard input.
    assert_eq!(lines[..4], ["LC_ALL=C", &format!("PATH={PATH}"), "/", "/dev/null"]);
    assert!(!said.contains(ours.path().to_str().unwrap()), "{said}");
}

#[test]
fn lines_come_one_by_one_whether_they_end_in_cr_or_lf() {
    let mut lines = Vec::new();
    let out = SystemRunner
        .run(
            &sh(r"printf '    (1.00/100%%)\r    (2.00/100%%)\r\nlast'"),
            &mut Watch { cancel: &AtomicBool::new(false), line: &mut |l| lines.push(l.to_owned()), lost: &|_| None },
        )
        .unwrap();
    assert_eq!(lines, ["    (1.00/100%)", "    (2.00/100%)", "last"]);
    assert!(out.stdout.ends_with(b"last"));
}

#[test]
fn a_failure_keeps_command_code_and_last_words() {
    let e = run(&sh("echo first >&2; echo 'sh: no such luck' >&2; exit 3")).unwrap_err();
    assert!(matches!(e.failure, Failure::Exit(3)));
    assert_eq!(e.argv[0], "sh");
    assert_eq!(e.stderr, "first\nsh: no such luck");
    assert_eq!(kind(e), ErrorKind::Refused { by: "sh".into(), why: "no such luck".into() });

    let e = run(&sh("kill -9 $$")).unwrap_err();
    assert!(matches!(e.failure, Failure::Signal(9)));
    assert_eq!(Error::from(e).to_string(), "the host refused: sh was killed (signal 9); is the host out of memory?");

    let e = run(&sh("kill -11 $$")).unwrap_err();
    assert_eq!(kind(e), ErrorKind::Refused { by: "sh".into(), why: "it was ended by signal 11".into() });
}

#[test]
fn a_child_that_gets_no_memory_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    std::fs::write(&from, vec![7; 8 << 20]).unwrap();
    let convert = |space: u64| {
        let limits = Limits { address_space_bytes: Some(space), ..Limits::default() };
        let args = ["convert", "-f", "raw", "-O", "qcow2", from.to_str().unwrap(), to.to_str().unwrap()];
        run(&Command::new("qemu-img", LONG).args(args).limits(limits))
    };
    convert(1 << 30).unwrap();
    // From what its libraries take to what its threads take: wherever it ends, its sentence names the memory.
    let mut starved = 0;
    for mib in (8..120).step_by(4) {
        let Err(e) = convert(mib << 20) else { continue };
        let said = Error::from(e).to_string();
        assert!(said.starts_with("the host refused: qemu-img got too little memory ("), "{mib} MiB: {said}");
        starved += 1;
    }
    assert!(starved > 0);
}

#[test]
fn much_output_is_taken_and_too_much_is_refused() {
    let out =
        run(&sh("head -c 1000000 /dev/zero; head -c 300000 /dev/zero | tr '\\0' x >&2; echo the end >&2")).unwrap();
    assert_eq!(out.stdout.len(), 1_000_000);
    assert!(out.stderr.len() <= STDERR_TAIL && out.stderr.ends_with("xthe end"));

    let e = run(&sh("cat /dev/zero")).unwrap_err();
    assert!(matches!(e.failure, Failure::Flood), "{e}");
}

#[test]
fn a_missing_program_names_its_package() {
    let e = run(&Command::new("no-such-tool", LONG)).unwrap_err();
    assert_eq!(kind(e), ErrorKind::Unavailable { what: "no-such-tool".into() });
    let missing = ExecError {
        argv: vec!["qemu-img".into()],
        failure: Failure::Missing("qemu-img".into()),
        stderr: String::new(),
    };
    let ErrorKind::Unavailable { what } = kind(missing) else { panic!() };
    assert_eq!(what, "qemu-img (is the package qemu-utils installed?)");
}

/// Runs a script that reports its group's members before it blocks, and waits until all of them are gone.
fn ended(command: &Command, cancel_when_started: bool) -> Failure {
    let cancel = AtomicBool::new(false);
    let mut pids = Vec::new();
    let mut line = |l: &str| {
        pids.push(l.to_owned());
        cancel.store(cancel_when_started, Ordering::Relaxed);
    };
    let e = SystemRunner.run(command, &mut Watch { cancel: &cancel, line: &mut line, lost: &|_| None }).unwrap_err();
    assert_eq!(pids.len(), 1, "the script has not started");
    let deadline = Instant::now() + LONG;
    for pid in pids[0].split(' ') {
        while alive(pid) {
            assert!(Instant::now() < deadline, "process {pid} is still there");
            std::thread::yield_now();
        }
    }
    e.failure
}

fn alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

/// The child and its own child, both deaf to SIGTERM.
const DEAF: &str = "trap '' TERM; sleep 1000 & echo $$ $!; wait; wait; sleep 1000";

#[test]
fn a_cancelled_child_goes_with_its_whole_group() {
    let polite = ended(&sh("sleep 1000 & echo $$ $!; wait"), true);
    assert!(matches!(polite, Failure::Cancelled));
    let deaf = ended(&sh(DEAF), true);
    assert!(matches!(deaf, Failure::Cancelled));
}

#[test]
fn a_deadline_ends_the_whole_group() {
    let mut command = sh(DEAF);
    command.deadline = Duration::from_secs(1);
    assert!(matches!(ended(&command, false), Failure::Timeout(_)));
}

#[test]
fn silence_is_a_stall() {
    let command = sh("echo $$; exec sleep 1000").stall(Duration::from_millis(300));
    assert!(matches!(ended(&command, false), Failure::Stalled(_)));
}

#[test]
fn a_child_whose_storage_is_lost_is_ended() {
    let (cancel, asked) = (AtomicBool::new(false), std::sync::Mutex::new(Vec::new()));
    let lost = |silence: Duration| {
        asked.lock().unwrap().push(silence);
        (silence > Duration::from_millis(300)).then(|| "the storage at /nfs".to_owned())
    };
    let mut watch = Watch { cancel: &cancel, line: &mut |_| {}, lost: &lost };
    // While it speaks, it is not lost.
    let command = sh("for i in 1 2 3 4 5; do echo $i; sleep 0.1; done; exec sleep 1000");
    let e = SystemRunner.run(&command, &mut watch).unwrap_err();
    assert!(matches!(&e.failure, Failure::Lost(_)), "{e}");
    assert_eq!(kind(e), ErrorKind::Unavailable { what: "the storage at /nfs".into() });
    let asked = asked.into_inner().unwrap();
    assert!(!asked.is_sorted(), "each line begins the silence anew: {asked:?}");
}

#[test]
fn a_run_that_is_cancelled_before_it_began_starts_nothing() {
    let e = SystemRunner
        .run(
            &Command::new("no-such-tool", LONG),
            &mut Watch { cancel: &AtomicBool::new(true), line: &mut |_| {}, lost: &|_| None },
        )
        .unwrap_err();
    assert!(matches!(e.failure, Failure::Cancelled));
}

#[test]
fn limits_hold() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("big");
    let write = Command::new("dd", LONG)
        .arg("if=/dev/zero")
        .arg(format!("of={}", file.display()))
        .args(["bs=1M", "count=8"])
        .limits(Limits { file_bytes: Some(1 << 20), ..Limits::default() });
    assert!(matches!(run(&write).unwrap_err().failure, Failure::Signal(25) | Failure::Exit(_)));
    assert_eq!(file.metadata().unwrap().len(), 1 << 20);

    let out = run(&sh("ulimit -v; ulimit -t").limits(Limits {
        address_space_bytes: Some(1 << 30),
        cpu_secs: Some(77),
        file_bytes: None,
    }))
    .unwrap();
    assert_eq!(String::from_utf8(out.stdout).unwrap(), "1048576\n77\n");
}

#[test]
fn a_child_for_which_nobody_thought_of_limits_has_them() {
    for kind in ["-S", "-H"] {
        let out = run(&sh(&format!("ulimit {kind} -v; ulimit {kind} -f; ulimit {kind} -n; ulimit {kind} -c"))).unwrap();
        // In KiB, in blocks of 512 bytes, in files, in blocks.
        assert_eq!(String::from_utf8(out.stdout).unwrap(), "2097152\n131072\n1024\n0\n", "{kind}");
    }
}

#[test]
fn a_child_has_no_network() {
    let out = run(&sh("readlink /proc/self/ns/net; cat /proc/net/dev; tail -n +2 /proc/net/route")).unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    let (namespace, tables) = said.split_once('\n').unwrap();
    assert_ne!(Path::new(namespace), std::fs::read_link("/proc/self/ns/net").unwrap());
    // Below two lines of headings: one interface, with no route that leads to it.
    let interfaces: Vec<&str> = tables.lines().skip(2).map(str::trim_start).collect();
    assert!(matches!(interfaces[..], [only] if only.starts_with("lo:")), "{tables}");
}

#[test]
fn a_daemon_that_keeps_the_pipes_does_not_keep_us() {
    // As xl leaves one behind for each domain: in a session of its own, so it also survives.
    let out = run(&sh("setsid sleep 1000 & echo $!")).unwrap();
    let pid = String::from_utf8(out.stdout).unwrap();
    assert!(alive(pid.trim()));
    let daemon = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(daemon, Signal::KILL).unwrap();
}

#[test]
fn what_is_for_the_host_is_like_the_host() {
    let words = "ulimit -f; ulimit -v; ulimit -n; readlink /proc/$$/ns/net";
    let told = |command: &Command| String::from_utf8(run(command).unwrap().stdout).unwrap();
    #[expect(clippy::disallowed_methods, reason = "what this process itself is held to")]
    let ours = std::process::Command::new("sh").args(["-c", words]).output().unwrap();
    assert_eq!(told(&sh(words).for_the_host()), String::from_utf8(ours.stdout).unwrap());
    assert!(told(&sh("ulimit -f")) != "unlimited\n", "others are held");
    // It ends like all others.
    let slow = Command { deadline: Duration::from_millis(100), ..sh("sleep 60").for_the_host() };
    assert!(matches!(run(&slow).unwrap_err().failure, Failure::Timeout(_)));
}
