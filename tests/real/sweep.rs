//! Operations on a real libvirt, failing and killed at every single point: afterwards the world is as it was, or the
//! operation is finished.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pengx::error::{ErrorKind, Result};
use pengx::model::{Format, PowerState, StorlinkId, TaskState, VmId, VolumeName};
use pengx::operations::vm::{DeleteVm, PoweroffVm, StartVm};
use pengx::store::{disks, tasks, templates, vms};
use pengx::tasks::Fate;

use super::paused::Paused;
use crate::harness::app::{App, Fuse, PATIENCE, Site};
use crate::harness::libvirt::Libvirtd;
use crate::harness::world::World;

struct Scenario {
    name: &'static str,
    /// Whether it is about a VM that is there already.
    needs_vm: bool,
    run: fn(&App, Option<VmId>) -> Result<()>,
    done: fn(&App, Option<VmId>) -> bool,
}

const SCENARIOS: [Scenario; 4] = [
    Scenario {
        name: "vm.create from a template",
        needs_vm: false,
        run: |app, _| {
            let template = app.store().read(templates::all)?[0].id;
            app.run(app.vm_of(StorlinkId(1), Some(template), "web1")).map(drop)
        },
        done: |app, _| vm_is_whole(app),
    },
    Scenario {
        name: "vm.create with an empty disk",
        needs_vm: false,
        run: |app, _| app.run(app.vm_of(StorlinkId(1), None, "web1")).map(drop),
        done: |app, _| vm_is_whole(app),
    },
    Scenario {
        name: "vm.start",
        needs_vm: true,
        run: |app, vm| app.run(StartVm { vm: vm.unwrap() }),
        done: |app, vm| state(app, vm.unwrap()) == Some(PowerState::Paused),
    },
    Scenario {
        name: "vm.delete",
        needs_vm: true,
        run: |app, vm| app.run(DeleteVm { vm: vm.unwrap() }),
        done: |app, vm| {
            let gone = app.store().read(|c| vms::find(c, vm.unwrap())).unwrap().is_none();
            gone && state(app, vm.unwrap()).is_none() && World::of(app).files.len() == 1
        },
    },
];

fn state(app: &App, vm: VmId) -> Option<PowerState> {
    app.site.hypervisor.domain(vm).unwrap().map(|d| d.state)
}

/// Rows, volumes and domain of the one VM agree.
fn vm_is_whole(app: &App) -> bool {
    let store = app.store();
    let all = store.read(vms::listing).unwrap();
    let [listing] = &all[..] else { return false };
    let disks = store.read(|c| disks::of_vm(c, listing.vm.id)).unwrap();
    let files = World::of(app).files;
    disks.len() == 2
        && files.len() == 3
        && disks.iter().all(|disk| files.contains_key(disk.volume.as_str()))
        && files.keys().all(|name| name.parse::<VolumeName>().is_ok())
        && state(app, listing.vm.id) == Some(PowerState::Shutdown)
}

fn patient(uri: &str) -> Site {
    Paused::new(uri, PATIENCE, PATIENCE * 2).site()
}

/// A site with a template, and its world.
fn furnish(site: Site) -> (App, World) {
    let app = site.start();
    let storlink = app.storlink();
    app.template(storlink, Format::Qcow2);
    app.assert_at_rest();
    let world = World::of(&app);
    (app, world)
}

impl Scenario {
    fn prepare(&self, app: &App) -> (Option<VmId>, World) {
        let make = || app.run(app.vm_of(StorlinkId(1), None, "web1")).unwrap();
        let vm = self.needs_vm.then(make);
        app.assert_at_rest();
        (vm, World::of(app))
    }

    /// Finished if the task says so, else untouched; and never anything in between.
    fn judge(&self, app: &App, vm: Option<VmId>, before: &World, case: &str) {
        app.assert_at_rest();
        let after = World::of(app);
        let last = app.store().read(|c| tasks::recent(c, 1)).unwrap().remove(0);
        let finished = last.state == TaskState::Success && (self.done)(app, vm);
        assert!(
            finished || (last.state != TaskState::Success && after == *before),
            "{case}: the task is {} ({})\nbefore: {before:#?}\nafter: {after:#?}",
            last.state,
            last.message
        );
        assert!(!last.message.is_empty(), "{case}: a task that is over says how it ended");
    }
}

