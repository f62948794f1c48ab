//! Copies of a VM, templates made of one, and moves to another storlink: of a VM that is off, runs or is paused, with one
//! disk or two, which are flat or on a chain of snapshots.

use std::path::PathBuf;

use pengx::error::Result;
use pengx::hypervisor::{Hypervisor, Verb};
use pengx::model::*;
use pengx::operations::template::CreateTemplate;
use pengx::operations::vm::{CopyVm, CreateVm, SmigrateVm, StartVm, SuspendVm};
use pengx::store::{disks, nics, snapshots, templates, vms};
use pengx::tasks::Fate;

use super::{Scenario, points_of, prepared, sweep};
use crate::harness::app::App;
use crate::harness::images::{assert_same, fill, images_of, text};
use crate::harness::tool::qemu_img;
use crate::harness::world::World;

const OFF: u8 = 0;
const RUNS: u8 = 1;
const PAUSED: u8 = 2;

/// The three operations on such a VM.
macro_rules! of {
    ($state:ident, $disks:literal, $chain:literal) => {
        [
            Scenario {
                name: concat!("vm.copy, ", stringify!($state), ", ", $disks, " disks, chain: ", $chain),
                prepare: prepare::<$state, $disks, $chain>,
                run: copy,
                done: is_copied,
            },
            Scenario {
                name: concat!("template.create, ", stringify!($state), ", ", $disks, " disks, chain: ", $chain),
                prepare: prepare::<$state, $disks, $chain>,
                run: make_template,
                done: is_template,
            },
            Scenario {
                name: concat!("vm.smigrate, ", stringify!($state), ", ", $disks, " disks, chain: ", $chain),
                prepare: prepare::<$state, $disks, $chain>,
                run: smigrate,
                done: is_moved,
            },
        ]
    };
}

/// Those that are broken in every way.
pub(super) fn scenarios() -> Vec<Scenario> {
    let [copy, ..] = of!(RUNS, 1, true);
    let [_, template, _] = of!(PAUSED, 1, false);
    let [.., smigrate] = of!(RUNS, 2, true);
    let [.., offline] = of!(OFF, 1, true);
    vec![copy, template, smigrate, offline]
}

/// Every one there is; without `PENGX_TEST_LONG` those with one flat disk, and with two disks on chains.
fn every() -> Vec<Scenario> {
    let mut all = Vec::new();
    all.extend(of!(OFF, 1, false));
    all.extend(of!(OFF, 2, true));
    all.extend(of!(RUNS, 1, false));
    all.extend(of!(RUNS, 2, true));
    all.extend(of!(PAUSED, 1, false));
    all.extend(of!(PAUSED, 2, true));
    if std::env::var_os("PENGX_TEST_LONG").is_some() {
        all.extend(of!(OFF, 1, true));
        all.extend(of!(OFF, 2, false));
        all.extend(of!(RUNS, 1, true));
        all.extend(of!(RUNS, 2, false));
        all.extend(of!(PAUSED, 1, true));
        all.extend(of!(PAUSED, 2, false));
    }
    all
}

#[test]
fn copies_survive_a_failure_at_every_point() {
    // Few at a time: each is a server with its tools.
    every().chunks(6).for_each(|some| sweep(some, Fate::Fail));
}

#[test]
fn copies_survive_the_death_of_the_process_at_every_point() {
    every().chunks(6).for_each(|some| sweep(some, Fate::Die));
}

/// A VM with data on each image of each disk; what its guest sees is kept aside.
fn prepare<const STATE: u8, const DISKS: usize, const CHAIN: bool>(app: &App) -> Option<VmId> {
    let storlink = app.storlink();
    app.second_storlink();
    let format = Some(if DISKS == 1 { Format::Qcow2 } else { Format::Raw });
    let extra_disk_size = (DISKS == 2).then_some(MiB(2));
    let vm = app.run(CreateVm { format, extra_disk_size, ..app.vm_of(storlink, None, "web1") }).unwrap();
    let fill = |at, byte| app.disks(vm).iter().for_each(|disk| app.fill(disk, byte, at, 512));
    fill(0, 0x11);
    if CHAIN {
        app.freeze(vm, "s1");
        fill(256, 0x22);
        app.freeze(vm, "s2");
        fill(1024, 0x33);
    }
    for disk in app.disks(vm) {
        app.flat(&disk, &expected(app, disk.order));
    }
    if STATE != OFF {
        app.run(StartVm { vm }).unwrap();
    }
    if STATE == PAUSED {
        app.run(SuspendVm { vm }).unwrap();
    }
    Some(vm)
}

