//! What people, and other programs, leave on a storlink: it is listed as what it is, and never touched.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use pengx::model::*;
use pengx::storage::MAX_FILES;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, fsetxattr, mknodat};

use super::Scene;
use crate::harness::app::{SITE, make_image};
use crate::harness::world::World;

const MARK: &str = "user.pengx.site";

fn mark(path: &Path, site: &str) {
    fsetxattr(File::open(path).unwrap(), MARK, site.as_bytes(), XattrFlags::empty()).unwrap();
}

fn fresh(format: Format) -> String {
    VolumeName::new(DiskId(uuid::Uuid::new_v4()), format).to_string()
}

/// Of each entry of the list its type and the kind of its owner.
fn listed(scene: &Scene, storlink: &str) -> BTreeMap<String, (String, String)> {
    let list = scene.http.get(&format!("/storlinks/{storlink}/volumes/"));
    assert_eq!(list.status, 200, "{list:?}");
    let between =
        |text: &str, from: &str, to: &str| text.split_once(from).unwrap().1.split_once(to).unwrap().0.to_owned();
    let entries = list.body.split("  <volume id=").skip(1);
    entries
        .map(|text| {
            let of = (between(text, "<type>", "<"), between(text, "<owner kind=\"", "\""));
            (between(text, "<name>", "<"), of)
        })
        .collect()
}

fn of(kind: &str, owner: &str) -> (String, String) {
    (kind.to_owned(), owner.to_owned())
}

/// Each is what it is, and DELETE of it does nothing.
fn foreign(scene: &Scene, storlink: &str, name: &str) {
    scene.app.wait_out_quarantine();
    let uri = format!("/storlinks/{storlink}/volumes/{name}/");
    let says = ["was not made by this site; who put it there may remove it"];
    scene.refused(name, 400, &says, || scene.http.delete(&uri));
}

#[test]
fn a_symbolic_link_is_listed_and_not_followed() {
    let scene = Scene::new();
    let target = scene.app.site.dir.path().join("target");
    fs::write(&target, vec![1; 3 << 20]).unwrap();
    mark(&target, &SITE.to_string());
    let (name, part) = (fresh(Format::Qcow2), format!("{}.part", fresh(Format::Raw)));
    symlink(&target, scene.path(&name)).unwrap();
    symlink("/nowhere", scene.path(&part)).unwrap();
    let is = of("symlink", "foreign");
    assert_eq!(listed(&scene, "1"), [(name.clone(), is.clone()), (part.clone(), is)].into());
    foreign(&scene, "1", &name);
    foreign(&scene, "1", &part);
    assert_eq!(fs::read(&target).unwrap().len(), 3 << 20);
}

#[test]
fn a_hard_link_to_a_volume_of_ours_is_not_ours() {
    let scene = Scene::new();
    let orphan = scene.app.orphan(scene.storlink, Format::Qcow2);
    let twin = fresh(Format::Qcow2);
    fs::hard_link(scene.path(orphan.as_str()), scene.path(&twin)).unwrap();
    // Nobody can tell which of the two names somebody still wants.
    let is = of("file", "foreign");
    assert_eq!(listed(&scene, "1"), [(orphan.to_string(), is.clone()), (twin.clone(), is)].into());
    foreign(&scene, "1", &twin);
    foreign(&scene, "1", orphan.as_str());
    fs::remove_file(scene.path(&twin)).unwrap();
    assert_eq!(listed(&scene, "1"), [(orphan.to_string(), of("file", "orphan"))].into());
}