/// Takes away whatever VM is there; then nothing of it is left.
fn clear(app: &App, bare: &World, case: &str) {
    for listing in app.store().read(vms::listing).unwrap() {
        let vm = listing.vm.id;
        if let Err(error) = app.run(PoweroffVm { vm }) {
            assert!(matches!(error.kind(), ErrorKind::WrongState { .. }), "{case}: {error}");
        }
        app.run(DeleteVm { vm }).unwrap();
    }
    app.assert_at_rest();
    assert_eq!(World::of(app), *bare, "{case}");
}

#[test]
fn operations_on_libvirt_survive_a_failure_at_every_point() {
    let libvirtd = Libvirtd::start("failing");
    let (app, bare) = furnish(patient(&libvirtd.uri));
    let mut points = 0;
    for scenario in &SCENARIOS {
        for n in 1.. {
            let case = format!("{} fails at point {n}", scenario.name);
            let (vm, before) = scenario.prepare(&app);
            app.fuse.arm(&[(n, Fate::Fail)]);
            let outcome = (scenario.run)(&app, vm);
            let failed = app.fuse.blown.load(Ordering::SeqCst);
            app.fuse.arm(&[]);
            scenario.judge(&app, vm, &before, &case);
            clear(&app, &bare, &case);
            if !failed {
                outcome.unwrap();
                break;
            }
            points += 1;
        }
    }
    println!("libvirt: failed at {points} points of {} operations", SCENARIOS.len());
    assert!(points > 40);
}

/// What the victim, which is this very test in a process of its own, is told through its environment.
const VICTIM: &str = "PENGX_TEST_VICTIM";

#[test]
fn operations_on_libvirt_survive_kill_9_at_every_point() {
    if let Ok(orders) = std::env::var(VICTIM) {
        return die(&orders);
    }
    let libvirtd = Libvirtd::start("killing");
    let (mut app, bare) = furnish(patient(&libvirtd.uri));
    let mut points = 0;
    for (which, scenario) in SCENARIOS.iter().enumerate() {
        for n in 1.. {
            let case = format!("{} is killed at point {n}", scenario.name);
            let (vm, before) = scenario.prepare(&app);
            app.core.stop(PATIENCE);
            let App { site, core, .. } = app;
            drop(core);
            let killed = kill_at(&site, &libvirtd.uri, which, n, vm);
            app = site.start();
            scenario.judge(&app, vm, &before, &case);
            if !killed {
                assert!((scenario.done)(&app, vm), "{case}: it is not done");
            }
            clear(&app, &bare, &case);
            if !killed {
                break;
            }
            points += 1;
        }
    }
    println!("libvirt: killed at {points} points of {} operations", SCENARIOS.len());
    assert!(points > 40);
}

/// Lets a process of its own run the operation on this site; whether it was killed before it was done.
fn kill_at(site: &Site, uri: &str, which: usize, n: usize, vm: Option<VmId>) -> bool {
    let vm = vm.map_or_else(|| "none".to_owned(), |vm| vm.to_string());
    let test =
        format!("{}::operations_on_libvirt_survive_kill_9_at_every_point", module_path!().split_once("::").unwrap().1);
    let victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &test, "--nocapture"])
        .env(VICTIM, format!("{which} {n} {vm} {} {uri}", site.database_url))
        // What it leaves in temporary directories goes with the site.
        .env("TMPDIR", site.dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&victim.stdout);
    if victim.status.signal() == Some(9) {
        return true;
    }
    assert!(victim.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&victim.stderr));
    false
}

/// The victim's life.
fn die(orders: &str) {
    let words: Vec<&str> = orders.split(' ').collect();
    let [which, n, vm, database_url, uri] = words[..] else { panic!("{orders}") };
    let mut site = patient(uri);
    site.database_url = database_url.to_owned();
    let fuse: Arc<Fuse> = Arc::default();
    fuse.for_real.store(true, Ordering::SeqCst);
    let app = site.start_with(fuse);
    app.fuse.arm(&[(n.parse().unwrap(), Fate::Die)]);
    (SCENARIOS[which.parse::<usize>().unwrap()].run)(&app, vm.parse().ok()).unwrap();
    app.core.stop(Duration::from_secs(10));
}
