//! What only a real Xen can show. Everything here needs a control domain, in which the tests run as root.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use pengx::exec::SystemRunner;
use pengx::host::authorized_keys;
use pengx::hypervisor::{Boot, Guest, MigrationTarget, Transit, XlHypervisor, XlOptions};
use pengx::model::{Layer, PmId};
use serde_json::json;

use super::live::timed_out;
use super::*;
use crate::harness::guest::{EXTRA, SYSTEM, golden};
use crate::harness::tool::{qemu_img, tool};
use crate::harness::xen::{qmp, shared, xl};

fn connect(dir: &Path, guest: Guest, block_rate: u64) -> XlHypervisor {
    let options = XlOptions {
        guest,
        call_timeout: NEVER,
        power_timeout: 2 * NEVER,
        request_timeout: Duration::from_secs(10),
        block_rate,
        ..XlOptions::new(dir.join("domains"))
    };
    XlHypervisor::new(options, Arc::new(SystemRunner::new())).expect("a control domain of Xen")
}

fn bench(guest: Guest) -> Bench {
    // Below the bench's own directory, which is gone when the bench is.
    let dir = tempfile::tempdir().unwrap();
    Bench { xen: true, ..Bench::in_dir(Arc::new(connect(dir.path(), guest, 0)), dir) }
}

/// It only waits, answers nobody and needs no disk.
fn stub() -> Guest {
    Guest::Pv(Boot::Kernel { kernel: shared("stub"), ramdisk: None, cmdline: String::new() })
}

pub(super) fn pv() -> Bench {
    bench(stub())
}

/// The same hypervisor, whose block jobs move so many bytes a second.
pub(super) fn slow(bench: &Bench, rate: u64) -> XlHypervisor {
    connect(bench.dir.path(), stub(), rate)
}

/// The job of the disk that libvirt would call so goes as fast as it can.
pub(super) fn let_go(vm: &Vm<'_>, target: &str) {
    let speed = serde_json::json!({ "device": format!("pengx-x{target}"), "speed": 0 });
    qmp(&domid(vm).unwrap(), "block-job-set-speed", speed);
}

/// It never gets beyond its BIOS.
pub(super) fn hvm() -> Bench {
    Bench { emulated: true, ..bench(Guest::Hvm) }
}

/// All that Xen tells of a domain.
pub(super) fn details(vm: &Vm<'_>) -> String {
    xl(&["list", "-l", &format!("pengx-{}", vm.id)])
}

/// The one disk that nobody may write to; a drive without a disc has a blank one.
pub(super) fn disc(vm: &Vm<'_>) -> Option<PathBuf> {
    let all: serde_json::Value = serde_json::from_str(&details(vm)).unwrap();
    let disks = all[0]["config"]["disks"].as_array().cloned().unwrap_or_default();
    let disc = disks.iter().find(|disk| disk["readwrite"].is_null())?;
    disc["pdev_path"].as_str().map(PathBuf::from).filter(|file| !file.ends_with("domains/blank.iso"))
}

/// A small Linux that obeys.
fn linux(cmdline: &str, with_ramdisk: bool) -> Bench {
    let ramdisk = with_ramdisk.then(|| shared("initrd"));
    bench(Guest::Pv(Boot::Kernel { kernel: shared("vmlinux"), ramdisk, cmdline: cmdline.to_owned() }))
}

fn small_linux() -> DomainSpec {
    DomainSpec { memory: MiB(96), max_memory: MiB(96), ..spec(&[]) }
}

/// The number of the domain that it is now; `None` while it is none.
fn domid(vm: &Vm<'_>) -> Option<String> {
    let list = xl(&["list"]);
    let line = list.lines().find(|line| line.contains(&vm.id.to_string()))?;
    line.split_whitespace().nth(1).map(str::to_owned)
}

/// How often a small Linux has said that it is up.
fn boots(vm: &Vm<'_>) -> usize {
    let console = PathBuf::from(format!("/var/log/xen/console/guest-pengx-{}.log", vm.id));
    std::fs::read_to_string(&console).unwrap_or_default().matches("PENGX-GUEST-READY").count()
}

