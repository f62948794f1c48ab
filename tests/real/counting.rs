//! One life of a guest that counts on its disks, through every operation that touches them: it goes on, no number is lost,
//! and what was frozen, copied or kept holds exactly the numbers up to its moment.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use pengx::error::Result;
use pengx::model::*;
use pengx::operations::backup::{CreateBackup, DeleteBackup, ProveBackup, RestoreBackup, VerifyBackup};
use pengx::operations::snapshot::{DeleteSnapshot, RestoreSnapshot, TakeSnapshot};
use pengx::operations::template::{CreateTemplate, DeleteTemplate};
use pengx::operations::vm::{CopyVm, CreateVm, DeleteVm, PoweroffVm, ResumeVm, SmigrateVm, StartVm, SuspendVm};
use pengx::store::{backups, disks};

use crate::harness::app::App;
use crate::harness::bed::{Bed, Ground, HERE, THERE, whole_count};
use crate::harness::counters::{Count, Counter};
use crate::harness::images::allocated;
use crate::harness::images::{of_snapshot, snapshots_of};
use crate::harness::libvirt::Libvirtd;
use crate::harness::whole::{Leaks, files};

/// A VM of a bed and what has been done to it so far.
struct Life<G> {
    bed: Bed<G>,
    vm: VmId,
    boots: u64,
    /// Each operation and the numbers that its guest wrote while it ran.
    steps: Vec<(&'static str, RangeInclusive<u64>)>,
}

impl<G: Ground> Life<G> {
    fn app(&self) -> &App {
        self.bed.app()
    }

    /// The guest goes through an operation; what that gave, and the numbers between which its moment was.
    fn step<T>(&mut self, name: &'static str, operation: impl FnOnce(&App) -> Result<T>) -> (T, RangeInclusive<u64>) {
        let before = self.bed.counts_on(self.vm);
        let done = operation(self.app()).unwrap_or_else(|why| panic!("{name}: {why}"));
        let after = self.bed.disks(self.vm)[0].until_past(before);
        assert_eq!(self.bed.boots(self.vm), self.boots, "{name}: it was booted again");
        assert!(self.bed.counts_on(self.vm) > after, "{name}");
        self.bed.assert_whole(Leaks::None);
        self.steps.push((name, before..=after));
        (done, before..=after)
    }

    /// Disks that stand still hold exactly the numbers up to one moment of these.
    #[track_caller]
    fn frozen(&self, disks: &[Disk], moment: &RangeInclusive<u64>) -> Vec<Count> {
        let counts = whole_count(&self.bed.counters(disks));
        assert!(counts.iter().all(|count| count.filled_in() == 0), "something was late");
        // The second disk may lack the last number of the first.
        assert!(moment.contains(&counts[0].last), "{} is not in {moment:?}", counts[0].last);
        counts
    }

    fn take(&mut self, name: &'static str, storlink: StorlinkId) -> (Snapshot, Vec<Count>) {
        let (vm, desc) = (self.vm, String::new());
        let wish = TakeSnapshot { vm, name: name.parse().unwrap(), storlink, desc };
        let (snapshot, moment) = self.step("snapshot.take", |app| app.run(wish));
        let counts = self.frozen(&of_snapshot(self.app(), snapshot.id), &moment);
        (snapshot, counts)
    }

    /// What full copies of the VM's disks may occupy at most.
    fn bounds(&self) -> Vec<u64> {
        let store = self.app().store();
        let chain = |disk: &Disk| {
            let below = store.read(|c| disks::below(c, disk)).unwrap();
            let images = std::iter::once(disk).chain(&below).map(|disk| allocated(&self.app().path(disk)));
            // Tables, and the last clusters of what the guest goes on to write.
            images.sum::<u64>() + (4 << 20)
        };
        self.app().disks(self.vm).iter().map(chain).collect()
    }

