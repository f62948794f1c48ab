//! What happens to the files of a backup is found, told with its place, and leaves everything as it is.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use pengx::error::ErrorKind;
use pengx::store::backups;

use super::*;

type Harm = fn(&Path, &Path);

/// Named, what it does to the first image and to the manifest, and what is said of it.
const HARMS: &[(&str, Harm, &str)] = &[
    ("a bit in the first block", |image, _| flip(image, 200_000), "block 1 of 3, from byte 0 on"),
    ("a bit in the middle", |image, _| flip(image, 17 << 20), "block 2 of 3, from byte 16777216 on"),
    (
        "the last bit",
        |image, _| flip(image, fs::metadata(image).unwrap().len() - 1),
        "block 3 of 3, from byte 33554432 on",
    ),
    ("a bit of the header", |image, _| flip(image, 80), "cannot be trusted: "),
    ("a byte less", |image, _| cut(image, -1), " bytes, and had "),
    ("half of it", |image, _| cut(image, -(10 << 20)), "cannot be trusted: "),
    ("a byte more", |image, _| cut(image, 1), " bytes, and had "),
    ("an empty image", |image, _| fs::write(image, "").unwrap(), "is empty"),
    ("no image", |image, _| fs::remove_file(image).unwrap(), "is gone"),
    ("another image", |image, _| another(image), " bytes, and had "),
    ("an image behind a link", behind_a_link, "is a symbolic link"),
    ("an image with two names", two_names, "has other names too"),
    ("no manifest", |_, manifest| fs::remove_file(manifest).unwrap(), "is gone"),
    ("a bit of the manifest", |_, manifest| flip(manifest, 40), "is not the one that was written when it was made"),
    ("a manifest that fits the image", fitting, "is not the one that was written when it was made"),
    ("an empty manifest", |_, manifest| fs::write(manifest, "").unwrap(), "is not the one that was written"),
    ("a manifest too large", |_, manifest| cut(manifest, 65 << 20), "has more than 67108864 bytes"),
    ("a manifest behind a link", |_, manifest| link(manifest), "is a symbolic link"),
];

