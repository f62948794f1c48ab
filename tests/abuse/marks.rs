//! A directory that is there and is not the storlink: an empty mount point, another disk under the same path.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use pengx::model::*;
use pengx::operations::storlink::{CreateStorlink, UpdateStorlink};
use pengx::operations::vm::{DeleteVm, StartVm};
use pengx::store::storlinks::{self, NewStorlink};
use pengx::tasks::Fate;

use super::Scene;
use crate::harness::app::{App, Site};
use crate::harness::postgres;
use crate::harness::wait::wait_until;
use crate::harness::world::{World, marks};

/// Takes the storlink's directory away and leaves an empty one under its path, until it is mounted again.
struct Unmounted {
    here: PathBuf,
    away: PathBuf,
}

impl Unmounted {
    fn of(site: &Site) -> Self {
        let (here, away) = (site.store_dir(), site.dir.path().join("away"));
        fs::rename(&here, &away).unwrap();
        fs::create_dir(&here).unwrap();
        Self { here, away }
    }

    /// What was left on the mount point meanwhile.
    fn mount(self) -> Vec<String> {
        let entries = fs::read_dir(&self.here).unwrap();
        let left = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        fs::remove_dir_all(&self.here).unwrap();
        fs::rename(&self.away, &self.here).unwrap();
        left
    }
}

#[test]
fn an_empty_mount_point_is_no_storlink() {
    let scene = Scene::new();
    let vm = scene.vm("web1");
    let before = World::of(&scene.app);
    let unmounted = Unmounted::of(&scene.app.site);
    let why = format!(
        "directory {} is there, but it is not storlink store1 that was made: is it mounted?",
        unmounted.here.display()
    );
    let refused = |answer: crate::harness::http::Answer| {
        assert!(answer.status == 400 && answer.message().contains(&why), "{answer:?}");
    };
    refused(scene.create_vm("web2", "<os_disk_size>1</os_disk_size>"));
    refused(scene.http.post(&format!("/vms/{vm}/disks/"), "<d><size>1</size><storlink>1</storlink></d>"));
    refused(scene.http.delete(&format!("/vms/{vm}/")));
    refused(scene.http.post(&format!("/vms/{vm}/start/"), ""));
    refused(scene.http.get("/storlinks/1/volumes/"));
    refused(scene.http.get("/storlinks/1/isos/"));
    assert_eq!(scene.http.get("/vms/").status, 200);
    assert_eq!(unmounted.mount(), Vec::<String>::new());
    scene.app.assert_at_rest();
    assert_eq!(World::of(&scene.app), before);
    assert_eq!(scene.http.post(&format!("/vms/{vm}/start/"), "").status, 200);
}

/// To a storage that looks empty, everything would seem to be removed already.
#[test]
fn what_is_to_be_undone_waits_until_the_storlink_is_mounted() {
    let app = App::new();
    let storlink = app.storlink();
    let before = World::of(&app);
    // begin, journal, effect, done: the volume is there.
    app.fuse.arm(&[(4, Fate::Die)]);
    drop(app.core.submit_blocking(app.vm_of(storlink, None, "web1")).unwrap().wait_blocking());
    assert_eq!(World::of(&app).files.len(), 1);
    let unmounted = Unmounted::of(&app.site);
    let app = app.restart();
    wait_until("it was tried", || {
        let tasks = app.store().read(|c| pengx::store::tasks::recent(c, 1))?;
        Ok(tasks[0].state == TaskState::Interrupted && tasks[0].message.contains("is it mounted?"))
    });
    assert_eq!(app.store().read(pengx::store::journal::all).unwrap().len(), 1);
    unmounted.mount();
    app.assert_at_rest();
    assert_eq!(World::of(&app), before);
}

#[test]
fn a_file_says_that_it_is_the_right_one_all_the_same() {
    let scene = Scene::new();
    let vm = scene.vm("web1");
    // Copied to another disk, without its attributes.
    let (here, away) = (scene.app.site.store_dir(), scene.app.site.dir.path().join("away"));
    fs::rename(&here, &away).unwrap();
    fs::create_dir(&here).unwrap();
    for entry in fs::read_dir(&away).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), here.join(entry.file_name())).unwrap();
    }
    let refused = scene.http.post(&format!("/vms/{vm}/start/"), "");
    let file = refused.message().split("make the empty file ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    assert_eq!(refused.status, 400);
    fs::write(here.join(&file), "").unwrap();
    assert_eq!(scene.http.post(&format!("/vms/{vm}/start/"), "").status, 200);
    let list = scene.http.get("/storlinks/1/volumes/").body;
    assert!(
        list.contains(&format!("<name>{file}</name>\n    <type>file</type>\n    <owner kind=\"storlink\" id=\"1\">"))
    );
    scene.app.wait_out_quarantine();
    let uri = format!("/storlinks/1/volumes/{file}/");
    scene.refused(&file, 400, &["is in use by storlink store1"], || scene.http.delete(&uri));
}