    #[track_caller]
    fn assert_sparse(&self, disks: &[Disk], bounds: &[u64]) {
        for (disk, most) in disks.iter().zip(bounds) {
            let takes = allocated(&self.app().path(disk));
            assert!(takes <= *most && takes < disk.size.bytes() * 3 / 4, "{takes} bytes, {most} at most: {disk:?}");
        }
    }
}

fn read_all(disks: &[Counter]) -> Vec<Count> {
    disks.iter().map(|disk| disk.read().unwrap()).collect()
}

/// What is made of the guest while it lives.
struct Made {
    copy: VmId,
    template: TemplateId,
    backup: BackupId,
    /// What the backup holds.
    kept: Vec<Count>,
}

/// Snapshots, copies and moves under a guest that runs.
fn while_it_runs(life: &mut Life<impl Ground>) -> Made {
    let (vm, desc) = (life.vm, String::new);
    let (first, of_first) = life.take("first", HERE);
    let (second, of_second) = life.take("second", THERE);
    assert!(of_first[0].last < of_second[0].last);

    let bounds = life.bounds();
    let (copy, moment) =
        life.step("vm.copy", |app| app.run(CopyVm { vm, name: "web2".parse().unwrap(), storlink: THERE }));
    life.frozen(&life.app().disks(copy), &moment);
    life.assert_sparse(&life.app().disks(copy), &bounds);

    let wish = CreateTemplate { vm, name: "counted".parse().unwrap(), storlink: THERE, desc: desc() };
    let (made, moment) = life.step("template.create", |app| app.run(wish));
    let template = made.template.id;
    let of_template = life.app().store().read(|c| disks::of_template(c, template)).unwrap();
    life.frozen(&of_template, &moment);
    life.assert_sparse(&of_template, &bounds);

    let wish = CreateBackup { vm, name: "nightly".parse().unwrap(), storlink: THERE, desc: desc() };
    let (backup, moment) = life.step("backup.create", |app| app.run(wish));
    let of_backup = life.app().store().read(|c| disks::of_backup(c, backup)).unwrap();
    let kept = life.frozen(&of_backup, &moment);
    life.assert_sparse(&of_backup, &bounds);

    let refused = life.app().run(DeleteSnapshot { vm, snapshot: first.id }).unwrap_err().to_string();
    assert!(refused.contains("second"), "{refused}");
    // The disks of the second come down into the first's; the guest's own come down into the second's.
    life.step("snapshot.delete", |app| app.run(DeleteSnapshot { vm, snapshot: second.id }));
    assert_eq!(snapshots_of(life.app(), vm), std::slice::from_ref(&first));
    assert_eq!(read_all(&life.bed.counters(&of_snapshot(life.app(), first.id))), of_first);

    let bounds = life.bounds();
    life.step("vm.smigrate", |app| app.run(SmigrateVm { vm, storlink: THERE }));
    assert!(life.app().disks(vm).iter().all(|disk| disk.storlink == THERE && disk.backing.is_none()));
    life.assert_sparse(&life.app().disks(vm), &bounds);
    assert_eq!(read_all(&life.bed.counters(&of_snapshot(life.app(), first.id))), of_first);

    life.step("snapshot.delete", |app| app.run(DeleteSnapshot { vm, snapshot: first.id }));
    assert_eq!(snapshots_of(life.app(), vm), []);

    let bed = &life.bed;
    let before = bed.counts_on(vm);
    bed.app().run(SuspendVm { vm }).unwrap();
    let still = whole_count(&bed.disks(vm));
    assert!(still[0].last >= before && still.iter().all(|count| count.filled_in() == 0));
    bed.app().run(ResumeVm { vm }).unwrap();
    assert!(bed.counts_on(vm) > still[0].last);
    Made { copy, template, backup, kept }
}

/// The VM is off and is put back on what it was, and the copy and the backup show that they boot.
fn put_back(life: &mut Life<impl Ground>, made: &Made) {
    let vm = life.vm;
    let (third, of_third) = life.take("third", HERE);
    let seen = life.bed.counts_on(vm);
    life.app().run(PoweroffVm { vm }).unwrap();
    life.bed.assert_whole(Leaks::None);
    let off = life.frozen(&life.app().disks(vm), &(seen..=u64::MAX));
    for (name, numbers) in &life.steps {
        println!(
            "{name}: the guest's longest pause was {} ms",
            off[0].longest_gap(*numbers.start()..*numbers.end() + 1)
        );
    }

    life.app().run(RestoreSnapshot { vm, snapshot: third.id }).unwrap();
    life.bed.assert_whole(Leaks::None);
    assert_eq!(read_all(&life.bed.disks(vm)), of_third);
    let replaced = snapshots_of(life.app(), vm).remove(1);
    assert_eq!(replaced.kind, SnapshotKind::Automatic);
    assert_eq!(read_all(&life.bed.counters(&of_snapshot(life.app(), replaced.id))), off);

    let (app, backup) = (life.bed.app(), made.backup);
    app.run(VerifyBackup { vm, backup }).unwrap();
    app.run(ProveBackup { vm, backup }).unwrap();
    let row = app.store().read(|c| backups::find(c, backup)).unwrap().unwrap();
    assert!(row.verified_at.is_some() && row.proven_at.is_some());
    // Both boot at once.
    std::thread::scope(|scope| {
        scope.spawn(|| goes_on(&life.bed, made.copy));
        goes_on(&life.bed, vm);
    });
    let went_on = read_all(&life.bed.disks(vm));
    life.app().run(RestoreBackup { vm, backup: made.backup }).unwrap();
    life.bed.assert_whole(Leaks::None);
    assert_eq!(read_all(&life.bed.disks(vm)), made.kept);

    // What reads from the third takes it over, while the guest runs that does not.
    life.app().run(StartVm { vm }).unwrap();
    let all = snapshots_of(life.app(), vm);
    assert_eq!(all.len(), 3, "{all:?}");
    life.app().run(DeleteSnapshot { vm, snapshot: third.id }).unwrap();
    life.bed.assert_whole(Leaks::None);
    let left: Vec<Snapshot> = snapshots_of(life.app(), vm);
    let hold: Vec<_> =
        left.iter().map(|kept| read_all(&life.bed.counters(&of_snapshot(life.app(), kept.id)))).collect();
    assert_eq!(hold, [off, went_on]);
    life.bed.until_up(vm, 2);
    goes_off(&life.bed, vm, &made.kept);
}

/// A VM that is off boots for the second time in its life, counts on, and goes off.
fn goes_on(bed: &Bed<impl Ground>, vm: VmId) {
    let before = whole_count(&bed.disks(vm));
    bed.boot(vm, 2);
    goes_off(bed, vm, &before);
}

/// It has gone on from these numbers, and none is missing.
fn goes_off(bed: &Bed<impl Ground>, vm: VmId, before: &[Count]) {
    let seen = bed.disks(vm)[0].until_past(before[0].last + 50);
    bed.app().run(PoweroffVm { vm }).unwrap();
    let after = whole_count(&bed.disks(vm));
    assert!(after.iter().all(|count| count.last >= seen - 1));
    // What the second disk lacked of the moment that it is of.
    let late = usize::from(before[1].last < before[0].last);
    assert_eq!((after[0].filled_in(), after[1].filled_in()), (0, late));
}

#[test]
fn a_guest_counts_through_its_whole_life() {
    lives(Bed::new(Libvirtd::start("counting")));
}

/// Whatever it runs on.
pub fn lives(bed: Bed<impl Ground>) {
    let vm = bed.vm("web1");
    let empty = files(&bed.app().store());
    bed.boot(vm, 1);
    let mut life = Life { bed, vm, boots: 1, steps: Vec::new() };
    let made = while_it_runs(&mut life);
    put_back(&mut life, &made);

    // What a VM is made of from the template has the template's numbers.
    let app = life.app();
    let of_template = app.store().read(|c| disks::of_template(c, made.template)).unwrap();
    let wish = CreateVm { extra_disk_size: None, ..app.vm_of(HERE, Some(made.template), "web3") };
    let third = app.run(CreateVm { memory: MiB(128), maxmem: MiB(128), ..wish }).unwrap();
    assert_eq!(read_all(&life.bed.disks(third)), read_all(&life.bed.counters(&of_template)));
    life.bed.assert_whole(Leaks::None);

    for vm in [third, made.copy, vm] {
        app.run(DeleteVm { vm }).unwrap();
    }
    app.run(DeleteTemplate { template: made.template }).unwrap();
    app.run(DeleteBackup { vm, backup: made.backup }).unwrap();
    life.bed.assert_whole(Leaks::None);
    let left = files(&app.store());
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left.is_subset(&empty));
    let steps: BTreeMap<_, _> = life.steps.iter().map(|(name, _)| (name, ())).collect();
    println!("a guest counted through {} operations of {} kinds", life.steps.len(), steps.len());
}
