//! Every kind of drift, one at a time.

use std::sync::atomic::Ordering;

use pengx::hypervisor::{Hypervisor, Start, Verb};
use pengx::model::*;
use pengx::operations::check::check;
use pengx::operations::vm::{DeleteVm, StartVm};
use pengx::store::{backups, disks, locks, reservations, tasks};
use pengx::tasks::Fate;

use super::{ALL, Scene, cut, scribble};
use crate::harness::app::{App, Site, make_image};
use crate::harness::postgres;
use crate::harness::tool::qemu_img;
use crate::harness::wait::{PATIENCE, wait_until};
use crate::harness::world::World;

#[test]
fn a_site_in_order_says_nothing_and_looking_changes_nothing() {
    for database_url in [None, Some(postgres::database())] {
        let mut site = Site::new();
        site.database_url = database_url.unwrap_or(site.database_url);
        let scene = Scene::on(site);
        scene.overlays(2);
        std::fs::write(scene.path("notes.txt"), "mine").unwrap();
        std::fs::write(scene.path("debian.iso"), "mine").unwrap();
        let before = (World::of(&scene.app), scene.app.site.fake.effects());
        assert_eq!(scene.report(), pengx::operations::check::Report::default());
        scene.app.run(StartVm { vm: scene.vm }).unwrap();
        assert_eq!(scene.report(), pengx::operations::check::Report::default());
        scene.app.site.fake.destroy(scene.vm).unwrap();
        assert_eq!((World::of(&scene.app).files, World::of(&scene.app).journal), (before.0.files, before.0.journal));
        scene.app.assert_at_rest();
    }
}

#[test]
fn a_volume_that_is_not_there() {
    let scene = Scene::new();
    let volume = scene.disk(1).volume;
    std::fs::remove_file(scene.path(volume.as_str())).unwrap();
    scene.finds(&format!("disk 1 of vm web1: volume {volume} is not on storlink store1"));
    // Something else under its name is refused as what it is.
    std::fs::create_dir(scene.path(volume.as_str())).unwrap();
    let why = format!("{} is not a regular file", scene.text(volume.as_str()));
    scene.finds(&format!("disk 1 of vm web1: {why}"));
}

#[test]
fn an_image_of_another_format() {
    let scene = Scene::new();
    let volume = scene.disk(1).volume;
    make_image(&scene.path(volume.as_str()), Format::Raw, 2);
    scene.finds(&format!("disk 1 of vm web1: volume {volume} is not a qcow2 image"));
}

#[test]
fn an_image_of_another_size() {
    let scene = Scene::new();
    let volume = scene.disk(1).volume;
    qemu_img(&["resize", "-q", "-f", "qcow2", &scene.text(volume.as_str()), "3M"]);
    scene.finds(&format!("disk 1 of vm web1: volume {volume} has 3145728 bytes, and its record says 2097152"));
}

#[test]
fn an_image_that_is_marked_corrupt() {
    let scene = Scene::new();
    let volume = scene.disk(0).volume;
    // The second of the incompatible features.
    scribble(&scene.path(volume.as_str()), 79, &[2]);
    scene.finds(&format!("disk 0 of vm web1: volume {volume} is marked corrupt; repair it with qemu-img check"));
}

#[test]
fn an_image_that_is_cut_short() {
    let scene = Scene::new();
    let path = scene.path(scene.disk(0).volume.as_str());
    let (volume, bytes) = (scene.disk(0).volume, std::fs::metadata(&path).unwrap().len());
    // Its tables are whole, half of its data is gone.
    cut(&path, bytes / 2);
    scene.finds(&format!("disk 0 of vm web1: volume {volume} is cut short: it says that it has data beyond its end"));
    cut(&path, 65_536);
    let said = scene.findings();
    assert!(said.len() == 1 && said[0].ends_with("outside the file; is it cut short?"), "{said:?}");
    cut(&path, 40);
    scene.finds(&format!("disk 0 of vm web1: volume {volume} ends inside its own header"));
}

