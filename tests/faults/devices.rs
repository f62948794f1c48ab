//! Disks and NICs that come and go, on VMs that are off and on VMs that run: rows, volumes, definition and running domain
//! agree whatever fails; and a volume is never deleted under a guest that holds it.

use pengx::error::ErrorKind;
use pengx::hypervisor::Verb;
use pengx::model::*;
use pengx::operations::disk::{CreateDisk, DeleteDisk};
use pengx::operations::nic::{CreateNic, DeleteNic, UpdateNic};
use pengx::operations::vm::{DeleteVm, PoweroffVm};
use pengx::store::{disks, nics};
use pengx::tasks::Fate;

use super::{Scenario, made, started};
use crate::harness::app::App;
use crate::harness::images::images_of;
use crate::harness::wait::{PATIENCE, wait_until};
use crate::harness::world::World;

/// Every VM here begins with disks 0 and 1 and two NICs.
pub(super) fn scenarios() -> Vec<Scenario> {
    let scenario = |name, prepare, run, done| Scenario { name, prepare, run, done };
    vec![
        scenario("disk.create on a VM that is off", off, make_disk, |app, vm| agree(app, vm, &[0, 1, 2], 2, None)),
        scenario("disk.create on a VM that runs", on, make_disk, |app, vm| agree(app, vm, &[0, 1, 2], 2, Some(2))),
        scenario("disk.delete on a VM that is off", off, drop_disk, |app, vm| agree(app, vm, &[0], 2, None)),
        scenario("disk.delete on a VM that runs", on, drop_disk, |app, vm| agree(app, vm, &[0], 2, Some(2))),
        scenario("nic.create on a VM that is off", off, make_nic, |app, vm| agree(app, vm, &[0, 1], 3, None)),
        scenario("nic.create on a VM that runs", on, make_nic, |app, vm| agree(app, vm, &[0, 1], 3, Some(3))),
        scenario("nic.delete on a VM that is off", off, drop_nic, |app, vm| agree(app, vm, &[0, 1], 1, None)),
        // Never pulled out of a guest.
        scenario("nic.delete on a VM that runs", on, drop_nic, |app, vm| agree(app, vm, &[0, 1], 1, Some(2))),
        scenario("nic.update on a VM that is off", off, change_nic, changed),
        scenario("nic.update on a VM that runs", on, change_nic, changed),
    ]
}

fn off(app: &App) -> Option<VmId> {
    Some(made(app))
}

fn on(app: &App) -> Option<VmId> {
    Some(started(app))
}

fn new_disk(vm: VmId) -> CreateDisk {
    CreateDisk { vm, storlink: StorlinkId(1), size: MiB(3), format: None, desc: String::new() }
}

fn make_disk(app: &App, vm: Option<VmId>) -> pengx::error::Result<()> {
    app.run(new_disk(vm.unwrap())).map(drop)
}

fn disk_1(app: &App, vm: VmId) -> DeleteDisk {
    let disks = app.store().read(|c| disks::of_vm(c, vm)).unwrap();
    DeleteDisk { vm, disk: disks.iter().find(|disk| disk.order == 1).unwrap().id }
}

fn drop_disk(app: &App, vm: Option<VmId>) -> pengx::error::Result<()> {
    app.run(disk_1(app, vm.unwrap()))
}

fn make_nic(app: &App, vm: Option<VmId>) -> pengx::error::Result<()> {
    app.run(CreateNic { vm: vm.unwrap(), network: "virbr0".to_owned(), ip: None }).map(drop)
}

fn eth0(app: &App, vm: VmId) -> NicId {
    app.store().read(|c| nics::of_vm(c, vm)).unwrap()[0].id
}

fn drop_nic(app: &App, vm: Option<VmId>) -> pengx::error::Result<()> {
    let vm = vm.unwrap();
    app.run(DeleteNic { vm, nic: eth0(app, vm) })
}

fn change_nic(app: &App, vm: Option<VmId>) -> pengx::error::Result<()> {
    let vm = vm.unwrap();
    app.run(UpdateNic { vm, nic: eth0(app, vm), ip: "10.0.0.1".parse().unwrap() })
}

fn changed(app: &App, vm: Option<VmId>) -> bool {
    let nics = app.store().read(|c| nics::of_vm(c, vm.unwrap())).unwrap();
    nics.iter().map(|nic| nic.ip.as_deref()).eq([Some("10.0.0.1"), None])
}

/// The rows have disks of these orders and so many NICs, and everything else follows them; `plugged` is how many NICs the
/// running domain has.
fn agree(app: &App, vm: Option<VmId>, orders: &[u32], nics: usize, plugged: Option<usize>) -> bool {
    let vm = vm.unwrap();
    let (disk_rows, nic_rows) = app.store().read(|c| Ok((disks::of_vm(c, vm)?, nics::of_vm(c, vm)?))).unwrap();
    let world = World::of(app);
    let volumes = disk_rows.iter().map(|disk| disk.volume.to_string()).collect::<std::collections::BTreeSet<_>>();
    let definition = app.site.fake.definitions().into_iter().find(|spec| spec.id == vm).unwrap();
    let running = app.site.fake.running(vm);
    let same_disks = |spec: &DomainSpec| images_of(spec) == app.images(&disk_rows);
    disk_rows.iter().map(|disk| disk.order).eq(orders.iter().copied())
        && nic_rows.len() == nics
        && world.files.keys().eq(&volumes)
        && same_disks(&definition)
        && definition.nics.iter().map(|nic| nic.mac).eq(nic_rows.iter().map(|nic| nic.mac))
        && running.as_ref().is_none_or(same_disks)
        && running.map(|has| has.nics.len()) == plugged
}

