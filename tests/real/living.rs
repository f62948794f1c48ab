//! What was plugged into a guest that lives, or pulled out of it, and then failed or was cut off, is taken back with the
//! guest's own consent.

use pengx::error::Result;
use pengx::model::*;
use pengx::operations::template::AddTemplate;
use pengx::operations::vm::{CreateVm, PoweroffVm, ResumeVm};
use pengx::store::{disks, tasks};
use pengx::tasks::Fate;

use super::sweep::scenarios::{create_disk, create_nic, delete_disk, has_disks, has_nics, start};
use super::sweep::{Scene, Sight};
use crate::harness::app::App;
use crate::harness::guest::{golden, until_booted, until_seen};
use crate::harness::wait::BOOT;
use crate::harness::world::World;

/// The disks of one that lives change all the time: they are there or not.
fn names_alone(sight: Sight) -> Sight {
    let files = sight.world.files.into_keys().map(|name| (name, 0)).collect();
    Sight { world: World { files, ..sight.world }, ..sight }
}

/// In any order: what was pulled out and plugged in again comes last.
fn sorted(sight: Sight) -> Sight {
    let mut running = sight.running;
    running.sort();
    Sight { running, ..sight }
}

/// A VM that has booted the golden image; it has one disk more.
fn booted(app: &App) -> VmId {
    let disk = DiskId(uuid::Uuid::from_u128(0x601d));
    let volume = VolumeName::new(disk, Format::Qcow2);
    std::fs::copy(golden(), app.site.store_dir().join(volume.as_str())).unwrap();
    let (name, desc) = ("golden".parse().unwrap(), String::new());
    let (os, os_arch, format) = (Os::Other, OsArch::X64, Format::Qcow2);
    let template = AddTemplate { name, os, os_arch, desc, storlink: StorlinkId(1), disk, format };
    let template = app.run(template).unwrap();
    let size = MiB(128);
    let wish = app.vm_of(StorlinkId(1), Some(template), "web1");
    let vm = app.run(CreateVm { memory: size, maxmem: size, ..wish }).unwrap();
    start(app, Some(vm)).unwrap();
    app.run(ResumeVm { vm }).unwrap();
    until_booted(&system(app, vm), Format::Qcow2, 1);
    vm
}

fn system(app: &App, vm: VmId) -> std::path::PathBuf {
    let disks = app.store().read(|c| disks::of_vm(c, vm)).unwrap();
    app.site.store_dir().join(disks.iter().find(|disk| disk.order == 0).unwrap().volume.as_str())
}

/// The operation fails or dies at each of its points, until it comes to its end; how many there were.
fn at_every_point(
    scene: &Scene,
    mut app: App,
    vm: VmId,
    run: fn(&App, Option<VmId>) -> Result<()>,
    done: fn(&App, Option<VmId>) -> bool,
) -> (App, usize) {
    let sight = |app: &App| sorted(names_alone(scene.sight(app)));
    let before = sight(&app);
    for n in 1.. {
        for fate in [Fate::Fail, Fate::Die] {
            app.fuse.arm(&[(n, fate)]);
            let outcome = run(&app, Some(vm));
            let broken = app.fuse.blown.load(std::sync::atomic::Ordering::SeqCst);
            app.fuse.arm(&[]);
            if fate == Fate::Die {
                app = app.restart();
            }
            app.assert_at_rest();
            let last = app.store().read(|c| tasks::recent(c, 1)).unwrap().remove(0);
            let case = format!("{}: {fate:?} at point {n}: {} ({})", last.kind, last.state, last.message);
            if last.state == TaskState::Success {
                // What was settled is finished, whatever comes after it.
                assert!(done(&app, Some(vm)), "{case}");
                if !broken {
                    outcome.unwrap();
                }
                return (app, n - 1);
            }
            assert!(broken, "{case}");
            assert_eq!(sight(&app), before, "{case}");
        }
    }
    unreachable!("an operation has an end")
}

#[test]
fn a_living_guest_gives_back_what_a_failed_operation_gave_it() {
    let (scene, app, _) = Scene::new("living", BOOT);
    let vm = booted(&app);
    let image = system(&app, vm);
    let sees = |disks: &str, nics| {
        until_seen(&image, Format::Qcow2, disks, |sight| sight.disks.join(",") == disks && sight.nics == nics)
    };
    sees("vda,vdb", 2);
    let mut points = 0;
    let (app, passed) = at_every_point(&scene, app, vm, create_disk, has_disks::<3>);
    points += passed;
    sees("vda,vdb,vdc", 2);
    let (app, passed) = at_every_point(&scene, app, vm, delete_disk, has_disks::<2>);
    points += passed;
    sees("vda,vdc", 2);
    let (app, passed) = at_every_point(&scene, app, vm, create_nic, has_nics::<3>);
    points += passed;
    let last = sees("vda,vdc", 3);
    assert_eq!(last.cpus, 1);
    println!("a living guest: failed and died at {points} points of 3 operations");
    assert!(points > 20);
    until_booted(&image, Format::Qcow2, 1);
    app.run(PoweroffVm { vm }).unwrap();
    app.assert_at_rest();
}
