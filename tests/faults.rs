//! Every operation, failing and dying at every single point: afterwards the world is as it was, or the task is finished.

mod backups;
mod copies;
mod devices;
mod ledger;
mod snapshots;
mod templates;
mod tenants;

use pengx::error::{ErrorKind, Result};
use pengx::hypervisor::{Answer, Verb};
use pengx::model::*;
use pengx::operations::pm::AuthorizeKeys;
use pengx::operations::storlink::CreateStorlink;
use pengx::operations::template::AddTemplate;
use pengx::operations::vm::{
    Changes, CreateVm, DeleteVm, EditVm, PoweroffVm, RebootVm, RequestShutdownVm, ResetVm, ResumeVm, ShutdownVm,
    StartVm, SuspendVm, UpdateVm,
};
use pengx::tasks::Fate;

use crate::harness::app::{App, make_image};
use crate::harness::world::World;

/// An operation, the world it needs, and how one sees that it is done.
struct Scenario {
    name: &'static str,
    prepare: fn(&App) -> Option<VmId>,
    run: fn(&App, Option<VmId>) -> Result<()>,
    done: fn(&App, Option<VmId>) -> bool,
}

fn scenarios() -> Vec<Scenario> {
    let mut all = vm_scenarios();
    all.extend(devices::scenarios());
    all.extend(snapshots::scenarios());
    all.extend(backups::scenarios());
    all.extend(templates::storlink_scenarios());
    all.extend(templates::template_scenarios());
    all.extend(copies::scenarios());
    all.extend(ledger::scenarios());
    all.extend(tenants::scenarios());
    all
}

