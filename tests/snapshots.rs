//! Snapshots on real images under imaginary guests: what is frozen stays as it was, and what is merged is whole.

mod model;
mod refused;
mod trees;

use pengx::model::*;
use pengx::operations::snapshot::{DeleteSnapshot, RestoreSnapshot, StartSnapshot, TakeSnapshot};
use pengx::operations::vm::{CreateVm, PoweroffVm, StartVm, SuspendVm};
use pengx::store::vms;

use crate::harness::app::App;
use crate::harness::images::{assert_whole, content, contents, of_snapshot, snapshots_of, write};

/// A site with a VM of two disks of 16 blocks each.
fn with_vm() -> (App, VmId) {
    let app = App::new();
    let storlink = app.storlink();
    let vm = made(&app, storlink, Format::Qcow2);
    (app, vm)
}

fn made(app: &App, storlink: StorlinkId, format: Format) -> VmId {
    app.run(CreateVm {
        os_disk_size: Some(MiB(1)),
        extra_disk_size: Some(MiB(1)),
        format: Some(format),
        ..app.vm_of(storlink, None, "web1")
    })
    .unwrap()
}

fn take(app: &App, vm: VmId, name: &str) -> Snapshot {
    let name = name.parse().unwrap();
    app.run(TakeSnapshot { vm, name, storlink: StorlinkId(1), desc: String::new() }).unwrap()
}

fn restore(app: &App, vm: VmId, snapshot: &Snapshot) {
    app.run(RestoreSnapshot { vm, snapshot: snapshot.id }).unwrap();
}

fn delete(app: &App, vm: VmId, snapshot: &Snapshot) {
    app.run(DeleteSnapshot { vm, snapshot: snapshot.id }).unwrap();
}

fn runs_on(app: &App, vm: VmId) -> Option<SnapshotId> {
    app.store().read(|c| vms::find(c, vm)).unwrap().unwrap().snapshot
}

/// What the disk that it boots from shows.
fn shown(app: &App, vm: VmId) -> Vec<u8> {
    content(app, &app.disks(vm)[0])
}

fn frozen(app: &App, snapshot: &Snapshot) -> Vec<u8> {
    content(app, &of_snapshot(app, snapshot.id)[0])
}

/// Zeros but for these blocks.
fn blocks(written: &[(usize, u8)]) -> Vec<u8> {
    let mut all = vec![0; 16];
    for (block, byte) in written {
        all[*block] = *byte;
    }
    all
}

#[test]
fn what_is_frozen_stays_and_the_vm_goes_on() {
    for state in [PowerState::Shutdown, PowerState::Running, PowerState::Paused] {
        let (app, vm) = with_vm();
        write(&app, vm, 0, 1, 7);
        write(&app, vm, 1, 15, 9);
        if state.is_active() {
            app.run(StartVm { vm }).unwrap();
        }
        if state == PowerState::Paused {
            app.run(SuspendVm { vm }).unwrap();
        }
        let before = app.disks(vm);
        let first = take(&app, vm, "first");
        write(&app, vm, 0, 1, 8);
        let second = take(&app, vm, "second");
        write(&app, vm, 0, 2, 3);
        assert_whole(&app);
        assert_eq!((first.kind, first.parent), (SnapshotKind::Saved, None));
        assert_eq!((second.kind, second.parent), (SnapshotKind::Saved, Some(first.id)));
        assert_eq!(runs_on(&app, vm), Some(second.id));
        assert_eq!(snapshots_of(&app, vm), [first.clone(), second.clone()]);
        // The rows that there were are the snapshot's, and those of the VM are like them.
        let owned = before.into_iter().map(|disk| Disk { owner: DiskOwner::Snapshot(first.id), ..disk });
        assert_eq!(of_snapshot(&app, first.id), owned.collect::<Vec<_>>());
        let like = |disk: Disk| (disk.order, disk.size, disk.desc, disk.format, disk.storlink);
        let of_it = |disks: Vec<Disk>| disks.into_iter().map(like).collect::<Vec<_>>();
        assert_eq!(of_it(app.disks(vm)), of_it(of_snapshot(&app, first.id)));
        assert_eq!(frozen(&app, &first), blocks(&[(1, 7)]));
        assert_eq!(frozen(&app, &second), blocks(&[(1, 8)]));
        assert_eq!(shown(&app, vm), blocks(&[(1, 8), (2, 3)]));
        assert_eq!(content(&app, &app.disks(vm)[1]), blocks(&[(15, 9)]));
        let now = app.site.hypervisor.domain(vm).unwrap().unwrap().state;
        assert_eq!(now, state);
        app.assert_at_rest();
    }
}

