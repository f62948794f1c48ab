//! A control domain of Xen to test in, as `tests/xen/test.sh` boots it. Tests that need one are ignored elsewhere.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use pengx::exec::SystemRunner;
use pengx::hypervisor::{Boot, Guest, Hypervisor, XlHypervisor, XlOptions};
use pengx::model::{ProofSign, VmId};
use pengx::operations::Settings;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::bed::Ground;
use super::server::Place;
use super::wait::{BOOT, PATIENCE};
use super::whole::{Chains, Domains};

/// What `tests/xen/build.sh` put there for guests.
const SHARED: &str = "/usr/local/share/pengx-xen";

pub fn shared(name: &str) -> PathBuf {
    Path::new(SHARED).join(name)
}

/// What `xl` answers, whatever that is, unless it takes longer than so many seconds.
pub fn try_xl(seconds: u32, args: &[&str]) -> Output {
    Command::new("timeout").arg(seconds.to_string()).arg("xl").args(args).output().unwrap()
}

/// What it says; it must succeed.
pub fn xl(args: &[&str]) -> String {
    let done = try_xl(60, args);
    assert!(done.status.success(), "xl {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// Xen gives its scripts and the QEMU of a guest ten seconds, and what is emulated on a busy machine may need more. What was
/// so refused has left nothing.
pub fn is_too_slow(refused: &pengx::error::Error) -> bool {
    let why = refused.to_string();
    why.contains("Post DM startup configs failed") || why.ends_with("because of timeout")
}

/// A guest of the golden image, which knows Xen.
pub fn linux() -> Guest {
    let (kernel, ramdisk) = (shared("vmlinux"), Some(shared("initrd")));
    Guest::Pv(Boot::Kernel { kernel, ramdisk, cmdline: "console=hvc0 quiet".to_owned() })
}

fn monitor(domid: &str) -> String {
    format!("/run/xen/qmp-libxl-{domid}")
}

/// What the QEMU that serves a domain's disks answers.
pub fn qmp(domid: &str, command: &str, arguments: Value) -> Value {
    let mut monitor = BufReader::new(UnixStream::connect(monitor(domid)).unwrap());
    monitor.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
    let mut line = String::new();
    monitor.read_line(&mut line).unwrap();
    let mut answer = Value::Null;
    for (command, arguments) in [("qmp_capabilities", json!({})), (command, arguments)] {
        writeln!(monitor.get_mut(), "{}", json!({ "execute": command, "arguments": arguments })).unwrap();
        while {
            line.clear();
            monitor.read_line(&mut line).unwrap();
            answer = serde_json::from_str(&line).unwrap();
            assert!(answer["error"].is_null(), "{command}: {line}");
            answer["return"].is_null()
        } {}
    }
    answer["return"].take()
}

/// The domains of one pengx.
pub struct Dom0 {
    domains: PathBuf,
    guest: Guest,
    _dir: Option<tempfile::TempDir>,
}

impl Dom0 {
    /// Its guests are Linux.
    pub fn new() -> Self {
        Self::with(linux())
    }

    pub fn with(guest: Guest) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { domains: dir.path().join("domains"), guest, _dir: Some(dir) }
    }

    /// Those of a server.
    pub fn of(place: &Place) -> Self {
        Self { domains: place.data_dir().join("domains"), guest: linux(), _dir: None }
    }

    /// The number of a domain that is there.
    pub fn domid(&self, id: &str) -> Option<String> {
        let list = xl(&["list"]);
        let line = list.lines().find(|line| line.starts_with(&format!("pengx-{id} ")))?;
        line.split_whitespace().nth(1).map(str::to_owned)
    }

    /// Typed into the shell on the console of a Linux guest.
    pub fn tell(&self, vm: VmId, line: &str) {
        let tty = format!("/local/domain/{}/console/tty", self.domid(&vm.to_string()).unwrap());
        let tty = Command::new("xenstore-read").arg(tty).output().unwrap().stdout;
        std::fs::write(String::from_utf8(tty).unwrap().trim(), format!("{line}\n")).unwrap();
    }
}

impl Drop for Dom0 {
    fn drop(&mut self) {
        for id in self.all() {
            drop(try_xl(60, &["destroy", &format!("pengx-{id}")]));
        }
    }
}

/// The letter of a disk's place tells its order.
fn order(place: &str) -> u32 {
    u32::from(place.strip_prefix("xvd").unwrap().as_bytes()[0] - b'a')
}

impl Domains for Dom0 {
    fn all(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(&self.domains).into_iter().flatten().flatten();
        let files = entries.filter_map(|entry| entry.file_name().into_string().ok());
        files.filter_map(|file| file.strip_suffix(".cfg").map(str::to_owned)).collect()
    }

    fn running(&self) -> BTreeSet<String> {
        let all = self.all();
        let list = xl(&["list"]);
        // What has ended may be in the list for a moment.
        let lives = list.lines().filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [name, _, _, _, state, _] = words[..] else { return None };
            name.strip_prefix("pengx-").filter(|_| !state.contains(['s', 'd']))
        });
        lives.filter(|id| all.contains(*id)).map(str::to_owned).collect()
    }

    fn defined(&self, id: &str) -> Chains {
        let file = self.domains.join(format!("{id}.cfg"));
        let said: Value = serde_json::from_str(&xl(&["create", "-n", "-q", file.to_str().unwrap()])).unwrap();
        let disks = said["disks"].as_array().unwrap();
        let leaf = |disk: &Value| {
            let path = PathBuf::from(disk["pdev_path"].as_str().unwrap());
            (order(disk["vdev"].as_str().unwrap()), vec![path])
        };
        let is_drive = |disk: &&Value| disk["vdev"] == "hdd";
        let mut chains: Chains = disks.iter().filter(|disk| !is_drive(disk)).map(leaf).collect();
        // Xen does not read what is below: it is as the headers of the images say.
        for chain in chains.values_mut() {
            let info =
                super::tool::qemu_img(&["info", "-U", "--backing-chain", "--output=json", chain[0].to_str().unwrap()]);
            let info: Value = serde_json::from_str(&info).unwrap();
            let images = info.as_array().unwrap().iter().skip(1);
            chain.extend(images.map(|image| PathBuf::from(image["filename"].as_str().unwrap())));
        }
        chains
    }

    /// Xen does not keep it.
    fn assert_ended(&self, _: &str, _: bool) {}

    fn live(&self, id: &str) -> Chains {
        let domid = self.domid(id).unwrap();
        assert_eq!(qmp(&domid, "query-block-jobs", json!({})), json!([]), "a job is left");
        let devices = qmp(&domid, "query-block", json!({}));
        let property =
            |device: &Value, name: &str| qmp(&domid, "qom-get", json!({ "path": device["qdev"], "property": name }));
        // Beside them an HVM guest has a drive, and what it sees in place of them without a driver for Xen.
        let is_disk = |device: &&Value| property(device, "type") == "xen-disk";
        let chain = |device: &Value| {
            let place = property(device, "vdev");
            let mut chain = Vec::new();
            let mut image = &device["inserted"]["image"];
            while !image.is_null() {
                chain.push(PathBuf::from(image["filename"].as_str().unwrap()));
                image = &image["backing-image"];
            }
            (order(place.as_str().unwrap()), chain)
        };
        devices.as_array().unwrap().iter().filter(is_disk).map(chain).collect()
    }
}