fn vm_scenarios() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "storlink.create",
            prepare: |_| None,
            run: |app, _| {
                app.run(CreateStorlink {
                    name: "store1".parse().unwrap(),
                    link: app.site.store_dir().to_str().unwrap().to_owned(),
                    kind: StorlinkType::Local,
                    level: StorlinkLevel::File,
                    desc: String::new(),
                    shared: false,
                })
                .map(drop)
            },
            done: |app, _| app.store().read(pengx::store::storlinks::all).unwrap().len() == 1,
        },
        Scenario {
            name: "pm.authorize_keys",
            prepare: |app| {
                std::fs::write(app.site.settings.authorized_keys.as_ref().unwrap(), "# mine").unwrap();
                None
            },
            run: |app, _| app.run(AuthorizeKeys),
            done: |app, _| {
                let keys = World::of(app).authorized_keys.unwrap();
                keys.starts_with(b"# BEGIN pengx") && keys.ends_with(b"# END pengx\n# mine")
            },
        },
        Scenario {
            name: "template.add",
            prepare: |app| {
                app.storlink();
                let disk = DiskId(uuid::Uuid::from_u128(7));
                make_image(&app.site.store_dir().join(VolumeName::bare(disk).as_str()), Format::Qcow2, 1);
                None
            },
            run: |app, _| {
                app.run(AddTemplate {
                    name: "t".parse().unwrap(),
                    os: Os::Other,
                    os_arch: OsArch::X86,
                    desc: String::new(),
                    storlink: StorlinkId(1),
                    disk: DiskId(uuid::Uuid::from_u128(7)),
                    format: Format::Qcow2,
                })
                .map(drop)
            },
            done: |app, _| app.store().read(pengx::store::templates::all).unwrap().len() == 1,
        },
        Scenario {
            name: "vm.create from a template",
            prepare: |app| {
                let storlink = app.storlink();
                app.template(storlink, Format::Qcow2);
                None
            },
            run: |app, _| {
                let template = app.store().read(pengx::store::templates::all).unwrap()[0].id;
                app.run(app.vm_of(StorlinkId(1), Some(template), "web1")).map(drop)
            },
            done: |app, _| vm_is_whole(app),
        },
        Scenario {
            name: "vm.create with an empty disk",
            prepare: |app| {
                app.storlink();
                None
            },
            run: |app, _| app.run(app.vm_of(StorlinkId(1), None, "web1")).map(drop),
            done: |app, _| vm_is_whole(app),
        },
        Scenario {
            name: "vm.start",
            prepare: |app| Some(made(app)),
            run: |app, vm| app.run(StartVm { vm: vm.unwrap() }),
            done: |app, vm| state(app, vm) == Some(PowerState::Running),
        },
        Scenario {
            name: "vm.shutdown",
            prepare: |app| Some(started(app)),
            run: |app, vm| app.run(ShutdownVm { vm: vm.unwrap() }),
            done: |app, vm| state(app, vm) == Some(PowerState::Shutdown),
        },
        Scenario {
            name: "vm.shutdown, asked once",
            prepare: |app| Some(started(app)),
            run: |app, vm| app.run(RequestShutdownVm { vm: vm.unwrap() }),
            done: |app, vm| state(app, vm) == Some(PowerState::Shutdown),
        },
        Scenario {
            name: "vm.poweroff",
            prepare: |app| Some(started(app)),
            run: |app, vm| app.run(PoweroffVm { vm: vm.unwrap() }),
            done: |app, vm| state(app, vm) == Some(PowerState::Shutdown),
        },
        Scenario {
            name: "vm.reboot",
            prepare: |app| Some(started(app)),
            run: |app, vm| app.run(RebootVm { vm: vm.unwrap() }),
            done: |app, _| app.site.fake.calls(Verb::RequestReboot) == 1,
        },
        Scenario {
            name: "vm.reset",
            prepare: |app| Some(started(app)),
            run: |app, vm| app.run(ResetVm { vm: vm.unwrap() }),
            done: |app, vm| app.site.fake.calls(Verb::Start) >= 2 && state(app, vm) == Some(PowerState::Running),
        },
        Scenario {
            name: "vm.suspend",
            prepare: |app| Some(started(app)),
            run: |app, vm| app.run(SuspendVm { vm: vm.unwrap() }),
            done: |app, vm| state(app, vm) == Some(PowerState::Paused),
        },
        Scenario {
            name: "vm.resume",
            prepare: |app| {
                let vm = started(app);
                app.run(SuspendVm { vm }).unwrap();
                Some(vm)
            },
            run: |app, vm| app.run(ResumeVm { vm: vm.unwrap() }),
            done: |app, vm| state(app, vm) == Some(PowerState::Running),
        },
        Scenario {
            name: "vm.update of one that runs",
            prepare: |app| {
                let vm = roomy(app);
                app.run(StartVm { vm }).unwrap();
                Some(vm)
            },
            run: |app, vm| app.run(larger(vm.unwrap())),
            done: |app, vm| {
                let has = app.site.fake.running(vm.unwrap()).unwrap();
                (has.vcpus, has.memory, has.max_memory, has.disc.is_some()) == (2, MiB(96), MiB(128), true)
                    && is_larger(app, vm.unwrap())
            },
        },
        Scenario {
            name: "vm.update of one that is off",
            prepare: |app| Some(roomy(app)),
            run: |app, vm| app.run(larger(vm.unwrap())),
            done: |app, vm| is_larger(app, vm.unwrap()),
        },
        Scenario {
            name: "vm.edit",
            prepare: |app| Some(started(app)),
            run: |app, vm| {
                let name = Some("web2".parse().unwrap());
                app.run(EditVm { vm: vm.unwrap(), name, desc: Some("another".to_owned()) })
            },
            done: |app, vm| {
                let row = app.store().read(|c| pengx::store::vms::find(c, vm.unwrap())).unwrap().unwrap();
                let titles: Vec<_> = app.site.fake.definitions().into_iter().map(|d| d.title).collect();
                (row.name.as_str(), row.desc.as_str()) == ("web2", "another") && titles == ["web2"]
            },
        },
        Scenario {
            name: "vm.delete",
            prepare: |app| Some(made(app)),
            run: |app, vm| app.run(DeleteVm { vm: vm.unwrap() }),
            done: |app, vm| {
                let gone = app.store().read(|c| pengx::store::vms::find(c, vm.unwrap())).unwrap().is_none();
                gone && state(app, vm).is_none() && World::of(app).files.is_empty()
            },
        },
    ]
}

fn made(app: &App) -> VmId {
    let storlink = app.storlink();
    app.run(app.vm_of(storlink, None, "web1")).unwrap()
}

fn started(app: &App) -> VmId {
    let vm = made(app);
    app.run(StartVm { vm }).unwrap();
    vm
}

/// A VM whose memory can grow while it runs, and a disc for it.
fn roomy(app: &App) -> VmId {
    let storlink = app.storlink();
    std::fs::write(app.site.store_dir().join("debian.iso"), "a disc").unwrap();
    app.run(CreateVm { maxmem: MiB(128), ..app.vm_of(storlink, None, "web1") }).unwrap()
}