#[test]
fn a_restored_vm_is_what_it_was_and_what_it_was_meanwhile_is_kept() {
    let (app, vm) = with_vm();
    write(&app, vm, 0, 0, 1);
    let first = take(&app, vm, "first");
    write(&app, vm, 0, 0, 2);
    restore(&app, vm, &first);
    assert_whole(&app);
    assert_eq!((shown(&app, vm), runs_on(&app, vm)), (blocks(&[(0, 1)]), Some(first.id)));
    let all = snapshots_of(&app, vm);
    let kept = &all[1];
    assert_eq!((all.len(), kept.kind, kept.parent), (2, SnapshotKind::Automatic, Some(first.id)));
    assert!(kept.name.starts_with("before-restore 20") && kept.name.ends_with(" UTC"), "{kept:?}");
    assert_eq!(frozen(&app, kept), blocks(&[(0, 2)]));

    // Nothing was written: nothing is kept. One write to one disk, and all are.
    restore(&app, vm, kept);
    assert_eq!((shown(&app, vm), runs_on(&app, vm)), (blocks(&[(0, 2)]), Some(kept.id)));
    assert_eq!(snapshots_of(&app, vm), all);
    write(&app, vm, 1, 3, 5);
    restore(&app, vm, &first);
    assert_whole(&app);
    let kept = snapshots_of(&app, vm).pop().unwrap();
    assert_eq!(kept.parent, Some(all[1].id));
    assert_eq!(contents(&app, &of_snapshot(&app, kept.id)), [(0, blocks(&[(0, 2)])), (1, blocks(&[(3, 5)]))]);

    // The one whose child nobody asked for goes, and the child is its parent's.
    delete(&app, vm, &all[1]);
    assert_whole(&app);
    assert_eq!(snapshots_of(&app, vm).pop().unwrap().parent, Some(first.id));
    assert_eq!(contents(&app, &of_snapshot(&app, kept.id)), [(0, blocks(&[(0, 2)])), (1, blocks(&[(3, 5)]))]);
    assert_eq!((shown(&app, vm), frozen(&app, &first)), (blocks(&[(0, 1)]), blocks(&[(0, 1)])));
    app.assert_at_rest();
}

#[test]
fn disks_that_came_and_went_since_are_as_the_snapshot_has_them() {
    use pengx::operations::disk::{CreateDisk, DeleteDisk};
    let (app, vm) = with_vm();
    write(&app, vm, 1, 4, 4);
    let first = take(&app, vm, "first");
    // Its overlay goes, what it was on stays.
    app.run(DeleteDisk { vm, disk: app.disks(vm)[1].id }).unwrap();
    assert_whole(&app);
    let (storlink, desc) = (StorlinkId(1), String::new());
    for size in [2, 3] {
        app.run(CreateDisk { vm, storlink, size: MiB(size), format: Some(Format::Raw), desc: desc.clone() }).unwrap();
    }
    assert_whole(&app);
    let orders = |disks: &[Disk]| disks.iter().map(|disk| (disk.order, disk.size.0)).collect::<Vec<_>>();
    assert_eq!(orders(&app.disks(vm)), [(0, 1), (1, 2), (2, 3)]);
    write(&app, vm, 2, 40, 6);
    restore(&app, vm, &first);
    assert_whole(&app);
    assert_eq!(orders(&app.disks(vm)), [(0, 1), (1, 1)]);
    assert_eq!(content(&app, &app.disks(vm)[1]), blocks(&[(4, 4)]));
    let kept = snapshots_of(&app, vm).pop().unwrap();
    let of_it = of_snapshot(&app, kept.id);
    assert_eq!(orders(&of_it), [(0, 1), (1, 2), (2, 3)]);
    assert_eq!(content(&app, &of_it[2])[40], 6);
    // On images that were never overlays a snapshot works as well, and is gone again without a trace.
    restore(&app, vm, &kept);
    let second = take(&app, vm, "second");
    delete(&app, vm, &second);
    assert_whole(&app);
    assert_eq!(content(&app, &app.disks(vm)[2])[40], 6);
    app.assert_at_rest();
}

