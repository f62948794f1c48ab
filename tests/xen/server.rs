//! The program itself in a control domain of Xen, asked through its HTTP port.

use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::server::Place;
use crate::harness::wait::PATIENCE;
use crate::harness::xen::{Dom0, shared, xenstored, xl};
use crate::real::deaths::killed::is_killed;
use crate::real::guests::live_through_xml;

fn place() -> Place {
    let sections = format!(
        "[xl]\nguest = 'pv'\nkernel = '{}'\nramdisk = '{}'\ncmdline = 'console=hvc0 quiet'\ncall_timeout = {}",
        shared("vmlinux").display(),
        shared("initrd").display(),
        PATIENCE.as_secs()
    );
    Place::with("xl:///", "shutdown_timeout = 110\nmax_vcpus = 2", &sections)
}

#[test]
#[ignore = "needs a Xen control domain: make test-xen"]
fn guests_on_xen_live_their_lives_through_the_manuals_xml() {
    let place = place();
    let domains = Dom0::of(&place);
    live_through_xml(&place, &domains);
}

#[test]
#[ignore = "needs a Xen control domain: make test-xen"]
fn a_killed_program_leaves_a_counting_guest_on_xen_whole() {
    let place = place();
    is_killed(Dom0::of(&place), place);
}

/// The kernel of the control domain sees a part of the host only.
#[test]
#[ignore = "needs a Xen control domain: make test-xen"]
fn the_host_is_as_large_as_xen_says() {
    let place = place();
    let server = place.serve();
    let total = xl(&["info", "total_memory"]);
    let perf = server.get("/pmpperf/");
    assert_eq!(perf.element("total_memory"), total.trim());
}

/// Goes on when this does.
struct Stopped(Pid);

impl Drop for Stopped {
    fn drop(&mut self) {
        kill_process(self.0, Signal::CONT).unwrap();
    }
}

/// What a start says that is refused, of a program to which these words lead.
fn refusal(words: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("pengx.toml");
    let data = dir.path().join("data");
    let text = format!("hypervisor = 'xl:///'\ndata_dir = '{}'\n[xl]\ncall_timeout = 3\n", data.display());
    std::fs::write(&config, text).unwrap();
    for command in ["chmod", "chown"] {
        let whose = if command == "chmod" { "755" } else { "65534" };
        assert!(Command::new(command).args(["-R", whose]).arg(dir.path()).status().unwrap().success());
    }
    let mut program = Command::new(words[0]);
    program.args(&words[1..]).arg(env!("CARGO_BIN_EXE_pengx")).args(["serve", "--insecure", "--config"]).arg(&config);
    let done = program.stdin(Stdio::null()).output().unwrap();
    assert!(!done.status.success() && done.stdout.is_empty(), "{done:?}");
    String::from_utf8(done.stderr).unwrap()
}

#[test]
#[ignore = "needs a Xen control domain: make test-xen"]
fn a_start_says_what_of_xen_is_missing() {
    let said = refusal(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
    assert!(said.contains("xl:/// needs root"), "{said}");
    let hidden = "mount -t tmpfs none /usr/sbin && exec \"$@\"";
    let said = refusal(&["unshare", "--mount", "sh", "-c", hidden, "sh"]);
    assert!(said.contains("xl:/// needs the program xl, which is not installed"), "{said}");
    let hidden = "mount --bind /dev/null /dev/xen/privcmd && exec \"$@\"";
    let said = refusal(&["unshare", "--mount", "sh", "-c", hidden, "sh"]);
    assert!(said.contains("Xen") && said.contains("domain info list"), "{said}");

    let pid = xenstored();
    let stopped = Stopped(pid);
    kill_process(pid, Signal::STOP).unwrap();
    let said = refusal(&["env"]);
    drop(stopped);
    assert!(said.contains("xl took more than 3 s; is xenstored alive?"), "{said}");
    xl(&["list"]);
}
