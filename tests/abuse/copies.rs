//! Copies of VMs, templates made of them and moves, against hostile images, full storlinks and one another.

use std::fs;
use std::path::{Path, PathBuf};

use pengx::hypervisor::Verb;
use pengx::model::*;

use super::Scene;
use super::hostile::{Case, Secret, cases, text};
use super::races::{at_once, both, with_status};
use super::storlinks::create;
use crate::harness::app::make_image;
use crate::harness::http::Answer;
use crate::harness::images::{allocated, assert_same, fill};
use crate::harness::small::SmallDisk;
use crate::harness::tool::qemu_img;
use crate::harness::wait::PATIENCE;
use crate::harness::world::World;

const CALLS: [&str; 3] = ["copy", "template", "smigrate"];

impl Scene {
    /// One of the three, to a storlink by its number.
    fn call(&self, which: &str, vm: &str, name: &str, storlink: &str) -> Answer {
        let uri = match which {
            "template" => format!("/templates/create/vms/{vm}/"),
            _ => format!("/vms/{vm}/{which}/"),
        };
        self.http.post(&uri, &format!("<x><name>{name}</name><storlink>{storlink}</storlink></x>"))
    }

    fn press(&self, vm: &str, verb: &str) {
        let answer = self.http.post(&format!("/vms/{vm}/{verb}/"), "");
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    fn delete(&self, uri: &str) {
        let answer = self.http.delete(uri);
        assert_eq!(answer.status, 204, "{uri}: {answer:?}");
    }

    /// A VM with one disk of 1 MiB in this format, which has a pattern on it; its id and its image.
    fn vm_in(&self, format: &str) -> (String, PathBuf) {
        let made =
            self.create_vm("web1", &format!("<os_disk_size>1</os_disk_size><disk_format>{format}</disk_format>"));
        assert_eq!(made.status, 201, "{made:?}");
        let vm = self.http.get("/vms/").ids("vm")[0].clone();
        let image = self.image(&vm);
        fs::remove_file(&image).unwrap();
        make_image(&image, format.parse().unwrap(), 1);
        (vm, image)
    }

    /// Of a VM's first disk.
    fn image(&self, vm: &str) -> PathBuf {
        self.app.path(&self.app.disks(vm.parse().unwrap())[0])
    }

    /// Of the VM or template that a call has made; `None` for a move.
    fn made(&self, which: &str, answer: &Answer) -> Option<(String, Disk)> {
        match which {
            "copy" => {
                let all = self.app.store().read(pengx::store::vms::listing).unwrap();
                let vm = all.into_iter().find(|listing| listing.vm.name == "other").unwrap().vm.id;
                Some((format!("/vms/{vm}/"), self.app.disks(vm).remove(0)))
            }
            "template" => {
                let id: TemplateId = answer.ids("template")[0].parse().unwrap();
                let disk = self.app.store().read(|c| pengx::store::disks::of_template(c, id)).unwrap().remove(0);
                Some((format!("/templates/{id}/"), disk))
            }
            _ => None,
        }
    }
}

/// In the place of a VM's own volume: refused before anything is made, nothing elsewhere is opened, and the VM keeps what
/// it has.
#[test]
fn an_image_that_was_exchanged_is_neither_copied_nor_moved() {
    let (scene, secret) = (Scene::new(), Secret::new());
    assert_eq!(scene.app.second_storlink(), StorlinkId(2));
    let mut refused = 0;
    for format in ["qcow2", "raw"] {
        let (vm, image) = scene.vm_in(format);
        let good = fs::read(&image).unwrap();
        for runs in [false, true] {
            if runs {
                scene.press(&vm, "start");
            }
            for case in cases().iter().filter(|case| case.format == format) {
                let Some(says) = case.says_of_volume() else { continue };
                fs::remove_file(&image).unwrap();
                (case.make)(&image, &secret);
                for which in CALLS {
                    let told = format!("{} as {format}, {which}, runs: {runs}", case.name);
                    secret
                        .guarded(&told, || scene.refused(&told, 400, &[says], || scene.call(which, &vm, "other", "2")));
                    refused += 1;
                }
                Case::clear(&image);
                fs::write(&image, &good).unwrap();
            }
        }
        // Put back, it works again.
        assert_eq!(scene.call("smigrate", &vm, "", "2").status, 201);
        scene.press(&vm, "poweroff");
        scene.delete(&format!("/vms/{vm}/"));
    }
    println!("abuse: {refused} copies and moves of exchanged images were refused");
    assert!(refused > 150);
    assert_eq!(scene.app.site.fake.calls(Verb::OverlayDisks), 0);
}

/// The same below: what a snapshot has frozen was exchanged.
#[test]
fn a_chain_whose_base_was_exchanged_is_neither_copied_nor_moved() {
    let (scene, secret) = (Scene::new(), Secret::new());
    scene.app.second_storlink();
    let (vm, base) = scene.vm_in("qcow2");
    scene.app.freeze(vm.parse().unwrap(), "s1");
    let (good, leaf) = (fs::read(&base).unwrap(), scene.image(&vm));
    for case in cases().iter().filter(|case| case.format == "qcow2") {
        let says = case.says_of_volume().unwrap();
        fs::remove_file(&base).unwrap();
        (case.make)(&base, &secret);
        for which in CALLS {
            let told = format!("{}, {which}", case.name);
            secret.guarded(&told, || scene.refused(&told, 400, &[says], || scene.call(which, &vm, "other", "2")));
        }
        Case::clear(&base);
        fs::write(&base, &good).unwrap();
    }
    // And a leaf that was put on another base, or on none.
    for backing in [secret.path(), String::new()] {
        qemu_img(&["rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", &backing, text(&leaf)]);
        for which in CALLS {
            let says = "and its record says";
            secret.guarded(which, || scene.refused(which, 400, &[says], || scene.call(which, &vm, "other", "2")));
        }
    }
    qemu_img(&["rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", text(&base), text(&leaf)]);
    assert_eq!(scene.call("smigrate", &vm, "", "2").status, 201);
    scene.app.assert_at_rest();
}

/// A guest may write what it likes to its own raw disk: all of it is copied as bytes, and none of it is believed.
#[test]
fn a_raw_disk_that_looks_like_another_image_is_copied_to_the_byte() {
    let (scene, secret) = (Scene::new(), Secret::new());
    scene.app.second_storlink();
    let (vm, _) = scene.vm_in("raw");
    let mut copied = 0;
    for case in cases().iter().filter(|case| case.format == "raw" && case.says_of_volume().is_none()) {
        let content = scene.app.site.dir.path().join("content");
        (case.make)(&content, &secret);
        let mut content = {
            let bytes = fs::read(&content).unwrap();
            fs::remove_file(&content).unwrap();
            bytes
        };
        content.resize(1 << 20, 0);
        for runs in [false, true] {
            let image = scene.image(&vm);
            fs::write(&image, &content).unwrap();
            if runs {
                scene.press(&vm, "start");
            }
            for which in ["copy", "template"] {
                let told = format!("{}, {which}, runs: {runs}", case.name);
                let answer = secret.guarded(&told, || scene.call(which, &vm, "other", "2"));
                assert_eq!(answer.status, 201, "{told}: {answer:?}");
                let (uri, disk) = scene.made(which, &answer).unwrap();
                assert_eq!((disk.format, fs::read(scene.app.path(&disk)).unwrap() == content), (Format::Raw, true));
                scene.delete(&uri);
                assert!(fs::read(&image).unwrap() == content, "{told}: the guest's own disk");
            }
            for there in ["2", "1"] {
                let answer = secret.guarded(case.name, || scene.call("smigrate", &vm, "", there));
                assert_eq!(answer.status, 201, "{}: {answer:?}", case.name);
                assert!(fs::read(scene.image(&vm)).unwrap() == content, "{}", case.name);
            }
            if runs {
                scene.press(&vm, "poweroff");
            }
            copied += 1;
        }
    }
    println!("abuse: {copied} raw disks that look like something else were copied as they are");
    assert!(copied > 12);
    scene.app.assert_at_rest();
}

/// 1 GiB with some MiB of data here and there.
#[test]
fn what_is_sparse_stays_sparse() {
    const NEAR: u64 = 4 << 20;
    let scene = Scene::new();
    scene.app.second_storlink();
    for format in [Format::Qcow2, Format::Raw] {
        let body = format!("<os_disk_size>1024</os_disk_size><disk_format>{format}</disk_format>");
        assert_eq!(scene.create_vm("web1", &body).status, 201);
        let vm = scene.http.get("/vms/").ids("vm")[0].clone();
        for at in [0, 300, 700, 1022] {
            fill(&scene.image(&vm), format, 7, at << 10, 1 << 10);
        }
        let flat = scene.app.site.dir.path().join("flat");
        scene.app.flat(&scene.app.disks(vm.parse().unwrap())[0], &flat);
        for runs in [false, true] {
            if runs {
                scene.press(&vm, "start");
            }
            let is_near = |image: &Path| {
                let (is, was) = (allocated(image), 4 << 20);
                assert!(is < was + NEAR, "{format}, runs: {runs}: {is} bytes where {was} are data");
                assert_same((&flat, Format::Raw), (image, format));
            };
            for which in ["copy", "template"] {
                let answer = scene.call(which, &vm, "other", "2");
                assert_eq!(answer.status, 201, "{answer:?}");
                let (uri, disk) = scene.made(which, &answer).unwrap();
                is_near(&scene.app.path(&disk));
                scene.delete(&uri);
            }
            for there in ["2", "1"] {
                let answer = scene.call("smigrate", &vm, "", there);
                assert_eq!(answer.status, 201, "{answer:?}");
                is_near(&scene.image(&vm));
            }
            if runs {
                scene.press(&vm, "poweroff");
            }
        }
        scene.delete(&format!("/vms/{vm}/"));
        fs::remove_file(flat).unwrap();
    }
    scene.app.assert_at_rest();
}

/// A site with a VM whose disks hold 4 and 2 MiB of data, and a second storlink of 8 MiB.
fn beside_a_small_disk(extra: u32) -> (Scene, SmallDisk, String) {
    let (scene, disk) = (Scene::new(), SmallDisk::mount("8m"));
    assert_eq!(create(&scene.http, "small", text(disk.path())).status, 201);
    let body = format!(
        "<os_disk_size>4</os_disk_size><extra_disk_size>{extra}</extra_disk_size><disk_format>raw</disk_format>"
    );
    assert_eq!(scene.create_vm("web1", &body).status, 201);
    let vm = scene.http.get("/vms/").ids("vm")[0].clone();
    for disk in scene.app.disks(vm.parse().unwrap()) {
        let image = scene.app.path(&disk);
        fs::remove_file(&image).unwrap();
        make_image(&image, Format::Raw, usize::try_from(disk.size.0).unwrap());
    }
    (scene, disk, vm)
}

/// Said before the first byte, with what is needed and what is free.
#[test]
fn what_has_no_room_is_refused_before_anything_is_written() {
    // 8 MiB have room for either disk, and not for both.
    let (scene, disk, vm) = beside_a_small_disk(6);
    for runs in [false, true] {
        if runs {
            scene.press(&vm, "start");
        }
        for which in CALLS {
            // A guest that runs may write 1 MiB more to each disk that is moved under it.
            let need = if runs && which == "smigrate" { 12 } else { 10 };
            let says = format!("storlink small has too little room: {need} MiB needed, 8 MiB free");
            scene.refused(which, 400, &[&says], || scene.call(which, &vm, "other", "2"));
            assert_eq!(disk.names(), [""; 0]);
        }
    }
    assert_eq!(scene.app.site.fake.calls(Verb::OverlayDisks) + scene.app.site.fake.calls(Verb::StartBlockJob), 0);
}

/// What a copy that is under way will still write is not free for another one.
#[test]
fn two_copies_do_not_count_on_the_same_room() {
    let (scene, disk, vm) = beside_a_small_disk(1);
    let second = scene.vm("web2");
    let image = scene.image(&second);
    fs::remove_file(&image).unwrap();
    make_image(&image, Format::Qcow2, 4);
    let fake = &scene.app.site.fake;
    fake.hold(Verb::Define);
    std::thread::scope(|scope| {
        let copying = scope.spawn(|| scene.call("copy", &vm, "other", "2"));
        assert!(fake.wait_held(Verb::Define, 1, PATIENCE));
        for which in CALLS {
            let full = scene.call(which, &second, "another", "2");
            assert_eq!(full.status, 400, "{full:?}");
            assert!(full.message().starts_with("storlink small has too little room: 4 MiB needed, "), "{full:?}");
        }
        fake.release(Verb::Define);
        assert_eq!(copying.join().unwrap().status, 201);
    });
    scene.app.assert_at_rest();
    assert_eq!(disk.names().len(), 2);
}

/// On a guest's own storlink there is no room for what it writes while it is copied.
#[test]
fn a_guest_whose_own_storlink_is_full_is_not_copied_while_it_runs() {
    let (scene, disk) = (Scene::new(), SmallDisk::mount("8m"));
    assert_eq!(create(&scene.http, "small", text(disk.path())).status, 201);
    let body = "<storlink>2</storlink><os_disk_size>4</os_disk_size>";
    assert_eq!(scene.create_vm("web1", body).status, 201);
    let vm = scene.http.get("/vms/").ids("vm")[0].clone();
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![1; (8 << 20) - (1 << 20)]).unwrap();
    scene.press(&vm, "start");
    for which in ["copy", "template"] {
        let says = "storlink small has too little room: 1 MiB needed, 0 MiB free";
        scene.refused(which, 400, &[says], || scene.call(which, &vm, "other", "1"));
    }
    // To move away needs no room there, and is how room is made.
    assert_eq!(scene.call("smigrate", &vm, "", "1").status, 201);
    assert_eq!(disk.names(), ["ballast"]);
    scene.app.assert_at_rest();
}