#[test]
fn a_vm_on_raw_images_goes_down_into_them_again() {
    for running in [false, true] {
        let app = App::new();
        let storlink = app.storlink();
        let vm = made(&app, storlink, Format::Raw);
        write(&app, vm, 0, 0, 1);
        let before = app.disks(vm);
        if running {
            app.run(StartVm { vm }).unwrap();
        }
        let first = take(&app, vm, "first");
        write(&app, vm, 0, 5, 2);
        delete(&app, vm, &first);
        assert_whole(&app);
        // The image that the VM was made with is its own again.
        assert_eq!(app.disks(vm), before);
        assert_eq!((shown(&app, vm), runs_on(&app, vm)), (blocks(&[(0, 1), (5, 2)]), None));
        app.assert_at_rest();
    }
}

#[test]
fn started_from_a_snapshot_it_runs_on_it() {
    let (app, vm) = with_vm();
    write(&app, vm, 0, 0, 1);
    let first = take(&app, vm, "first");
    write(&app, vm, 0, 0, 2);
    app.run(StartSnapshot { vm, snapshot: first.id }).unwrap();
    assert_whole(&app);
    assert_eq!(app.site.fake.states(), [(vm, PowerState::Running)]);
    assert_eq!((shown(&app, vm), runs_on(&app, vm)), (blocks(&[(0, 1)]), Some(first.id)));
    let row = app.store().read(|c| vms::find(c, vm)).unwrap().unwrap();
    assert!(row.recent_booted_at.is_some());
    assert_eq!(frozen(&app, &snapshots_of(&app, vm)[1]), blocks(&[(0, 2)]));
    app.run(PoweroffVm { vm }).unwrap();
    app.assert_at_rest();
}

/// The setting: what is replaced goes.
#[test]
fn what_is_replaced_goes_where_nobody_wants_it() {
    let mut site = crate::harness::app::Site::new();
    site.settings.keep_replaced_leaf = false;
    let app = site.start();
    let storlink = app.storlink();
    let vm = made(&app, storlink, Format::Qcow2);
    let first = take(&app, vm, "first");
    write(&app, vm, 0, 0, 2);
    restore(&app, vm, &first);
    assert_whole(&app);
    assert_eq!((shown(&app, vm), snapshots_of(&app, vm)), (blocks(&[]), vec![first]));
    app.assert_at_rest();
}

#[test]
fn a_vm_takes_its_snapshots_along() {
    use pengx::operations::vm::DeleteVm;
    let (app, vm) = with_vm();
    let first = take(&app, vm, "first");
    take(&app, vm, "second");
    restore(&app, vm, &first);
    write(&app, vm, 0, 0, 1);
    restore(&app, vm, &first);
    take(&app, vm, "third");
    assert_eq!(snapshots_of(&app, vm).len(), 4);
    app.run(DeleteVm { vm }).unwrap();
    assert_whole(&app);
    let left: Vec<SnapshotId> = snapshots_of(&app, vm).iter().map(|snapshot| snapshot.id).collect();
    assert!(left.is_empty());
    assert_eq!(std::fs::read_dir(app.site.store_dir()).unwrap().count(), 0);
    app.assert_at_rest();
}
