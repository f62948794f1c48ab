//! Snapshots, backups, and the disks of each owner; single disks and NICs that come, change and go.

use pengx::store::{backups, disks, nics, pms, snapshots, storlinks, templates, vms};

use super::*;

fn kind<T: std::fmt::Debug>(result: pengx::error::Result<T>) -> &'static str {
    result.unwrap_err().kind().name()
}

fn snapshot(vm: &Vm, n: u128, parent: Option<&Snapshot>) -> Snapshot {
    Snapshot {
        id: SnapshotId(Uuid::from_u128(n)),
        vm: vm.id,
        name: "같은 이름".to_owned(),
        kind: SnapshotKind::Saved,
        parent: parent.map(|snapshot| snapshot.id),
        desc: format!("number {n}"),
        created_at: at(i64::try_from(n).unwrap()),
    }
}

fn backup(vm: &Vm, n: u128, storlink: StorlinkId) -> Backup {
    Backup {
        id: BackupId(Uuid::from_u128(n)),
        vm: vm.id,
        name: "nightly".to_owned(),
        storlink,
        size: MiB(1 << 40),
        desc: String::new(),
        created_at: at(i64::try_from(n).unwrap()),
        config: BackupConfig { name: vm.name.clone(), cpu: 2, memory: MiB(64), ..BackupConfig::default() },
        manifest: "ab".repeat(32),
        verified_at: Some(at(7)),
        proven_at: None,
    }
}

/// Two VMs and a storlink.
fn stocked(db: &Database) -> (Vm, Vm, StorlinkId) {
    let pm = pm(1);
    let (web, lone) = (vm(&pm, None, 1), vm(&pm, None, 2));
    let link = db.write(|c| {
        pms::save(c, &pm)?;
        vms::insert(c, &web)?;
        vms::insert(c, &lone)?;
        storlinks::insert(c, &new_storlink(&pm, "s"))
    });
    (web, lone, link)
}

#[test]
fn a_snapshot_that_is_a_parent_or_has_disks_stays() {
    on_both(|db| {
        let (web, lone, link) = stocked(db);
        let root = snapshot(&web, 1, None);
        let leaf = Snapshot { kind: SnapshotKind::Automatic, ..snapshot(&web, 3, Some(&root)) };
        let kept = snapshot(&web, 2, Some(&root));
        let foreign = snapshot(&lone, 4, None);
        db.write(|c| [&root, &leaf, &kept, &foreign].into_iter().try_for_each(|s| snapshots::insert(c, s)));
        assert_eq!(db.read(|c| snapshots::find(c, leaf.id)), Some(leaf.clone()));
        assert_eq!(db.read(|c| snapshots::find(c, SnapshotId(Uuid::from_u128(9)))), None);
        assert_eq!(
            db.read(|c| snapshots::of_vm(c, web.id)),
            [root.clone(), kept.clone(), leaf.clone()],
            "oldest first"
        );
        let parents = [&root, &kept, &leaf].map(|s| db.read(|c| snapshots::is_parent(c, s.id)));
        assert_eq!(parents, [true, false, false]);

        assert_eq!(kind(db.store.write_tx(|c| snapshots::remove(c, root.id))), "in_use", "it is a parent");
        let frozen = disk(DiskOwner::Snapshot(kept.id), 0, link, 4);
        db.write(|c| disks::insert(c, &frozen));
        assert_eq!(kind(db.store.write_tx(|c| snapshots::remove(c, kept.id))), "in_use", "it has a disk");
        assert_eq!(kind(db.store.write_tx(|c| vms::remove(c, web.id))), "in_use", "it has snapshots");
        assert_eq!(kind(db.store.write_tx(|c| snapshots::insert(c, &root))), "exists");
        let orphan = Snapshot { parent: Some(SnapshotId(Uuid::from_u128(9))), ..snapshot(&web, 5, None) };
        assert_eq!(kind(db.store.write_tx(|c| snapshots::insert(c, &orphan))), "in_use");
        let of_nobody = Snapshot { vm: VmId(Uuid::from_u128(9)), ..snapshot(&web, 5, None) };
        assert_eq!(kind(db.store.write_tx(|c| snapshots::insert(c, &of_nobody))), "in_use");

        db.write(|c| {
            disks::remove(c, frozen.id)?;
            [kept.id, leaf.id, root.id].into_iter().try_for_each(|id| snapshots::remove(c, id))?;
            vms::remove(c, web.id)
        });
        assert_eq!(kind(db.store.write_tx(|c| snapshots::remove(c, root.id))), "not_found");
        assert_eq!(db.read(|c| snapshots::of_vm(c, lone.id)), [foreign]);
    });
}