#[test]
fn directories_pipes_and_devices_are_listed_as_what_they_are() {
    let scene = Scene::new();
    let names =
        [fresh(Format::Qcow2), fresh(Format::Raw), format!("{}.deleted", fresh(Format::Qcow2)), fresh(Format::Raw)];
    let [directory, pipe, socket, device] = &names;
    fs::create_dir(scene.path(directory)).unwrap();
    fs::write(scene.path(directory).join("inside.qcow2"), "mine").unwrap();
    mknodat(CWD, scene.path(pipe), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(scene.path(socket)).unwrap();
    mknodat(CWD, scene.path(device), FileType::CharacterDevice, Mode::RUSR, rustix::fs::makedev(1, 3)).unwrap();
    let expected = [
        (directory.clone(), of("directory", "foreign")),
        (pipe.clone(), of("fifo", "foreign")),
        (socket.clone(), of("socket", "foreign")),
        (device.clone(), of("device", "foreign")),
    ];
    assert_eq!(listed(&scene, "1"), expected.into());
    for name in &names {
        foreign(&scene, "1", name);
    }
}

#[test]
fn names_that_are_no_text_are_listed_somehow_and_left_alone() {
    let scene = Scene::new();
    let dir = scene.app.site.store_dir();
    let raw = |bytes: &[u8]| dir.join(OsStr::from_bytes(bytes));
    fs::write(raw(b"\xff\xfe.qcow2"), "mine").unwrap();
    fs::write(raw(b"a\nb\x01c]]>&<"), "mine").unwrap();
    let seen = listed(&scene, "1");
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_eq!(seen.get("\u{fffd}\u{fffd}.qcow2"), Some(&of("file", "foreign")));
    // What XML cannot say is left out.
    assert_eq!(seen.get("a\nbc]]&gt;&amp;&lt;"), Some(&of("file", "foreign")));
    for uri in ["%FF%FE.qcow2", "a%0Ab%01c]]%3E&%3C"] {
        assert_eq!(scene.http.delete(&format!("/storlinks/1/volumes/{uri}/")).status, 404, "{uri}");
    }
    assert!(raw(b"\xff\xfe.qcow2").exists() && raw(b"a\nb\x01c]]>&<").exists());
    fs::remove_file(raw(b"\xff\xfe.qcow2")).unwrap();
    fs::remove_file(raw(b"a\nb\x01c]]>&<")).unwrap();
    scene.app.assert_at_rest();
}

#[test]
fn a_file_that_a_person_named_as_we_do_is_not_ours() {
    let scene = Scene::new();
    let (image, part, copy) = (fresh(Format::Qcow2), format!("{}.part", fresh(Format::Raw)), fresh(Format::Qcow2));
    make_image(&scene.path(&image), Format::Qcow2, 1);
    fs::write(scene.path(&part), "mine").unwrap();
    // Copied with all that it has, marks too, from a volume that has an owner: to be a template, or put aside.
    let vm: VmId = scene.vm("web1").parse().unwrap();
    let disk = scene.app.store().read(|c| pengx::store::disks::of_vm(c, vm)).unwrap().remove(0);
    for to in [copy.clone(), format!("{}.bak", disk.volume)] {
        let done = Command::new("cp").args(["-a"]).arg(scene.path(disk.volume.as_str())).arg(scene.path(&to)).status();
        assert!(done.unwrap().success());
    }
    mark(&scene.path(&image), "0f6a9c1e-0000-4000-8000-00000000ffff");
    let seen = listed(&scene, "1");
    for name in [image.clone(), part.clone(), copy, format!("{}.bak", disk.volume)] {
        assert_eq!(seen[&name], of("file", "foreign"), "{name}");
        foreign(&scene, "1", &name);
    }
    for broken in ["", "x", &"x".repeat(36), &format!("{SITE}x"), &SITE.to_string()] {
        mark(&scene.path(&image), broken);
        assert_eq!(listed(&scene, "1")[&image], of("file", "foreign"), "{broken}");
    }
    assert_eq!(seen[disk.volume.as_str()], of("file", "disk"));
}

#[test]
fn the_name_of_a_volume_on_another_storlink_is_no_orphan() {
    let scene = Scene::new();
    let vm: VmId = scene.vm("web1").parse().unwrap();
    let disk = scene.app.store().read(|c| pengx::store::disks::of_vm(c, vm)).unwrap().remove(0);
    let second = scene.app.site.dir.path().join("store2");
    fs::create_dir(&second).unwrap();
    // Once as a directory of its own with a copy, once as another way to the same directory.
    let same = scene.app.site.store_dir();
    for (n, link) in [(2, &second), (3, &same)] {
        let body = format!("<s><name>s{n}</name><link>{}</link><type>LO</type><level>FL</level></s>", link.display());
        assert_eq!(scene.http.post("/storlinks/", &body).status, 201);
    }
    let copied = Command::new("cp").args(["-a"]).arg(scene.path(disk.volume.as_str())).arg(&second).status();
    assert!(copied.unwrap().success());
    for storlink in ["2", "3"] {
        assert_eq!(listed(&scene, storlink)[disk.volume.as_str()], of("file", "foreign"), "{storlink}");
        let text = format!("has the name of a volume of vm web1 on storlink {}", scene.storlink);
        assert!(scene.http.get(&format!("/storlinks/{storlink}/volumes/")).body.contains(&text));
        foreign(&scene, storlink, disk.volume.as_str());
    }
    assert!(second.join(disk.volume.as_str()).exists());
}

#[test]
fn another_site_that_shares_the_directory_keeps_its_files() {
    let scene = Scene::new();
    let row = scene.app.store().read(|c| pengx::store::storlinks::find(c, scene.storlink)).unwrap().unwrap();
    let other =
        pengx::storage::open_for(uuid::Uuid::from_u128(0x0727), &row, std::sync::Arc::new(pengx::exec::SystemRunner))
            .unwrap();
    let volume = VolumeName::new(DiskId(uuid::Uuid::new_v4()), Format::Raw);
    let make = pengx::storage::NewVolume { format: Format::Raw, size: MiB(1), content: pengx::storage::Content::Zeros };
    let control = pengx::storage::Control { cancel: &std::sync::atomic::AtomicBool::new(false), progress: &|_| {} };
    other.create(&volume, &make, &control).unwrap();
    other.set_aside(&volume).unwrap();
    let name = format!("{volume}.deleted");
    assert_eq!(listed(&scene, "1"), [(name.clone(), of("file", "foreign"))].into());
    foreign(&scene, "1", &name);
}

/// A file system without attributes, for as long as this lives.
struct Unmarkable(tempfile::TempDir);

impl Unmarkable {
    fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let done = Command::new("mount").args(["-t", "ramfs", "none"]).arg(dir.path()).status().unwrap();
        assert!(done.success());
        Self(dir)
    }
}