/// Compressed, it looks as if it would fit: the storlink fills up during the copy, at the first disk or at the second.
#[test]
fn a_storlink_that_fills_up_during_a_copy_is_left_as_it_was() {
    for large in [0, 1] {
        let (scene, disk) = (Scene::new(), SmallDisk::mount("8m"));
        assert_eq!(create(&scene.http, "small", text(disk.path())).status, 201);
        let size = |order| if order == large { 32 } else { 2 };
        let body = format!("<os_disk_size>{}</os_disk_size><extra_disk_size>{}</extra_disk_size>", size(0), size(1));
        assert_eq!(scene.create_vm("web1", &body).status, 201);
        let vm = scene.http.get("/vms/").ids("vm")[0].clone();
        let image = scene.app.path(&scene.app.disks(vm.parse().unwrap())[large]);
        let raw = scene.path("content");
        fs::write(&raw, vec![7; 32 << 20]).unwrap();
        qemu_img(&["convert", "-c", "-f", "raw", "-O", "qcow2", text(&raw), text(&image)]);
        fs::remove_file(raw).unwrap();
        for runs in [false, true] {
            if runs {
                scene.press(&vm, "start");
            }
            for which in CALLS {
                let says: &[&str] = if runs && which == "smigrate" {
                    &["copying disk", "of vm web1 to storlink small ended early; ", "MiB are free there"]
                } else {
                    &["too little room", "MiB needed", "MiB free"]
                };
                let told = format!("{which}, disk {large} is large, runs: {runs}");
                let answer = scene.refused(&told, 400, says, || scene.call(which, &vm, "other", "2"));
                assert_eq!(disk.names(), [""; 0], "{answer}");
            }
        }
        // A copy and a template have brought two disks each back from their overlays; no move got so far.
        assert_eq!(scene.app.site.fake.calls(Verb::Pivot), 4);
    }
}

