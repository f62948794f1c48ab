//! The bytes of volumes, and the small files beside them.

use std::os::unix::fs::PermissionsExt;

use pengx::model::BackupId;
use pengx::storage::{MAX_LOG, MAX_TEXT};

use super::*;

const BLOCK: usize = pengx::storage::BLOCK as usize;

fn manifest() -> VolumeName {
    VolumeName::manifest(BackupId(RandomIds.uuid()))
}

fn log() -> VolumeName {
    VolumeName::log(DiskId(RandomIds.uuid()))
}

fn quiet(cancel: &AtomicBool) -> Control<'_> {
    Control { cancel, progress: &|_| {} }
}

fn sha256(bytes: &[u8]) -> String {
    let part = tempfile::NamedTempFile::new().unwrap();
    fs::write(part.path(), bytes).unwrap();
    let said = tool("sha256sum", &[part.path().to_str().unwrap()]).stdout;
    String::from_utf8(said).unwrap()[..64].to_owned()
}

#[test]
fn a_digest_has_the_hash_of_each_block_and_of_the_rest() {
    let world = World::new();
    for bytes in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 7] {
        let volume = name(Format::Raw);
        let content: Vec<u8> = (0..bytes).map(|n| (n / 13 % 251) as u8).collect();
        fs::write(world.path(volume.as_str()), &content).unwrap();
        let seen = Mutex::new(Vec::new());
        let progress = |percent: u32| seen.lock().unwrap().push(percent);
        let control = Control { cancel: &AtomicBool::new(false), progress: &progress };
        let digest = world.driver.digest(&volume, &control).unwrap();
        assert_eq!(digest.bytes, bytes as u64);
        assert_eq!(digest.blocks, content.chunks(BLOCK).map(sha256).collect::<Vec<_>>());
        let seen = seen.into_inner().unwrap();
        assert!(seen.is_sorted() && (bytes == 0 || seen.last() == Some(&100)), "{seen:?}");
    }
}

#[test]
fn a_digest_can_be_cancelled_and_is_of_what_was_named() {
    let world = World::new();
    let volume = name(Format::Raw);
    not_found(world.driver.digest(&volume, &quiet(&AtomicBool::new(false))));
    fs::write(world.path(volume.as_str()), vec![1; BLOCK + 1]).unwrap();
    let cancel = AtomicBool::new(false);
    let control = Control { cancel: &cancel, progress: &|_| cancel.store(true, Ordering::Relaxed) };
    let e = world.driver.digest(&volume, &control).unwrap_err();
    assert_eq!(*e.kind(), ErrorKind::Cancelled { what: format!("reading volume {volume}") });
    let (linked, twice) = (name(Format::Raw), name(Format::Raw));
    symlink(world.path(volume.as_str()), world.path(linked.as_str())).unwrap();
    refused(world.driver.digest(&linked, &quiet(&AtomicBool::new(false))), "is a symbolic link");
    fs::hard_link(world.path(volume.as_str()), world.path(twice.as_str())).unwrap();
    refused(world.driver.digest(&twice, &quiet(&AtomicBool::new(false))), "has other names too");
}

#[test]
fn tables_that_agree_are_told_from_those_that_do_not() {
    let world = World::new();
    let (volume, cancel) = (name(Format::Qcow2), AtomicBool::new(false));
    let source = tempfile::tempdir().unwrap();
    let raw = source.path().join("disk");
    disk_with_data(&raw);
    world.create(&volume, &copy(&raw, Format::Raw, Format::Qcow2, 8)).unwrap();
    world.driver.inspect(&volume, Format::Qcow2, &quiet(&cancel)).unwrap();
    let file = File::options().read(true).write(true).open(world.path(volume.as_str())).unwrap();
    let mut first_table = [0; 8];
    file.read_exact_at(&mut first_table, 40).unwrap();
    // Space that nothing uses is no damage; an entry that leads outside is.
    tool("qemu-io", &["-f", "qcow2", "-c", "discard 0 64k", world.path(volume.as_str()).to_str().unwrap()]);
    world.driver.inspect(&volume, Format::Qcow2, &quiet(&cancel)).unwrap();
    file.write_all_at(&[0x80, 0, 0, 0, 0x7f, 0, 0, 0], u64::from_be_bytes(first_table)).unwrap();
    let words = format!("the tables of volume {volume} contradict one another");
    refused(world.driver.inspect(&volume, Format::Qcow2, &quiet(&cancel)), &words);
}