fn larger(vm: VmId) -> UpdateVm {
    let iso = Some(Some("1/debian.iso".parse().unwrap()));
    UpdateVm { vm, changes: Changes { cpu: Some(2), memory: Some(MiB(96)), maxmem: Some(MiB(256)), iso } }
}

/// Row and definition say what [`larger`] asks for.
fn is_larger(app: &App, vm: VmId) -> bool {
    let row = app.store().read(|c| pengx::store::vms::find(c, vm)).unwrap().unwrap();
    let defined = app.site.fake.definitions().remove(0);
    (row.cpu, row.memory, row.maxmem, row.iso.is_some()) == (2, MiB(96), MiB(256), true)
        && (defined.vcpus, defined.memory, defined.max_memory, defined.disc.is_some()) == (2, MiB(96), MiB(256), true)
}

fn state(app: &App, vm: Option<VmId>) -> Option<PowerState> {
    app.site.hypervisor.domain(vm.unwrap()).unwrap().map(|d| d.state)
}

/// Rows, volumes and domain of a created VM agree.
fn vm_is_whole(app: &App) -> bool {
    let store = app.store();
    let all = store.read(pengx::store::vms::listing).unwrap();
    let [listing] = &all[..] else { return false };
    let disks = store.read(|c| pengx::store::disks::of_vm(c, listing.vm.id)).unwrap();
    let files = World::of(app).files;
    disks.len() == 2
        && listing.nics.len() == 2
        && disks.iter().all(|disk| files.contains_key(disk.volume.as_str()))
        && files.keys().all(|name| name.parse::<VolumeName>().is_ok())
        && state(app, Some(listing.vm.id)) == Some(PowerState::Shutdown)
}

/// The world after a fault: finished if the operation says so, else untouched; and never anything in between.
fn judge(app: &App, scenario: &Scenario, vm: Option<VmId>, before: &World, case: &str) {
    app.assert_at_rest();
    let after = World::of(app);
    let last = app.store().read(|c| pengx::store::tasks::recent(c, 1)).unwrap().remove(0);
    let finished = last.state == TaskState::Success && (scenario.done)(app, vm);
    // A power button that was pressed and whose answer was lost has been pressed.
    let buttons = [
        TaskKind::VmShutdown,
        TaskKind::VmPoweroff,
        TaskKind::VmSuspend,
        TaskKind::VmResume,
        TaskKind::TemplateShutdown,
        TaskKind::TemplatePoweroff,
        // A file is written or not; one is removed or not; a definition is what its record says, or was.
        TaskKind::PmAuthorizeKeys,
        TaskKind::VolumeDelete,
        TaskKind::SiteRepair,
    ];
    let pressed = match last.kind {
        // A reset that failed half way was started again.
        TaskKind::VmReset => after.without_boot_times() == before.without_boot_times(),
        TaskKind::VmUpdate => after == before.with_plugged_vcpus(),
        // Of several disks some may have moved, and stay moved.
        TaskKind::VmSmigrate => copies::is_whole(app, vm, before, &after),
        _ => buttons.contains(&last.kind) && (scenario.done)(app, vm),
    };
    assert!(
        finished || pressed || after == *before,
        "{case}: the task is {} ({})\nbefore: {before:#?}\nafter: {after:#?}",
        last.state,
        last.message
    );
    assert!(after.locks.is_empty() && after.journal.is_empty(), "{case}: {after:#?}");
    assert!(!last.message.is_empty(), "{case}: a task that is over says how it ended");
}

/// A site on which the scenario can run, and what it was like before.
fn prepared(scenario: &Scenario) -> (App, Option<VmId>, World) {
    let app = App::new();
    let vm = (scenario.prepare)(&app);
    app.assert_at_rest();
    let before = World::of(&app);
    (app, vm, before)
}

/// How many points the scenario passes when all goes well.
fn points_of(scenario: &Scenario) -> usize {
    let (app, vm, _) = prepared(scenario);
    app.fuse.arm(&[]);
    (scenario.run)(&app, vm).unwrap();
    assert!((scenario.done)(&app, vm), "{}: it is not done", scenario.name);
    app.fuse.passed()
}