#[test]
fn where_a_directory_cannot_be_marked_a_file_is() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Command::new("mount").args(["-t", "ramfs", "none"]).arg(dir.path()).status().unwrap().success());
    let app = App::new();
    let link = dir.path().to_str().unwrap().to_owned();
    let create = CreateStorlink {
        name: "ram".parse().unwrap(),
        link: link.clone(),
        kind: StorlinkType::Local,
        level: StorlinkLevel::File,
        desc: String::new(),
        shared: false,
    };
    let names = || {
        let entries = fs::read_dir(dir.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    // Undone with the rest when it fails.
    app.fuse.arm(&[(5, Fate::Fail)]);
    app.run(create.clone()).unwrap_err();
    assert_eq!(app.fuse.names()[..5], ["begin", "journal", "effect", "done", "settle"]);
    assert_eq!(names(), Vec::<String>::new());
    app.fuse.arm(&[]);
    let storlink = app.run(create).unwrap();
    let row = app.store().read(|c| storlinks::find(c, storlink)).unwrap().unwrap();
    let file = format!(".pengx-storlink-{}", row.uuid);
    assert!(row.marked && names() == [file.clone()], "{:?}", names());
    app.driver(storlink).usage().unwrap();
    fs::remove_file(dir.path().join(&file)).unwrap();
    let error = app.driver(storlink).usage().unwrap_err().to_string();
    assert!(error.contains("is it mounted?"), "{error}");
    fs::write(dir.path().join(&file), "").unwrap();
    app.run(pengx::operations::storlink::DeleteStorlink { storlink }).unwrap();
    assert_eq!(names(), Vec::<String>::new());
    app.assert_at_rest();
    assert!(Command::new("umount").arg("-l").arg(dir.path()).status().unwrap().success());
}

/// One of an earlier version: its row has no mark.
fn unmarked(app: &App, name: &str) -> StorlinkId {
    let new = NewStorlink {
        uuid: uuid::Uuid::new_v4(),
        pm: app.site.pm().id,
        name: name.to_owned(),
        link: app.site.store_dir().to_str().unwrap().to_owned(),
        kind: StorlinkType::Local,
        level: StorlinkLevel::File,
        usage: Usage::default(),
        desc: String::new(),
        shared: false,
    };
    app.store().write_tx(|tx| storlinks::insert(tx, &new)).unwrap()
}

#[test]
fn a_storlink_of_an_earlier_version_is_marked_once_it_holds_a_volume_of_its() {
    let app = App::new();
    let storlink = unmarked(&app, "old");
    let http = crate::harness::http::Served::new(&app.core);
    let is_marked = || app.store().read(|c| storlinks::find(c, storlink)).unwrap().unwrap().marked;
    // Empty, it may be anything.
    assert_eq!(http.get("/storlinks/").status, 200);
    assert!(!is_marked() && marks(&app.site.store_dir()).is_empty());
    let vm = app.run(app.vm_of(storlink, None, "web1")).unwrap();
    let unmounted = Unmounted::of(&app.site);
    assert_eq!(http.get("/storlinks/").status, 200);
    assert!(!is_marked() && marks(&app.site.store_dir()).is_empty(), "no volume of its is there");
    unmounted.mount();
    wait_until("it is marked", || {
        http.get("/storlinks/");
        Ok(is_marked())
    });
    assert_eq!(marks(&app.site.store_dir()).len(), 1);
    let unmounted = Unmounted::of(&app.site);
    assert!(app.run(StartVm { vm }).unwrap_err().to_string().contains("is it mounted?"));
    unmounted.mount();
    app.run(DeleteVm { vm }).unwrap();
    app.assert_at_rest();
}

#[test]
fn a_directory_carries_the_marks_of_all_its_storlinks_and_a_new_link_is_marked() {
    let app = App::new();
    let (one, dir) = (app.storlink(), app.site.store_dir());
    let create = CreateStorlink {
        name: "two".parse().unwrap(),
        link: dir.to_str().unwrap().to_owned(),
        kind: StorlinkType::Local,
        level: StorlinkLevel::File,
        desc: String::new(),
        shared: false,
    };
    let two = app.run(create).unwrap();
    assert_eq!(marks(&dir).len(), 2);
    let elsewhere = app.site.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let to = |link: &PathBuf| UpdateStorlink {
        storlink: two,
        name: None,
        link: Some(link.to_str().unwrap().to_owned()),
        kind: None,
        level: None,
        desc: None,
        shared: None,
    };
    app.run(to(&elsewhere)).unwrap();
    assert_eq!(marks(&elsewhere).len(), 1);
    app.driver(two).usage().unwrap();
    // Another way to the same directory.
    let alias = app.site.dir.path().join("alias");
    std::os::unix::fs::symlink(&elsewhere, &alias).unwrap();
    app.run(to(&alias)).unwrap();
    app.driver(two).usage().unwrap();
    app.run(pengx::operations::storlink::DeleteStorlink { storlink: two }).unwrap();
    assert!(marks(&elsewhere).is_empty());
    app.driver(one).usage().unwrap();
    app.assert_at_rest();
}

#[test]
fn a_shared_storlink_has_one_mark_for_all_its_hosts() {
    let (mut first, mut second) = (Site::new(), Site::new());
    first.database_url = postgres::database();
    second.database_url.clone_from(&first.database_url);
    second.host += 1;
    let (one, two) = (first.start(), second.start());
    let storlink = one.storlink();
    let share =
        UpdateStorlink { storlink, name: None, link: None, kind: None, level: None, desc: None, shared: Some(true) };
    one.run(share).unwrap();
    assert_eq!(marks(&one.site.store_dir()).len(), 1);
    let vm = two.run(two.vm_of(storlink, None, "web1")).unwrap();
    two.run(DeleteVm { vm }).unwrap();
    assert_eq!(marks(&one.site.store_dir()).len(), 1);
    one.assert_at_rest();
}
