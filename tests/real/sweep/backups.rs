//! Backups of VMs whose guests never run an instruction, on real images under a real QEMU.

use pengx::error::Result;
use pengx::model::*;
use pengx::operations::backup::{CreateBackup, DeleteBackup, ProveBackup, RestoreBackup, VerifyBackup};
use pengx::store::{backups, disks, snapshots};

use super::scenarios::{Scenario, Subject, delete, is, off, paused, volumes};
use crate::harness::app::App;

pub(super) fn scenarios() -> Vec<Scenario> {
    let scenario = |name, prepare, run, done| Scenario { name, prepare, run, done };
    vec![
        scenario("backup.create of a VM that is off", off, create, |app, vm| {
            is_whole(app, vm, 3) && is(app, vm, PowerState::Shutdown)
        }),
        scenario("backup.create of a VM that is paused", paused, create, |app, vm| {
            is_whole(app, vm, 3) && is(app, vm, PowerState::Paused)
        }),
        scenario("backup.delete", backed_up, drop_it, |app, _| the_backup(app).is_none() && volumes(app) == 3),
        scenario("backup.restore over a VM", backed_up, restore, |app, vm| {
            let kept = app.store().read(|c| snapshots::of_vm(c, vm.unwrap())).unwrap();
            kept.len() == 1 && is_whole(app, vm, 5) && is(app, vm, PowerState::Shutdown)
        }),
        scenario("backup.restore of a deleted VM", deleted, restore, |app, vm| {
            is_whole(app, vm, 3) && is(app, vm, PowerState::Shutdown)
        }),
        scenario(
            "backup.verify",
            backed_up,
            |app, vm| app.run(VerifyBackup { vm: vm.unwrap(), backup: id(app) }),
            |app, vm| is_whole(app, vm, 3) && the_backup(app).unwrap().verified_at.is_some(),
        ),
        scenario(
            "backup.prove",
            backed_up,
            |app, vm| app.run(ProveBackup { vm: vm.unwrap(), backup: id(app) }),
            |app, vm| {
                let domains = app.site.hypervisor.domains().unwrap();
                is_whole(app, vm, 3) && domains.len() == 1 && the_backup(app).unwrap().proven_at.is_some()
            },
        ),
    ]
}

fn create(app: &App, vm: Subject) -> Result<()> {
    let (name, desc) = ("nightly".parse().unwrap(), String::new());
    app.run(CreateBackup { vm: vm.unwrap(), name, storlink: StorlinkId(1), desc }).map(drop)
}

fn backed_up(app: &App) -> Subject {
    let vm = off(app);
    create(app, vm).unwrap();
    vm
}

fn deleted(app: &App) -> Subject {
    let vm = backed_up(app);
    delete(app, vm).unwrap();
    vm
}

fn the_backup(app: &App) -> Option<Backup> {
    app.store().read(backups::all).unwrap().pop()
}

fn id(app: &App) -> BackupId {
    the_backup(app).unwrap().id
}

fn drop_it(app: &App, vm: Subject) -> Result<()> {
    app.run(DeleteBackup { vm: vm.unwrap(), backup: id(app) })
}

fn restore(app: &App, vm: Subject) -> Result<()> {
    app.run(RestoreBackup { vm: vm.unwrap(), backup: id(app) })
}

/// The VM has two disks, the backup two images and a manifest; and so many volumes are there beside those and the template's.
fn is_whole(app: &App, vm: Subject, others: usize) -> bool {
    let Some(backup) = the_backup(app) else { return false };
    let (of_vm, of_backup) =
        app.store().read(|c| Ok((disks::of_vm(c, vm.unwrap())?, disks::of_backup(c, backup.id)?))).unwrap();
    of_vm.len() == 2 && of_backup.len() == 2 && volumes(app) == 3 + others
}
