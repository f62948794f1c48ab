//! The laws of what is changed while a guest runs.

use pengx::hypervisor::BlockJob;

use super::*;

/// Whether a running domain has the image. Another one cannot start with it then.
#[track_caller]
pub(super) fn is_held(bench: &Bench, file: &Path) -> bool {
    let other = bench.vm(&[file.to_owned()]);
    let started = start_patiently(|| bench.hypervisor.start(other.id, Start::Paused));
    started.is_err() && !refused(started).is_empty()
}

/// The disc in the drive of a running domain.
fn disc(bench: &Bench, vm: &Vm<'_>) -> Option<PathBuf> {
    if let Some(fake) = &bench.fake {
        return fake.running(vm.id).unwrap().disc.map(|VolumeSource::File(file)| file);
    }
    if bench.xen {
        return xl::disc(vm);
    }
    let list = Libvirtd::shared().virsh(&["domblklist", &vm.id.to_string()]);
    let drive = list.lines().find_map(|line| line.trim().strip_prefix("hdc")).expect("a drive");
    Some(drive.trim()).filter(|file| *file != "-").map(PathBuf::from)
}

#[track_caller]
pub(super) fn timed_out(result: Result<()>) {
    let error = result.expect_err("the guest does not let go");
    assert!(matches!(error.kind(), ErrorKind::Timeout { .. }), "{error:?}");
}

type Change<'a> = Box<dyn Fn(&dyn Hypervisor, VmId) -> Result<()> + 'a>;

pub(super) fn what_is_off_or_absent_cannot_be_changed(bench: &Bench) {
    let disk = disk_spec(1, &bench.disk());
    let nic = nic(1, bench.link());
    let image = disk.source.clone();
    let changes: [Change<'_>; 14] = [
        Box::new(|h, id| h.set_vcpus(id, 2)),
        Box::new(|h, id| h.set_memory(id, MiB(48))),
        Box::new(|h, id| h.memory(id).map(drop)),
        Box::new(|h, id| h.attach_disk(id, &disk)),
        Box::new(|h, id| h.detach_disk(id, 0)),
        Box::new(|h, id| h.attach_nic(id, &nic)),
        Box::new(|h, id| h.detach_nic(id, nic.mac)),
        Box::new(|h, id| h.change_disc(id, Some(&disk.source))),
        Box::new(|h, id| h.change_disc(id, None)),
        Box::new(|h, id| h.chain(id, 0).map(drop)),
        Box::new(|h, id| h.overlay_disks(id, std::slice::from_ref(&disk))),
        Box::new(|h, id| h.start_block_job(id, 0, &BlockJob::Commit { top: image.clone(), base: image.clone() })),
        Box::new(|h, id| h.block_job(id, 0).map(drop)),
        Box::new(|h, id| h.pivot(id, 0)),
    ];
    let (off, absent) = (bench.vm(&[bench.disk()]), VmId(Uuid::new_v4()));
    for change in &changes {
        let refusal = change(&*bench.hypervisor, off.id);
        let says = format!("vm {} is SHUTDOWN; it must be running", off.id);
        assert_eq!(refusal.as_ref().expect_err("it is off").to_string(), says);
        wrong_state(refusal);
        not_found(change(&*bench.hypervisor, absent), absent);
    }
    for gone in [off.id, absent] {
        bench.hypervisor.abort_block_job(gone, 0).unwrap();
    }
    off.start(Start::Paused);
    assert_eq!(disc(bench, &off), None);
}

pub(super) fn a_disk_is_plugged_in_until_the_power_goes(bench: &Bench) {
    let (system, file, other) = (bench.disk(), bench.disk(), bench.disk());
    let vm = bench.vm(std::slice::from_ref(&system));
    vm.start(Start::Paused);
    assert!(!is_held(bench, &file));
    let disk = disk_spec(1, &file);
    for _ in 0..2 {
        bench.hypervisor.attach_disk(vm.id, &disk).unwrap();
        assert!(is_held(bench, &file));
    }
    wrong_state(bench.hypervisor.attach_disk(vm.id, &disk_spec(1, &other)));
    assert_eq!((is_held(bench, &file), is_held(bench, &other)), (true, false));
    bench.hypervisor.destroy(vm.id).unwrap();
    assert!(!is_held(bench, &file));
    vm.start(Start::Paused);
    assert_eq!((is_held(bench, &system), is_held(bench, &file)), (true, false), "it was not defined");
}

