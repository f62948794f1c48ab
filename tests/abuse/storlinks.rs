//! Storlinks that are not what they should be, names of all kinds, and full disks.

use std::fs;

use pengx::model::Format;

use super::Scene;
use crate::harness::app::make_image;
use crate::harness::http::{Answer, Served};
use crate::harness::small::SmallDisk;
use crate::harness::tool::qemu_img;
use crate::harness::world::World;

fn body(name: &str, link: &str) -> String {
    format!("<s><name>{name}</name><link>{link}</link><type>LO</type><level>FL</level></s>")
}

pub(super) fn create(http: &Served, name: &str, link: &str) -> Answer {
    http.post("/storlinks/create/", &body(name, link))
}

#[test]
fn a_link_that_cannot_hold_volumes_is_refused() {
    let scene = Scene::new();
    let dir = scene.app.site.dir.path();
    fs::write(dir.join("file"), "x").unwrap();
    std::os::unix::fs::symlink(dir.join("file"), dir.join("to-file")).unwrap();
    std::os::unix::fs::symlink("loop", dir.join("loop")).unwrap();
    let below = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    for (link, says) in [
        (below("missing"), "link: storlink directory"),
        (below("file"), "is not a directory"),
        (below("file/x"), "link: "),
        (below("to-file"), "is not a directory"),
        (below("loop"), "link: "),
        (below("store/../store"), "link: must be an absolute path without `..`"),
        ("data1".to_owned(), "link: must be an absolute path"),
        ("/proc".to_owned(), "link: "),
        ("/proc/self/fdinfo".to_owned(), "link: "),
        ("/sys/kernel".to_owned(), "link: "),
        ("/dev/null".to_owned(), "is not a directory"),
        ("nbd://127.0.0.1/x".to_owned(), "link: must be an absolute path"),
        (format!("/{}", "x".repeat(300)), "link: "),
        (format!("/{}", "x/".repeat(600)), "link: must have at most 1024 characters"),
        ("/a&#9;b".to_owned(), "link: must not have control characters"),
        (String::new(), "link: is required"),
    ] {
        scene.refused(&link, 400, &[says], || create(&scene.http, "s2", &link));
    }
    // The path to the directory is the operator's, and may lead through links.
    std::os::unix::fs::symlink(scene.app.site.store_dir(), dir.join("to-dir")).unwrap();
    let added = create(&scene.http, "s2", &below("to-dir"));
    assert_eq!(added.status, 201, "{added:?}");
}

#[test]
fn names_are_kept_to_the_letter_and_taken_once() {
    let scene = Scene::new();
    let dir = scene.app.site.store_dir();
    let link = dir.to_str().unwrap();
    scene.refused("taken", 400, &["a storlink named store1 exists already"], || create(&scene.http, "store1", link));
    scene.refused("taken, with spaces around", 400, &["exists already"], || create(&scene.http, "  store1\n", link));
    for (name, says) in [
        ("x".repeat(300), "name: must have at most 255 characters"),
        ("웹".repeat(256), "name: must have at most 255 characters"),
        (String::new(), "name: is required"),
        ("  \n ".to_owned(), "name: is required"),
        ("a&#10;b".to_owned(), "name: must not have control characters"),
        ("a&#x85;b".to_owned(), "name: must not have control characters"),
        ("<b/>".to_owned(), "name: must be text, not elements"),
    ] {
        scene.refused(&name, 400, &[says], || create(&scene.http, &name, link));
        let vm = scene.vm_body(&name, "<os_disk_size>1</os_disk_size>");
        scene.refused(&name, 400, &[says], || scene.http.post("/vms/", &vm));
    }
    let longest = "웹".repeat(255);
    for name in [
        "가상 머신 1",
        "🐧👩‍👩‍👧‍👦",
        "a &amp; b &lt;c&gt;",
        "../../etc/passwd",
        "' OR 1=1 --",
        longest.as_str(),
        "e\u{301}",
        "é",
    ] {
        let added = create(&scene.http, name, link);
        assert_eq!(added.status, 201, "{added:?}");
        let list = scene.http.get("/storlinks/").body;
        let shown = name.replace('\'', "&#39;");
        assert!(list.contains(&format!("<name>{shown}</name>")), "{name}: {list}");
        let made = scene.create_vm(name, "<os_disk_size>1</os_disk_size>");
        assert_eq!(made.status, 201, "{made:?}");
        assert!(scene.http.get("/vms/").body.contains(&format!("<name>{shown}</name>")), "{name}");
        scene.refused("twice", 400, &["exists already"], || scene.create_vm(name, "<os_disk_size>1</os_disk_size>"));
    }
    scene.app.assert_at_rest();
}

