//! Snapshots, on VMs that are off, that run and that are paused: whatever fails or dies, each disk shows what was written to
//! it, and rows, headers and domains agree.

use std::time::Duration;

use pengx::error::{ErrorKind, Result};
use pengx::hypervisor::{Answer, Verb};
use pengx::model::*;
use pengx::operations::snapshot::{DeleteSnapshot, RestoreSnapshot, StartSnapshot, TakeSnapshot};
use pengx::operations::vm::{CreateVm, DeleteVm, PoweroffVm, StartVm, SuspendVm};
use pengx::tasks::Fate;

use super::{Scenario, state};
use crate::harness::app::{App, Site};
use crate::harness::images::{assert_whole, content, of_snapshot, snapshots_of, write, write_running};
use crate::harness::wait::{PATIENCE, wait_until};
use crate::harness::world::World;

type Subject = Option<VmId>;

pub(super) fn scenarios() -> Vec<Scenario> {
    let scenario = |name, prepare, run, done| Scenario { name, prepare, run, done };
    vec![
        scenario("snapshot.take of two disks", two_disks, take_it, |app, vm| shows(app, vm, &[&[1]], &[1])),
        scenario("snapshot.take of one that runs", running, take_it, |app, vm| shows(app, vm, &[&[1]], &[1])),
        scenario("snapshot.take of one that is paused", paused, take_it, |app, vm| shows(app, vm, &[&[1]], &[1])),
        scenario("snapshot.restore, written to since", written, restore_first, |app, vm| {
            shows(app, vm, &[&[1], &[1, 2]], &[1])
        }),
        scenario("snapshot.restore, not written to since", snapped, restore_first, |app, vm| {
            shows(app, vm, &[&[1]], &[1])
        }),
        scenario("snapshot.start", snapped, start_first, |app, vm| {
            shows(app, vm, &[&[1]], &[1]) && state(app, vm) == Some(PowerState::Running)
        }),
        scenario("snapshot.delete, nothing on it", branched, delete_last, |app, vm| shows(app, vm, &[&[1]], &[1, 3])),
        scenario("snapshot.delete under a VM that is off", written, delete_first, |app, vm| {
            shows(app, vm, &[], &[1, 2])
        }),
        scenario(
            "snapshot.delete under a VM that runs",
            |app| on(app, written(app)),
            delete_first,
            |app, vm| shows(app, vm, &[], &[1, 2]) && state(app, vm) == Some(PowerState::Running),
        ),
        scenario(
            "snapshot.delete under a paused VM",
            |app| asleep(app, written(app)),
            delete_first,
            |app, vm| shows(app, vm, &[], &[1, 2]) && state(app, vm) == Some(PowerState::Paused),
        ),
        scenario("snapshot.delete in the middle, off", middle, delete_first, middle_is_gone),
        scenario(
            "snapshot.delete in the middle of what runs",
            |app| on(app, middle(app)),
            delete_first,
            middle_is_gone,
        ),
        scenario("snapshot.delete with two on it, off", branched, delete_first, |app, vm| {
            shows(app, vm, &[&[1, 2]], &[1, 3])
        }),
        scenario("snapshot.delete with two on it, of one that runs", running_branched, delete_first, |app, vm| {
            shows(app, vm, &[&[1, 2]], &[1, 3])
        }),
        scenario(
            "vm.delete with snapshots",
            branched,
            |app, vm| app.run(DeleteVm { vm: vm.unwrap() }),
            |app, vm| {
                World::of(app).files.is_empty() && snapshots_of(app, vm.unwrap()).is_empty() && state(app, vm).is_none()
            },
        ),
    ]
}

/// Each has the steps of another one, so that undoing them is not broken at every point once more.
pub(super) const UNDONE_AS_OTHERS: [&str; 5] = [
    "snapshot.take of two disks",
    "snapshot.take of one that is paused",
    "snapshot.restore, not written to since",
    "snapshot.delete under a paused VM",
    "vm.delete with snapshots",
];

/// The snapshots, oldest first, and the VM show these bytes, each in the block of its number; and all is whole.
fn shows(app: &App, vm: Subject, frozen: &[&[u8]], leaf: &[u8]) -> bool {
    assert_whole(app);
    let holds = |disk: &Disk, bytes: &[u8]| {
        let blocks = (0..16).map(|block| if bytes.contains(&block) { block } else { 0 });
        content(app, disk) == blocks.collect::<Vec<_>>()
    };
    let all = snapshots_of(app, vm.unwrap());
    all.len() == frozen.len()
        && all.iter().zip(frozen).all(|(snapshot, bytes)| holds(&of_snapshot(app, snapshot.id)[0], bytes))
        && holds(&app.disks(vm.unwrap())[0], leaf)
}