/// What leads elsewhere is refused before any tool is asked.
#[test]
fn only_an_image_that_is_self_contained_is_inspected() {
    let world = World::with(Arc::new(Faulty::before(0)));
    let cancel = AtomicBool::new(false);
    let (volume, base) = (name(Format::Qcow2), world.path("base.raw"));
    disk_with_data(&base);
    let (file, base) = (world.path(volume.as_str()), base);
    let words = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", base.to_str().unwrap(), file.to_str().unwrap()];
    tool("qemu-img", &words);
    refused(world.driver.inspect(&volume, Format::Qcow2, &quiet(&cancel)), "has a backing file");
    not_found(world.driver.inspect(&name(Format::Qcow2), Format::Qcow2, &quiet(&cancel)));
}

#[test]
fn a_text_is_there_whole_for_us_alone_and_once() {
    let world = World::new();
    let (name, driver) = (manifest(), &world.driver);
    not_found(driver.read_text(&name));
    driver.write_text(&name, b"{}\n").unwrap();
    assert_eq!(driver.read_text(&name).unwrap(), b"{}\n");
    assert_eq!(fs::metadata(world.path(name.as_str())).unwrap().permissions().mode() & 0o777, 0o600);
    exists_already(driver.write_text(&name, b"other"));
    assert_eq!(driver.read_text(&name).unwrap(), b"{}\n");
    assert_eq!(driver.list().unwrap(), std::slice::from_ref(&name));
    for _ in 0..2 {
        driver.set_aside(&name).unwrap();
        not_found(driver.read_text(&name));
    }
    driver.restore(&name).unwrap();
    assert_eq!(driver.read_text(&name).unwrap(), b"{}\n");
    driver.set_aside(&name).unwrap();
    driver.purge(&name).unwrap();
    fs::write(world.path(format!("{name}.part")), "unfinished").unwrap();
    driver.remove(&name).unwrap();
    assert_eq!(world.files(), [""; 0]);
}

#[test]
fn a_text_has_bounds_and_is_no_link() {
    let world = World::new();
    let (name, driver) = (manifest(), &world.driver);
    refused(driver.write_text(&name, &vec![b' '; MAX_TEXT + 1]), "at most 67108864 are allowed");
    assert_eq!(world.files(), [""; 0]);
    let file = File::create(world.path(name.as_str())).unwrap();
    file.set_len(MAX_TEXT as u64).unwrap();
    assert_eq!(driver.read_text(&name).unwrap().len(), MAX_TEXT);
    file.set_len(MAX_TEXT as u64 + 1).unwrap();
    refused(driver.read_text(&name), "has more than 67108864 bytes");
    fs::rename(world.path(name.as_str()), world.path("elsewhere")).unwrap();
    symlink(world.path("elsewhere"), world.path(name.as_str())).unwrap();
    refused(driver.read_text(&name), "is a symbolic link");
    refused(driver.write_text(&name, b"x"), "is a symbolic link");
    // What is removed is the link.
    driver.remove(&name).unwrap();
    assert_eq!(world.files(), ["elsewhere"]);
}

#[test]
fn a_log_is_read_while_it_grows_and_goes_with_what_was_set_aside_of_it() {
    let world = World::new();
    let (name, driver) = (log(), &world.driver);
    not_found(driver.read_log(&name));
    driver.create(&name, &empty(Format::Raw, 1), &quiet(&AtomicBool::new(false))).unwrap();
    fs::write(world.path(name.as_str()), "boot\n").unwrap();
    assert_eq!(driver.read_log(&name).unwrap(), b"boot\n");
    File::create(world.path(name.as_str())).unwrap().set_len(MAX_LOG as u64 + 1).unwrap();
    assert_eq!(driver.read_log(&name).unwrap().len(), MAX_LOG);
    let other = log();
    let kept = [format!("{name}.txt"), format!("{name}.1x"), format!("{name}."), format!("{other}.0")];
    for file in kept.iter().cloned().chain(["0", "1", "12"].map(|n| format!("{name}.{n}"))) {
        fs::write(world.path(file), "").unwrap();
    }
    for _ in 0..2 {
        driver.remove(&name).unwrap();
        let mut kept = kept.to_vec();
        kept.sort();
        assert_eq!(world.files(), kept);
    }
}

#[test]
fn their_names_are_told_apart_and_from_those_of_images() {
    let id = "0f6a9c1e-0000-4000-8000-00000000000b";
    for (text, is_log) in [("json", false), ("log", true), ("raw", false), ("qcow2", false)] {
        let name: VolumeName = format!("{id}.{text}").parse().unwrap();
        assert_eq!((name.as_str(), name.is_log()), (format!("{id}.{text}").as_str(), is_log));
    }
    assert_eq!(format!("{id}.json").parse(), Ok(VolumeName::manifest(id.parse().unwrap())));
    for bad in ["JSON", "json.part", "log.0", "txt", ""] {
        assert!(format!("{id}.{bad}").parse::<VolumeName>().is_err(), "{bad}");
    }
}