#[test]
fn of_ten_copies_to_one_name_one_wins() {
    let scene = Scene::new();
    scene.app.second_storlink();
    let vms = ["web1", "web2"].map(|name| scene.vm(name));
    for which in ["copy", "template"] {
        let files = World::of(&scene.app).files.len();
        let answers = at_once(10, |n| match (which, n % 5) {
            // A name is a name, whoever takes it.
            ("copy", 0) => scene.create_vm("other", "<os_disk_size>1</os_disk_size>"),
            _ => scene.call(which, &vms[n % 2], "other", ["1", "2"][n % 2]),
        });
        assert_eq!((with_status(&answers, 201), with_status(&answers, 400)), (1, 9), "{answers:?}");
        let noun = if which == "copy" { "vm" } else { "template" };
        for lost in answers.iter().filter(|answer| answer.status == 400) {
            assert_eq!(lost.message(), format!("a {noun} named other exists already"));
        }
        scene.app.assert_at_rest();
        assert_eq!(World::of(&scene.app).files.len(), files + 1);
    }
}

/// Whoever is first: there is a whole copy, or none.
#[test]
fn a_vm_is_copied_or_moved_and_deleted_at_once() {
    let scene = Scene::new();
    scene.app.second_storlink();
    let (mut before, mut after) = (0, 0);
    for round in 0..12 {
        let which = CALLS[round % 3];
        let empty = World::of(&scene.app);
        let vm = scene.vm(&format!("vm{round}"));
        let uri = format!("/vms/{vm}/");
        let (call, delete) = both(round / 3, || scene.call(which, &vm, "other", "2"), || scene.http.delete(&uri));
        assert_eq!(delete.status, 204, "{delete:?}");
        scene.app.assert_at_rest();
        match call.status {
            201 => {
                before += 1;
                if let Some((uri, disk)) = scene.made(which, &call) {
                    assert!(scene.app.path(&disk).exists());
                    scene.delete(&uri);
                }
            }
            404 => {
                after += 1;
                assert_eq!(call.message(), format!("there is no vm {vm}"));
            }
            _ => panic!("{call:?}"),
        }
        assert_eq!(World::of(&scene.app), empty);
    }
    println!("abuse: the VM was copied or moved {before} times before it was deleted, {after} times it was gone");
}

