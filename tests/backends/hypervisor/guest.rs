//! What a guest sees of what is changed while it runs: Debian's kernel, emulated.

use super::*;
use crate::harness::guest::{EXTRA, SYSTEM, Sight, golden, next_beat, until_seen};
use crate::harness::wait::{BOOT, wait_within};

fn bench() -> Bench {
    Bench::new(Arc::new(connect_with(&Libvirtd::shared().uri, BOOT)))
}

/// A guest with a system of its own.
struct Guest<'a> {
    vm: Vm<'a>,
    /// What the system is on.
    image: PathBuf,
}

impl<'a> Guest<'a> {
    fn new(bench: &'a Bench) -> Self {
        let image = bench.dir.path().join("system.qcow2");
        std::fs::copy(golden(), &image).unwrap();
        let mut spec = spec(std::slice::from_ref(&image));
        spec.disks[0].format = Format::Qcow2;
        (spec.memory, spec.max_memory) = (MiB(160), MiB(192));
        Self { vm: bench.vm_with(&spec), image }
    }

    /// Waits until it does.
    fn sees(&self, what: &str, is: impl Fn(&Sight) -> bool) -> Sight {
        until_seen(&self.image, Format::Qcow2, what, is)
    }

    fn sees_disks(&self, disks: &str) {
        self.sees(disks, |sight| sight.disks.join(",") == disks);
    }
}

/// Only what a label is read from.
fn iso(bench: &Bench, label: &str) -> VolumeSource {
    let mut image = vec![0; 18 * 2048];
    image[16 * 2048..][..7].copy_from_slice(b"\x01CD001\x01");
    image[16 * 2048 + 40..][..32].copy_from_slice(format!("{label:32}").as_bytes());
    let file = bench.dir.path().join(format!("{label}.iso"));
    std::fs::write(&file, image).unwrap();
    VolumeSource::File(file)
}

#[test]
fn a_booted_guest_uses_what_is_plugged_in_and_lets_it_go() {
    let bench = bench();
    let guest = Guest::new(&bench);
    let id = guest.vm.id;
    guest.vm.start(Start::Running);
    let first = guest.sees("itself", |_| true);
    assert_eq!((first.cpus, first.disks.join(",").as_str(), first.nics, first.disc), (1, "vda", 0, None));

    disks_and_interfaces(&bench, &guest);
    bench.hypervisor.set_vcpus(id, 2).unwrap();
    guest.sees("two CPUs", |sight| sight.cpus == 2);
    memory(&bench, &guest);

    for label in ["PENGX 1", "SECOND"] {
        bench.hypervisor.change_disc(id, Some(&iso(&bench, label))).unwrap();
        guest.sees(label, |sight| sight.disc == Some(label.replace(' ', "_")));
    }
    // Who wants to read closes an open drive, also in the middle of a change.
    let console = Libvirtd::shared().virsh(&["ttyconsole", &id.to_string()]);
    std::fs::write(console.trim(), "while :; do dd if=/dev/sr0 of=/dev/null; done 2>/dev/null &\n").unwrap();
    for round in 0..10 {
        bench.hypervisor.change_disc(id, None).unwrap();
        guest.sees("an empty drive", |sight| sight.disc.is_none());
        let label = format!("ROUND {round}");
        bench.hypervisor.change_disc(id, Some(&iso(&bench, &label))).unwrap();
        guest.sees(&label, |sight| sight.disc == Some(label.replace(' ', "_")));
    }
    assert_eq!(next_beat(&guest.image, Format::Qcow2, SYSTEM).boots, 1, "it was one life");
}

fn disks_and_interfaces(bench: &Bench, guest: &Guest<'_>) {
    let (file, nic) = (bench.disk(), nic(1, NicLink::User));
    let (hypervisor, id) = (&bench.hypervisor, guest.vm.id);
    // What was once pulled out can be plugged in again.
    for _ in 0..2 {
        hypervisor.attach_disk(id, &disk_spec(1, &file)).unwrap();
        hypervisor.attach_nic(id, &nic).unwrap();
        guest.sees_disks("vda,vdb");
        guest.sees("an interface", |sight| sight.nics == 1);
        next_beat(&file, Format::Raw, EXTRA);
        hypervisor.detach_disk(id, 1).unwrap();
        assert!(!is_held(bench, &file), "nobody holds what was let go");
        hypervisor.detach_nic(id, nic.mac).unwrap();
        guest.sees_disks("vda");
        guest.sees("no interface", |sight| sight.nics == 0);
    }
}

fn memory(bench: &Bench, guest: &Guest<'_>) {
    let (hypervisor, id) = (&bench.hypervisor, guest.vm.id);
    let lives_with = |memory| wait_within(BOOT, &format!("{memory} MiB"), || Ok(hypervisor.memory(id)? == memory));
    lives_with(MiB(160));
    let all = guest.sees("its memory", |_| true).memory;
    hypervisor.set_memory(id, MiB(128)).unwrap();
    lives_with(MiB(128));
    // Its last word may be older than this, or of the way there.
    let little = guest.sees("less memory", |sight| sight.memory + (28 << 10) < all).memory;
    hypervisor.set_memory(id, MiB(192)).unwrap();
    lives_with(MiB(192));
    guest.sees("all of its memory", |sight| sight.memory >= little + (60 << 10));
}

/// What the guest is asked before it has booted, it never hears.
#[test]
fn a_guest_that_boots_is_asked_again() {
    let bench = bench();
    let guest = Guest::new(&bench);
    let file = bench.disk();
    guest.vm.start(Start::Running);
    bench.hypervisor.attach_disk(guest.vm.id, &disk_spec(1, &file)).unwrap();
    bench.hypervisor.detach_disk(guest.vm.id, 1).unwrap();
    assert!(!is_held(&bench, &file));
    assert!(is_held(&bench, &guest.image));
    guest.sees_disks("vda");
}
