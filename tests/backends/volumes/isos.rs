//! ISO images on a storlink: what is listed, what is given to a drive, and what is neither.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use pengx::model::IsoName;

use super::*;

fn iso(text: &str) -> IsoName {
    text.parse().unwrap()
}

fn listed(world: &World) -> Vec<(String, u64)> {
    world.driver.isos().unwrap().into_iter().map(|file| (file.name.to_string(), file.bytes)).collect()
}

#[test]
fn regular_files_that_end_in_iso_are_listed_by_name_with_their_size() {
    let world = World::new();
    assert!(listed(&world).is_empty());
    let volume = name(Format::Raw);
    world.create(&volume, &empty(Format::Raw, 1)).unwrap();
    for (file, bytes) in [("b.iso", 3), ("a.ISO", 1 << 20), ("데비안 12.iso", 0), ("x.img", 9), (".hidden.iso", 9)] {
        File::create(world.path(file)).unwrap().set_len(bytes).unwrap();
    }
    File::create(world.dir.path().join(OsStr::from_bytes(b"\xff.iso"))).unwrap();
    File::create(world.path("new\nline.iso")).unwrap();
    fs::create_dir(world.path("dir.iso")).unwrap();
    fs::write(world.path("dir.iso/inner.iso"), "x").unwrap();
    let expected = [("a.ISO", 1 << 20), ("b.iso", 3), ("데비안 12.iso", 0)];
    assert_eq!(listed(&world), expected.map(|(file, bytes)| (file.to_owned(), bytes)));
    for (file, _) in expected {
        assert_eq!(world.driver.iso(&iso(file)).unwrap(), VolumeSource::File(world.path(file)), "{file}");
    }
    // Nor are they volumes.
    assert_eq!(world.driver.list().unwrap(), [volume]);
}

#[test]
fn what_leads_elsewhere_or_is_no_file_is_neither_listed_nor_given() {
    let world = World::new();
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret.iso");
    fs::write(&secret, "x").unwrap();
    symlink(&secret, world.path("link.iso")).unwrap();
    symlink("nowhere.iso", world.path("dangling.iso")).unwrap();
    fs::create_dir(world.path("dir.iso")).unwrap();
    // Would be waited for if it were opened.
    tool("mkfifo", &[world.path("pipe.iso").to_str().unwrap()]);
    fs::write(world.path("one.iso"), "x").unwrap();
    fs::hard_link(world.path("one.iso"), world.path("two.iso")).unwrap();
    assert!(listed(&world).is_empty());
    for (file, why) in [
        ("link.iso", "is a symbolic link; put the file itself there"),
        ("dangling.iso", "is a symbolic link"),
        ("dir.iso", "is not a regular file"),
        ("pipe.iso", "is not a regular file"),
        ("one.iso", "has other names too (hard links); copy it to a file of its own"),
        ("two.iso", "has other names too"),
        ("absent.iso", "is not there"),
    ] {
        let e = world.driver.iso(&iso(file));
        refused(e, &format!("{} {why}", world.path(file).display()));
    }
    // No name leads out of the directory.
    for bad in ["../secret.iso", "..", "dir.iso/inner.iso", "/etc/x.iso", ".iso"] {
        assert!(bad.parse::<IsoName>().is_err(), "{bad}");
    }
    fs::remove_file(world.path("two.iso")).unwrap();
    assert_eq!(listed(&world), [("one.iso".to_owned(), 1)]);
}

#[test]
fn a_list_is_bounded_and_a_missing_directory_says_so() {
    let world = World::new();
    for n in 0..=pengx::storage::MAX_ISOS {
        File::create(world.path(format!("{n:05}.iso"))).unwrap();
    }
    let listed = listed(&world);
    assert_eq!(listed.len(), pengx::storage::MAX_ISOS);
    assert_eq!((listed[0].0.as_str(), listed[9_999].0.as_str()), ("00000.iso", "09999.iso"));
    let gone = DirDriver::open(&world.path("absent"), Arc::new(SystemRunner));
    refused(gone.isos(), "is gone");
    refused(gone.iso(&iso("a.iso")), "is gone");
}