/// A tree with a branch, and a VM that goes from one to another: all that taking, restoring and deleting does to rows.
#[test]
fn snapshots_change_parents_kinds_and_disks_and_go_together() {
    on_both(|db| {
        let (web, lone, link) = stocked(db);
        let root = snapshot(&web, 1, None);
        let (left, right) = (snapshot(&web, 2, Some(&root)), snapshot(&web, 3, Some(&root)));
        let child = snapshot(&web, 4, Some(&left));
        let foreign = snapshot(&lone, 5, None);
        db.write(|c| [&root, &left, &right, &child, &foreign].into_iter().try_for_each(|s| snapshots::insert(c, s)));
        // Taken: what the VM wrote to is frozen, in the same place, and it goes on in an overlay.
        let base = disk(DiskOwner::Vm(web.id), 0, link, 4);
        let leaf = Disk { backing: Some(base.id), ..disk(DiskOwner::Vm(web.id), 0, link, 4) };
        let other = Disk { backing: Some(base.id), ..disk(DiskOwner::Snapshot(right.id), 0, link, 4) };
        db.write(|c| {
            disks::insert(c, &base)?;
            disks::hand_over(c, base.id, DiskOwner::Snapshot(root.id), 0, None)?;
            disks::insert(c, &leaf)?;
            disks::insert(c, &other)?;
            vms::set_snapshot(c, web.id, Some(root.id))
        });
        let base = Disk { owner: DiskOwner::Snapshot(root.id), ..base };
        assert_eq!(db.read(|c| disks::of_snapshot(c, root.id)), std::slice::from_ref(&base));
        assert_eq!(db.read(|c| disks::below(c, &leaf)), std::slice::from_ref(&base));
        let mut on = db.read(|c| disks::on(c, base.id));
        on.sort_by_key(|disk| disk.id == leaf.id);
        assert_eq!(on, [other.clone(), leaf.clone()]);
        assert_eq!(db.read(|c| vms::find(c, web.id)).unwrap().snapshot, Some(root.id));
        // Neither can go while something is on it.
        assert_eq!(kind(db.store.write_tx(|c| disks::remove(c, base.id))), "in_use");
        assert_eq!(kind(db.store.write_tx(|c| snapshots::remove(c, root.id))), "in_use");

        // Deleted: its children are its parent's, the VM is on its parent, and it is going until its disks are merged.
        db.write(|c| {
            snapshots::set_parent_of_children(c, root.id, None)?;
            vms::set_snapshot(c, web.id, None)?;
            snapshots::set_kind(c, root.id, SnapshotKind::Going)
        });
        let parents: Vec<_> = db.read(|c| snapshots::of_vm(c, web.id)).into_iter().map(|s| s.parent).collect();
        assert_eq!(parents, [None, None, None, Some(left.id)]);
        let going = db.read(|c| snapshots::find(c, root.id)).unwrap();
        assert_eq!(going, Snapshot { kind: SnapshotKind::Going, ..root.clone() });
        assert_eq!(
            kind(db.store.write_tx(|c| snapshots::set_kind(c, SnapshotId(Uuid::nil()), root.kind))),
            "not_found"
        );
        // Merged: one is copied into, the other is written down and gives its place up.
        db.write(|c| {
            disks::hand_over(c, other.id, other.owner, other.order, None)?;
            disks::remove(c, leaf.id)?;
            disks::hand_over(c, base.id, leaf.owner, leaf.order, base.backing)?;
            snapshots::remove(c, root.id)
        });
        assert_eq!(db.read(|c| disks::of_vm(c, web.id)), [Disk { owner: leaf.owner, ..base }]);

        // Deleted with its VM: children and parents at once, and nothing of another VM.
        let over = Disk { backing: Some(other.id), ..disk(DiskOwner::Snapshot(left.id), 0, link, 4) };
        db.write(|c| disks::insert(c, &over).and_then(|()| vms::set_snapshot(c, web.id, Some(child.id))));
        assert_eq!(kind(db.store.write_tx(|c| snapshots::remove_of_vm(c, web.id))), "in_use");
        db.write(|c| {
            disks::remove_of_vm(c, web.id)?;
            disks::remove_of_snapshots(c, &[right.id, left.id, child.id])?;
            vms::set_snapshot(c, web.id, None)?;
            snapshots::remove_of_vm(c, web.id)?;
            vms::remove(c, web.id)
        });
        assert!(db.read(|c| snapshots::of_vm(c, web.id)).is_empty());
        assert_eq!(db.read(|c| snapshots::of_vm(c, lone.id)), [foreign]);
    });
}