fn middle_is_gone(app: &App, vm: Subject) -> bool {
    shows(app, vm, &[&[1, 2], &[1, 2, 3]], &[1, 2, 4])
}

fn mark(app: &App, vm: Subject, byte: u8) {
    write(app, vm.unwrap(), 0, usize::from(byte), byte);
}

fn made(app: &App, extra: Option<MiB>) -> Subject {
    let storlink = app.storlink();
    let wish = app.vm_of(storlink, None, "web1");
    let wish = CreateVm { os_disk_size: Some(MiB(1)), extra_disk_size: extra, networks: Vec::new(), ..wish };
    let vm = Some(app.run(wish).unwrap());
    mark(app, vm, 1);
    vm
}

fn two_disks(app: &App) -> Subject {
    made(app, Some(MiB(1)))
}

fn running(app: &App) -> Subject {
    on(app, made(app, None))
}

fn paused(app: &App) -> Subject {
    asleep(app, made(app, None))
}

fn on(app: &App, vm: Subject) -> Subject {
    app.run(StartVm { vm: vm.unwrap() }).unwrap();
    vm
}

fn asleep(app: &App, vm: Subject) -> Subject {
    on(app, vm);
    app.run(SuspendVm { vm: vm.unwrap() }).unwrap();
    vm
}

/// One snapshot.
fn snapped(app: &App) -> Subject {
    let vm = made(app, None);
    take_it(app, vm).unwrap();
    vm
}

/// One snapshot, and what was written since.
fn written(app: &App) -> Subject {
    let vm = snapped(app);
    mark(app, vm, 2);
    vm
}

/// A snapshot with two on it: the VM, and what it was before.
fn branched(app: &App) -> Subject {
    let vm = written(app);
    restore(app, vm, 0);
    mark(app, vm, 3);
    vm
}

fn running_branched(app: &App) -> Subject {
    on(app, branched(app))
}

/// A snapshot under one that nobody asked for, which has two on it: the VM, and what it was before.
fn middle(app: &App) -> Subject {
    let vm = written(app);
    restore(app, vm, 0);
    restore(app, vm, 1);
    mark(app, vm, 3);
    restore(app, vm, 1);
    mark(app, vm, 4);
    vm
}

fn nth(app: &App, vm: Subject, n: usize) -> (VmId, SnapshotId) {
    (vm.unwrap(), snapshots_of(app, vm.unwrap())[n].id)
}

fn restore(app: &App, vm: Subject, n: usize) {
    let (vm, snapshot) = nth(app, vm, n);
    app.run(RestoreSnapshot { vm, snapshot }).unwrap();
}

fn take_it(app: &App, vm: Subject) -> Result<()> {
    let name = "first".parse().unwrap();
    app.run(TakeSnapshot { vm: vm.unwrap(), name, storlink: StorlinkId(1), desc: String::new() }).map(drop)
}

fn restore_first(app: &App, vm: Subject) -> Result<()> {
    let (vm, snapshot) = nth(app, vm, 0);
    app.run(RestoreSnapshot { vm, snapshot })
}

fn start_first(app: &App, vm: Subject) -> Result<()> {
    let (vm, snapshot) = nth(app, vm, 0);
    app.run(StartSnapshot { vm, snapshot })
}

fn delete_first(app: &App, vm: Subject) -> Result<()> {
    let (vm, snapshot) = nth(app, vm, 0);
    app.run(DeleteSnapshot { vm, snapshot })
}

fn delete_last(app: &App, vm: Subject) -> Result<()> {
    let (vm, snapshot) = nth(app, vm, snapshots_of(app, vm.unwrap()).len() - 1);
    app.run(DeleteSnapshot { vm, snapshot })
}

/// What happens at a point; the guest writes in any case.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Blow {
    /// The server dies, and its guest runs on.
    Death,
    /// Before the next server is there, the guest is off too.
    DeathOfBoth,
    /// The guest goes off, and its server is there.
    PowerCut,
}

