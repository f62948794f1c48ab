//! What only a real Xen can show. Everything here needs a control domain, in which the tests run as root.

use std::process::Command;

use pengx::exec::SystemRunner;
use pengx::hypervisor::{Boot, Guest, XlHypervisor, XlOptions};

use super::*;

/// A kernel that only waits: it answers nobody and needs no disk.
const STUBS: [&str; 2] = ["/usr/local/share/pengx-xen/stub.elf", "/usr/local/share/xenlab/stub.elf"];

fn bench(guest: Guest) -> Bench {
    // Below the bench's own directory, which is gone when the bench is.
    let dir = tempfile::tempdir().unwrap();
    let options = XlOptions {
        guest,
        call_timeout: NEVER,
        power_timeout: 2 * NEVER,
        request_timeout: Duration::from_secs(2),
        device_timeout: Duration::from_secs(5),
        ..XlOptions::new(dir.path().join("domains"))
    };
    let hypervisor = XlHypervisor::new(options, Arc::new(SystemRunner::new())).expect("a control domain of Xen");
    Bench { xen: true, dir, ..Bench::new(Arc::new(hypervisor)) }
}

pub(super) fn pv() -> Bench {
    let kernel = STUBS.iter().map(PathBuf::from).find(|stub| stub.exists()).expect("the stub kernel");
    bench(Guest::Pv(Boot::Kernel { kernel, ramdisk: None, cmdline: String::new() }))
}

/// It never gets beyond its BIOS.
pub(super) fn hvm() -> Bench {
    bench(Guest::Hvm)
}

fn xl(args: &[&str]) -> String {
    let done = Command::new("xl").args(args).output().unwrap();
    assert!(done.status.success(), "xl {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// All that Xen tells of a domain.
pub(super) fn details(vm: &Vm<'_>) -> String {
    xl(&["list", "-l", &format!("pengx-{}", vm.id)])
}

/// The one disk that nobody may write to.
pub(super) fn disc(vm: &Vm<'_>) -> Option<PathBuf> {
    let all: serde_json::Value = serde_json::from_str(&details(vm)).unwrap();
    let disks = all[0]["config"]["disks"].as_array().cloned().unwrap_or_default();
    let disc = disks.iter().find(|disk| disk["readwrite"].is_null())?;
    disc["pdev_path"].as_str().filter(|file| !file.is_empty()).map(PathBuf::from)
}
