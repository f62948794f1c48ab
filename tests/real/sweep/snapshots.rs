//! Snapshots on a real libvirt with real QEMU, failing, killed and bereft of their guests at every single point.

use rustix::process::{Pid, Signal, kill_process};

use pengx::error::Result;
use pengx::model::*;
use pengx::operations::snapshot::{DeleteSnapshot, RestoreSnapshot, StartSnapshot, TakeSnapshot};
use pengx::operations::vm::CreateVm;

use super::scenarios::{Scenario, start};
use super::{FOR_NOTHING, Scene, clear, fail_at, state, sweep, sweep_of_deaths};
use crate::harness::app::App;
use crate::harness::images::{assert_whole, content, of_snapshot, snapshots_of, write};
use crate::harness::wait::wait_until;

type Subject = Option<VmId>;

fn scenarios() -> Vec<Scenario> {
    let mut all = of_guests_that_are_there();
    let scenario = |name, prepare, run, done| Scenario { name, prepare, run, done };
    all.extend([
        scenario("snapshot.take of one that is off", made, take, |app, vm| shows(app, vm, &[&[1]], &[1])),
        scenario("snapshot.restore", written, restore_first, |app, vm| shows(app, vm, &[&[1], &[1, 2]], &[1])),
        scenario("snapshot.start", snapped, start_first, |app, vm| {
            shows(app, vm, &[&[1]], &[1]) && state(app, vm.unwrap()) == Some(PowerState::Paused)
        }),
        scenario("snapshot.delete under one that is off", branched, delete_first, with_two_is_gone),
    ]);
    all
}

fn of_guests_that_are_there() -> Vec<Scenario> {
    let scenario = |name, prepare, run, done| Scenario { name, prepare, run, done };
    vec![
        scenario("snapshot.take", |app| on(app, made(app)), take, |app, vm| shows(app, vm, &[&[1]], &[1])),
        scenario("snapshot.delete", |app| on(app, written(app)), delete_first, |app, vm| shows(app, vm, &[], &[1, 2])),
        scenario(
            "snapshot.delete in the middle",
            |app| on(app, middle(app)),
            delete_first,
            |app, vm| shows(app, vm, &[&[1, 2], &[1, 2, 3]], &[1, 2, 4]),
        ),
        scenario("snapshot.delete with two on it", |app| on(app, branched(app)), delete_first, with_two_is_gone),
    ]
}

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

fn with_two_is_gone(app: &App, vm: Subject) -> bool {
    shows(app, vm, &[&[1, 2]], &[1, 3])
}

fn mark(app: &App, vm: Subject, byte: u8) {
    write(app, vm.unwrap(), 0, usize::from(byte), byte);
}

fn made(app: &App) -> Subject {
    let wish = app.vm_of(StorlinkId(1), None, "web1");
    let wish = CreateVm { os_disk_size: Some(MiB(1)), extra_disk_size: None, networks: Vec::new(), ..wish };
    let vm = Some(app.run(wish).unwrap());
    mark(app, vm, 1);
    vm
}

fn on(app: &App, vm: Subject) -> Subject {
    start(app, vm).unwrap();
    vm
}

fn snapped(app: &App) -> Subject {
    let vm = made(app);
    take(app, vm).unwrap();
    vm
}

fn written(app: &App) -> Subject {
    let vm = snapped(app);
    mark(app, vm, 2);
    vm
}

/// A snapshot with two on it: the VM, and what it was before.
fn branched(app: &App) -> Subject {
    let vm = written(app);
    restore(app, vm, 0).unwrap();
    mark(app, vm, 3);
    vm
}

/// A snapshot under one that nobody asked for, which has two on it: the VM, and what it was before.
fn middle(app: &App) -> Subject {
    let vm = written(app);
    restore(app, vm, 0).unwrap();
    restore(app, vm, 1).unwrap();
    mark(app, vm, 3);
    restore(app, vm, 1).unwrap();
    mark(app, vm, 4);
    vm
}

fn take(app: &App, vm: Subject) -> Result<()> {
    let name = "first".parse().unwrap();
    app.run(TakeSnapshot { vm: vm.unwrap(), name, storlink: StorlinkId(1), desc: String::new() }).map(drop)
}

fn nth(app: &App, vm: Subject, n: usize) -> (VmId, SnapshotId) {
    (vm.unwrap(), snapshots_of(app, vm.unwrap())[n].id)
}

fn restore(app: &App, vm: Subject, n: usize) -> Result<()> {
    let (vm, snapshot) = nth(app, vm, n);
    app.run(RestoreSnapshot { vm, snapshot })
}

fn restore_first(app: &App, vm: Subject) -> Result<()> {
    restore(app, vm, 0)
}

fn start_first(app: &App, vm: Subject) -> Result<()> {
    let (vm, snapshot) = nth(app, vm, 0);
    app.run(StartSnapshot { vm, snapshot })
}

fn delete_first(app: &App, vm: Subject) -> Result<()> {
    let (vm, snapshot) = nth(app, vm, 0);
    app.run(DeleteSnapshot { vm, snapshot })
}

#[test]
fn snapshots_on_libvirt_survive_a_failure_at_every_point() {
    let (scene, app, bare) = Scene::new("snapfail", FOR_NOTHING);
    sweep(&scene, app, &bare, "fails", &scenarios(), |app, _, scenario, n, subject| fail_at(app, scenario, n, subject));
}

#[test]
fn snapshots_on_libvirt_survive_kill_9_at_every_point() {
    let test = format!("{}::snapshots_on_libvirt_survive_kill_9_at_every_point", module_path!());
    sweep_of_deaths(&test, "snapkill", &scenarios());
}

/// QEMU is killed at each point while the server lives: the operation fails or is done, and the disks are whole.
#[test]
fn snapshots_on_libvirt_survive_the_death_of_qemu_at_every_point() {
    let (scene, app, bare) = Scene::new("snapqemu", FOR_NOTHING);
    let mut points = 0;
    for scenario in of_guests_that_are_there() {
        for n in 1.. {
            let case = format!("{}: QEMU dies at point {n}", scenario.name);
            let (subject, _) = scenario.stage(&scene, &app);
            let vm = subject.unwrap();
            let (frozen, leaf) = (snapshots_of(&app, vm), content(&app, &app.disks(vm)[0]));
            let pid = Pid::from_raw(scene.libvirtd.guest_pid(&format!("pengx-{vm}"))).unwrap();
            app.fuse.arm(&[]);
            app.fuse.also_at(n, move || kill_process(pid, Signal::KILL).unwrap());
            let outcome = (scenario.run)(&app, subject);
            let passed = app.fuse.passed();
            app.fuse.arm(&[]);
            app.assert_at_rest();
            if passed >= n {
                wait_until("libvirt knows of its death", || Ok(state(&app, vm) == Some(PowerState::Crashed)));
            }
            // Undone or done, and nothing between the two.
            if snapshots_of(&app, vm) == frozen {
                assert_whole(&app);
                assert_eq!(content(&app, &app.disks(vm)[0]), leaf, "{case}");
            } else {
                assert!((scenario.done)(&app, subject), "{case}");
            }
            if passed >= n {
                start(&app, subject).unwrap();
                assert_whole(&app);
            }
            clear(&scene, &app, &bare, &case);
            if passed < n {
                outcome.unwrap();
                break;
            }
            points += 1;
        }
    }
    println!("libvirt: QEMU died at {points} points of {} operations", of_guests_that_are_there().len());
    assert!(points > 30);
}
