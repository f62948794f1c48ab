//! A whole pengx in a control domain of Xen, with a Linux guest that counts on its disks.

use std::time::Duration;

use pengx::model::*;
use pengx::operations::backup::{CreateBackup, ProveBackup};
use pengx::operations::disk::{CreateDisk, DeleteDisk};
use pengx::operations::nic::{CreateNic, DeleteNic};
use pengx::operations::vm::{Changes, DeleteVm, RebootVm, ResetVm, ResumeVm, ShutdownVm, StartVm, SuspendVm, UpdateVm};
use pengx::store::{backups, nics};

use crate::harness::app::App;
use crate::harness::bed::{Bed, HERE, THERE};
use crate::harness::guest::{EXTRA, Sight, next_beat, until_booted, until_seen};
use crate::harness::wait::wait_until;
use crate::harness::whole::{Domains, Leaks};
use crate::harness::xen::Dom0;
use crate::real::counting::lives;
use crate::real::deaths::survive_on_xen;

#[test]
#[ignore = "needs a Xen control domain, and too long for make test-xen: make test-xen-long"]
fn a_guest_on_xen_counts_through_its_whole_life() {
    lives(Bed::new(Dom0::new()));
}

#[test]
#[ignore = "needs a Xen control domain, and too long for make test-xen: make test-xen-long"]
fn a_counting_guest_on_xen_loses_nothing_when_its_qemu_dies_or_xenstored_is_silent() {
    survive_on_xen();
}

fn sees(bed: &Bed<Dom0>, vm: VmId, what: &str, is: impl Fn(&Sight) -> bool) -> Sight {
    let system = &bed.app().disks(vm)[0];
    until_seen(&bed.app().path(system), system.format, what, is)
}

pub fn state(app: &App, vm: VmId) -> PowerState {
    app.site.hypervisor.domain(vm).unwrap().unwrap().state
}

/// Asked, it does what it is asked, and loses nothing; and it reboots as the same VM.
#[test]
#[ignore = "needs a Xen control domain, and too long for make test-xen: make test-xen-long"]
fn a_guest_on_xen_obeys() {
    let bed = Bed::new(Dom0::new());
    let (app, vm) = (bed.app(), bed.vm("web1"));
    bed.boot(vm, 1);
    let first = bed.ground.domid(&vm.to_string());
    app.run(SuspendVm { vm }).unwrap();
    assert_eq!(state(app, vm), PowerState::Paused);
    app.run(ResumeVm { vm }).unwrap();
    bed.counts_on(vm);
    app.run(RebootVm { vm }).unwrap();
    bed.until_up(vm, 2);
    assert_ne!(bed.ground.domid(&vm.to_string()), first);
    let counted = bed.counts_on(vm);
    app.run(ShutdownVm { vm }).unwrap();
    assert_eq!((state(app, vm), bed.ground.running().len()), (PowerState::Shutdown, 0));
    assert!(bed.disks(vm)[0].numbers() >= counted);
    app.run(StartVm { vm }).unwrap();
    bed.until_up(vm, 3);
    app.run(ResetVm { vm }).unwrap();
    bed.until_up(vm, 4);
    app.run(ShutdownVm { vm }).unwrap();
    bed.assert_whole(Leaks::None);
    app.run(DeleteVm { vm }).unwrap();
    assert!(bed.ground.all().is_empty());
}

/// It boots in a domain of its own, and says on its console that it has.
#[test]
#[ignore = "needs a Xen control domain: make test-xen"]
fn a_backup_on_xen_is_proven() {
    let bed = Bed::new(Dom0::new());
    let (app, vm) = (bed.app(), bed.vm("web1"));
    let (name, desc) = ("nightly".parse().unwrap(), String::new());
    let backup = app.run(CreateBackup { vm, name, storlink: THERE, desc }).unwrap();
    app.run(ProveBackup { vm, backup }).unwrap();
    let row = app.store().read(|c| backups::find(c, backup)).unwrap().unwrap();
    assert!(row.proven_at.is_some());
    assert!(bed.ground.running().is_empty());
    bed.assert_whole(Leaks::None);
}

