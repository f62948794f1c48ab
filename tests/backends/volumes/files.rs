//! What lies on a storlink: listed as it is, told whose it is, and removed only as what it was seen to be.

use pengx::model::{FileKind, FileName, Mark, VolumeFile};

use super::*;

const SITE: uuid::Uuid = uuid::Uuid::from_u128(0x517e);

fn marking(world: &World) -> DirDriver {
    DirDriver::open(world.dir.path(), Arc::new(SystemRunner)).of_site(SITE)
}

fn look(driver: &DirDriver, name: &str) -> Option<VolumeFile> {
    driver.file(&name.parse::<FileName>().unwrap()).unwrap()
}

#[test]
fn what_is_made_keeps_its_mark_under_every_name() {
    let world = World::new();
    let driver = marking(&world);
    for format in [Format::Qcow2, Format::Raw] {
        let volume = name(format);
        create(&driver, &volume, &empty(format, 4)).unwrap();
        let made = look(&driver, volume.as_str()).unwrap();
        assert_eq!((made.mark, made.kind, made.links), (Mark::ThisSite, FileKind::File, 1));
        assert!(made.is_made_here());
        driver.set_aside(&volume).unwrap();
        let aside = look(&driver, &format!("{volume}.deleted")).unwrap();
        assert_eq!((aside.mark, aside.inode), (Mark::ThisSite, made.inode));
        driver.restore(&volume).unwrap();
        // Copied into, overlaid, grown: it is the same file.
        let copied = name(Format::Qcow2);
        create(&driver, &copied, &copy(&world.path(volume.as_str()), format, Format::Qcow2, 8)).unwrap();
        assert_eq!(look(&driver, copied.as_str()).unwrap().mark, Mark::ThisSite);
    }
    // To another site it is another's, and one that marks nothing has none.
    let volume = name(Format::Raw);
    world.create(&volume, &empty(Format::Raw, 1)).unwrap();
    assert_eq!(look(&driver, volume.as_str()).unwrap().mark, Mark::None);
    let other = marking(&world).of_site(uuid::Uuid::from_u128(1));
    let all = other.files().unwrap().files;
    assert_eq!(all.iter().filter(|file| file.mark == Mark::OtherSite).count(), 4);
}

#[test]
fn sizes_are_what_is_seen_and_what_is_occupied() {
    let world = World::new();
    let driver = marking(&world);
    let volume = name(Format::Raw);
    create(&driver, &volume, &empty(Format::Raw, 8)).unwrap();
    let sparse = look(&driver, volume.as_str()).unwrap();
    assert_eq!(sparse.bytes, 8 << 20);
    assert!(sparse.allocated_bytes < 1 << 20, "{sparse:?}");
    fs::write(world.path(volume.as_str()), vec![1; 2 << 20]).unwrap();
    let full = look(&driver, volume.as_str()).unwrap();
    assert!(full.bytes == 2 << 20 && full.allocated_bytes >= 2 << 20, "{full:?}");
    assert!(full.changed_at > sparse.changed_at);
    assert_eq!(look(&driver, "absent"), None);
}

#[test]
fn only_what_is_still_the_same_is_discarded() {
    let world = World::new();
    let driver = marking(&world);
    let volume = name(Format::Raw);
    create(&driver, &volume, &empty(Format::Raw, 1)).unwrap();
    let seen = look(&driver, volume.as_str()).unwrap();
    // Written to, or exchanged for another file: it is not what was looked at.
    fs::write(world.path(volume.as_str()), "new").unwrap();
    refused(driver.discard(&seen), "has just changed");
    fs::rename(world.path(volume.as_str()), world.path("kept")).unwrap();
    fs::write(world.path(volume.as_str()), "another").unwrap();
    refused(driver.discard(&seen), "has just changed");
    fs::remove_file(world.path(volume.as_str())).unwrap();
    symlink("kept", world.path(volume.as_str())).unwrap();
    refused(driver.discard(&seen), "has just changed");
    fs::remove_file(world.path(volume.as_str())).unwrap();
    driver.discard(&seen).unwrap();
    assert_eq!(world.files(), ["kept"]);
    fs::rename(world.path("kept"), world.path(volume.as_str())).unwrap();
    let seen = look(&driver, volume.as_str()).unwrap();
    driver.discard(&seen).unwrap();
    driver.discard(&seen).unwrap();
    assert!(world.files().is_empty());
}

#[test]
fn an_image_is_found_that_reads_from_a_file_whatever_else_it_is() {
    let world = World::new();
    let driver = marking(&world);
    let (base, overlay) = (name(Format::Raw), name(Format::Qcow2));
    create(&driver, &base, &empty(Format::Raw, 1)).unwrap();
    let wanted: FileName = base.as_str().parse().unwrap();
    assert_eq!(driver.reader_of(&wanted).unwrap(), None);
    let (below, above) = (world.path(base.as_str()), world.path(overlay.as_str()));
    tool(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-F", "raw", "-b", below.to_str().unwrap(), above.to_str().unwrap()],
    );
    assert_eq!(driver.reader_of(&wanted).unwrap(), Some(overlay.to_string()));
    // Marked corrupt, hard linked, set aside: it reads from it all the same.
    let file = File::options().write(true).open(&above).unwrap();
    file.write_all_at(&[2], 79).unwrap();
    fs::hard_link(&above, world.path("twin")).unwrap();
    driver.set_aside(&overlay).unwrap();
    assert_eq!(driver.reader_of(&wanted).unwrap(), Some(format!("{overlay}.deleted")));
    assert_eq!(driver.reader_of(&"other".parse().unwrap()).unwrap(), None);
}

#[test]
fn an_image_says_whether_it_is_cut_short() {
    let world = World::new();
    let driver = marking(&world);
    disk_with_data(&world.path("data"));
    for options in ["", "extended_l2=on,cluster_size=64k", "cluster_size=512"] {
        for compress in [false, true] {
            let volume = name(Format::Qcow2);
            let path = world.path(volume.as_str());
            let mut args = vec!["convert", "-f", "raw", "-O", "qcow2"];
            if !options.is_empty() {
                args.extend(["-o", options]);
            }
            if compress {
                args.push("-c");
            }
            let source = world.path("data");
            args.extend([source.to_str().unwrap(), path.to_str().unwrap()]);
            tool("qemu-img", &args);
            let case = format!("{options} {compress}");
            assert!(!driver.is_cut_short(&volume, Format::Qcow2).unwrap(), "{case}");
            let whole = fs::metadata(&path).unwrap().len();
            File::options().write(true).open(&path).unwrap().set_len(whole - whole / 4).unwrap();
            assert!(driver.is_cut_short(&volume, Format::Qcow2).unwrap(), "{case}");
        }
    }
    let empty_one = name(Format::Qcow2);
    create(&driver, &empty_one, &empty(Format::Qcow2, 64)).unwrap();
    assert!(!driver.is_cut_short(&empty_one, Format::Qcow2).unwrap());
    let raw = name(Format::Raw);
    create(&driver, &raw, &empty(Format::Raw, 1)).unwrap();
    assert!(!driver.is_cut_short(&raw, Format::Raw).unwrap());
}