#[test]
fn a_raw_image_that_is_cut_short() {
    let scene = Scene::new();
    let disk = pengx::operations::disk::CreateDisk {
        vm: scene.vm,
        storlink: scene.storlink,
        size: MiB(4),
        format: Some(Format::Raw),
        desc: String::new(),
    };
    let volume = scene.app.run(disk).unwrap().disk.volume;
    cut(&scene.path(volume.as_str()), 1 << 20);
    scene.finds(&format!(
        "disk 2 of vm web1: volume {volume} has 1048576 bytes, and its record says 4194304, so it is cut short"
    ));
}

#[test]
fn an_image_that_reads_from_another_one_than_its_record_says() {
    let scene = Scene::new();
    scene.overlays(1);
    let (leaf, other) = (scene.disk(0).volume, scene.disk(1).volume);
    let (leaf_path, other_path) = (scene.text(leaf.as_str()), scene.text(other.as_str()));
    let base = scene.app.store().read(|c| disks::find(c, scene.disk(0).backing.unwrap())).unwrap().unwrap();
    let base_path = scene.text(base.volume.as_str());
    qemu_img(&["rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", &other_path, &leaf_path]);
    scene.finds(&format!(
        "disk 0 of vm web1: volume {leaf} reads from {other_path} (qcow2), and its record says {base_path} (qcow2)"
    ));
    qemu_img(&["rebase", "-u", "-f", "qcow2", "-b", "", &leaf_path]);
    scene.finds(&format!(
        "disk 0 of vm web1: volume {leaf} reads from nothing, and its record says {base_path} (qcow2)"
    ));
    // The other way round: an image that should be self-contained.
    qemu_img(&["rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", &base_path, &leaf_path]);
    qemu_img(&["rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", &other_path]);
    scene
        .finds(&format!("disk 1 of vm web1: volume {other} reads from /etc/passwd (raw), and its record says nothing"));
}

#[test]
fn chains_that_are_too_long_or_go_in_a_circle() {
    let mut site = Site::new();
    site.settings.max_chain = 3;
    let scene = Scene::on(site);
    scene.overlays(2);
    assert_eq!(scene.findings(), Vec::<String>::new());
    scene.overlays(1);
    scene.finds("disk 0 of vm web1 is on a chain of 4 images; 3 are allowed");

    // Records that go in a circle: the lowest one is on the one above it.
    let leaf = scene.disk(0);
    let chain = scene.app.store().read(|c| disks::below(c, &leaf)).unwrap();
    let (upper, lowest) = (&chain[1], &chain[2]);
    scene
        .app
        .store()
        .write_tx(|tx| disks::hand_over(tx, lowest.id, lowest.owner, lowest.order, Some(upper.id)))
        .unwrap();
    let mut ids = [upper.id.to_string(), lowest.id.to_string()];
    ids.sort();
    let said = scene.findings();
    let circle = format!("the records of these disks go in a circle: {}", ids.join(", "));
    assert!(said.contains(&circle), "{said:?}");
    // And the images as well: what the lowest one reads from agrees with its record now.
    let (from, to) = (scene.text(lowest.volume.as_str()), scene.text(upper.volume.as_str()));
    qemu_img(&["rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", &to, &from]);
    let mut names = [upper.volume.to_string(), lowest.volume.to_string()];
    names.sort();
    let images = format!("the images go in a circle, each reading from the next: {}", names.join(", "));
    let mut said = scene.findings();
    said.sort();
    assert_eq!(said, [images, circle]);
}

#[test]
fn a_vm_without_its_domain() {
    let scene = Scene::new();
    scene.app.site.fake.undefine(scene.vm).unwrap();
    scene.finds("vm web1 has no domain on this host");
}