#[test]
fn a_backup_outlives_its_vm() {
    on_both(|db| {
        let (web, lone, link) = stocked(db);
        let (old, new, other) = (backup(&web, 1, link), backup(&web, 3, link), backup(&lone, 2, link));
        let copy = disk(DiskOwner::Backup(old.id), 0, link, 4);
        db.write(|c| {
            [&new, &old, &other].into_iter().try_for_each(|b| backups::insert(c, b))?;
            disks::insert(c, &copy)?;
            vms::remove(c, web.id)
        });
        assert_eq!(db.read(|c| backups::find(c, old.id)), Some(old.clone()));
        assert_eq!(db.read(|c| backups::find(c, BackupId(Uuid::from_u128(9)))), None);
        assert_eq!(db.read(|c| backups::of_vm(c, web.id)), [old.clone(), new.clone()], "oldest first");
        assert_eq!(db.read(backups::all), [old.clone(), other.clone(), new.clone()]);
        assert_eq!(db.read(|c| disks::of_backup(c, old.id)), std::slice::from_ref(&copy));

        assert_eq!(kind(db.store.write_tx(|c| backups::remove(c, old.id))), "in_use", "it has a disk");
        assert_eq!(kind(db.store.write_tx(|c| backups::insert(c, &new))), "exists");
        let nowhere = backup(&web, 5, StorlinkId(99));
        assert_eq!(kind(db.store.write_tx(|c| backups::insert(c, &nowhere))), "in_use");
        db.write(|c| disks::remove(c, copy.id).and_then(|()| backups::remove(c, old.id)));
        assert_eq!(kind(db.store.write_tx(|c| backups::remove(c, old.id))), "not_found");
        assert_eq!(db.read(backups::all), [other, new]);
    });
}