/// Two writers on one VM: one after the other, and its disks are where the last one put them.
#[test]
fn a_vm_that_is_moved_twice_at_once_is_whole() {
    let scene = Scene::new();
    scene.app.second_storlink();
    let third = scene.app.site.dir.path().join("store3");
    fs::create_dir(&third).unwrap();
    scene.app.storlink_at("store3", &third);
    let vm = scene.vm("web1");
    let id: VmId = vm.parse().unwrap();
    let image = scene.image(&vm);
    fs::remove_file(&image).unwrap();
    make_image(&image, Format::Qcow2, 4);
    let flat = scene.app.site.dir.path().join("flat");
    scene.app.flat(&scene.app.disks(id)[0], &flat);
    for round in 0..6 {
        if round == 2 {
            scene.press(&vm, "start");
        }
        let calls = at_once(4, |n| match n {
            0 => scene.call("smigrate", &vm, "", "2"),
            1 => scene.call("smigrate", &vm, "", "3"),
            2 => scene.call("copy", &vm, &format!("copy{round}"), "1"),
            // Under the move of a guest that runs, too.
            _ => scene.http.post(&format!("/vms/{vm}/{}/", if round % 2 == 0 { "suspend" } else { "resume" }), ""),
        });
        // A second move to where the first one has put it is none.
        assert!(calls[..2].iter().any(|moved| moved.status == 201), "{calls:?}");
        for moved in calls[..2].iter().filter(|moved| moved.status != 201) {
            assert!(moved.status == 400 && moved.message().contains("already; name another one"), "{moved:?}");
        }
        assert_eq!(calls[2].status, 201, "{:?}", calls[2]);
        scene.app.assert_at_rest();
        let disk = scene.app.disks(id).remove(0);
        assert_same((&flat, Format::Raw), (&scene.app.path(&disk), disk.format));
        let copy = scene.app.store().read(pengx::store::vms::listing).unwrap();
        let copy = copy.iter().find(|listing| listing.vm.name == format!("copy{round}")).unwrap().vm.id;
        assert_same((&flat, Format::Raw), (&scene.image(&copy.to_string()), Format::Qcow2));
        let volumes = |dir: &Path| fs::read_dir(dir).unwrap().count();
        assert_eq!(volumes(&scene.app.site.second_dir()) + volumes(&third), 1, "its one disk");
        if let Some(running) = scene.app.site.fake.running(id) {
            assert_eq!(running.disks[0].source, VolumeSource::File(scene.app.path(&disk)));
        }
    }
}

/// Whoever is first: what is on a storlink keeps it, and what is gone is not copied to.
#[test]
fn a_storlink_is_copied_to_and_deleted_at_once() {
    let scene = Scene::new();
    let dir = scene.app.site.second_dir();
    fs::create_dir(&dir).unwrap();
    for round in 0..12 {
        let which = CALLS[round % 3];
        let there = scene.app.storlink_at("store2", &dir).to_string();
        let vm = scene.vm(&format!("vm{round}"));
        let uri = format!("/storlinks/{there}/");
        let (call, delete) = both(round / 3, || scene.call(which, &vm, "other", &there), || scene.http.delete(&uri));
        scene.app.assert_at_rest();
        match (call.status, delete.status) {
            (201, 400) => {
                assert!(delete.message().starts_with("storlink store2 is in use by "), "{delete:?}");
                if let Some((made, _)) = scene.made(which, &call) {
                    scene.delete(&made);
                }
                scene.delete(&format!("/vms/{vm}/"));
                scene.delete(&uri);
            }
            (404, 204) => {
                assert_eq!(call.message(), format!("there is no storlink {there}"));
                scene.delete(&format!("/vms/{vm}/"));
            }
            other => panic!("{other:?}: {call:?} {delete:?}"),
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    }
}
