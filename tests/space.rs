//! Free space is reserved before a copy writes its first byte: two copies never count on the same.

mod full;

use std::sync::Arc;

use pengx::error::{Error, ErrorKind, Result};
use pengx::hypervisor::{Answer, Verb};
use pengx::model::*;
use pengx::operations::storlink::{CreateStorlink, UpdateStorlink};
use pengx::operations::vm::CreateVm;
use pengx::store::reservations;
use pengx::tasks::{Fate, TaskHandle};

use crate::harness::app::{App, Fuse, Site, make_image};
use crate::harness::postgres;
use crate::harness::small::SmallDisk;
use crate::harness::wait::{PATIENCE, wait_until};

/// A template of 6 MiB, and a storlink with so little room.
struct Scene {
    template: TemplateId,
    small: StorlinkId,
    disk: SmallDisk,
}

impl Scene {
    /// The template is on a storlink of its own.
    fn prepare(app: &App, mib: u64) -> Self {
        let large = app.storlink();
        let disk = SmallDisk::mount(&format!("{mib}m"));
        let small = app
            .run(CreateStorlink {
                name: "small".parse().unwrap(),
                link: disk.path().to_str().unwrap().to_owned(),
                kind: StorlinkType::Local,
                level: StorlinkLevel::File,
                desc: String::new(),
                shared: true,
            })
            .unwrap();
        let image = DiskId(uuid::Uuid::from_u128(0x6));
        make_image(&app.site.store_dir().join(VolumeName::new(image, Format::Raw).as_str()), Format::Raw, 6);
        let template = app
            .run(pengx::operations::template::AddTemplate {
                name: "six".parse().unwrap(),
                os: Os::Other,
                os_arch: OsArch::X64,
                desc: String::new(),
                storlink: large,
                disk: image,
                format: Format::Raw,
            })
            .unwrap();
        Self { template, small, disk }
    }

    fn vm(&self, app: &App, name: &str) -> CreateVm {
        CreateVm { extra_disk_size: None, ..app.vm_of(self.small, Some(self.template), name) }
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.disk.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.starts_with('.')).collect()
    }
}

fn reserved(app: &App) -> Vec<(StorlinkId, MiB)> {
    app.store().read(reservations::all).unwrap()
}

fn no_space<T: std::fmt::Debug>(outcome: Result<T>) -> String {
    let error: Error = outcome.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NoSpace { .. }), "{error:?}");
    error.to_string()
}

fn on(database_url: Option<String>) -> Site {
    let mut site = Site::new();
    site.database_url = database_url.unwrap_or(site.database_url);
    site
}

/// Begins a copy that has all its bytes and waits for the hypervisor.
fn held(app: &App, scene: &Scene, name: &str) -> TaskHandle<VmId> {
    app.site.fake.hold(Verb::Define);
    let handle = app.core.submit_blocking(scene.vm(app, name)).unwrap();
    assert!(app.site.fake.wait_held(Verb::Define, 1, PATIENCE));
    handle
}