/// At each point: what the guest wrote last is on its disk, and every snapshot that is left shows what it showed.
#[test]
fn what_a_guest_writes_is_never_lost_whoever_dies() {
    type Case = (&'static str, fn(&App) -> Subject, fn(&App, Subject) -> Result<()>);
    let cases: [Case; 4] = [
        ("take", running, take_it),
        ("delete", |app| on(app, written(app)), delete_first),
        ("delete in the middle", |app| on(app, middle(app)), delete_first),
        ("delete with two on it", running_branched, delete_first),
    ];
    let blows = |(name, prepare, run): Case, blow: Blow| {
        for n in 1.. {
            let app = App::new();
            let vm = prepare(&app);
            let id = vm.unwrap();
            let frozen = |app: &App| {
                let all = snapshots_of(app, id).into_iter();
                all.map(|s| (s.id, content(app, &of_snapshot(app, s.id)[0]))).collect::<Vec<_>>()
            };
            let (before, mut leaf) = (frozen(&app), content(&app, &app.disks(id)[0]));
            let fake = app.site.fake.clone();
            let last_words = move |goes_off: bool| {
                write_running(&fake, id, 0, 9, 9);
                assert!(!goes_off || fake.power_off_inside(id));
            };
            if blow == Blow::PowerCut {
                app.fuse.arm(&[]);
                let last_words = last_words.clone();
                app.fuse.also_at(n, move || last_words(true));
            } else {
                app.fuse.arm(&[(n, Fate::Die)]);
            }
            let done = run(&app, vm);
            if app.fuse.passed() < n {
                done.unwrap();
                return n;
            }
            let app = if blow == Blow::PowerCut {
                app
            } else {
                last_words(blow == Blow::DeathOfBoth);
                app.restart()
            };
            app.assert_at_rest();
            assert_whole(&app);
            let case = format!("{name}: {blow:?} at point {n}");
            let was = leaf.clone();
            leaf[9] = 9;
            assert_eq!(content(&app, &app.disks(id)[0]), leaf, "{case}");
            let known = |(id, _): &(SnapshotId, Vec<u8>)| before.iter().any(|(known, _)| known == id);
            let (old, new): (Vec<_>, Vec<_>) = frozen(&app).into_iter().partition(known);
            assert!(old.iter().all(|snapshot| before.contains(snapshot)), "{case}");
            // It was written before the moment of the snapshot, or after it.
            assert!(new.iter().all(|(_, shows)| *shows == was || *shows == leaf), "{case}");
            // Paused for the moment of a pivot, it goes on.
            let now = if blow == Blow::Death { PowerState::Running } else { PowerState::Shutdown };
            assert_eq!(state(&app, vm), Some(now), "{case}");
        }
        0
    };
    let points: usize = std::thread::scope(|scope| {
        let all = [Blow::Death, Blow::DeathOfBoth, Blow::PowerCut];
        let runs = cases.into_iter().flat_map(|case| all.map(|blow| (case, blow)));
        let all: Vec<_> = runs.map(|(case, blow)| scope.spawn(move || blows(case, blow))).collect();
        all.into_iter().map(|one| one.join().unwrap()).sum()
    });
    println!("faults: a guest wrote on at {points} points");
    assert!(points > 90);
}

/// A merge that cannot be done now keeps the VM locked, says why, and is done when it can be.
#[test]
fn a_merge_that_waits_says_so_and_is_done_in_the_end() {
    for (prepare, verb) in
        [(running as fn(&App) -> Subject, Verb::Pivot), (running, Verb::StartBlockJob), (made_only, Verb::Define)]
    {
        let app = App::new();
        let vm = prepare(&app);
        take_it(&app, vm).unwrap();
        mark(&app, vm, 2);
        let refusal = ErrorKind::Refused { by: "the hypervisor".to_owned(), why: "no".to_owned() };
        app.site.fake.fail_every(verb, Answer::Refuse(refusal));
        // It is past its point of no return: it is deleted.
        delete_first(&app, vm).unwrap();
        let busy = World::of(&app);
        assert!(!busy.locks.is_empty() && busy.journal.iter().any(|entry| entry.contains("MergeDown")), "{busy:#?}");
        let last = || app.store().read(|c| pengx::store::tasks::recent(c, 1)).unwrap().remove(0);
        let waits = "what is left to do waits and is tried again: the hypervisor refused: no";
        assert_eq!((last().state, last().step.as_str()), (TaskState::Success, waits));
        assert_eq!(last().message, "snapshot first of vm web1 is deleted");
        assert!(pengx::operations::snapshot::list(&app.core, vm.unwrap()).unwrap().is_empty());
        // Also for the next server.
        let app = app.restart();
        let tries = app.site.fake.calls(verb);
        wait_until("it was tried again", || Ok(app.site.fake.calls(verb) > tries));
        app.site.fake.heal();
        app.assert_at_rest();
        assert!(shows(&app, vm, &[], &[1, 2]));
        let last = app.store().read(|c| pengx::store::tasks::recent(c, 1)).unwrap().remove(0);
        assert_eq!(last.step, "");
    }
}

fn made_only(app: &App) -> Subject {
    made(app, None)
}

/// Between the look at the state and what is done about it.
#[test]
fn a_guest_that_powers_off_meanwhile_loses_nothing() {
    for (verb, prepare, run, frozen, leaf) in [
        (
            Verb::OverlayDisks,
            running as fn(&App) -> Subject,
            take_it as fn(&App, Subject) -> Result<()>,
            &[&[1][..]][..],
            &[1][..],
        ),
        (Verb::StartBlockJob, |app| on(app, written(app)), delete_first, &[], &[1, 2]),
        (Verb::BlockJob, |app| on(app, written(app)), delete_first, &[], &[1, 2]),
        (Verb::Pause, |app| on(app, written(app)), delete_first, &[], &[1, 2]),
        (Verb::Pivot, |app| on(app, written(app)), delete_first, &[], &[1, 2]),
        (Verb::StartBlockJob, |app| on(app, middle(app)), delete_first, &[&[1, 2], &[1, 2, 3]], &[1, 2, 4]),
        (Verb::BlockJob, |app| on(app, middle(app)), delete_first, &[&[1, 2], &[1, 2, 3]], &[1, 2, 4]),
    ] {
        let app = App::new();
        let vm = prepare(&app);
        let fake = app.site.fake.clone();
        fake.hold(verb);
        std::thread::scope(|s| {
            let running = s.spawn(|| run(&app, vm));
            assert!(fake.wait_held(verb, 1, PATIENCE), "{verb:?}");
            assert!(fake.power_off_inside(vm.unwrap()));
            fake.release(verb);
            running.join().unwrap().unwrap();
        });
        app.assert_at_rest();
        assert!(shows(&app, vm, frozen, leaf), "{verb:?}");
        assert_eq!(state(&app, vm), Some(PowerState::Shutdown));
    }
}

/// Off at the end, and nothing of a start that was refused: the VM is what it was.
#[test]
fn a_start_from_a_snapshot_that_is_refused_changes_nothing() {
    let app = App::new();
    let vm = written(&app);
    let before = World::of(&app);
    let refusal = ErrorKind::Refused { by: "the hypervisor".to_owned(), why: "cannot set up guest memory".to_owned() };
    app.site.fake.fail_next(Verb::Start, Answer::Refuse(refusal));
    let refused = start_first(&app, vm).unwrap_err();
    assert_eq!(refused.to_string(), "the hypervisor refused: cannot set up guest memory");
    app.assert_at_rest();
    assert_eq!(World::of(&app), before);
    start_first(&app, vm).unwrap();
    app.run(PoweroffVm { vm: vm.unwrap() }).unwrap();
    assert!(shows(&app, vm, &[&[1], &[1, 2]], &[1]));
}

/// What the overlay holds must not be written down a second time once the guest may have written more.
#[test]
fn between_a_pivot_and_its_mark_a_guest_writes_nothing() {
    let refusal = ErrorKind::Refused { by: "the hypervisor".to_owned(), why: "no".to_owned() };
    let lost = ErrorKind::Unavailable { what: "the hypervisor".to_owned() };
    let faults: [(&str, &dyn Fn(&App)); 5] = [
        ("the pivot is refused", &|app| app.site.fake.fail_next(Verb::Pivot, Answer::Refuse(refusal.clone()))),
        ("its answer is lost", &|app| app.site.fake.fail_next(Verb::Pivot, Answer::Lose(lost.clone()))),
        ("nobody can tell", &|app| {
            app.site.fake.fail_next(Verb::Pivot, Answer::Lose(lost.clone()));
            app.site.fake.fail_every(Verb::Chain, Answer::Lose(lost.clone()));
        }),
        ("it is not set aside", &|app| app.site.storage.fail_effect(1, false)),
        ("that it is set aside is lost", &|app| app.site.storage.fail_effect(1, true)),
    ];
    for (case, break_it) in faults {
        let mut site = Site::new();
        // Only the next server tries again.
        site.settings.tasks.recover_interval = Duration::from_secs(3600);
        let app = site.start();
        let vm = on(&app, written(&app));
        app.site.fake.hold(Verb::Pivot);
        std::thread::scope(|s| {
            let deleting = s.spawn(|| delete_first(&app, vm));
            assert!(app.site.fake.wait_held(Verb::Pivot, 1, PATIENCE));
            break_it(&app);
            app.site.fake.release(Verb::Pivot);
            deleting.join().unwrap().unwrap();
        });
        let mut second = 2;
        if state(&app, vm) == Some(PowerState::Running) {
            // Where the overlay holds something.
            second = 7;
            write_running(&app.site.fake, vm.unwrap(), 0, 2, second);
        }
        assert!(app.site.fake.power_off_inside(vm.unwrap()));
        app.site.fake.heal();
        app.site.storage.fail_effect(0, false);
        let app = app.restart();
        app.assert_at_rest();
        assert_whole(&app);
        let shows = content(&app, &app.disks(vm.unwrap())[0]);
        assert_eq!((shows[1], shows[2]), (1, second), "{case}");
    }
}