fn wait_for(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + 4 * NEVER;
    while !is() {
        assert!(Instant::now() < deadline, "{what} never came");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
#[ignore = "needs a Xen control domain: make test-xen"]
fn a_guest_that_dies_has_crashed_and_holds_nothing() {
    // Without anything to mount it panics.
    let bench = linux("console=hvc0 root=/dev/none", false);
    let vm = bench.vm_with(&DomainSpec { disks: spec(&[bench.disk()]).disks, ..small_linux() });
    // Who watches frees what it held.
    bench.hypervisor.watch(Arc::new(|| {}));
    vm.start(Start::Running);
    wait_for("its crash", || vm.state() == PowerState::Crashed);
    let name = format!("pengx-{}", vm.id);
    wait_for("the end of what it held", || !xl(&["list"]).contains(&name));
    assert_eq!(vm.status(), DomainStatus { id: vm.id, state: PowerState::Crashed, vnc: None, number: None });
    vm.start(Start::Paused);
    assert_eq!(vm.state(), PowerState::Paused);
}

#[test]
#[ignore = "needs a Xen control domain: make test-xen"]
fn a_guest_reboots_as_the_same_vm_and_shuts_down() {
    let bench = linux("console=hvc0 quiet", true);
    let vm = bench.vm_with(&small_linux());
    vm.start(Start::Running);
    let first = domid(&vm);
    // Linux that is asked before its init listens loses that, and hears nothing any more.
    wait_for("its boot", || boots(&vm) == 1);
    bench.hypervisor.request_reboot(vm.id).unwrap();
    wait_for("its reboot", || {
        assert_eq!(vm.state(), PowerState::Running, "it is never off in between");
        domid(&vm).is_some_and(|now| Some(now) != first)
    });
    wait_for("its next boot", || boots(&vm) > 1);
    wait_for("its end", || {
        if vm.state() == PowerState::Running {
            // It may be off by now.
            drop(bench.hypervisor.request_shutdown(vm.id));
        }
        vm.state() == PowerState::Shutdown
    });
    // It is in the list for a moment.
    wait_for("the end of what it had", || domid(&vm).is_none());
}

#[test]
#[ignore = "needs a Xen control domain: make test-xen"]
fn a_guest_that_sleeps_keeps_what_it_has_taken_until_it_wakes() {
    let bench = linux("console=hvc0 quiet", true);
    let (file, nic) = (bench.disk(), nic(1, bench.link()));
    let disks = spec(&[bench.disk(), file.clone()]).disks;
    let vm = bench.vm_with(&DomainSpec { disks, nics: vec![nic.clone()], ..small_linux() });
    vm.start(Start::Running);
    wait_for("its boot", || boots(&vm) == 1);
    bench.hypervisor.pause(vm.id).unwrap();
    timed_out(bench.hypervisor.detach_disk(vm.id, 1));
    timed_out(bench.hypervisor.detach_nic(vm.id, nic.mac));
    // Another one that is large enough for its kernel.
    let is_free = || {
        let disks = spec(std::slice::from_ref(&file)).disks;
        let other = bench.vm_with(&DomainSpec { disks, ..small_linux() });
        bench.hypervisor.start(other.id, Start::Paused)
    };
    let why = refused(is_free());
    assert!(why.contains(file.to_str().unwrap()), "{why}");
    bench.hypervisor.unpause(vm.id).unwrap();
    wait_for("its letting go", || {
        bench.hypervisor.detach_disk(vm.id, 1).is_ok() && bench.hypervisor.detach_nic(vm.id, nic.mac).is_ok()
    });
    is_free().unwrap();
}

#[test]
#[ignore = "needs a Xen control domain: make test-xen"]
fn domains_of_others_are_listed_and_a_uuid_is_live_once() {
    let bench = pv();
    let vm = bench.vm(&[]);
    let kernel = shared("stub").display().to_string();
    let file = bench.dir.path().join("foreign.cfg");
    let text = format!("name=\"foreign-{0}\"\nuuid=\"{0}\"\ntype=\"pv\"\nkernel=\"{kernel}\"\nmemory=4\n", vm.id);
    std::fs::write(&file, text).unwrap();
    xl(&["create", "-q", "-p", file.to_str().unwrap()]);
    wrong_state(bench.hypervisor.start(vm.id, Start::Running));
    let paused = vm.status();
    assert_eq!((paused.state, &paused.vnc, paused.number.is_some()), (PowerState::Paused, &None, true));
    assert!(bench.hypervisor.domains().unwrap().contains(&paused));
    let stranger = pv();
    assert_eq!(stranger.hypervisor.domain(vm.id).unwrap(), Some(paused));
    let defined = stranger.hypervisor.defined(vm.id).unwrap().unwrap();
    assert_eq!((defined.name, defined.memory), (format!("foreign-{}", vm.id), MiB(4)));
}

/// A logical volume of the control domain, until it is dropped.
struct Volume([Layer; 1]);

impl Volume {
    fn new() -> Self {
        let name = Uuid::new_v4().simple().to_string();
        tool("lvcreate", &["-qq", "-y", "-L", "128M", "-n", &name, "vg0"]);
        Self([layer(Path::new("/dev/vg0").join(name), Format::Raw)])
    }

    fn name(&self) -> &str {
        name(&self.0[0])
    }

    /// The number of the newest heartbeat there; read past the cache of this host, of which its guest knows nothing.
    fn beat(&self, offset: u64) -> Option<u64> {
        let (from, skip) = (format!("if={}", self.name()), format!("skip={}", offset / 512));
        let read = tool("dd", &["status=none", "iflag=direct", "bs=512", "count=1", &from, &skip]).stdout;
        let line = String::from_utf8(read).ok().filter(|line| line.starts_with("PENGX-HB "))?;
        line.split(' ').find_map(|word| word.strip_prefix("seq=")?.parse().ok())
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // It does not go while somebody has it.
        wait_for("the end of its guest", || {
            Command::new("lvremove").args(["-qq", "-y", self.name()]).status().unwrap().success()
        });
    }
}

#[test]
#[ignore = "needs a Xen control domain: make test-xen"]
fn a_block_device_is_served_by_the_kernel() {
    let (system, extra) = (Volume::new(), Volume::new());
    qemu_img(&["convert", "-n", "-O", "raw", golden().to_str().unwrap(), system.name()]);
    let bench = linux("console=hvc0 quiet", true);
    let vm = bench.vm_with(&DomainSpec { disks: vec![disk_on(0, &system.0)], ..small_linux() });
    vm.start(Start::Running);
    wait_for("its heart", || system.beat(SYSTEM).is_some());
    bench.hypervisor.attach_disk(vm.id, &disk_on(1, &extra.0)).unwrap();
    wait_for("its heart on the other one", || extra.beat(EXTRA).is_some());
    let disks = xl(&["block-list", &domid(&vm).unwrap()]);
    assert_eq!((disks.matches("/backend/vbd/").count(), disks.matches("qdisk").count()), (2, 0), "{disks}");

    let other = bench.vm_with(&DomainSpec { disks: vec![disk_on(0, &extra.0)], ..small_linux() });
    let why = refused(bench.hypervisor.start(other.id, Start::Paused));
    assert!(why.contains(extra.name()), "{why}");
    let above = with(&layer(bench.dir.path().join("above.qcow2"), Format::Qcow2), &system.0);
    unsupported(bench.hypervisor.overlay_disks(vm.id, &[disk_on(0, &above)]));

    let before = system.beat(SYSTEM);
    wait_for("its next beat", || system.beat(SYSTEM) > before);
    wait_for("its letting go", || bench.hypervisor.detach_disk(vm.id, 1).is_ok());
    bench.hypervisor.start(other.id, Start::Paused).unwrap();
}

/// This host, reached as another one is. What it takes in belongs to the pengx of `bench`.
fn itself(bench: &Bench) -> MigrationTarget {
    let dir = bench.dir.path();
    let (key, known_hosts) = (dir.join("key"), dir.join("known_hosts"));
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status().unwrap();
    assert!(made.success());
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    let public: Vec<&str> = public.split_whitespace().take(2).collect();
    let public = public.join(" ").parse().unwrap();
    authorized_keys::write(Path::new("/root/.ssh/authorized_keys"), &[(PmId(Uuid::new_v4()), public)]).unwrap();
    let host = std::fs::read_to_string("/etc/ssh/ssh_host_ed25519_key.pub").unwrap();
    std::fs::write(&known_hosts, format!("127.0.0.1 {host}")).unwrap();
    std::fs::create_dir_all("/etc/pengx").unwrap();
    std::fs::write("/etc/pengx/pengx.toml", format!("data_dir = {dir:?}\n")).unwrap();
    let pengx = Path::new("/usr/bin/pengx");
    if !pengx.exists() {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_pengx"), pengx).unwrap();
    }
    MigrationTarget { address: IpAddr::from(Ipv4Addr::LOCALHOST), port: 22, user: "root".to_owned(), key, known_hosts }
}

/// Debian builds its hypervisor such that it cannot tell what a PV guest writes; and not every kernel can be moved.
#[test]
#[ignore = "needs a Xen control domain: make test-xen"]
fn a_guest_that_cannot_be_moved_is_told_so_and_goes_on() {
    let knows = linux("console=hvc0 quiet", true);
    for (bench, spec, says) in
        [(&pv(), spec(&[]), "whose kernel does not run yet"), (&knows, small_linux(), "CONFIG_SHADOW_PAGING")]
    {
        let vm = bench.vm_with(&spec);
        vm.start(Start::Running);
        if std::ptr::eq(bench, &knows) {
            wait_for("its boot", || boots(&vm) == 1);
        }
        let before = domid(&vm);
        // As if this host had not the guest already.
        std::fs::write(bench.dir.path().join(format!("domains/{}.expected", vm.id)), "").unwrap();
        let why = bench.hypervisor.send_guest(vm.id, &itself(bench), &AtomicBool::new(false)).unwrap_err();
        assert!(why.to_string().contains(says), "{why:?}");
        unsupported(Err(why));
        wait_for("the end of what came", || !xl(&["list"]).contains("--incoming"));
        assert_eq!((bench.hypervisor.transit(vm.id).unwrap(), vm.state()), (Transit::Here, PowerState::Running));
        assert_eq!(domid(&vm), before);
    }
}

/// A boot sector that says, as a driver for Xen does, that it needs no emulated disks any more; then it waits.
const UNPLUGS: [u8; 13] = [
    0xba, 0x10, 0x00, // mov dx, 0x10
    0xed, // in ax, dx
    0xb8, 0x01, 0x00, // mov ax, 1: all IDE disks
    0xef, // out dx, ax
    0xfb, // sti: with none to wake it the guest would be over
    0xf4, // hlt
    0xeb, 0xfd, // jmp back to it
    0x00,
];

#[test]
#[ignore = "needs a Xen control domain: make test-xen"]
fn disks_of_an_hvm_guest_are_moved_once_it_has_a_driver_for_xen() {
    let bench = bench(Guest::Hvm);
    let chain = bench.stack(2);
    let mut sector = [0; 512];
    sector[..UNPLUGS.len()].copy_from_slice(&UNPLUGS);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    let file = bench.dir.path().join("sector");
    std::fs::write(&file, sector).unwrap();
    let write = format!("write -q -s {} 0 512", file.display());
    let written = Command::new("qemu-io").args(["-f", "qcow2", "-c", &write, name(&chain[0])]).status().unwrap();
    assert!(written.success());
    let vm = bench.vm_with(&spec_on(&[&chain]));
    vm.start(Start::Paused);
    let above = with(&bench.overlay_on(&chain[0]), &chain);
    let overlays = [disk_on(0, &above)];
    unsupported(bench.hypervisor.overlay_disks(vm.id, &overlays));
    vm.assert_chain(0, &chain);
    bench.hypervisor.unpause(vm.id).unwrap();
    wait_for("its driver", || !qmp(&domid(&vm).unwrap(), "query-block", json!({})).to_string().contains("\"ide0"));
    bench.hypervisor.overlay_disks(vm.id, &overlays).unwrap();
    vm.assert_chain(0, &above);
    assert_eq!(vm.state(), PowerState::Running);
    bench.hypervisor.start_block_job(vm.id, 0, &commit(&above[0], &chain[0])).unwrap();
    vm.until_ready(0);
    bench.hypervisor.pivot(vm.id, 0).unwrap();
    vm.assert_chain(0, &chain);
    bench.hypervisor.destroy(vm.id).unwrap();
    assert_sound(&chain);
}

/// `xl` reads what was meant out of every text that it can be given.
#[test]
#[ignore = "needs a Xen control domain: make test-xen"]
fn xl_reads_what_is_written() {
    let kernel = "/boot/it's a \"kernel\" \\ 한글 # 1";
    let cmdline = "root=/dev/xvda1 'quoted' \"twice\" \\n $HOME `id` # no comment";
    let boot = Boot::Kernel { kernel: kernel.into(), ramdisk: None, cmdline: cmdline.to_owned() };
    for guest in [Guest::Pv(boot.clone()), Guest::Pvh(boot), Guest::Hvm] {
        let (is_hvm, is_pvh) = (guest == Guest::Hvm, matches!(guest, Guest::Pvh(_)));
        let bench = bench(guest);
        let files = ["/s/it's\"1\"\\&=:;%{x}[y]#$z.raw", "/s/한글.raw"].map(PathBuf::from);
        let mut spec = spec(&files);
        spec.nics = vec![nic(1, bench.link())];
        spec.pci = (!is_pvh).then(|| "0000:03:10.4".parse().unwrap());
        let vm = bench.vm_with(&spec);
        let file = bench.dir.path().join("domains").join(format!("{}.cfg", vm.id));
        let read: serde_json::Value =
            serde_json::from_str(&xl(&["create", "-n", "-q", file.to_str().unwrap()])).unwrap();
        let paths: Vec<_> = read["disks"].as_array().unwrap().iter().map(|disk| disk["pdev_path"].as_str()).collect();
        assert_eq!(paths[..2], files.each_ref().map(|file| file.to_str()));
        assert_eq!(read["c_info"]["uuid"], vm.id.to_string());
        assert_eq!(read["nics"][0]["mac"], spec.nics[0].mac.to_string());
        let device = &read["pcidevs"][0];
        let place = ["bus", "dev", "func"].map(|part| device[part].as_u64());
        assert_eq!(place, if is_pvh { [None; 3] } else { [Some(3), Some(16), Some(4)] });
        if !is_hvm {
            assert_eq!(
                (read["b_info"]["kernel"].as_str(), read["b_info"]["cmdline"].as_str()),
                (Some(kernel), Some(cmdline))
            );
        }
    }
}
