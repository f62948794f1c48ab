//! Backups: whatever fails, there is all of one or nothing, the VM is as it was, and a proof leaves no trace.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use pengx::error::Result;
use pengx::exec::SystemRunner;
use pengx::model::*;
use pengx::operations::backup::{CreateBackup, DeleteBackup, ProveBackup, RestoreBackup, VerifyBackup, read_again};
use pengx::operations::vm::{DeleteVm, StartVm, SuspendVm};
use pengx::storage::Control;
use pengx::storage::dir::DirDriver;
use pengx::store::{backups, disks, snapshots, vms};

use super::{Scenario, made, state};
use crate::harness::app::App;
use crate::harness::images::images_of;
use crate::harness::world::World;

type Subject = Option<VmId>;

/// Every VM here has two disks.
pub(super) fn scenarios() -> Vec<Scenario> {
    let scenario = |name, prepare, run, done| Scenario { name, prepare, run, done };
    vec![
        scenario("backup.create of a VM that is off, on a snapshot", frozen, create, |app, vm| {
            is_backed_up(app) && state(app, vm) == Some(PowerState::Shutdown)
        }),
        scenario("backup.create of a VM that runs, on a snapshot", running, create, |app, vm| {
            is_backed_up(app) && state(app, vm) == Some(PowerState::Running) && stands_on_its_disks(app, vm)
        }),
        scenario("backup.create of a VM that is suspended", paused, create, |app, vm| {
            is_backed_up(app) && state(app, vm) == Some(PowerState::Paused) && stands_on_its_disks(app, vm)
        }),
        scenario("backup.delete", backed_up, delete, |app, _| {
            the_backup(app).is_none() && World::of(app).files.len() == 2
        }),
        scenario("backup.restore over a VM", backed_up, restore, |app, vm| {
            is_restored(app, vm) && app.store().read(|c| snapshots::of_vm(c, vm.unwrap())).unwrap().len() == 1
        }),
        scenario("backup.restore of a deleted VM", deleted, restore, is_restored),
        scenario("backup.verify", backed_up, verify, |app, _| the_backup(app).unwrap().verified_at.is_some()),
        scenario("backup.prove", backed_up, prove, |app, _| {
            the_backup(app).unwrap().proven_at.is_some()
                && app.site.fake.definitions().len() == 1
                && World::of(app).files.len() == 5
        }),
    ]
}

fn frozen(app: &App) -> Subject {
    let vm = made(app);
    app.freeze(vm, "s");
    Some(vm)
}

fn running(app: &App) -> Subject {
    let vm = frozen(app);
    app.run(StartVm { vm: vm.unwrap() }).unwrap();
    vm
}

fn paused(app: &App) -> Subject {
    let vm = made(app);
    app.run(StartVm { vm }).unwrap();
    app.run(SuspendVm { vm }).unwrap();
    Some(vm)
}

fn backed_up(app: &App) -> Subject {
    let vm = Some(made(app));
    create(app, vm).unwrap();
    vm
}

fn deleted(app: &App) -> Subject {
    let vm = backed_up(app);
    app.run(DeleteVm { vm: vm.unwrap() }).unwrap();
    vm
}

fn create(app: &App, vm: Subject) -> Result<()> {
    let (name, desc) = ("nightly".parse().unwrap(), String::new());
    app.run(CreateBackup { vm: vm.unwrap(), name, storlink: StorlinkId(1), desc }).map(drop)
}

fn the_backup(app: &App) -> Option<Backup> {
    app.store().read(backups::all).unwrap().pop()
}

fn id(app: &App) -> BackupId {
    the_backup(app).unwrap().id
}

fn delete(app: &App, vm: Subject) -> Result<()> {
    app.run(DeleteBackup { vm: vm.unwrap(), backup: id(app) })
}

fn restore(app: &App, vm: Subject) -> Result<()> {
    app.run(RestoreBackup { vm: vm.unwrap(), backup: id(app) })
}

fn verify(app: &App, vm: Subject) -> Result<()> {
    app.run(VerifyBackup { vm: vm.unwrap(), backup: id(app) })
}

fn prove(app: &App, vm: Subject) -> Result<()> {
    app.run(ProveBackup { vm: vm.unwrap(), backup: id(app) })
}

/// There is one backup, and every byte of it is what it must be; nothing else was left beside it.
fn is_backed_up(app: &App) -> bool {
    let Some(backup) = the_backup(app) else { return false };
    let copies = app.store().read(|c| disks::of_backup(c, backup.id)).unwrap();
    let driver = DirDriver::open(&app.site.store_dir(), Arc::new(SystemRunner));
    let control = Control { cancel: &AtomicBool::new(false), progress: &|_| {} };
    let read = read_again(&driver, &backup, &copies, &control);
    let frozen = app.store().read(|c| snapshots::of_vm(c, backup.vm)).unwrap().len();
    copies.len() == 2 && read.is_ok() && World::of(app).files.len() == 2 + 2 * frozen + 3
}

/// The running domain has its own disks, and no overlay of the backup.
fn stands_on_its_disks(app: &App, vm: Subject) -> bool {
    let has = app.site.fake.running(vm.unwrap()).unwrap();
    let must = app.disks(vm.unwrap());
    has.disks.iter().zip(&must).all(|(has, must)| {
        let VolumeSource::File(file) = &has.source;
        file.ends_with(must.volume.as_str()) && has.backing.len() == usize::from(must.backing.is_some())
    })
}

/// Rows, volumes and definition are of the restored disks.
fn is_restored(app: &App, vm: Subject) -> bool {
    let vm = vm.unwrap();
    let Some(row) = app.store().read(|c| vms::find(c, vm)).unwrap() else { return false };
    let (disks, files) = (app.disks(vm), World::of(app).files);
    let definition = app.site.fake.definitions().into_iter().find(|spec| spec.id == vm).unwrap();
    let kept = app.store().read(|c| snapshots::of_vm(c, vm)).unwrap().len();
    row.name == "web1"
        && disks.len() == 2
        && disks.iter().all(|disk| files.contains_key(disk.volume.as_str()))
        && images_of(&definition) == app.images(&disks)
        && files.len() == 2 + 3 + 2 * kept
}
