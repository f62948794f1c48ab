//! A private libvirtd for the tests of one process: started by the lab's script, ended by it when this process is gone,
//! however it ends.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

pub(crate) struct Libvirtd {
    pub(crate) uri: String,
    base: PathBuf,
}

impl Libvirtd {
    /// One for all tests that leave it as it is.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Libvirtd> = OnceLock::new();
        SHARED.get_or_init(|| Self::start("shared"))
    }

    /// Another for those that stop and restart it, one after the other.
    pub(crate) fn disturbed() -> MutexGuard<'static, Self> {
        static DISTURBED: OnceLock<Mutex<Libvirtd>> = OnceLock::new();
        let it = DISTURBED.get_or_init(|| Mutex::new(Self::start("disturbed")));
        it.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, for a test that wants to see every domain of its daemon.
    pub(crate) fn start(name: &str) -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        sweep();
        let owner = std::process::id().to_string();
        let base = PathBuf::from(format!("/tmp/{PREFIX}{owner}-{}-{name}", STARTED.fetch_add(1, Ordering::Relaxed)));
        let answer = lab("start", &["-o", &owner], &base);
        let uri = assigned(&answer, "LIBVIRT_URI");
        Self { uri, base }
    }

    /// The process id of the daemon.
    pub(crate) fn pid(&self) -> i32 {
        number_in(&self.base.join("libvirtd.pid"))
    }

    /// The process id of a guest's QEMU.
    pub(crate) fn guest_pid(&self, name: &str) -> i32 {
        let file = format!("{name}.pid");
        let dirs = ["run/qemu", "xdg/run/libvirt/qemu/run"].map(|dir| self.base.join(dir).join(&file));
        number_in(dirs.iter().find(|file| file.exists()).unwrap_or_else(|| panic!("{name} has no QEMU")))
    }

    /// The socket of the monitor of a guest's QEMU; one at a time may use it.
    pub(crate) fn monitor(&self, name: &str) -> PathBuf {
        // The directory's name has the beginning of the guest's.
        let dirs = ["lib/qemu", "xdg/config/libvirt/qemu/lib"].map(|dir| self.base.join(dir));
        let entries = dirs.iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten();
        let is_its = |dir: &Path| {
            let dir = dir.file_name().and_then(|dir| dir.to_str()).unwrap_or_default();
            dir.strip_prefix("domain-").and_then(|dir| dir.split_once('-')).is_some_and(|(_, of)| name.starts_with(of))
        };
        let its: Vec<_> = entries.map(|entry| entry.path()).filter(|dir| is_its(dir)).collect();
        its.iter().map(|dir| dir.join("monitor.sock")).find(|sock| sock.exists()).expect("a monitor")
    }

    /// Ends the daemon and starts it again; guests run on.
    pub(crate) fn restart(&self) {
        lab("restart-daemon", &[], &self.base);
    }

    /// What another tool does behind our back.
    pub(crate) fn virsh(&self, args: &[&str]) -> String {
        let output = Command::new("virsh").arg("-q").arg("-c").arg(&self.uri).args(args).output().expect("virsh");
        assert!(output.status.success(), "virsh {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Lets a block job go as fast as it can, if there is one.
    pub(crate) fn let_go(&self, domain: &str, disk: &str) {
        let args = ["-q", "-c", &self.uri, "blockjob", domain, disk, "--bandwidth", "0"];
        Command::new("virsh").args(args).output().expect("virsh");
    }
}

const PREFIX: &str = "pengx-lv-";

/// Directories of test runs that are over.
fn sweep() {
    for entry in std::fs::read_dir("/tmp").expect("/tmp").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()) else { continue };
        let over = !Path::new("/proc").join(pid).exists() && !entry.path().join("libvirtd.pid").exists();
        if over && std::fs::remove_dir_all(entry.path()).is_err() {
            println!("{} cannot be removed", entry.path().display());
        }
    }
}

fn lab(verb: &str, options: &[&str], base: &Path) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/libvirtd.sh");
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libvirt");
    let output = Command::new(script)
        .arg(verb)
        .args(options)
        .arg(base)
        .env("PENGX_LAB_CACHE", cache)
        .output()
        .expect("tests/lab/libvirtd.sh");
    assert!(output.status.success(), "{verb}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("shell assignments")
}

fn assigned(text: &str, name: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim_matches('\'').to_owned()
}

fn number_in(file: &Path) -> i32 {
    let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    text.trim().parse().unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}