pub(super) fn what_is_plugged_in_and_defined_is_there_after_the_next_start(bench: &Bench) {
    let file = bench.disk();
    let mut spec = spec(&[bench.disk()]);
    let vm = bench.vm_with(&spec);
    vm.start(Start::Paused);
    spec.disks.push(disk_spec(1, &file));
    spec.nics.push(nic(1, bench.link()));
    spec.vcpus = 2;
    bench.hypervisor.attach_disk(vm.id, &spec.disks[1]).unwrap();
    bench.hypervisor.attach_nic(vm.id, &spec.nics[0]).unwrap();
    bench.hypervisor.set_vcpus(vm.id, 2).unwrap();
    bench.hypervisor.define(&spec).unwrap();
    assert!(is_held(bench, &file));
    bench.hypervisor.destroy(vm.id).unwrap();
    assert!(!is_held(bench, &file));
    vm.start(Start::Paused);
    assert!(is_held(bench, &file));
    bench.hypervisor.attach_disk(vm.id, &spec.disks[1]).unwrap();
    bench.hypervisor.attach_nic(vm.id, &spec.nics[0]).unwrap();
    bench.hypervisor.set_vcpus(vm.id, 2).unwrap();
}

pub(super) fn a_disk_that_is_missing_or_taken_is_not_plugged_in(bench: &Bench) {
    let vm = bench.vm(&[]);
    vm.start(Start::Paused);
    let missing = bench.dir.path().join("missing.raw");
    let disk = disk_spec(1, &missing);
    let why = refused(bench.hypervisor.attach_disk(vm.id, &disk));
    assert!(why.contains(missing.to_str().unwrap()), "{why}");
    std::fs::copy(bench.disk(), &missing).unwrap();

    let other = bench.vm(std::slice::from_ref(&missing));
    other.start(Start::Paused);
    refused(bench.hypervisor.attach_disk(vm.id, &disk));
    bench.hypervisor.destroy(other.id).unwrap();
    assert!(!is_held(bench, &missing), "nothing is half plugged in");
    bench.hypervisor.attach_disk(vm.id, &disk).unwrap();
    assert!(is_held(bench, &missing));
}

pub(super) fn an_interface_is_plugged_in_once(bench: &Bench) {
    let vm = bench.vm(&[]);
    vm.start(Start::Paused);
    let mut nic = nic(1, NicLink::Bridge("pengx-none0".to_owned()));
    let why = refused(bench.hypervisor.attach_nic(vm.id, &nic));
    assert!(why.contains("pengx-none0"), "{why}");
    nic.link = bench.link();
    for _ in 0..2 {
        bench.hypervisor.attach_nic(vm.id, &nic).unwrap();
    }
    let has = match &bench.fake {
        Some(fake) => fake.running(vm.id).unwrap().nics.len(),
        None if bench.xen => xl::details(&vm).matches(&nic.mac.to_string()).count(),
        None => Libvirtd::shared().virsh(&["domiflist", &vm.id.to_string()]).matches(&nic.mac.to_string()).count(),
    };
    assert_eq!(has, 1);
}

pub(super) fn what_is_not_plugged_in_is_pulled_out_already(bench: &Bench) {
    let file = bench.disk();
    let vm = bench.vm(std::slice::from_ref(&file));
    vm.start(Start::Paused);
    for _ in 0..2 {
        bench.hypervisor.detach_disk(vm.id, 1).unwrap();
        bench.hypervisor.detach_nic(vm.id, nic(1, bench.link()).mac).unwrap();
    }
    assert!(is_held(bench, &file));
}

pub(super) fn a_guest_that_does_not_listen_keeps_its_devices(bench: &Bench) {
    let vm = bench.vm(&[bench.disk()]);
    let (file, nic) = (bench.disk(), nic(1, bench.link()));
    let disk = disk_spec(1, &file);
    // Real guests here never got beyond their firmware, or never began.
    if let Some(fake) = &bench.fake {
        assert!(fake.set_deaf(vm.id, true));
    }
    // Xen waits long for each.
    let hows: &[Start] = if bench.xen { &[Start::Running] } else { &[Start::Paused, Start::Running] };
    for how in hows {
        vm.start(*how);
        let state = vm.state();
        bench.hypervisor.attach_disk(vm.id, &disk).unwrap();
        bench.hypervisor.attach_nic(vm.id, &nic).unwrap();
        // On Xen what the guest never took is nothing that it could hold on to.
        let asked = |done: Result<()>| if bench.xen { done.unwrap() } else { timed_out(done) };
        for _ in 0..2 {
            asked(bench.hypervisor.detach_disk(vm.id, 1));
            asked(bench.hypervisor.detach_nic(vm.id, nic.mac));
        }
        assert_eq!(is_held(bench, &file), !bench.xen);
        bench.hypervisor.attach_disk(vm.id, &disk).unwrap();
        bench.hypervisor.attach_nic(vm.id, &nic).unwrap();
        assert_eq!(vm.state(), state);
        bench.hypervisor.destroy(vm.id).unwrap();
    }
}