fn expected(app: &App, order: u32) -> PathBuf {
    app.site.dir.path().join(format!("expected-{order}.raw"))
}

fn copy(app: &App, vm: Option<VmId>) -> Result<()> {
    app.run(CopyVm { vm: vm.unwrap(), name: "copy".parse().unwrap(), storlink: StorlinkId(2) }).map(drop)
}

fn make_template(app: &App, vm: Option<VmId>) -> Result<()> {
    let (name, desc) = ("t".parse().unwrap(), String::new());
    app.run(CreateTemplate { vm: vm.unwrap(), name, storlink: StorlinkId(2), desc }).map(drop)
}

fn smigrate(app: &App, vm: Option<VmId>) -> Result<()> {
    app.run(SmigrateVm { vm: vm.unwrap(), storlink: StorlinkId(2) })
}

/// Flat, and to the byte what the guest saw.
fn shows_what_was_there(app: &App, disk: &Disk) -> bool {
    let image = app.path(disk);
    assert_same((&expected(app, disk.order), Format::Raw), (&image, disk.format));
    let info = qemu_img(&["info", "-f", disk.format.word(), image.to_str().unwrap()]);
    disk.backing.is_some() == info.contains("backing file:")
}

/// The second storlink has the volumes of these disks, and nothing else.
fn alone_there(app: &App, all: &[Disk]) -> bool {
    let mut names: Vec<String> = all.iter().map(|disk| format!("store2/{}", disk.volume)).collect();
    names.sort();
    World::of(app).files.keys().filter(|name| name.starts_with("store2/")).eq(&names)
}

fn flat_copies(app: &App, vm: VmId, all: &[Disk]) -> bool {
    all.iter().map(|disk| disk.order).eq(app.disks(vm).iter().map(|disk| disk.order))
        && all.iter().all(|disk| disk.backing.is_none() && shows_what_was_there(app, disk))
        && alone_there(app, all)
}

fn is_copied(app: &App, vm: Option<VmId>) -> bool {
    let vm = vm.unwrap();
    let all = app.store().read(vms::listing).unwrap();
    let Some(made) = all.iter().find(|listing| listing.vm.name == "copy").map(|listing| listing.vm.clone()) else {
        return false;
    };
    let (of_source, of_copy) = app.store().read(|c| Ok((nics::of_vm(c, vm)?, nics::of_vm(c, made.id)?))).unwrap();
    let spec = app.site.fake.definitions().into_iter().find(|spec| spec.id == made.id).unwrap();
    flat_copies(app, vm, &app.disks(made.id))
        && made.snapshot.is_none()
        && of_copy.iter().all(|nic| of_source.iter().all(|other| other.mac != nic.mac))
        && of_copy.iter().map(|nic| &nic.switch).eq(of_source.iter().map(|nic| &nic.switch))
        && images_of(&spec) == app.images(&app.disks(made.id))
        && super::state(app, Some(made.id)) == Some(PowerState::Shutdown)
        && is_where_it_was(app, vm)
}

fn is_template(app: &App, vm: Option<VmId>) -> bool {
    let vm = vm.unwrap();
    let all = app.store().read(templates::all).unwrap();
    let [made] = &all[..] else { return false };
    let copies = app.store().read(|c| disks::of_template(c, made.id)).unwrap();
    flat_copies(app, vm, &copies) && is_where_it_was(app, vm)
}

/// The source of a copy: on its own disks, and nothing is over them any more.
fn is_where_it_was(app: &App, vm: VmId) -> bool {
    agree(app, vm) && app.disks(vm).iter().all(|disk| disk.storlink == StorlinkId(1) && shows_what_was_there(app, disk))
}

/// Rows, volumes of the first storlink, definition and running domain.
fn agree(app: &App, vm: VmId) -> bool {
    let rows = app.disks(vm);
    let frozen = app.store().read(|c| {
        let mut all = Vec::new();
        for snapshot in snapshots::of_vm(c, vm)? {
            all.extend(disks::of_snapshot(c, snapshot.id)?);
        }
        Ok(all)
    });
    let frozen = frozen.unwrap();
    let mut here: Vec<String> = rows
        .iter()
        .chain(&frozen)
        .filter(|disk| disk.storlink == StorlinkId(1))
        .map(|disk| disk.volume.to_string())
        .collect();
    here.sort();
    let files = World::of(app).files;
    let definition = app.site.fake.definitions().into_iter().find(|spec| spec.id == vm).unwrap();
    let as_rows_say = |spec: &DomainSpec| {
        images_of(spec) == app.images(&rows)
            && spec.disks.iter().zip(&rows).all(|(disk, row)| disk.backing.is_empty() == row.backing.is_none())
    };
    files.keys().filter(|name| !name.starts_with("store2/")).eq(&here)
        && as_rows_say(&definition)
        && app.site.fake.running(vm).as_ref().is_none_or(as_rows_say)
}