/// The number of the point of this name that a run of this operation passes last.
fn point(
    name: &str,
    prepare: fn(&App) -> Option<VmId>,
    run: fn(&App, Option<VmId>) -> pengx::error::Result<()>,
) -> usize {
    let app = App::new();
    let vm = prepare(&app);
    app.fuse.arm(&[]);
    run(&app, vm).unwrap();
    app.assert_at_rest();
    app.fuse.names().iter().rposition(|passed| *passed == name).unwrap() + 1
}

#[test]
fn a_deaf_guest_keeps_its_disk_and_nothing_is_deleted() {
    let app = App::new();
    let vm = started(&app);
    let before = World::of(&app);
    assert!(app.site.fake.set_deaf(vm, true));
    let refused = app.run(disk_1(&app, vm)).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::Timeout { .. }), "{refused:?}");
    assert!(refused.to_string().starts_with("the guest of vm web1 did not let go of disk 1 in "), "{refused}");
    app.assert_at_rest();
    assert_eq!(World::of(&app), before);
    // What is plugged into it is not asked of it.
    make_disk(&app, Some(vm)).unwrap();
    make_nic(&app, Some(vm)).unwrap();
    drop_nic(&app, Some(vm)).unwrap();
    assert!(agree(&app, Some(vm), &[0, 1, 2], 2, Some(3)));
    assert!(app.site.fake.set_deaf(vm, false));
    drop_disk(&app, Some(vm)).unwrap();
    assert!(agree(&app, Some(vm), &[0, 2], 2, Some(3)));
    // What was hot-plugged goes with its VM.
    app.run(PoweroffVm { vm }).unwrap();
    app.run(DeleteVm { vm }).unwrap();
    app.assert_at_rest();
    let after = World::of(&app);
    assert!(after.files.is_empty() && after.domains.is_empty() && after.rows.len() == 1, "{after:#?}");
}

#[test]
fn a_restart_between_attach_and_settle_pulls_the_disk_out_again() {
    let settle = point("settle", on, make_disk);
    let app = App::new();
    let vm = started(&app);
    let before = World::of(&app);
    app.fuse.arm(&[(settle, Fate::Die)]);
    make_disk(&app, Some(vm)).unwrap_err();
    assert_eq!(app.site.fake.running(vm).unwrap().disks.len(), 3, "it was plugged in when the server died");
    let app = app.restart();
    app.assert_at_rest();
    assert_eq!(World::of(&app), before);
}

#[test]
fn a_volume_is_not_deleted_under_a_guest_that_holds_it_after_a_restart() {
    let settle = point("settle", on, make_disk);
    for powers_off in [false, true] {
        let app = App::new();
        let vm = started(&app);
        let before = World::of(&app);
        let fake = app.site.fake.clone();
        assert!(fake.set_deaf(vm, true));
        app.fuse.arm(&[(settle, Fate::Die)]);
        make_disk(&app, Some(vm)).unwrap_err();
        let tries = fake.calls(Verb::DetachDisk);
        let app = app.restart();
        wait_until("it was tried again and again", || Ok(fake.calls(Verb::DetachDisk) >= tries + 3));
        let held = World::of(&app);
        assert_eq!(held.files.len(), before.files.len() + 1, "{held:#?}");
        assert!(!held.journal.is_empty() && !held.locks.is_empty(), "{held:#?}");
        assert_eq!(fake.running(vm).unwrap().disks.len(), 3);
        // It is off or it lets go: either way the clean-up completes.
        if powers_off {
            assert!(fake.power_off_inside(vm));
        } else {
            assert!(fake.set_deaf(vm, false));
        }
        app.assert_at_rest();
        let after = World::of(&app);
        assert_eq!((&after.files, &after.rows), (&before.files, &before.rows));
        assert!(agree(&app, Some(vm), &[0, 1], 2, (!powers_off).then_some(2)), "{after:#?}");
    }
}

#[test]
fn a_restart_between_detach_and_settle_plugs_the_disk_in_again() {
    let settle = point("settle", on, drop_disk);
    let app = App::new();
    let vm = started(&app);
    let before = World::of(&app);
    app.fuse.arm(&[(settle, Fate::Die)]);
    drop_disk(&app, Some(vm)).unwrap_err();
    assert_eq!(app.site.fake.running(vm).unwrap().disks.len(), 1, "it was pulled out when the server died");
    let app = app.restart();
    app.assert_at_rest();
    assert_eq!(World::of(&app), before);
}

/// Between the look at the state and the effect on the guest.
#[test]
fn a_guest_that_powers_off_meanwhile_needs_nothing_plugged() {
    for (verb, run, orders, nics) in [
        (Verb::AttachDisk, make_disk as fn(&App, Option<VmId>) -> pengx::error::Result<()>, &[0, 1, 2][..], 2),
        (Verb::DetachDisk, drop_disk, &[0], 2),
        (Verb::AttachNic, make_nic, &[0, 1], 3),
    ] {
        let app = App::new();
        let vm = started(&app);
        let fake = app.site.fake.clone();
        fake.hold(verb);
        std::thread::scope(|s| {
            let running = s.spawn(|| run(&app, Some(vm)));
            assert!(fake.wait_held(verb, 1, PATIENCE), "{verb:?}");
            assert!(fake.power_off_inside(vm));
            fake.release(verb);
            running.join().unwrap().unwrap();
        });
        app.assert_at_rest();
        assert!(agree(&app, Some(vm), orders, nics, None), "{verb:?}: {:#?}", World::of(&app));
    }
}