/// Runs the scenario once with these faults and judges the world; the number of points that it passed before it ended.
fn once(scenario: &Scenario, plan: &[(usize, Fate)], case: &str) -> usize {
    let (app, vm, before) = prepared(scenario);
    app.fuse.arm(plan);
    // What it answers is the task's to say; the world is judged.
    drop((scenario.run)(&app, vm));
    let passed = app.fuse.passed();
    let dies = plan.iter().any(|(_, fate)| *fate == Fate::Die);
    let app = if dies { app.restart() } else { app };
    judge(&app, scenario, vm, &before, case);
    passed
}

/// Runs all scenarios side by side, for most of their time is waiting; the sum of their points.
fn each(scenarios: &[Scenario], points_of_one: impl Fn(&Scenario) -> usize + Sync) -> usize {
    std::thread::scope(|scope| {
        let all: Vec<_> = scenarios.iter().map(|scenario| scope.spawn(|| points_of_one(scenario))).collect();
        all.into_iter().map(|one| one.join().unwrap()).sum()
    })
}

/// One run for each point of each operation.
fn sweep(scenarios: &[Scenario], fate: Fate) {
    let points = each(scenarios, |scenario| {
        let total = points_of(scenario);
        for n in 1..=total {
            let case = format!("{}: {fate:?} at point {n} of {total}", scenario.name);
            assert!(once(scenario, &[(n, fate)], &case) >= n, "{case}: it was not reached");
        }
        total
    });
    println!("faults: {fate:?} at {points} points of {} operations", scenarios.len());
    assert!(points > 50);
}

#[test]
fn every_operation_survives_a_failure_at_every_point() {
    sweep(&scenarios(), Fate::Fail);
}

#[test]
fn every_operation_survives_the_death_of_the_process_at_every_point() {
    sweep(&scenarios(), Fate::Die);
}

/// While a failure is being undone, the undo fails too, or the process dies: the next try completes it.
#[test]
fn undoing_survives_failure_and_death_at_every_point() {
    let points = each(&scenarios(), |scenario| {
        let mut points = 0;
        if snapshots::UNDONE_AS_OTHERS.contains(&scenario.name) {
            return 0;
        }
        for n in 1..=points_of(scenario) {
            for fate in [Fate::Fail, Fate::Die] {
                for k in 1.. {
                    let case = format!("{}: fails at point {n}, then {fate:?} {k} points later", scenario.name);
                    // Fewer points than that: the second fault came too late to happen.
                    if once(scenario, &[(n, Fate::Fail), (n + k, fate)], &case) < n + k {
                        break;
                    }
                    points += 1;
                }
            }
        }
        points
    });
    println!("faults: undoing was broken at {points} points");
    assert!(points > 20);
}

/// The hypervisor refuses, or does it and its answer is lost.
#[test]
fn every_operation_survives_each_failing_hypervisor_call() {
    let mut points = 0;
    for scenario in scenarios() {
        for answer in [refusal(), lost()] {
            for n in 1.. {
                let (app, vm, before) = prepared(&scenario);
                let effects = app.site.fake.effects();
                app.site.fake.fail_effect(n, answer.clone());
                let outcome = (scenario.run)(&app, vm);
                let happened = app.site.fake.effects() - effects >= n;
                app.site.fake.heal();
                let case = format!("{}: hypervisor call {n}: {answer:?}", scenario.name);
                if !happened {
                    outcome.unwrap();
                    break;
                }
                judge(&app, &scenario, vm, &before, &case);
                points += 1;
            }
        }
    }
    println!("faults: {points} hypervisor calls failed");
    assert!(points > 5);
}

fn refusal() -> Answer {
    Answer::Refuse(ErrorKind::Refused { by: "the hypervisor".to_owned(), why: "the test says so".to_owned() })
}

fn lost() -> Answer {
    Answer::Lose(ErrorKind::Unavailable { what: "the hypervisor".to_owned() })
}

/// The storage refuses, or does it and its answer is lost.
#[test]
fn every_operation_survives_each_failing_storage_call() {
    let mut points = 0;
    for scenario in scenarios() {
        for after in [false, true] {
            for n in 1.. {
                let (app, vm, before) = prepared(&scenario);
                app.site.storage.fail_effect(n, after);
                let outcome = (scenario.run)(&app, vm);
                let happened = app.site.storage.effects() >= n;
                let case = format!("{}: storage call {n}, {}", scenario.name, if after { "lost" } else { "refused" });
                if !happened {
                    outcome.unwrap();
                    break;
                }
                judge(&app, &scenario, vm, &before, &case);
                points += 1;
            }
        }
    }
    println!("faults: {points} storage calls failed");
    assert!(points > 5);
}