fn is_moved(app: &App, vm: Option<VmId>) -> bool {
    let vm = vm.unwrap();
    let rows = app.disks(vm);
    rows.iter().all(|disk| disk.storlink == StorlinkId(2)) && flat_copies(app, vm, &rows) && agree(app, vm)
}

/// After a failure: each disk is on one storlink or the other, whole; the guest is on it, and runs as it did. Before the
/// first pivot nothing is otherwise than it was.
pub(super) fn is_whole(app: &App, vm: Option<VmId>, before: &World, after: &World) -> bool {
    let vm = vm.unwrap();
    let rows = app.disks(vm);
    let moved: Vec<Disk> = rows.iter().filter(|disk| disk.storlink == StorlinkId(2)).cloned().collect();
    app.site.fake.calls(Verb::Pivot) > 0
        && agree(app, vm)
        && alone_there(app, &moved)
        && moved.iter().all(|disk| disk.backing.is_none())
        && rows.iter().all(|disk| shows_what_was_there(app, disk))
        && before.domains[0] == after.domains[0]
}

/// The server dies, its guest goes on for a while, and then dies too: all that it was told is written is on its disks.
#[test]
fn a_guest_that_dies_after_its_server_has_lost_nothing() {
    let mut scenarios = Vec::new();
    for [copy, _, smigrate] in [of!(RUNS, 1, false), of!(RUNS, 2, true)] {
        scenarios.extend([copy, smigrate]);
    }
    let points: usize = std::thread::scope(|scope| {
        let all: Vec<_> = scenarios.iter().map(|scenario| scope.spawn(|| outlived(scenario))).collect();
        all.into_iter().map(|one| one.join().unwrap()).sum()
    });
    println!("faults: a guest outlived its server at {points} points, and then died");
    assert!(points > 50);
}

/// How often the guest went on.
fn outlived(scenario: &Scenario) -> usize {
    let mut went_on = 0;
    for n in 1..=points_of(scenario) {
        let (app, vm, _) = prepared(scenario);
        let id = vm.unwrap();
        app.fuse.arm(&[(n, Fate::Die)]);
        drop((scenario.run)(&app, vm));
        let fake = app.site.fake.clone();
        // Between its pivots it stands still.
        if fake.states().contains(&(id, PowerState::Running)) {
            guest_writes(&app, id);
            went_on += 1;
        }
        assert!(fake.crash(id));
        let app = app.restart();
        app.assert_at_rest();
        for disk in app.disks(id) {
            assert!(shows_what_was_there(&app, &disk), "{}: the server died at point {n}", scenario.name);
        }
        assert!(agree(&app, id), "{}: the server died at point {n}: {:#?}", scenario.name, World::of(&app));
    }
    went_on
}

/// To whatever each of its disks is on; and, as a mirror does that is ready, to the copy of it.
fn guest_writes(app: &App, vm: VmId) {
    let write = |image: &std::path::Path, format| fill(image, format, 0x44, 1536, 64);
    let rows = app.disks(vm);
    for disk in app.site.fake.running(vm).unwrap().disks {
        let VolumeSource::File(image) = &disk.source;
        write(image, disk.format);
        write(&expected(app, disk.order), Format::Raw);
        let Some(job) = app.site.fake.block_job(vm, disk.order).unwrap() else { continue };
        assert!(job.ready, "the jobs of the fake are ready at once");
        let size = rows.iter().find(|row| row.order == disk.order).unwrap().size;
        let volumes = std::fs::read_dir(app.site.second_dir()).unwrap().map(|volume| volume.unwrap().path());
        let copies: Vec<_> = volumes.filter(|volume| is_of_size(volume, disk.format, size)).collect();
        assert_eq!(copies.len(), 1, "{copies:?}");
        write(&copies[0], disk.format);
    }
}

fn is_of_size(image: &std::path::Path, format: Format, size: MiB) -> bool {
    let info = qemu_img(&["info", "--output=json", "-f", format.word(), text(image)]);
    serde_json::from_str::<serde_json::Value>(&info).unwrap()["virtual-size"].as_u64() == Some(size.bytes())
}