#[test]
fn a_domain_that_is_defined_otherwise() {
    let scene = Scene::new();
    let (first, second) = (scene.text(scene.disk(0).volume.as_str()), scene.text(scene.disk(1).volume.as_str()));
    scene.define(|spec| spec.vcpus = 3);
    scene.finds("the domain of vm web1 is defined with 3 vCPUs, and its record says 1");
    scene.define(|spec| {
        spec.vcpus = 1;
        spec.memory = MiB(32);
        spec.max_memory = MiB(128);
    });
    scene.finds(
        "the domain of vm web1 is defined with 32 MiB of memory, and its record says 64; \
         at most 128 MiB of memory, and its record says 64",
    );
    scene.define(|spec| {
        (spec.memory, spec.max_memory) = (MiB(64), MiB(64));
        spec.disks[1].order = 5;
        spec.disks[0].source = VolumeSource::File("/elsewhere/x.raw".into());
        spec.disks[0].format = Format::Raw;
    });
    scene.finds(&format!(
        "the domain of vm web1 is defined with /elsewhere/x.raw (raw) as disk 0, and its record says {first} (qcow2); \
         nothing as disk 1, and its record says {second} (qcow2); {second} (qcow2) as disk 5, and its record says nothing"
    ));
    let (first, second) = (std::path::PathBuf::from(first), 1);
    scene.define(|spec| {
        spec.disks[0].source = VolumeSource::File(first);
        spec.disks[0].format = Format::Qcow2;
        spec.disks[1].order = second;
        spec.nics.clear();
    });
    let said = scene.findings();
    assert!(
        said[0].starts_with("the domain of vm web1 is defined with interfaces none, and its record says 00:16:3e:")
    );
}

