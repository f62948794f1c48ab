//! What `--repair` does, each thing as a task; and what it leaves, with the reason.

use pengx::hypervisor::Hypervisor;
use pengx::model::*;
use pengx::operations::check::{Finding, Remedy, Repair, repair};
use pengx::operations::vm::{DeleteVm, StartVm};
use pengx::store::{disks, locks, tasks};
use pengx::tasks::Fate;

use super::{ALL, Scene};
use crate::harness::app::Site;
use crate::harness::postgres;
use crate::harness::tool::qemu_img;
use crate::harness::world::World;

/// What was done, and what is left.
fn repaired(scene: &Scene) -> (Vec<String>, Vec<String>) {
    let (done, report) = repair(&scene.app.core, ALL).unwrap();
    (done, report.findings.into_iter().map(|Finding { said, .. }| said).collect())
}

fn nothing() -> Vec<String> {
    Vec::new()
}

fn a_definition_follows_its_record(site: Site) {
    let scene = Scene::on(site);
    let whole = World::of(&scene.app);
    scene.app.site.fake.undefine(scene.vm).unwrap();
    let did = "the domain of vm web1 is defined as its record says";
    assert_eq!(repaired(&scene), (vec![format!("vm web1 has no domain on this host: {did}")], nothing()));
    assert_eq!(World::of(&scene.app), whole);
    scene.define(|spec| {
        spec.vcpus = 3;
        spec.disks.remove(1);
    });
    let (done, left) = repaired(&scene);
    assert!(done.len() == 1 && done[0].ends_with(did) && left.is_empty(), "{done:?} {left:?}");
    assert_eq!(World::of(&scene.app), whole);
    let task = scene.app.store().read(|c| tasks::recent(c, 1)).unwrap().remove(0);
    assert_eq!((task.kind, task.state, task.subject.as_str()), (TaskKind::SiteRepair, TaskState::Success, "vm web1"));
    assert_eq!(repaired(&scene), (nothing(), nothing()));
    scene.app.assert_at_rest();
}

#[test]
fn a_definition_follows_its_record_over_sqlite() {
    a_definition_follows_its_record(Site::new());
}

#[test]
fn a_definition_follows_its_record_over_postgres() {
    let mut site = Site::new();
    site.database_url = postgres::database();
    a_definition_follows_its_record(site);
}

#[test]
fn a_vm_that_runs_is_left() {
    let scene = Scene::new();
    scene.app.run(StartVm { vm: scene.vm }).unwrap();
    scene.define(|spec| spec.vcpus = 3);
    let says = "the domain of vm web1 is defined with 3 vCPUs, and its record says 1";
    assert_eq!(repaired(&scene), (nothing(), vec![says.to_owned()]));
    assert_eq!(scene.spec().vcpus, 3);
    // Also when it was started only after somebody looked.
    let refused = scene.app.run(Repair(Remedy::Define(scene.vm))).unwrap_err().to_string();
    assert_eq!(refused, "vm web1 is RUNNING; shut it down first");
    scene.app.site.fake.destroy(scene.vm).unwrap();
}

#[test]
fn no_domain_is_defined_on_images_that_are_not_what_they_must_be() {
    let scene = Scene::new();
    scene.app.site.fake.undefine(scene.vm).unwrap();
    let volume = scene.disk(1).volume;
    let path = scene.text(volume.as_str());
    qemu_img(&["rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", &path]);
    let (done, left) = repaired(&scene);
    assert_eq!(done, nothing());
    // The header stays as it is.
    let image = format!("disk 1 of vm web1: volume {volume} reads from /etc/passwd (raw), and its record says nothing");
    let domain = format!(
        "vm web1 has no domain on this host (the storage refused: volume {volume} is on /etc/passwd (raw), \
         and its record says nothing; run pengx check)"
    );
    assert_eq!(left, [image, domain]);
    assert_eq!(scene.app.site.fake.definitions().len(), 0);
    scene.app.assert_at_rest();
}

/// A database that was restored: a snapshot was taken since, and the guest went on writing into its overlay.
#[test]
fn a_definition_that_names_a_newer_volume_stays_and_so_does_the_volume() {
    let scene = Scene::new();
    let newer = scene.app.orphan(scene.storlink, Format::Qcow2);
    let path = scene.path(newer.as_str());
    scene.define(|spec| spec.disks[0].source = VolumeSource::File(path));
    scene.app.wait_out_quarantine();
    let before = World::of(&scene.app);
    let (done, left) = repaired(&scene);
    assert_eq!(done, nothing());
    assert!(
        left[0].ends_with(&format!(
            "(pengx refused: its domain names volume {newer} of storlink store1, which no record knows)"
        )),
        "{left:?}"
    );
    assert!(left[1].ends_with(&format!("(volume {newer} is in use by domain pengx-{})", scene.vm)), "{left:?}");
    assert_eq!(World::of(&scene.app), before);
    scene.app.assert_at_rest();
}