impl Ground for Dom0 {
    fn hypervisor(&self, rate: u64) -> Arc<dyn Hypervisor> {
        let options = XlOptions {
            guest: self.guest.clone(),
            // What is not answered in that time is lost; a test makes Xen fall silent.
            call_timeout: Duration::from_secs(30),
            power_timeout: PATIENCE * 2,
            request_timeout: Duration::from_secs(10),
            block_rate: rate,
            ..XlOptions::new(self.domains.clone())
        };
        Arc::new(XlHypervisor::new(options, Arc::new(SystemRunner::new())).expect("a control domain of Xen"))
    }

    fn adapt(&self, settings: &mut Settings) {
        // Those of this host.
        settings.bridges.clear();
        // A PV guest begins with all that it may ever have.
        settings.max_vcpus = 2;
        settings.shutdown_timeout = BOOT;
        settings.shutdown_repeat = Duration::from_secs(5);
        settings.memory_timeout = BOOT;
        // There is no way to an agent.
        settings.prove_wait = ProofSign::Console("PENGX-GUEST-READY".to_owned());
    }

    fn is_moving(&self, vm: VmId, order: u32) -> bool {
        let Some(domid) = self.domid(&vm.to_string()) else { return false };
        let jobs = qmp(&domid, "query-block-jobs", json!({}));
        let job = jobs.as_array().unwrap().iter().find(|job| job["device"] == job_of(order));
        job.is_some_and(|job| job["offset"].as_u64() > Some(0) && job["ready"] == false)
    }

    fn let_go(&self, vm: VmId, order: u32) {
        // Its QEMU may be dead.
        let alive = |domid: &String| UnixStream::connect(monitor(domid)).is_ok();
        let Some(domid) = self.domid(&vm.to_string()).filter(alive) else { return };
        let jobs = qmp(&domid, "query-block-jobs", json!({}));
        for job in jobs.as_array().unwrap().iter().filter(|job| job["device"] == job_of(order)) {
            qmp(&domid, "block-job-set-speed", json!({ "device": job["device"], "speed": 0 }));
        }
    }

    fn qemu(&self, vm: VmId) -> Pid {
        let domid = self.domid(&vm.to_string()).unwrap();
        pid(&["-f", &format!("[-]xen-domid {domid} ")])
    }

    fn silence(&self) {
        kill_process(xenstored(), Signal::STOP).unwrap();
    }

    fn mend(&self) {
        kill_process(xenstored(), Signal::CONT).unwrap();
    }
}

fn job_of(order: u32) -> String {
    format!("pengx-xvd{}", char::from(b'a' + u8::try_from(order).unwrap()))
}

/// The one process that `pgrep` finds so.
fn pid(words: &[&str]) -> Pid {
    let found = Command::new("pgrep").args(words).output().unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    Pid::from_raw(found.trim().parse().unwrap_or_else(|_| panic!("{words:?}: {found:?}"))).unwrap()
}

pub fn xenstored() -> Pid {
    pid(&["xenstored$"])
}