#[test]
fn every_disk_has_exactly_one_owner() {
    on_both(|db| {
        let (web, _, link) = stocked(db);
        let base = template(&pm(1), 7);
        let (snap, bak) = (snapshot(&web, 1, None), backup(&web, 1, link));
        db.write(|c| {
            templates::insert(c, &base)?;
            snapshots::insert(c, &snap)?;
            backups::insert(c, &bak)
        });
        let owners = [
            DiskOwner::Vm(web.id),
            DiskOwner::Template(base.id),
            DiskOwner::Snapshot(snap.id),
            DiskOwner::Backup(bak.id),
        ];
        let pairs = owners.map(|owner| [disk(owner, 0, link, 1), disk(owner, 2, link, 2)]);
        for [first, second] in &pairs {
            db.write(|c| disks::insert(c, second).and_then(|()| disks::insert(c, first)));
            assert_eq!(db.read(|c| disks::find(c, first.id)), Some(first.clone()));
            // An order is one disk's of each owner.
            let twin = disk(first.owner, 2, link, 1);
            assert_eq!(kind(db.store.write_tx(|c| disks::insert(c, &twin))), "exists", "{}", first.owner);
        }
        assert_eq!(db.read(|c| disks::of_vm(c, web.id)), pairs[0]);
        assert_eq!(db.read(|c| disks::of_template(c, base.id)), pairs[1]);
        assert_eq!(db.read(|c| disks::of_snapshot(c, snap.id)), pairs[2]);
        assert_eq!(db.read(|c| disks::of_backup(c, bak.id)), pairs[3]);
        for owner in [DiskOwner::Snapshot(SnapshotId(Uuid::nil())), DiskOwner::Backup(BackupId(Uuid::nil()))] {
            assert_eq!(kind(db.store.write_tx(|c| disks::insert(c, &disk(owner, 0, link, 1)))), "in_use", "{owner}");
        }

        let quote = |id: &dyn std::fmt::Display| format!("'{id}'");
        let ids = [quote(&web.id), quote(&base.id), quote(&snap.id), quote(&bak.id)];
        let insert = |n: u32, owned_by: [bool; 4]| {
            let owner = |i: usize| if owned_by[i] { ids[i].as_str() } else { "NULL" };
            db.try_execute(&format!(
                "INSERT INTO disks (id, vm, template, snapshot, backup, position, size, format, storlink, volume, created_at) \
                 VALUES ('{n}', {}, {}, {}, {}, {n}, 1, 'raw', {link}, '{n}', '2017-07-26 15:04:05')",
                owner(0), owner(1), owner(2), owner(3),
            ))
        };
        for bits in 0..16_u32 {
            let owned_by = [0, 1, 2, 3].map(|i| bits >> i & 1 == 1);
            let one = bits.count_ones() == 1;
            assert_eq!(insert(100 + bits, owned_by).is_ok(), one, "{owned_by:?}");
        }
    });
}

#[test]
fn one_disk_and_one_nic_come_change_and_go() {
    on_both(|db| {
        let (web, _, link) = stocked(db);
        let (root, data) = (disk(DiskOwner::Vm(web.id), 0, link, 4), disk(DiskOwner::Vm(web.id), 1, link, 2));
        let (eth0, eth1) = db.write(|c| {
            disks::insert(c, &root)?;
            disks::insert(c, &data)?;
            Ok((nics::insert(c, &nic(&web, "eth0", 1))?, nics::insert(c, &nic(&web, "eth1", 2))?))
        });
        db.write(|c| disks::remove(c, data.id));
        assert_eq!(db.read(|c| disks::of_vm(c, web.id)), [root]);
        assert_eq!(kind(db.store.write_tx(|c| disks::remove(c, data.id))), "not_found");

        db.write(|c| nics::set_ip(c, eth1, "fe80::1"));
        let shown =
            |db: &Database| db.read(|c| nics::of_vm(c, web.id)).into_iter().map(|n| (n.id, n.ip)).collect::<Vec<_>>();
        assert_eq!(shown(db), [(eth0, None), (eth1, Some("fe80::1".to_owned()))]);
        db.write(|c| nics::remove(c, eth0));
        assert_eq!(shown(db), [(eth1, Some("fe80::1".to_owned()))]);
        assert_eq!(kind(db.store.write_tx(|c| nics::remove(c, eth0))), "not_found");
        assert_eq!(kind(db.store.write_tx(|c| nics::set_ip(c, eth0, "::1"))), "not_found");
        // Its name and its MAC address are free again, its number is not.
        let again = db.write(|c| nics::insert(c, &nic(&web, "eth0", 1)));
        assert!(again > eth1);
    });
}
