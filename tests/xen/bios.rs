//! A whole pengx with an HVM guest, as far as emulation carries one: to its boot sector (`hvm-counter.S`), which counts on its
//! disk by the BIOS alone, hears the power button and reboots by itself.

use std::path::PathBuf;
use std::time::Duration;

use pengx::hypervisor::Guest;
use pengx::model::*;
use pengx::operations::backup::{CreateBackup, ProveBackup, RestoreBackup};
use pengx::operations::snapshot::{DeleteSnapshot, RestoreSnapshot, TakeSnapshot};
use pengx::operations::template::AddTemplate;
use pengx::operations::vm::{
    CopyVm, CreateVm, DeleteVm, PoweroffVm, RebootVm, ResetVm, ResumeVm, ShutdownVm, SmigrateVm, StartVm, SuspendVm,
};
use pengx::store::backups;

use crate::harness::bed::{Bed, HERE, THERE};
use crate::harness::guest::{Beat, beat};
use crate::harness::whole::{Domains, Leaks};
use crate::harness::xen::{Dom0, shared};

use super::life::state;
use super::{SECTOR_1, tell_to_reboot, until_counts};

/// Off, with a raw disk that counts on itself.
fn made(bed: &Bed<Dom0>) -> VmId {
    let (app, disk, format) = (bed.app(), DiskId(uuid::Uuid::from_u128(0xb105)), Format::Raw);
    let image = app.site.store_dir().join(VolumeName::new(disk, format).as_str());
    std::fs::copy(shared("hvm-counter.img"), image).unwrap();
    let (name, desc) = ("bios".parse().unwrap(), String::new());
    let (os, os_arch) = (Os::Other, OsArch::X64);
    let template = app.run(AddTemplate { name, os, os_arch, desc, storlink: HERE, disk, format }).unwrap();
    app.run(CreateVm { extra_disk_size: None, format: Some(format), ..app.vm_of(HERE, Some(template), "web1") })
        .unwrap()
}

fn system(bed: &Bed<Dom0>, vm: VmId) -> (PathBuf, Format) {
    let disk = bed.app().disks(vm).remove(0);
    (bed.app().path(&disk), disk.format)
}

fn last(bed: &Bed<Dom0>, vm: VmId) -> Beat {
    let (image, format) = system(bed, vm);
    beat(&image, format, SECTOR_1).unwrap()
}

fn counts(bed: &Bed<Dom0>, vm: VmId, boots: u64) {
    let (image, format) = system(bed, vm);
    until_counts(&image, format, boots);
}

fn snapshot(vm: VmId) -> TakeSnapshot {
    TakeSnapshot { vm, name: "first".parse().unwrap(), storlink: THERE, desc: String::new() }
}

#[test]
#[ignore = "needs a Xen control domain: make test-xen"]
fn a_bios_guest_on_xen_obeys() {
    let bed = Bed::new(Dom0::with(Guest::Hvm));
    let (app, vm) = (bed.app(), made(&bed));
    app.run(StartVm { vm }).unwrap();
    counts(&bed, vm, 1);

    app.run(SuspendVm { vm }).unwrap();
    let still = last(&bed, vm);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((state(app, vm), last(&bed, vm)), (PowerState::Paused, still));
    app.run(ResumeVm { vm }).unwrap();
    counts(&bed, vm, 1);

    let first = bed.ground.domid(&vm.to_string()).unwrap();
    tell_to_reboot(&system(&bed, vm).0);
    counts(&bed, vm, 2);
    assert_ne!(bed.ground.domid(&vm.to_string()).unwrap(), first);
    assert_eq!(state(app, vm), PowerState::Running);

    // Without a driver for Xen it cannot be asked to reboot, nor do its disks change hands.
    let why = |refused: pengx::error::Error| refused.to_string();
    let said = why(app.run(RebootVm { vm }).unwrap_err());
    assert!(said.contains("reset it, or shut it down"), "{said}");
    for said in [
        why(app.run(snapshot(vm)).unwrap_err()),
        why(app.run(CopyVm { vm, name: "web2".parse().unwrap(), storlink: THERE }).unwrap_err()),
        why(app.run(SmigrateVm { vm, storlink: THERE }).unwrap_err()),
    ] {
        assert!(said.contains("without a driver for Xen; shut the vm down first"), "{said}");
    }
    app.assert_at_rest();
    counts(&bed, vm, 2);

    app.run(ResetVm { vm }).unwrap();
    counts(&bed, vm, 3);
    let seen = last(&bed, vm);
    app.run(ShutdownVm { vm }).unwrap();
    assert_eq!((state(app, vm), bed.ground.running().len()), (PowerState::Shutdown, 0));
    assert!(last(&bed, vm).seq >= seen.seq);
    bed.assert_whole(Leaks::None);
}

/// What is done to its disks while it is off, it finds when it boots.
#[test]
#[ignore = "needs a Xen control domain, and too long for make test-xen: make test-xen-long"]
fn a_bios_guest_on_xen_boots_from_what_was_kept() {
    let bed = Bed::new(Dom0::with(Guest::Hvm));
    let (app, vm) = (bed.app(), made(&bed));
    let lives = |vm, boots| {
        app.run(StartVm { vm }).unwrap();
        counts(&bed, vm, boots);
        app.run(ShutdownVm { vm }).unwrap();
        bed.assert_whole(Leaks::None);
    };
    lives(vm, 1);
    let taken = app.run(snapshot(vm)).unwrap();
    let kept = last(&bed, vm);
    lives(vm, 2);
    let (name, desc) = ("nightly".parse().unwrap(), String::new());
    let backup = app.run(CreateBackup { vm, name, storlink: THERE, desc }).unwrap();
    let copy = app.run(CopyVm { vm, name: "web2".parse().unwrap(), storlink: THERE }).unwrap();
    app.run(RestoreSnapshot { vm, snapshot: taken.id }).unwrap();
    assert_eq!(last(&bed, vm), kept);
    app.run(SmigrateVm { vm, storlink: THERE }).unwrap();
    assert_eq!(last(&bed, vm), kept);

    // Both at once.
    app.run(StartVm { vm: copy }).unwrap();
    lives(vm, 2);
    counts(&bed, copy, 3);
    app.run(PoweroffVm { vm: copy }).unwrap();

    // It says on its serial port that it has booted.
    app.run(ProveBackup { vm, backup }).unwrap();
    assert!(app.store().read(|c| backups::find(c, backup)).unwrap().unwrap().proven_at.is_some());
    app.run(RestoreBackup { vm, backup }).unwrap();
    lives(vm, 3);
    app.run(DeleteSnapshot { vm, snapshot: taken.id }).unwrap();
    lives(vm, 4);
    for vm in [vm, copy] {
        app.run(DeleteVm { vm }).unwrap();
    }
    bed.assert_whole(Leaks::None);
}