impl Drop for Unmarkable {
    fn drop(&mut self) {
        assert!(Command::new("umount").arg("-l").arg(self.0.path()).status().unwrap().success());
    }
}

#[test]
fn where_nothing_can_be_marked_only_what_was_being_made_is_an_orphan() {
    let scene = Scene::new();
    let place = Unmarkable::mount();
    let link = place.0.path();
    let body = format!("<s><name>ram</name><link>{}</link><type>LO</type><level>FL</level></s>", link.display());
    assert_eq!(scene.http.post("/storlinks/", &body).status, 201);
    let whole = fresh(Format::Raw);
    fs::write(link.join(&whole), "left").unwrap();
    let (part, aside) = (format!("{}.part", fresh(Format::Qcow2)), format!("{}.deleted", fresh(Format::Raw)));
    fs::write(link.join(&part), "left").unwrap();
    fs::write(link.join(&aside), "left").unwrap();
    let seen = listed(&scene, "2");
    assert_eq!(seen[&whole], of("file", "foreign"));
    assert_eq!(seen[&part], of("file", "orphan"));
    assert_eq!(seen[&aside], of("file", "orphan"));
    foreign(&scene, "2", &whole);
    for name in [&part, &aside] {
        assert_eq!(scene.http.delete(&format!("/storlinks/2/volumes/{name}/")).status, 204);
        assert!(!link.join(name).exists());
    }
    assert!(link.join(&whole).exists());
    scene.app.assert_at_rest();
}

