//! Images from outside that lie, lead elsewhere or are broken.

use std::fs::{self, File};
use std::io::Read;

use pengx::model::*;

use super::Scene;
use super::hostile::{Case, Secret, cases, text};
use crate::harness::app::make_image;
use crate::harness::tool::qemu_img;

fn clear(scene: &Scene) {
    for entry in fs::read_dir(scene.app.site.store_dir()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            fs::remove_dir(entry.path()).unwrap();
        } else {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

#[test]
fn a_hostile_or_broken_image_never_becomes_a_template() {
    let (scene, secret) = (Scene::new(), Secret::new());
    let all = cases();
    for case in &all {
        let disk = DiskId(uuid::Uuid::new_v4());
        let declared = case.format.parse().unwrap();
        for name in [VolumeName::new(disk, declared), VolumeName::bare(disk)] {
            (case.make)(&scene.path(name.as_str()), &secret);
            let told = format!("{} as {name}", case.name);
            secret.guarded(&told, || {
                scene.refused(&told, 400, &[case.says], || scene.add_template("t", disk, case.format))
            });
            clear(&scene);
        }
    }
    println!("abuse: {} images under two names each were refused", all.len());
    assert!(scene.http.get("/templates/").ids("template").is_empty());
}

/// The header is read again at each use.
#[test]
fn a_template_whose_image_was_exchanged_makes_no_vm() {
    let (scene, secret) = (Scene::new(), Secret::new());
    for (format, word) in [(Format::Qcow2, "qcow2"), (Format::Raw, "raw")] {
        let (template, image) = scene.template(&format!("a {word} one"), format);
        let good = fs::read(&image).unwrap();
        for case in cases().iter().filter(|case| case.format == word) {
            fs::remove_file(&image).unwrap();
            (case.make)(&image, &secret);
            let says = if case.name == "no file" { "is gone from storlink store1" } else { case.says };
            let body = format!("<template>{template}</template>");
            secret.guarded(case.name, || scene.refused(case.name, 400, &[says], || scene.create_vm("web1", &body)));
            Case::clear(&image);
            fs::write(&image, &good).unwrap();
        }
        // Put back, it works again.
        let made = scene.create_vm(&format!("from {word}"), &format!("<template>{template}</template>"));
        assert_eq!(made.status, 201, "{made:?}");
    }
}

#[test]
fn a_volume_is_one_disks_alone() {
    let scene = Scene::new();
    let (_, image) = scene.template("debian", Format::Qcow2);
    let disk: DiskId = image.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    scene.refused("another template's", 400, &[&format!("disk {disk} is in use by template ")], || {
        scene.add_template("debian 2", disk, "qcow2")
    });
    scene.refused("the same name", 400, &["a template named debian exists already"], || {
        scene.add_template("debian", DiskId(uuid::Uuid::new_v4()), "qcow2")
    });
    let vm = scene.vm("web1");
    let disks = scene.app.store().read(|c| pengx::store::disks::of_vm(c, vm.parse().unwrap())).unwrap();
    scene.refused("a vm's", 400, &[&format!("disk {} is in use by vm {vm}", disks[0].id)], || {
        scene.add_template("stolen", disks[0].id, "qcow2")
    });
}

/// Ten clients at once add one image under ten names.
#[test]
fn an_image_becomes_one_template_only() {
    let scene = Scene::new();
    let disk = DiskId(uuid::Uuid::new_v4());
    make_image(&scene.path(VolumeName::new(disk, Format::Qcow2).as_str()), Format::Qcow2, 1);
    let answers: Vec<_> = std::thread::scope(|s| {
        let adding: Vec<_> = (0..10)
            .map(|n| {
                s.spawn({
                    let scene = &scene;
                    move || scene.add_template(&format!("t{n}"), disk, "qcow2")
                })
            })
            .collect();
        adding.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(answers.iter().filter(|a| a.status == 201).count(), 1, "{answers:?}");
    for lost in answers.iter().filter(|a| a.status != 201) {
        assert!(lost.status == 400 && lost.message().contains("is in use by template"), "{lost:?}");
    }
    assert_eq!(scene.http.get("/templates/").ids("template").len(), 1);
    scene.app.assert_at_rest();
}

/// The content is copied to the letter, and the template's image is only read.
#[test]
fn a_good_image_is_copied_and_left_alone() {
    let scene = Scene::new();
    let (template, image) = scene.template("debian", Format::Raw);
    let mut before = Vec::new();
    File::open(&image).unwrap().read_to_end(&mut before).unwrap();
    for (name, format) in [("a", "raw"), ("b", "qcow2")] {
        let made =
            scene.create_vm(name, &format!("<template>{template}</template><disk_format>{format}</disk_format>"));
        assert_eq!(made.status, 201, "{made:?}");
    }
    assert_eq!(fs::read(&image).unwrap(), before);
    let listings = scene.app.store().read(pengx::store::vms::listing).unwrap();
    for listing in listings {
        let disks = scene.app.store().read(|c| pengx::store::disks::of_vm(c, listing.vm.id)).unwrap();
        let copy = scene.path(disks[0].volume.as_str());
        qemu_img(&["compare", "-f", "raw", "-F", disks[0].format.word(), text(&image), text(&copy)]);
    }
}