#[test]
fn a_guest_that_writes_elsewhere_than_its_record_says() {
    let scene = Scene::new();
    scene.app.run(StartVm { vm: scene.vm }).unwrap();
    let below = scene.text(scene.disk(0).volume.as_str());
    let over = scene.text("over.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &below, &over]);
    let has = scene.app.site.fake.running(scene.vm).unwrap().disks.remove(0);
    let overlay = DiskSpec {
        source: VolumeSource::File(over.clone().into()),
        format: Format::Qcow2,
        backing: has.chain(),
        ..has
    };
    scene.app.site.fake.overlay_disks(scene.vm, &[overlay]).unwrap();
    scene.finds(&format!("vm web1 runs with {over} on {below} as disk 0, and its record says {below}"));
    scene.app.site.fake.destroy(scene.vm).unwrap();
}

#[test]
fn domains_that_nobody_knows() {
    let scene = Scene::new();
    let (stranger, twin) = (VmId(uuid::Uuid::from_u128(7)), VmId(uuid::Uuid::from_u128(8)));
    let mut spec = scene.spec();
    spec.id = stranger;
    spec.disks.clear();
    scene.app.site.fake.define(&spec).unwrap();
    scene.finds(&format!("domain pengx-{stranger} is known to no record"));
    scene.app.site.fake.undefine(stranger).unwrap();
    // One that a task is making, and one of a template that is off, are known.
    let template = scene.app.store().read(pengx::store::templates::all).unwrap().remove(0).id;
    spec.id = Template::domain(template);
    scene.app.site.fake.define(&spec).unwrap();
    assert_eq!(scene.findings(), Vec::<String>::new());
    spec.id = twin;
    scene.app.site.fake.define(&spec).unwrap();
    scene.app.pending_elsewhere(&Compensation::Undefine { vm: twin });
    assert!(scene.findings().iter().all(|said| !said.contains("is known to no record")));
    scene.app.site.fake.undefine(twin).unwrap();
}

#[test]
fn a_vm_of_another_host_whose_domain_is_here() {
    let scene = Scene::new();
    let here = scene.app.site.pm().id;
    let mut site = scene.app.site;
    site.host += 1;
    let scene = Scene { app: site.start(), ..Scene { app: App::new(), storlink: scene.storlink, vm: scene.vm } };
    scene.finds(&format!("vm web1 is on pm {here}, and there is a domain of it on this host too"));
}

#[test]
fn volumes_that_belong_to_nobody() {
    let scene = Scene::new();
    let orphan = scene.app.orphan(scene.storlink, Format::Raw);
    let said = scene.findings();
    let (begin, end) = said[0].split_once(" MiB) ").unwrap();
    assert!(said.len() == 1 && begin.starts_with(&format!("storlink store1: {orphan} (")), "{said:?}");
    let told = "was made by this site and belongs to nobody; it may be removed from 20";
    assert!(end.starts_with(told) && end.ends_with(" UTC on"), "{said:?}");
    let young = scene.report().findings.remove(0).remedy;
    assert_eq!(young, Err("it is in quarantine"));
    scene.app.wait_out_quarantine();
    let name = orphan.as_str().parse().unwrap();
    let old = scene.report().findings.remove(0).remedy;
    assert_eq!(old, Ok(pengx::operations::check::Remedy::Remove { storlink: scene.storlink, name }));
}

#[test]
fn a_backup_without_its_manifest() {
    let scene = Scene::new();
    let backup = Backup {
        id: BackupId(uuid::Uuid::from_u128(0xba)),
        vm: scene.vm,
        name: "monday".to_owned(),
        storlink: scene.storlink,
        size: MiB(4),
        desc: String::new(),
        created_at: scene.disk(0).created_at,
        config: BackupConfig::default(),
        manifest: String::new(),
        verified_at: None,
        proven_at: None,
    };
    scene.app.store().write_tx(|tx| backups::insert(tx, &backup)).unwrap();
    let manifest = format!("{}.json", backup.id);
    scene.finds(&format!("backup monday of vm web1: its manifest {manifest} is not on storlink store1"));
    std::fs::write(scene.path(&manifest), "{}").unwrap();
    assert_eq!(scene.findings(), Vec::<String>::new());
}

#[test]
fn a_storlink_that_is_gone_or_does_not_answer() {
    let scene = Scene::new();
    scene.app.site.storage.silence(true);
    scene.finds("storlink store1: the storage at /nfs does not answer");
    scene.app.site.storage.silence(false);
    std::fs::rename(scene.app.site.store_dir(), scene.app.site.dir.path().join("away")).unwrap();
    let dir = scene.app.site.store_dir();
    scene.finds(&format!("storlink store1: storlink directory {} is gone; mount it or make it", dir.display()));
    // Its mount point.
    std::fs::create_dir(&dir).unwrap();
    let said = scene.findings();
    let begin = format!(
        "storlink store1: directory {} is there, but it is not storlink store1 that was made: is it mounted?",
        dir.display()
    );
    assert!(said.len() == 1 && said[0].starts_with(&begin), "{said:?}");
    std::fs::remove_dir(&dir).unwrap();
    std::fs::rename(scene.app.site.dir.path().join("away"), dir).unwrap();
    assert_eq!(scene.findings(), Vec::<String>::new());
}

#[test]
fn a_task_of_a_dead_process() {
    let scene = Scene::new();
    scene.app.fuse.arm(&[(3, Fate::Die)]);
    let handle = scene.app.core.submit_blocking(DeleteVm { vm: scene.vm }).unwrap();
    let task = handle.id;
    handle.wait_blocking().unwrap_err();
    // For as long as its host may be alive, it is taken for a task that runs.
    let report = scene.report();
    assert_eq!(report.findings, []);
    assert_eq!(report.notes, [format!("vm web1 belongs to task {task} for now; it was not compared")]);
    scene.app.site.ahead.store(120, Ordering::SeqCst);
    scene.finds(&format!(
        "task {task} (vm.delete: vm web1) is running on pm host1, which is down, and keeps vm:{} locked",
        scene.vm
    ));
    scene.app.site.ahead.store(0, Ordering::SeqCst);
    let app = scene.app.restart();
    app.assert_at_rest();
}

#[test]
fn a_task_that_waits_to_be_finished() {
    let scene = Scene::new();
    let volume = scene.disk(1).volume;
    let purge = Compensation::PurgeVolume { storlink: scene.storlink, volume: volume.clone() };
    let id = scene.app.pending_elsewhere(&purge);
    scene.finds(&format!(
        "task {id} (vm.create: vm web1) is over and still has to remove the deleted volume {volume} from storlink store1"
    ));
    // With what it waits for, and what it keeps.
    let lock = Lock { resource: Resource::Vm(scene.vm), access: Access::Changes };
    scene.app.store().note_tx(|tx| locks::acquire(tx, id, &[lock]).map(drop)).unwrap();
    scene.app.site.storage.silence(true);
    let said = scene.findings();
    assert_eq!(
        said[1],
        format!(
            "task {id} (vm.create: vm web1) is over and still has to remove the deleted volume {volume} \
             from storlink store1 (storlink store1 does not answer), and keeps vm:{} locked",
            scene.vm
        )
    );
    scene.app.site.storage.silence(false);
}

#[test]
fn locks_and_room_of_a_task_that_is_over() {
    let scene = Scene::new();
    let task = scene.app.store().read(|c| tasks::recent(c, 1)).unwrap().remove(0).id;
    let lock = Lock { resource: Resource::Vm(scene.vm), access: Access::Changes };
    scene
        .app
        .store()
        .note_tx(|tx| {
            locks::acquire(tx, task, &[lock])?;
            reservations::set(tx, task, scene.storlink, MiB(1))
        })
        .unwrap();
    scene.finds(&format!(
        "task {task} (vm.create: vm web1) is over, and keeps vm:{} locked, and keeps room reserved",
        scene.vm
    ));
}

#[test]
fn what_a_task_is_changing_is_not_compared() {
    let scene = Scene::new();
    let fake = &scene.app.site.fake;
    fake.hold(Verb::Start);
    let starting = scene.app.core.submit_blocking(StartVm { vm: scene.vm }).unwrap();
    assert!(fake.wait_held(Verb::Start, 1, PATIENCE));
    // Now that the operation has looked.
    std::fs::rename(scene.path(scene.disk(1).volume.as_str()), scene.path("aside")).unwrap();
    let report = scene.report();
    assert_eq!(report.findings, []);
    assert_eq!(report.notes, [format!("vm web1 belongs to task {} for now; it was not compared", starting.id)]);
    std::fs::rename(scene.path("aside"), scene.path(scene.disk(1).volume.as_str())).unwrap();
    fake.release(Verb::Start);
    starting.wait_blocking().unwrap();
    assert_eq!(scene.findings(), Vec::<String>::new());
    fake.destroy(scene.vm).unwrap();
    // A volume and a domain that are being made belong to their task.
    fake.hold(Verb::Define);
    let template = scene.app.store().read(pengx::store::templates::all).unwrap().remove(0).id;
    let making = scene.app.core.submit_blocking(scene.app.vm_of(scene.storlink, Some(template), "web2")).unwrap();
    assert!(fake.wait_held(Verb::Define, 1, PATIENCE));
    assert_eq!(scene.findings(), Vec::<String>::new());
    fake.release(Verb::Define);
    making.wait_blocking().unwrap();
}

#[test]
fn a_hypervisor_that_is_away_is_told_as_what_was_not_looked_at() {
    let scene = Scene::new();
    let orphan = scene.app.orphan(scene.storlink, Format::Raw);
    scene.app.site.fake.set_reachable(false);
    let report = scene.report();
    assert_eq!(report.blind, ["domains were not looked at: the fake hypervisor does not answer"]);
    assert!(report.findings.len() == 1 && report.findings[0].said.contains(orphan.as_str()), "{report:?}");
    scene.app.site.fake.set_reachable(true);
    wait_until("the hypervisor is seen again", || Ok(scene.app.core.submit_blocking(StartVm { vm: scene.vm }).is_ok()));
}

#[test]
fn a_database_of_another_version_is_not_looked_at() {
    let scene = Scene::new();
    let store = pengx::store::Store::open(&scene.app.site.database_url).unwrap();
    store.look().unwrap();
    let nowhere = format!("sqlite://{}", scene.app.site.dir.path().join("none.db").display());
    let error = pengx::store::Store::open(&nowhere).unwrap().look().unwrap_err();
    assert!(error.story().contains("there is no file"), "{error:?}");
    assert!(!scene.app.site.dir.path().join("none.db").exists());
    let bare = pengx::store::Store::open(&postgres::database()).unwrap().look().unwrap_err();
    assert_eq!(bare.to_string(), "the database refused: it has no tables of pengx");
    // A host that the database has never seen.
    let mut site = scene.app.site;
    site.host += 1;
    let core = pengx::operations::Core::beside(site.parts(store, std::sync::Arc::new(pengx::tasks::NoFaults)));
    let said = check(&core, ALL).unwrap_err().to_string();
    assert!(said.contains("is not in it; is this the data directory of the server?"), "{said}");
    let domain = site.fake.domains().unwrap().remove(0);
    site.fake.start(domain.id, Start::Paused).unwrap();
}
