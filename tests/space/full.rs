//! A storlink that fills up at any moment of any operation that writes there: nothing is lost, and when there is room again
//! nothing is left of what was not done.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use pengx::operations::backup::{CreateBackup, ProveBackup, RestoreBackup};
use pengx::operations::snapshot::{DeleteSnapshot, RestoreSnapshot, StartSnapshot, TakeSnapshot};
use pengx::operations::template::CreateTemplate;
use pengx::operations::vm::{CopyVm, SmigrateVm, StartVm};
use pengx::store::backups;

use super::*;
use crate::harness::images::snapshots_of;
use crate::harness::small::fill_up;
use crate::harness::world::World;

const HOME: StorlinkId = StorlinkId(1);
const SMALL: StorlinkId = StorlinkId(2);

/// A VM of two disks, and a storlink of 96 MiB that fills up.
struct Filling {
    app: App,
    vm: VmId,
    disk: SmallDisk,
}

/// What an operation is, where the VM's disks are, and whether its guest runs.
type Case = (&'static str, StorlinkId, bool);

const CASES: [Case; 15] = [
    ("snapshot.take", SMALL, false),
    ("snapshot.take", SMALL, true),
    ("snapshot.delete", SMALL, false),
    ("snapshot.delete", SMALL, true),
    ("snapshot.restore", SMALL, false),
    ("snapshot.start", SMALL, false),
    ("vm.copy", HOME, false),
    ("vm.copy", HOME, true),
    ("template.create", HOME, false),
    ("template.create", HOME, true),
    ("vm.smigrate", HOME, false),
    ("vm.smigrate", HOME, true),
    ("backup.create", HOME, true),
    ("backup.restore", SMALL, false),
    ("backup.prove", SMALL, false),
];

/// Everything that must be as it was, or that tells that the operation is done.
#[derive(Debug, PartialEq)]
struct Sight {
    world: World,
    names: BTreeSet<String>,
}

impl Filling {
    fn stage((name, home, runs): Case) -> Self {
        let app = Site::new().start();
        let disk = SmallDisk::mount("96m");
        assert_eq!((app.storlink(), app.storlink_at("small", disk.path())), (HOME, SMALL));
        let template = app.template(HOME, Format::Qcow2);
        let vm = app.run(app.vm_of(home, Some(template), "web1")).unwrap();
        let it = Self { app, vm, disk };
        it.write(0x31);
        if name.starts_with("snapshot.") && name != "snapshot.take" {
            it.app.freeze(vm, "s");
            it.write(0x32);
        }
        if name.starts_with("backup.") && name != "backup.create" {
            it.backup(if name == "backup.restore" { HOME } else { SMALL }).unwrap();
        }
        if runs {
            it.app.run(StartVm { vm }).unwrap();
        }
        it
    }

    /// As its guest would, into both disks.
    fn write(&self, byte: u8) {
        self.app.disks(self.vm).iter().for_each(|disk| self.app.fill(disk, byte, u64::from(byte), 512));
    }

    fn backup(&self, storlink: StorlinkId) -> Result<()> {
        let (name, desc) = ("nightly".parse().unwrap(), String::new());
        self.app.run(CreateBackup { vm: self.vm, name, storlink, desc }).map(drop)
    }

    fn run(&self, name: &str) -> Result<()> {
        let (app, vm, desc) = (&self.app, self.vm, String::new());
        let called = "made".parse().unwrap();
        let saved = || snapshots_of(app, vm)[0].id;
        let kept = || app.store().read(backups::all).unwrap()[0].id;
        match name {
            "snapshot.take" => app.run(TakeSnapshot { vm, name: called, storlink: SMALL, desc }).map(drop),
            "snapshot.delete" => app.run(DeleteSnapshot { vm, snapshot: saved() }),
            "snapshot.restore" => app.run(RestoreSnapshot { vm, snapshot: saved() }),
            "snapshot.start" => app.run(StartSnapshot { vm, snapshot: saved() }),
            "vm.copy" => app.run(CopyVm { vm, name: called, storlink: SMALL }).map(drop),
            "template.create" => app.run(CreateTemplate { vm, name: called, storlink: SMALL, desc }).map(drop),
            "vm.smigrate" => app.run(SmigrateVm { vm, storlink: SMALL }),
            "backup.create" => self.backup(SMALL),
            "backup.restore" => app.run(RestoreBackup { vm, backup: kept() }),
            "backup.prove" => app.run(ProveBackup { vm, backup: kept() }),
            _ => unreachable!("{name}"),
        }
    }

    fn sight(&self) -> Sight {
        Sight { world: World::of(&self.app), names: self.disk.names().into_iter().collect() }
    }

    /// A hash of all that its guest sees.
    fn shown(&self) -> u64 {
        let (flat, mut hash) = (tempfile::NamedTempFile::new().unwrap(), DefaultHasher::new());
        for disk in self.app.disks(self.vm) {
            self.app.flat(&disk, flat.path());
            std::fs::read(flat.path()).unwrap().hash(&mut hash);
        }
        hash.finish()
    }

    /// The n-th point of the operation comes when there is no room. Whether there was such a point, and what came of it.
    fn round(&self, name: &str, n: usize) -> (bool, Result<()>) {
        self.app.fuse.arm(&[]);
        let filler = self.disk.filler();
        self.app.fuse.also_at(n, move || fill_up(&filler));
        let outcome = self.run(name);
        let reached = self.app.fuse.passed() >= n;
        self.app.fuse.arm(&[]);
        std::fs::remove_file(self.disk.filler()).ok();
        self.app.assert_at_rest();
        (reached, outcome)
    }
}

#[test]
fn a_storlink_that_is_full_at_any_step_costs_the_operation_and_nothing_else() {
    let (mut points, mut failed) = (0, 0);
    for case in CASES {
        let (name, _, _) = case;
        let mut it = Filling::stage(case);
        let mut mattered = 0;
        for n in 1.. {
            let (before, shown) = (it.sight(), it.shown());
            let (reached, outcome) = it.round(name, n);
            let words = format!("{case:?} at point {n}: {outcome:?}");
            if let Err(error) = outcome {
                assert!(matches!(error.kind(), ErrorKind::NoSpace { .. } | ErrorKind::Refused { .. }), "{words}");
                assert!(error.to_string().contains("MiB"), "it says how much is free: {words}");
                mattered += 1;
                // Past its point of no return a deletion goes on as soon as there is room.
                if it.sight() != before {
                    assert_eq!((name, snapshots_of(&it.app, it.vm).len()), ("snapshot.delete", 0), "{words}");
                }
            }
            let done = it.sight() != before;
            let goes_back = done && ["snapshot.restore", "snapshot.start"].contains(&name);
            assert_eq!(it.shown() != shown, goes_back, "{words}");
            if done {
                it = Filling::stage(case);
            }
            if !reached {
                break;
            }
            points += 1;
        }
        assert!(mattered > 0, "{case:?}: no step of it needs room");
        failed += mattered;
    }
    println!("the storlink was full at {points} points of {} operations, {failed} of them failed", CASES.len());
    assert!(points > 15 * CASES.len());
}
