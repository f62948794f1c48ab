//! Copies of a VM, templates made of one, and its moves to the second storlink, of a guest that is off or paused.

use std::path::PathBuf;

use pengx::error::Result;
use pengx::model::*;
use pengx::operations::template::CreateTemplate;
use pengx::operations::vm::{CopyVm, CreateVm, SmigrateVm};
use pengx::store::{disks, snapshots, templates, vms};

use super::scenarios::{Scenario, start};
use super::{Sight, state};
use crate::harness::app::App;
use crate::harness::images::assert_same;
use crate::harness::world::World;

type Subject = Option<VmId>;

pub(super) fn scenarios() -> Vec<Scenario> {
    let scenario = |name, prepare, run, done| Scenario { name, prepare, run, done };
    vec![
        scenario("vm.copy of one that is off", off, copy, is_copied),
        scenario("vm.copy of one that is paused", paused, copy, is_copied),
        scenario("template.create of one that is paused", paused, make_template, is_template),
        scenario("vm.smigrate of one that is off", off, smigrate, is_moved),
        scenario("vm.smigrate of one that is paused", paused, smigrate, is_moved),
    ]
}

/// A VM with a disk on a snapshot and a raw one beside it, both with data; what its guest sees is kept aside.
fn off(app: &App) -> Subject {
    let raw = CreateVm { format: Some(Format::Raw), ..app.vm_of(StorlinkId(1), None, "web1") };
    let vm = app.run(raw).unwrap();
    let fill = |at, byte| app.disks(vm).iter().for_each(|disk| app.fill(disk, byte, at, 512));
    fill(0, 0x11);
    app.freeze(vm, "s1");
    fill(256, 0x22);
    for disk in app.disks(vm) {
        app.flat(&disk, &expected(app, disk.order));
    }
    Some(vm)
}

fn paused(app: &App) -> Subject {
    let vm = off(app);
    start(app, vm).unwrap();
    vm
}

fn expected(app: &App, order: u32) -> PathBuf {
    app.site.dir.path().join(format!("expected-{order}.raw"))
}

fn copy(app: &App, vm: Subject) -> Result<()> {
    app.run(CopyVm { vm: vm.unwrap(), name: "copy".parse().unwrap(), storlink: StorlinkId(2) }).map(drop)
}

fn make_template(app: &App, vm: Subject) -> Result<()> {
    let (name, desc) = ("t".parse().unwrap(), String::new());
    app.run(CreateTemplate { vm: vm.unwrap(), name, storlink: StorlinkId(2), desc }).map(drop)
}

fn smigrate(app: &App, vm: Subject) -> Result<()> {
    app.run(SmigrateVm { vm: vm.unwrap(), storlink: StorlinkId(2) })
}

/// They hold what the guest saw, and nothing else is on the second storlink.
fn alone_there(app: &App, all: &[Disk]) -> bool {
    let mut names: Vec<String> = all.iter().map(|disk| format!("store2/{}", disk.volume)).collect();
    names.sort();
    holds_what_was_there(app, all) && World::of(app).files.keys().filter(|name| name.starts_with("store2/")).eq(&names)
}

fn holds_what_was_there(app: &App, all: &[Disk]) -> bool {
    for disk in all {
        assert_same((&expected(app, disk.order), Format::Raw), (&app.path(disk), disk.format));
    }
    true
}

fn is_copied(app: &App, vm: Subject) -> bool {
    let all = app.store().read(vms::listing).unwrap();
    let Some(made) = all.iter().find(|listing| listing.vm.name == "copy") else { return false };
    let copies = app.disks(made.vm.id);
    copies.len() == 2
        && alone_there(app, &copies)
        && state(app, made.vm.id) == Some(PowerState::Shutdown)
        && is_where_it_was(app, vm)
}

fn is_template(app: &App, vm: Subject) -> bool {
    let all = app.store().read(templates::all).unwrap();
    let Some(made) = all.iter().find(|template| template.name == "t") else { return false };
    let copies = app.store().read(|c| disks::of_template(c, made.id)).unwrap();
    copies.len() == 2 && alone_there(app, &copies) && is_where_it_was(app, vm)
}

/// On its own disks, with no overlay left.
fn is_where_it_was(app: &App, vm: Subject) -> bool {
    let rows = app.disks(vm.unwrap());
    rows.iter().all(|disk| disk.storlink == StorlinkId(1)) && holds_what_was_there(app, &rows) && no_more_here(app, vm)
}

fn is_moved(app: &App, vm: Subject) -> bool {
    let rows = app.disks(vm.unwrap());
    let flat = |disk: &Disk| disk.storlink == StorlinkId(2) && disk.backing.is_none();
    rows.len() == 2 && rows.iter().all(flat) && alone_there(app, &rows) && no_more_here(app, vm)
}

/// Of the VM there are the leaves that are not moved, and what its snapshot has frozen.
fn no_more_here(app: &App, vm: Subject) -> bool {
    let vm = vm.unwrap();
    let known = app.store().read(|c| {
        let mut all = disks::of_vm(c, vm)?;
        for snapshot in snapshots::of_vm(c, vm)? {
            all.extend(disks::of_snapshot(c, snapshot.id)?);
        }
        for template in templates::all(c)? {
            all.extend(disks::of_template(c, template.id)?);
        }
        Ok(all)
    });
    let known = known.unwrap();
    let here = known.iter().filter(|disk| disk.storlink == StorlinkId(1)).count();
    let files = World::of(app).files;
    files.keys().filter(|name| !name.starts_with("store2/") && name.as_str() != super::DISC).count() == here
}

/// After a failure past the point of no return: each disk is on one storlink or the other, and its guest is on it.
pub(super) fn is_whole(app: &App, vm: Subject, before: &Sight, after: &Sight) -> bool {
    let rows = app.disks(vm.unwrap());
    let moved: Vec<Disk> = rows.iter().filter(|disk| disk.storlink == StorlinkId(2)).cloned().collect();
    let is_on = |lines: &[String]| {
        let on = |disk: &Disk| lines.iter().any(|line| line.contains(&format!("'{}'", app.path(disk).display())));
        rows.iter().all(on)
    };
    // One that is off moves as a whole, when its rows change.
    !before.running.is_empty()
        && holds_what_was_there(app, &rows)
        && alone_there(app, &moved)
        && no_more_here(app, vm)
        && is_on(&after.definitions)
        && is_on(&after.running)
        && after.running.len() == before.running.len() - moved_below(&before.running, &after.running)
}

/// Documents of a disk that has moved have no images below it any more.
fn moved_below(before: &[String], after: &[String]) -> usize {
    let sources = |lines: &[String]| lines.iter().filter(|line| line.starts_with("<source file")).count();
    sources(before) - sources(after)
}