#[test]
fn a_hundred_thousand_files_are_listed_in_bounded_number_and_time() {
    let scene = Scene::new();
    let dir = scene.app.site.store_dir();
    for n in 0..100_000 {
        File::create(dir.join(format!("file-{n:06}"))).unwrap();
    }
    // What could be ours is among those that are listed, wherever the directory has it.
    let orphan = scene.app.orphan(scene.storlink, Format::Raw);
    let begun = Instant::now();
    let list = scene.http.get("/storlinks/1/volumes/");
    assert!(begun.elapsed() < Duration::from_secs(30), "the deadline of a storage, twice");
    assert_eq!((list.status, list.ids("volume").len()), (200, MAX_FILES));
    assert_eq!(list.element("unlisted"), (100_001 - MAX_FILES).to_string());
    assert!(list.body.contains(orphan.as_str()));
    scene.app.wait_out_quarantine();
    assert_eq!(scene.http.delete(&format!("/storlinks/1/volumes/{orphan}/")).status, 204);
    assert_eq!(scene.http.get("/storlinks/1/volumes/").element("unlisted"), (100_000 - MAX_FILES).to_string());
    assert!(dir.join("file-099999").exists());
}

#[test]
fn a_storlink_that_does_not_answer_is_503_and_keeps_nobody_waiting() {
    let scene = Scene::new();
    let orphan = scene.app.orphan(scene.storlink, Format::Raw);
    scene.app.wait_out_quarantine();
    let uri = format!("/storlinks/1/volumes/{orphan}/");
    let before = World::of(&scene.app);
    scene.app.site.storage.silence(true);
    let says = "the storage at /nfs does not answer";
    for answer in [scene.http.get("/storlinks/1/volumes/"), scene.http.delete(&uri)] {
        assert_eq!((answer.status, answer.message()), (503, says), "{answer:?}");
    }
    assert_eq!(scene.http.get("/vms/").status, 200);
    scene.app.site.storage.silence(false);
    assert_eq!(World::of(&scene.app), before);
    assert_eq!(scene.http.delete(&uri).status, 204);
    scene.app.assert_at_rest();
}

/// Many at once: it goes once, and everybody hears what happened.
#[test]
fn an_orphan_that_many_remove_at_once_goes_once() {
    let scene = Scene::new();
    let orphan = scene.app.orphan(scene.storlink, Format::Raw);
    scene.app.wait_out_quarantine();
    let uri = format!("/storlinks/1/volumes/{orphan}/");
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| scene.http.delete(&uri).status)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 204).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [204, 404].contains(status)), "{statuses:?}");
    scene.app.assert_at_rest();
}

/// One wants it for a template, the other one wants it gone: one of them gets it.
#[test]
fn a_template_and_a_removal_of_the_same_file_exclude_one_another() {
    let scene = Scene::new();
    let mut made = 0;
    for round in 0..12 {
        let orphan = scene.app.orphan(scene.storlink, Format::Raw);
        scene.app.wait_out_quarantine();
        let disk: DiskId = orphan.as_str().strip_suffix(".raw").unwrap().parse().unwrap();
        let uri = format!("/storlinks/1/volumes/{orphan}/");
        let (added, removed) = std::thread::scope(|scope| {
            let add = scope.spawn(|| scene.add_template(&format!("t{round}"), disk, "raw").status);
            let remove = scope.spawn(|| scene.http.delete(&uri).status);
            (add.join().unwrap(), remove.join().unwrap())
        });
        assert!([(201, 400), (400, 204)].contains(&(added, removed)), "{added} {removed}");
        assert_eq!(scene.path(orphan.as_str()).exists(), added == 201);
        made += usize::from(added == 201);
    }
    assert_eq!(scene.app.store().read(pengx::store::templates::all).unwrap().len(), made);
    scene.app.assert_at_rest();
}