#[test]
fn orphans_go_after_their_quarantine_the_last_of_a_chain_first() {
    let scene = Scene::new();
    let whole = World::of(&scene.app);
    let (base, top) = (scene.app.orphan(scene.storlink, Format::Raw), scene.app.orphan(scene.storlink, Format::Qcow2));
    let (below, above) = (scene.text(base.as_str()), scene.text(top.as_str()));
    qemu_img(&["rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", &below, &above]);
    std::fs::write(scene.path("notes.qcow2"), "mine").unwrap();
    let before = World::of(&scene.app);
    let (done, left) = repaired(&scene);
    assert_eq!((done, left.len()), (nothing(), 2));
    assert_eq!(World::of(&scene.app), before);
    scene.app.wait_out_quarantine();
    let (done, left) = repaired(&scene);
    assert_eq!((done.len(), left), (2, nothing()));
    for volume in [&base, &top] {
        let did = |line: &&String| line.contains(volume.as_str()) && line.ends_with("is removed from storlink store1");
        assert_eq!(done.iter().filter(did).count(), 1, "{done:?}");
    }
    std::fs::remove_file(scene.path("notes.qcow2")).unwrap();
    assert_eq!(World::of(&scene.app), whole);
    scene.app.assert_at_rest();
}

/// A database that was restored: backups that were made since are whole, and nobody's.
#[test]
fn orphans_beside_the_manifest_of_a_lost_backup_are_left() {
    let scene = Scene::new();
    let (image, manifest) =
        (scene.app.orphan(scene.storlink, Format::Qcow2), scene.app.orphan(scene.storlink, Format::Raw));
    let manifest = (manifest.to_string(), manifest.as_str().replace(".raw", ".json"));
    std::fs::rename(scene.path(&manifest.0), scene.path(&manifest.1)).unwrap();
    scene.app.wait_out_quarantine();
    let before = World::of(&scene.app);
    let (done, left) = repaired(&scene);
    assert_eq!((done, left.len()), (nothing(), 2));
    assert_eq!(World::of(&scene.app), before);
    // It is for a person to say that the backup is not wanted.
    let delete = |name: &str| {
        let name = name.parse().unwrap();
        scene.app.run(pengx::operations::ledger::DeleteVolume { storlink: scene.storlink, name }).unwrap();
    };
    delete(&manifest.1);
    let (done, left) = repaired(&scene);
    assert!(done.len() == 1 && done[0].contains(image.as_str()) && left.is_empty(), "{done:?} {left:?}");
    scene.app.assert_at_rest();
}

#[test]
fn what_a_dead_process_left_is_undone_first() {
    let scene = Scene::new();
    let whole = World::of(&scene.app);
    scene.app.fuse.arm(&[(4, Fate::Die)]);
    drop(scene.app.core.submit_blocking(DeleteVm { vm: scene.vm }).unwrap().wait_blocking());
    let Scene { app, storlink, vm } = scene;
    let mut site = app.site;
    // Its own recovery does not come by itself so soon.
    site.settings.tasks.recover_interval = std::time::Duration::from_secs(3600);
    let scene = Scene { app: site.start(), storlink, vm };
    assert_eq!(repaired(&scene), (nothing(), nothing()));
    scene.app.assert_at_rest();
    assert_eq!(World::of(&scene.app), whole);
}

#[test]
fn what_a_task_holds_that_is_over_is_freed() {
    let scene = Scene::new();
    let whole = World::of(&scene.app);
    let task = scene.app.store().read(|c| tasks::recent(c, 1)).unwrap().remove(0).id;
    let lock = Lock { resource: Resource::Vm(scene.vm), access: Access::Changes };
    scene.app.store().note_tx(|tx| locks::acquire(tx, task, &[lock]).map(drop)).unwrap();
    let (done, left) = repaired(&scene);
    assert!(done.len() == 1 && done[0].ends_with(&format!("locked: what task {task} held is free")), "{done:?}");
    assert_eq!(left, nothing());
    assert_eq!(World::of(&scene.app), whole);
    scene.app.run(StartVm { vm: scene.vm }).unwrap();
    scene.app.site.fake.destroy(scene.vm).unwrap();
}

#[test]
fn what_only_a_person_can_decide_is_left_as_it_is() {
    let scene = Scene::new();
    let stranger = VmId(uuid::Uuid::from_u128(7));
    let mut spec = scene.spec();
    (spec.id, spec.disks) = (stranger, Vec::new());
    scene.app.site.fake.define(&spec).unwrap();
    let volume = scene.disk(1).volume;
    std::fs::remove_file(scene.path(volume.as_str())).unwrap();
    let before = World::of(&scene.app);
    let (done, left) = repaired(&scene);
    assert_eq!(done, nothing());
    let missing = format!("disk 1 of vm web1: volume {volume} is not on storlink store1");
    assert_eq!(left, [missing, format!("domain pengx-{stranger} is known to no record")]);
    assert_eq!(World::of(&scene.app), before);
    let rows = scene.app.store().read(disks::all).unwrap().len();
    assert_eq!(rows, 3);
}