fn flip(file: &Path, at: u64) {
    let file = fs::File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

fn cut(file: &Path, by: i64) {
    let file = fs::File::options().write(true).open(file).unwrap();
    file.set_len(file.metadata().unwrap().len().checked_add_signed(by).unwrap()).unwrap();
}

fn another(image: &Path) {
    fs::remove_file(image).unwrap();
    crate::harness::app::make_image(image, Format::Qcow2, 40);
}

fn behind_a_link(image: &Path, _: &Path) {
    link(image);
}

fn link(file: &Path) {
    let elsewhere = file.with_extension("elsewhere");
    fs::rename(file, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, file).unwrap();
}

fn two_names(image: &Path, _: &Path) {
    fs::hard_link(image, image.with_extension("elsewhere")).unwrap();
}

/// Who can write to the storlink can make both agree, but not with the database.
fn fitting(image: &Path, manifest: &Path) {
    flip(image, 200_000);
    let mut block = vec![0; 16 << 20];
    fs::File::open(image).unwrap().read_exact_at(&mut block, 0).unwrap();
    let part = image.with_extension("block");
    fs::write(&part, block).unwrap();
    let said = std::process::Command::new("sha256sum").arg(&part).output().unwrap();
    fs::remove_file(part).unwrap();
    let hash = String::from_utf8(said.stdout).unwrap()[..64].to_owned();
    let mut all: serde_json::Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    all["disks"][0]["sha256"][0] = hash.into();
    fs::write(manifest, serde_json::to_vec_pretty(&all).unwrap()).unwrap();
}

#[test]
fn every_harm_is_found_by_verify_and_undone_it_is_well_again() {
    let app = App::new();
    let vm = large(&app);
    let shelf = Shelf { app, vm };
    let backup = shelf.create().unwrap();
    let image = shelf.app.path(&shelf.copies(backup)[0]);
    let manifest = shelf.app.site.store_dir().join(format!("{backup}.json"));
    let (good_image, good_manifest) = (fs::read(&image).unwrap(), fs::read(&manifest).unwrap());
    assert!(good_image.len() > 33 << 20, "it has three blocks");
    for (name, harm, says) in HARMS {
        let now = shelf.row(backup).created_at;
        shelf.app.store().write_tx(|tx| backups::set_verified(tx, backup, Some(now))).unwrap();
        harm(&image, &manifest);
        let files = World::of(&shelf.app).files;
        let error = shelf.verify(backup).unwrap_err();
        let told = error.to_string();
        assert!(matches!(error.kind(), ErrorKind::Refused { .. }), "{name}: {error:?}");
        assert!(told.starts_with("pengx refused: backup nightly of vm web1 cannot be trusted: "), "{name}: {told}");
        assert!(told.contains(says), "{name}: {told}");
        assert_eq!(shelf.row(backup).verified_at, None, "{name}: it is not verified any more");
        // Whatever costs little to find keeps it from being restored and booted, too.
        if !told.contains("is not what it was in block") {
            for outcome in [shelf.restore(backup), shelf.prove(backup)] {
                assert_eq!(outcome.unwrap_err().to_string(), told, "{name}");
            }
        }
        shelf.app.assert_at_rest();
        assert_eq!(World::of(&shelf.app).files, files, "{name}: nothing is repaired, nothing is removed");
        for file in [&image, &manifest, &image.with_extension("elsewhere"), &manifest.with_extension("elsewhere")] {
            fs::remove_file(file).ok();
        }
        fs::write(&image, &good_image).unwrap();
        fs::write(&manifest, &good_manifest).unwrap();
    }
    shelf.verify(backup).unwrap();
    println!("backups: {} harms were found", HARMS.len());
}

#[test]
fn a_damaged_backup_can_be_deleted() {
    for harm in [0, 1] {
        let shelf = Shelf::new();
        let backup = shelf.create().unwrap();
        let files = World::of(&shelf.app).files.len();
        let manifest = shelf.app.site.store_dir().join(format!("{backup}.json"));
        let lost = if harm == 0 { manifest } else { shelf.app.path(&shelf.copies(backup)[1]) };
        fs::remove_file(lost).unwrap();
        shelf.delete(backup).unwrap();
        shelf.app.assert_at_rest();
        assert_eq!(World::of(&shelf.app).files.len(), files - 3);
        assert!(shelf.app.store().read(backups::all).unwrap().is_empty());
    }
}

/// A storlink that is not mounted says nothing about what is on it.
#[test]
fn a_storlink_that_is_gone_is_no_finding() {
    let shelf = Shelf::new();
    let backup = shelf.create().unwrap();
    shelf.verify(backup).unwrap();
    let (here, away) = (shelf.app.site.store_dir(), shelf.app.site.dir.path().join("away"));
    fs::rename(&here, &away).unwrap();
    for outcome in [shelf.verify(backup), shelf.restore(backup), shelf.prove(backup), shelf.delete(backup)] {
        let told = outcome.unwrap_err().to_string();
        assert!(told.contains("is gone; mount it or make it") && !told.contains("trusted"), "{told}");
    }
    assert!(shelf.row(backup).verified_at.is_some());
    fs::rename(&away, &here).unwrap();
    shelf.app.assert_at_rest();
    shelf.verify(backup).unwrap();
}

/// The tables of the image are damaged, and the manifest was made of that: only the tool can see it.
#[test]
fn tables_that_contradict_one_another_are_found_by_the_tool() {
    let shelf = Shelf::new();
    let backup = shelf.create().unwrap();
    let image = shelf.app.path(&shelf.copies(backup)[0]);
    // The first entry of the first table now points far outside.
    let file = fs::File::options().read(true).write(true).open(&image).unwrap();
    let mut l1 = [0; 8];
    file.read_exact_at(&mut l1, 40).unwrap();
    file.write_all_at(&[0x80, 0, 0, 0, 0x7f, 0, 0, 0], u64::from_be_bytes(l1)).unwrap();
    let manifest = shelf.app.site.store_dir().join(format!("{backup}.json"));
    let mut all: serde_json::Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    let sha = |file: &Path| {
        let said = std::process::Command::new("sha256sum").arg(file).output().unwrap();
        String::from_utf8(said.stdout).unwrap()[..64].to_owned()
    };
    all["disks"][0]["sha256"][0] = sha(&image).into();
    fs::write(&manifest, serde_json::to_vec_pretty(&all).unwrap()).unwrap();
    let mut row = shelf.row(backup);
    row.manifest = sha(&manifest);
    let copies = shelf.copies(backup);
    shelf
        .app
        .store()
        .write_tx(|tx| {
            copies.iter().try_for_each(|disk| disks::remove(tx, disk.id))?;
            backups::remove(tx, backup)?;
            backups::insert(tx, &row)?;
            copies.iter().try_for_each(|disk| disks::insert(tx, disk))
        })
        .unwrap();
    let told = shelf.verify(backup).unwrap_err().to_string();
    assert!(told.contains(&format!("the tables of volume {} contradict one another", copies[0].volume)), "{told}");
}