#[test]
fn a_storlink_that_vanishes_refuses_new_vms_and_shows_its_last_size() {
    let scene = Scene::new();
    let (template, _) = scene.template("debian", Format::Qcow2);
    let size = scene.http.get("/storlinks/").element("size").to_owned();
    assert!(size.parse::<u64>().unwrap() > 0);
    let (here, away) = (scene.app.site.store_dir(), scene.app.site.dir.path().join("away"));
    let before = World::of(&scene.app);
    fs::rename(&here, &away).unwrap();
    for more in [format!("<template>{template}</template>"), "<os_disk_size>1</os_disk_size>".to_owned()] {
        let answer = scene.create_vm("web1", &more);
        assert!(answer.status == 400 && answer.message().contains("is gone; mount it or make it"), "{answer:?}");
        scene.app.assert_at_rest();
    }
    let list = scene.http.get("/storlinks/");
    assert_eq!((list.status, list.element("size")), (200, size.as_str()));
    assert!(!here.exists(), "nobody makes it");
    fs::rename(&away, &here).unwrap();
    assert_eq!(World::of(&scene.app), before);
    assert_eq!(scene.create_vm("web1", &format!("<template>{template}</template>")).status, 201);
}

/// As [`Scene::refused`], and the small disk is as it was.
fn full(scene: &Scene, disk: &SmallDisk, more: &str) -> String {
    let before = disk.names();
    let message = scene.refused(more, 400, &["too little room", "MiB needed", "MiB free"], || {
        scene.create_vm("web1", &format!("<storlink>2</storlink>{more}"))
    });
    assert_eq!(disk.names(), before);
    message
}

#[test]
fn a_full_disk_is_told_with_what_is_needed_and_what_is_free() {
    let scene = Scene::new();
    let disk = SmallDisk::mount("8m");
    assert_eq!(create(&scene.http, "small", disk.path().to_str().unwrap()).status, 201);
    let large = pengx::model::DiskId(uuid::Uuid::new_v4());
    let name = format!("{large}.raw");
    make_image(&scene.path(&name), Format::Raw, 16);
    assert_eq!(scene.add_template("large", large, "raw").status, 201);
    let template = scene.http.get("/templates/").ids("template")[0].clone();
    let told = full(&scene, &disk, &format!("<template>{template}</template>"));
    assert!(told.contains("16 MiB needed, 8 MiB free"), "{told}");

    // The first disk fits and the second does not: the first goes too.
    fs::write(disk.path().join("ballast"), vec![1; (8 << 20) - 4096 * 3]).unwrap();
    let told = full(&scene, &disk, "<os_disk_size>4</os_disk_size><disk_format>raw</disk_format>");
    assert!(told.contains("1 MiB needed, 0 MiB free"), "{told}");
    let told = full(&scene, &disk, "<os_disk_size>4</os_disk_size><extra_disk_size>4</extra_disk_size>");
    assert!(told.contains("1 MiB needed"), "{told}");
    fs::remove_file(disk.path().join("ballast")).unwrap();
    let made = scene.create_vm("web1", "<storlink>2</storlink><os_disk_size>4</os_disk_size>");
    assert_eq!(made.status, 201, "{made:?}");
    scene.app.assert_at_rest();
}

#[test]
fn a_full_disk_takes_no_disk_of_a_vm_that_runs() {
    let scene = Scene::new();
    let disk = SmallDisk::mount("8m");
    assert_eq!(create(&scene.http, "small", disk.path().to_str().unwrap()).status, 201);
    let vm = scene.vm("web1");
    assert_eq!(scene.http.post(&format!("/vms/{vm}/start/"), "").status, 200);
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![1; (8 << 20) - 4096 * 3]).unwrap();
    let make = |format: &str| {
        let body = format!("<d><size>4</size><storlink>2</storlink><format>{format}</format></d>");
        scene.http.post(&format!("/vms/{vm}/disks/"), &body)
    };
    for format in ["qcow2", "raw"] {
        scene.refused(format, 400, &["too little room", "MiB needed", "MiB free"], || make(format));
        assert_eq!(disk.names(), ["ballast"]);
    }
    assert_eq!(scene.app.site.fake.calls(pengx::hypervisor::Verb::AttachDisk), 0);
    fs::remove_file(ballast).unwrap();
    assert_eq!(make("raw").status, 201);
    scene.app.assert_at_rest();
}

/// Before the copy there is room enough; the room goes while it runs.
#[test]
fn a_disk_that_fills_up_during_a_copy_is_left_as_it_was() {
    let scene = Scene::new();
    let disk = SmallDisk::mount("8m");
    assert_eq!(create(&scene.http, "small", disk.path().to_str().unwrap()).status, 201);
    // Compressed, it looks as if it would fit.
    let content = pengx::model::DiskId(uuid::Uuid::new_v4());
    let (raw, image) = (scene.path("content"), scene.path(&format!("{content}.qcow2")));
    fs::write(&raw, vec![7; 32 << 20]).unwrap();
    qemu_img(&["convert", "-c", "-f", "raw", "-O", "qcow2", raw.to_str().unwrap(), image.to_str().unwrap()]);
    assert_eq!(scene.add_template("large", content, "qcow2").status, 201);
    let template = scene.http.get("/templates/").ids("template")[0].clone();
    fs::write(disk.path().join("ballast"), vec![1; 1 << 20]).unwrap();
    let told = full(&scene, &disk, &format!("<template>{template}</template><disk_format>qcow2</disk_format>"));
    assert!(told.contains("the storage at"), "{told}");
    assert_eq!(disk.names(), ["ballast"]);
}