pub(super) fn vcpus_are_plugged_in_up_to_the_most(bench: &Bench) {
    let spec = DomainSpec { vcpus: 2, max_vcpus: 4, ..spec(&[]) };
    let vm = bench.vm_with(&spec);
    vm.start(Start::Paused);
    let set = |count| bench.hypervisor.set_vcpus(vm.id, count);
    for _ in 0..2 {
        set(2).unwrap();
    }
    for count in [0, 1, 5] {
        refused(set(count));
    }
    for _ in 0..2 {
        set(4).unwrap();
    }
    refused(set(3));
    bench.hypervisor.destroy(vm.id).unwrap();
    vm.start(Start::Paused);
    set(2).unwrap();
}

pub(super) fn memory_is_at_most_what_it_was_started_with(bench: &Bench) {
    let vm = bench.vm(&[]);
    vm.start(Start::Paused);
    let before = bench.hypervisor.memory(vm.id).unwrap();
    assert!(MiB(0) < before && before <= MiB(64), "{before}");
    refused(bench.hypervisor.set_memory(vm.id, MiB(65)));
    assert_eq!(bench.hypervisor.memory(vm.id).unwrap(), before);
    for memory in [48, 48, 64] {
        bench.hypervisor.set_memory(vm.id, MiB(memory)).unwrap();
    }
    assert!(bench.hypervisor.memory(vm.id).unwrap() <= MiB(64));
}

pub(super) fn discs_come_and_go(bench: &Bench) {
    let vm = bench.vm(&[]);
    vm.start(Start::Paused);
    if !bench.can().live_disc {
        return unsupported(bench.hypervisor.change_disc(vm.id, Some(&VolumeSource::File(bench.disk()))));
    }
    let (one, two, missing) = (bench.disk(), bench.disk(), bench.dir.path().join("missing.iso"));
    let change = |file: Option<&PathBuf>| {
        bench.hypervisor.change_disc(vm.id, file.map(|file| VolumeSource::File(file.clone())).as_ref())
    };
    assert_eq!(disc(bench, &vm), None);
    for now in [None, Some(&one), Some(&one), Some(&two), None, None, Some(&two)] {
        change(now).unwrap();
        assert_eq!(disc(bench, &vm).as_ref(), now);
    }
    let why = refused(change(Some(&missing)));
    assert!(why.contains(missing.to_str().unwrap()), "{why}");
    assert_eq!(disc(bench, &vm), Some(two), "the other one stayed");
    bench.hypervisor.destroy(vm.id).unwrap();
    vm.start(Start::Paused);
    assert_eq!(disc(bench, &vm), None, "it was not defined");
}

pub(super) fn a_domain_starts_with_its_disc_and_not_without(bench: &Bench) {
    // QEMU on Xen reads a path up to its first blank.
    let name = if bench.xen { "it's<one>&설치.iso" } else { "it's <one> & 설치.iso" };
    let file = bench.dir.path().join(name);
    let mut spec = spec(&[]);
    spec.disc = Some(VolumeSource::File(file.clone()));
    let (vm, other) = (bench.vm_with(&spec), bench.vm_with(&DomainSpec { id: VmId(Uuid::new_v4()), ..spec.clone() }));
    let why = refused(bench.hypervisor.start(vm.id, Start::Paused));
    assert!(why.contains(file.to_str().unwrap()), "{why}");
    assert_eq!(vm.state(), PowerState::Shutdown);
    std::fs::copy(bench.disk(), &file).unwrap();
    for vm in [&vm, &other] {
        vm.start(Start::Paused);
        assert_eq!(disc(bench, vm).as_ref(), Some(&file), "a disc serves many");
    }
}

pub(super) fn as_many_devices_as_promised_can_be_plugged_in(bench: &Bench) {
    let spec = spec(&[bench.disk()]);
    let can = bench.hypervisor.capabilities(&spec);
    assert!(can.live_vcpus && can.live_memory && can.live_disks && can.live_nics);
    let vm = bench.vm_with(&spec);
    vm.start(Start::Paused);
    let disks: Vec<_> = (1..can.max_disks).map(|order| disk_spec(order, &bench.disk())).collect();
    for disk in &disks {
        bench.hypervisor.attach_disk(vm.id, disk).unwrap();
    }
    for n in 0..can.max_nics {
        bench.hypervisor.attach_nic(vm.id, &nic(n as u8, bench.link())).unwrap();
    }
    let VolumeSource::File(last) = &disks[disks.len() - 1].source;
    assert!(is_held(bench, last));
}