/// A guest that runs is given disks and interfaces, and gives them back; what it has after a reboot of its own is what it had.
#[test]
#[ignore = "needs a Xen control domain: make test-xen"]
fn a_guest_on_xen_is_given_devices_and_gives_them_back() {
    let bed = Bed::new(Dom0::new());
    let (app, vm) = (bed.app(), bed.vm("web1"));
    bed.boot(vm, 1);
    sees(&bed, vm, "what it was made with", |it| it.disks == ["xvda", "xvdb"] && it.nics == 2);
    let create = CreateDisk { vm, storlink: HERE, size: MiB(16), format: Some(Format::Qcow2), desc: String::new() };
    app.run(create).unwrap();
    sees(&bed, vm, "another disk", |it| it.disks == ["xvda", "xvdb", "xvdc"]);
    let row = app.disks(vm).remove(2);
    next_beat(&app.path(&row), row.format, EXTRA);
    app.run(CreateNic { vm, network: "0".to_owned(), ip: None }).unwrap();
    sees(&bed, vm, "another interface", |it| it.nics == 3);
    bed.assert_whole(Leaks::None);

    app.run(RebootVm { vm }).unwrap();
    // The other disk has not all of its numbers.
    let system = &app.disks(vm)[0];
    until_booted(&app.path(system), system.format, 2);
    sees(&bed, vm, "all of it", |it| it.disks == ["xvda", "xvdb", "xvdc"] && it.nics == 3);
    bed.assert_whole(Leaks::None);

    // A Linux that is writing to a disk when it goes may wait for ever, and hears nothing of Xen any more.
    let system = bed.disks(vm).remove(0);
    bed.ground.tell(vm, "killall -STOP counter heartbeat");
    wait_until("a guest that writes nothing", || {
        let before = system.so_far();
        std::thread::sleep(Duration::from_secs(1));
        Ok(system.so_far() == before)
    });
    app.run(DeleteDisk { vm, disk: row.id }).unwrap();
    bed.ground.tell(vm, "killall -CONT counter heartbeat");
    sees(&bed, vm, "one disk less", |it| it.disks == ["xvda", "xvdb"]);
    let last = app.store().read(|c| nics::of_vm(c, vm)).unwrap().pop().unwrap();
    app.run(DeleteNic { vm, nic: last.id }).unwrap();
    bed.assert_whole(Leaks::None);
    bed.counts_on(vm);
}

/// A guest that runs grows and shrinks, and after a reboot of its own it is as large as it was.
#[test]
#[ignore = "needs a Xen control domain: make test-xen"]
fn a_guest_on_xen_is_given_vcpus_and_memory() {
    let bed = Bed::new(Dom0::new());
    let (app, vm) = (bed.app(), bed.vm("web1"));
    let update = |changes: Changes| app.run(UpdateVm { vm, changes }).unwrap();
    let memory = |mib| update(Changes { memory: Some(MiB(mib)), ..Changes::default() });
    update(Changes { maxmem: Some(MiB(192)), ..Changes::default() });
    bed.boot(vm, 1);
    let first = sees(&bed, vm, "what it was made with", |it| it.cpus == 1).memory;
    update(Changes { cpu: Some(2), ..Changes::default() });
    sees(&bed, vm, "another vCPU", |it| it.cpus == 2);
    memory(104);
    sees(&bed, vm, "less memory", |it| it.memory + (16 << 10) < first);
    memory(192);
    let all = |it: &Sight| it.cpus == 2 && it.memory > first + (48 << 10);
    sees(&bed, vm, "all of its memory", all);
    app.run(RebootVm { vm }).unwrap();
    bed.until_up(vm, 2);
    sees(&bed, vm, "what it had", all);
    app.run(ShutdownVm { vm }).unwrap();
    bed.assert_whole(Leaks::None);
}
