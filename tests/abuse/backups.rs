//! An image of a backup that somebody exchanged on the storlink: no tool and no guest ever opens it.

use std::fs;

use pengx::model::*;
use pengx::store::{backups, disks};

use super::Scene;
use super::hostile::{Case, Secret, cases};
use crate::harness::world::World;

#[test]
fn an_exchanged_image_is_neither_read_restored_nor_booted() {
    let (scene, secret) = (Scene::new(), Secret::new());
    let vm = scene.vm("web1");
    let body = format!("<v><backup_name>b</backup_name><storlink>{}</storlink></v>", scene.storlink);
    assert_eq!(scene.http.post(&format!("/vms/{vm}/backups/"), &body).status, 200);
    let (backup, copies) = scene
        .app
        .store()
        .read(|c| {
            let backup = backups::all(c)?.remove(0);
            Ok((backup.id, disks::of_backup(c, backup.id)?))
        })
        .unwrap();
    let image = scene.path(copies[0].volume.as_str());
    let good = fs::read(&image).unwrap();
    let mut refused = 0;
    for case in cases() {
        fs::remove_file(&image).unwrap();
        (case.make)(&image, &secret);
        for verb in ["verify/", "prove/", ""] {
            let told = format!("{} ({}) {verb}", case.name, case.format);
            let says = ["backup b of vm web1 cannot be trusted: "];
            secret.guarded(&told, || {
                let uri = format!("/vms/{vm}/backups/{backup}/{verb}");
                scene.refused(&told, 400, &says, || scene.http.post(&uri, ""))
            });
            refused += 1;
        }
        // Whatever lies there, it can be thrown away, and the rest is as it was.
        Case::clear(&image);
        fs::write(&image, &good).unwrap();
    }
    println!("abuse: {refused} uses of exchanged images of a backup were refused");
    assert!(scene.app.site.fake.calls(pengx::hypervisor::Verb::Start) == 0);
    let restored = scene.http.post(&format!("/vms/{vm}/backups/{backup}/"), "");
    assert_eq!(restored.status, 201, "{restored:?}");
}

/// With a length and a header that pass, the content is still not the backup's.
#[test]
fn a_header_that_passes_does_not_make_an_image_whole() {
    let scene = Scene::new();
    let vm = scene.vm("web1");
    let body = format!("<v><backup_name>b</backup_name><storlink>{}</storlink></v>", scene.storlink);
    assert_eq!(scene.http.post(&format!("/vms/{vm}/backups/"), &body).status, 200);
    let store = scene.app.store();
    let backup = store.read(|c| Ok(backups::all(c)?.remove(0).id)).unwrap();
    let copy = store.read(|c| Ok(disks::of_backup(c, backup)?.remove(0))).unwrap();
    let image = scene.path(copy.volume.as_str());
    let length = fs::metadata(&image).unwrap().len();
    fs::remove_file(&image).unwrap();
    crate::harness::tool::qemu_img(&["create", "-q", "-f", "qcow2", image.to_str().unwrap(), "4M"]);
    fs::File::options().write(true).open(&image).unwrap().set_len(length).unwrap();
    let uri = format!("/vms/{vm}/backups/{backup}/verify/");
    scene.refused("another one", 400, &["is not what it was in block 1 of 1, from byte 0 on"], || {
        scene.http.post(&uri, "")
    });
    // What cannot be trusted can go.
    assert_eq!(scene.http.delete(&format!("/vms/{vm}/backups/{backup}/")).status, 204);
    assert_eq!(World::of(&scene.app).files.len(), 1, "the VM's");
}

/// A raw disk into which its guest wrote the header of another format is copied to the letter, for it is content.
#[test]
fn a_guest_that_writes_a_header_into_its_raw_disk_gets_it_back_to_the_letter() {
    let (scene, secret) = (Scene::new(), Secret::new());
    let made = scene.create_vm("web1", "<os_disk_size>4</os_disk_size><disk_format>raw</disk_format>");
    assert_eq!(made.status, 201, "{made:?}");
    let listing = scene.app.store().read(pengx::store::vms::listing).unwrap().remove(0);
    let vm = listing.vm.id;
    let disk = |scene: &Scene| scene.app.store().read(|c| disks::of_vm(c, vm)).unwrap().remove(0);
    let image = scene.path(disk(&scene).volume.as_str());
    let evil = scene.path("evil");
    crate::harness::tool::qemu_img(&[
        "create",
        "-q",
        "-u",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "-b",
        &secret.path(),
        evil.to_str().unwrap(),
        "1G",
    ]);
    let header = fs::read(&evil).unwrap();
    fs::remove_file(evil).unwrap();
    let mut content = vec![0; 4 << 20];
    content[..header.len()].copy_from_slice(&header);
    fs::write(&image, &content).unwrap();
    secret.guarded("a header in a raw disk", || {
        let body = format!("<v><backup_name>b</backup_name><storlink>{}</storlink></v>", scene.storlink);
        let made = scene.http.post(&format!("/vms/{vm}/backups/"), &body);
        assert_eq!(made.status, 200, "{made:?}");
        let backup = scene.http.get("/backups/").ids("vmbackup").remove(0);
        for (verb, status) in [("verify/", 200), ("prove/", 200), ("", 201)] {
            let done = scene.http.post(&format!("/vms/{vm}/backups/{backup}/{verb}"), "");
            assert_eq!(done.status, status, "{verb}: {done:?}");
        }
    });
    let now = disk(&scene);
    assert_eq!(now.format, Format::Raw);
    assert!(fs::read(scene.path(now.volume.as_str())).unwrap() == content);
    scene.app.assert_at_rest();
}