fn two_copies_that_do_not_fit_together(site: Site) {
    let app = site.start();
    let scene = Scene::prepare(&app, 16);
    let first = held(&app, &scene, "web1");
    assert_eq!(reserved(&app), [(scene.small, MiB(6))]);
    let before = scene.names();
    // 10 MiB are free, and 6 of them are the first one's, whether it has written them or not.
    let told = no_space(app.run(scene.vm(&app, "web2")));
    assert!(told.starts_with("storlink small has too little room: 6 MiB needed, "), "{told}");
    let free: u64 = told.split(", ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!((3..6).contains(&free), "{told}");
    assert_eq!(scene.names(), before, "before the first byte");
    app.site.fake.release(Verb::Define);
    first.wait_blocking().unwrap();
    assert_eq!(reserved(&app), []);
    app.run(scene.vm(&app, "web2")).unwrap();
    app.assert_at_rest();
}

#[test]
fn of_two_copies_that_do_not_fit_together_the_second_is_refused_over_sqlite() {
    two_copies_that_do_not_fit_together(Site::new());
}

#[test]
fn of_two_copies_that_do_not_fit_together_the_second_is_refused_over_postgres() {
    two_copies_that_do_not_fit_together(on(Some(postgres::database())));
}

fn a_reservation_ends_with_its_task(site: Site) {
    let app = site.start();
    let scene = Scene::prepare(&app, 16);
    let (all, files) = (|app: &App| app.store().read(reservations::holders).unwrap().len(), scene.names());
    // A failure.
    let refusal = ErrorKind::Refused { by: "the hypervisor".to_owned(), why: "the test says so".to_owned() };
    app.site.fake.fail_next(Verb::Define, Answer::Refuse(refusal));
    app.run(scene.vm(&app, "web1")).unwrap_err();
    assert_eq!((all(&app), scene.names()), (0, files.clone()));
    // A cancel.
    let handle = held(&app, &scene, "web1");
    assert_eq!(all(&app), 1);
    pengx::operations::task::cancel(&app.core, handle.id).unwrap();
    app.site.fake.release(Verb::Define);
    let error = handle.wait_blocking().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Cancelled { .. }), "{error:?}");
    assert_eq!((all(&app), scene.names()), (0, files.clone()));
    // The death of the process, right after the copy was made: the next start gives it back.
    let fuse = Arc::<Fuse>::default();
    let app = app.restart_with(fuse.clone());
    let mut died = false;
    for n in 1..40 {
        fuse.arm(&[(n, Fate::Die)]);
        drop(app.core.submit_blocking(scene.vm(&app, "web1")).unwrap().wait_blocking());
        let names = fuse.names();
        if fuse.blown.load(std::sync::atomic::Ordering::SeqCst) {
            assert_eq!(names.last(), Some(&"begin"), "the first point is the beginning");
            died = true;
            break;
        }
    }
    assert!(died);
    let fuse = Arc::<Fuse>::default();
    let app = app.restart_with(fuse.clone());
    app.assert_at_rest();
    // begin, journal, effect, done: the volume is there, and reserved for.
    fuse.arm(&[(4, Fate::Die)]);
    drop(app.core.submit_blocking(scene.vm(&app, "web1")).unwrap().wait_blocking());
    assert_eq!(fuse.names().last(), Some(&"done"));
    assert_eq!(all(&app), 1);
    let app = app.restart();
    wait_until("it is recovered", || Ok(all(&app) == 0));
    app.assert_at_rest();
    assert_eq!(scene.names(), files);
    app.run(scene.vm(&app, "web1")).unwrap();
    assert_eq!(all(&app), 0);
    app.assert_at_rest();
}

#[test]
fn a_reservation_ends_with_its_task_over_sqlite() {
    a_reservation_ends_with_its_task(Site::new());
}

#[test]
fn a_reservation_ends_with_its_task_over_postgres() {
    a_reservation_ends_with_its_task(on(Some(postgres::database())));
}

#[test]
fn the_low_water_mark_of_a_storlink_is_kept() {
    let mut site = Site::new();
    site.settings.low_water_default = 0;
    site.settings.low_water = [("small".to_owned(), 70)].into();
    let app = site.start();
    let scene = Scene::prepare(&app, 16);
    // 70 percent of 16 MiB are 11.2; what is left is less than the 6 of the copy.
    let told = no_space(app.run(scene.vm(&app, "web1")));
    assert!(told == "storlink small has too little room: 6 MiB needed, 5 MiB free", "{told}");
    assert!(scene.names().is_empty());
    // The mark is the name's.
    let renamed = UpdateStorlink {
        storlink: scene.small,
        name: Some("other".parse().unwrap()),
        link: None,
        kind: None,
        level: None,
        desc: None,
        shared: None,
    };
    app.run(renamed).unwrap();
    app.run(scene.vm(&app, "web1")).unwrap();
    app.assert_at_rest();
}

#[test]
fn what_another_host_has_reserved_on_a_shared_storlink_counts() {
    let (mut first, mut second) = (Site::new(), Site::new());
    first.database_url = postgres::database();
    second.database_url.clone_from(&first.database_url);
    second.host += 1;
    let (one, two) = (first.start(), second.start());
    let scene = Scene::prepare(&one, 16);
    let elsewhere = UpdateStorlink {
        storlink: StorlinkId(1),
        name: None,
        link: None,
        kind: None,
        level: None,
        desc: None,
        shared: Some(true),
    };
    one.run(elsewhere).unwrap();
    let copying = held(&one, &scene, "web1");
    let told = no_space(two.run(scene.vm(&two, "web2")));
    assert!(told.starts_with("storlink small has too little room: 6 MiB needed, "), "{told}");
    one.site.fake.release(Verb::Define);
    copying.wait_blocking().unwrap();
    two.run(scene.vm(&two, "web2")).unwrap();
    one.assert_at_rest();
}
