//! The laws of `VolumeDriver`, with the real qemu-img on real directories, and what a storlink must survive.

mod bytes;
mod faults;
mod files;
mod isos;
mod overlays;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pengx::error::{Error, ErrorKind};
use pengx::exec::{Command, ExecError, Failure, Output, Runner, SystemRunner, Watch};
use pengx::model::{
    CacheMode, DiskId, Format, Ids, Layer, MiB, PmId, RandomIds, Storlink, StorlinkId, StorlinkLevel, StorlinkType,
    Usage, VolumeName, VolumeSource,
};
use pengx::storage::dir::DirDriver;
use pengx::storage::{Content, Control, NewVolume, VolumeDriver};
use tempfile::TempDir;

use crate::harness::tool::tool;

const MINUTE: Duration = Duration::from_secs(60);

/// A storlink in a directory of its own; every file in it is counted.
struct World {
    dir: TempDir,
    driver: DirDriver,
}

impl World {
    fn new() -> Self {
        Self::with(Arc::new(SystemRunner))
    }

    fn with(runner: Arc<dyn Runner>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let driver = DirDriver::open(dir.path(), runner);
        Self { dir, driver }
    }

    fn path(&self, name: impl AsRef<str>) -> PathBuf {
        self.dir.path().join(name.as_ref())
    }

    fn files(&self) -> Vec<String> {
        files(self.dir.path())
    }

    fn create(&self, volume: &VolumeName, make: &NewVolume) -> Result<(), Error> {
        create(&self.driver, volume, make)
    }
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn create(driver: &dyn VolumeDriver, volume: &VolumeName, make: &NewVolume) -> Result<(), Error> {
    driver.create(volume, make, &Control { cancel: &AtomicBool::new(false), progress: &|_| {} })
}

fn name(format: Format) -> VolumeName {
    VolumeName::new(DiskId(RandomIds.uuid()), format)
}

fn empty(format: Format, size: u64) -> NewVolume {
    NewVolume { format, size: MiB(size), content: Content::Zeros }
}

fn copy(of: &Path, from: Format, format: Format, size: u64) -> NewVolume {
    NewVolume {
        format,
        size: MiB(size),
        content: Content::Copy(vec![Layer { source: VolumeSource::File(of.to_owned()), format: from }]),
    }
}

/// An 8 MiB raw disk with data in the first and the sixth MiB.
fn disk_with_data(path: &Path) -> Vec<u8> {
    let mut noise = vec![0; 1 << 20];
    File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    let file = File::create(path).unwrap();
    file.set_len(8 << 20).unwrap();
    file.write_all_at(&noise, 0).unwrap();
    file.write_all_at(&noise, 5 << 20).unwrap();
    fs::read(path).unwrap()
}

/// Fails the test unless the storage refused with a sentence that holds these words.
fn refused<T: std::fmt::Debug>(result: Result<T, Error>, words: &str) {
    let e = result.unwrap_err();
    assert!(matches!(e.kind(), ErrorKind::Refused { .. }), "{e:?}");
    assert!(e.to_string().contains(words), "{e}");
}

fn exists_already<T: std::fmt::Debug>(result: Result<T, Error>) {
    let e = result.unwrap_err();
    assert!(matches!(e.kind(), ErrorKind::Exists { .. }), "{e:?}");
}

fn not_found<T: std::fmt::Debug>(result: Result<T, Error>) {
    let e = result.unwrap_err();
    assert!(matches!(e.kind(), ErrorKind::NotFound { .. }), "{e:?}");
}

/// Lets so many runs through, and fails the next: before or after it has done its work, or by only saying so.
struct Faulty {
    good: usize,
    runs: AtomicUsize,
    how: Fault,
}

#[derive(Clone, Copy)]
enum Fault {
    Before,
    After,
    Lie,
}

impl Faulty {
    fn before(good: usize) -> Self {
        Self { good, runs: AtomicUsize::new(0), how: Fault::Before }
    }
}

impl Runner for Faulty {
    fn run(&self, command: &Command, watch: &mut Watch<'_>) -> Result<Output, ExecError> {
        if self.runs.fetch_add(1, Ordering::Relaxed) < self.good {
            return SystemRunner.run(command, watch);
        }
        match self.how {
            Fault::Before => {}
            Fault::After => drop(SystemRunner.run(command, watch)?),
            Fault::Lie => return Ok(Output::default()),
        }
        let stderr = "warning: of no use\nqemu-img: the moon is wrong\n".to_owned();
        Err(ExecError { argv: vec!["qemu-img".into()], failure: Failure::Exit(1), stderr })
    }
}

// The laws.

#[test]
fn an_empty_volume_is_there_with_its_size_and_takes_almost_nothing() {
    for format in Format::ALL {
        let world = World::new();
        let volume = name(*format);
        assert!(!world.driver.exists(&volume).unwrap());
        not_found(world.driver.source(&volume));
        not_found(world.driver.probe(&volume, *format));

        world.create(&volume, &empty(*format, 3000)).unwrap();

        assert!(world.driver.exists(&volume).unwrap());
        assert_eq!(world.driver.source(&volume).unwrap(), VolumeSource::File(world.path(volume.as_str())));
        let facts = world.driver.probe(&volume, *format).unwrap();
        assert_eq!((facts.format, facts.virtual_bytes), (*format, 3000 << 20));
        assert!(facts.allocated_bytes < 1 << 20, "{facts:?}");
        assert_eq!(world.driver.list().unwrap(), std::slice::from_ref(&volume));
        assert_eq!(world.files(), [volume.to_string()]);
    }
}

#[test]
fn a_name_that_is_taken_stays_as_it_is() {
    for format in Format::ALL {
        let world = World::new();
        let volume = name(*format);
        world.create(&volume, &empty(*format, 2)).unwrap();
        let before = fs::read(world.path(volume.as_str())).unwrap();
        exists_already(world.create(&volume, &empty(*format, 7)));
        assert_eq!(fs::read(world.path(volume.as_str())).unwrap(), before);
        assert_eq!(world.files(), [volume.to_string()]);
    }
}

#[test]
fn copies_hold_the_same_bytes_and_grow_with_zeros() {
    let world = World::new();
    let source = tempfile::tempdir().unwrap();
    let raw = source.path().join("source, with=\"odd\" name");
    let content = disk_with_data(&raw);
    let (first, second, third) = (name(Format::Qcow2), name(Format::Qcow2), name(Format::Raw));

    let seen = Mutex::new(Vec::new());
    let control = Control { cancel: &AtomicBool::new(false), progress: &|percent| seen.lock().unwrap().push(percent) };
    world.driver.create(&first, &copy(&raw, Format::Raw, Format::Qcow2, 8), &control).unwrap();
    let seen = seen.into_inner().unwrap();
    assert!(seen.is_sorted() && seen.last() == Some(&100), "{seen:?}");

    world.create(&second, &copy(&world.path(first.as_str()), Format::Qcow2, Format::Qcow2, 12)).unwrap();
    world.create(&third, &copy(&world.path(second.as_str()), Format::Qcow2, Format::Raw, 15)).unwrap();

    let copied = fs::read(world.path(third.as_str())).unwrap();
    assert_eq!(copied.len(), 15 << 20);
    assert!(copied[..8 << 20] == content[..], "the content differs");
    assert!(copied[8 << 20..].iter().all(|b| *b == 0), "what was added is not zero");
    for (volume, format, size) in [(&first, Format::Qcow2, 8), (&second, Format::Qcow2, 12), (&third, Format::Raw, 15)]
    {
        let facts = world.driver.probe(volume, format).unwrap();
        assert_eq!(facts.size(), MiB(size));
        assert!(facts.allocated_bytes < 3 << 20, "not sparse: {facts:?}");
        let path = world.path(volume.as_str());
        let (path, raw) = (path.to_str().unwrap(), raw.to_str().unwrap());
        tool("qemu-img", &["compare", "-f", "raw", "-F", format.word(), raw, path]);
    }
    assert_eq!(fs::read(&raw).unwrap(), content, "the source was touched");
    let mut names = [first, second, third].map(String::from);
    names.sort();
    assert_eq!(world.files(), names);
}

#[test]
fn a_raw_disk_is_content_even_if_it_looks_like_an_image() {
    let world = World::new();
    let (inner, outer) = (name(Format::Qcow2), name(Format::Raw));
    world.create(&inner, &empty(Format::Qcow2, 100)).unwrap();
    let bytes = fs::read(world.path(inner.as_str())).unwrap();
    // A guest wrote a whole qcow2 image onto its raw disk: the copy holds the image, not what is in it.
    world.create(&outer, &copy(&world.path(inner.as_str()), Format::Raw, Format::Raw, 1)).unwrap();
    let copied = fs::read(world.path(outer.as_str())).unwrap();
    assert!(copied.starts_with(&bytes) && copied.len() == 1 << 20);
    // Brought from outside, the same file is refused.
    refused(world.driver.probe(&outer, Format::Raw), "is declared raw, but it is a qcow2 image");
}

#[test]
fn a_size_that_cannot_be_is_refused_before_anything_is_made() {
    let world = World::with(Arc::new(Faulty::before(0)));
    let source = tempfile::tempdir().unwrap();
    let raw = source.path().join("disk");
    disk_with_data(&raw);
    for make in [
        empty(Format::Raw, 0),
        empty(Format::Qcow2, (64 << 20) + 1),
        empty(Format::Raw, u64::MAX),
        copy(&raw, Format::Raw, Format::Qcow2, 7),
    ] {
        let e = world.create(&name(make.format), &make).unwrap_err();
        assert!(matches!(e.kind(), ErrorKind::Invalid { .. }), "{e:?}");
    }
    assert!(world.files().is_empty());
}

#[test]
fn what_was_set_aside_comes_back_and_every_verb_may_be_repeated() {
    for format in Format::ALL {
        let World { dir: _dir, driver } = &World::new();
        let volume = name(*format);
        create(driver, &volume, &empty(*format, 2)).unwrap();
        let there = || (driver.exists(&volume).unwrap(), driver.list().unwrap().len());

        driver.restore(&volume).unwrap();
        assert_eq!(there(), (true, 1), "nothing to bring back");
        for _ in 0..2 {
            driver.set_aside(&volume).unwrap();
            assert_eq!(there(), (false, 0));
        }
        for _ in 0..2 {
            driver.restore(&volume).unwrap();
            assert_eq!(there(), (true, 1));
        }
        driver.purge(&volume).unwrap();
        assert_eq!(there(), (true, 1), "purge is for what was set aside");
        driver.set_aside(&volume).unwrap();
        for _ in 0..2 {
            driver.purge(&volume).unwrap();
        }
        driver.restore(&volume).unwrap();
        assert_eq!(there(), (false, 0));
    }
}

#[test]
fn remove_clears_whatever_there_is_of_a_volume_and_only_that() {
    let world = World::new();
    let (volume, other) = (name(Format::Qcow2), name(Format::Qcow2));
    world.create(&other, &empty(Format::Qcow2, 2)).unwrap();
    for leftover in ["", ".part", ".deleted"] {
        fs::write(world.path(format!("{volume}{leftover}")), "x").unwrap();
    }
    for _ in 0..2 {
        world.driver.remove(&volume).unwrap();
        assert_eq!(world.files(), [other.to_string()]);
    }
}

#[test]
fn an_unfinished_volume_is_not_there_and_not_overwritten() {
    let world = World::new();
    let volume = name(Format::Raw);
    fs::write(world.path(format!("{volume}.part")), "of another run").unwrap();
    assert!(!world.driver.exists(&volume).unwrap());
    assert!(world.driver.list().unwrap().is_empty());
    exists_already(world.create(&volume, &empty(Format::Raw, 2)));
    assert_eq!(fs::read(world.path(format!("{volume}.part"))).unwrap(), b"of another run");
    world.driver.remove(&volume).unwrap();
    world.create(&volume, &empty(Format::Raw, 2)).unwrap();
}

#[test]
fn restoring_never_replaces_a_volume() {
    let world = World::new();
    let volume = name(Format::Raw);
    fs::write(world.path(volume.as_str()), "new").unwrap();
    fs::write(world.path(format!("{volume}.deleted")), "old").unwrap();
    exists_already(world.driver.restore(&volume));
    exists_already(world.driver.set_aside(&volume));
    assert_eq!(fs::read(world.path(volume.as_str())).unwrap(), b"new");
    assert_eq!(fs::read(world.path(format!("{volume}.deleted"))).unwrap(), b"old");
}

#[test]
fn only_volumes_are_listed() {
    let world = World::new();
    let bare = VolumeName::bare(DiskId(RandomIds.uuid()));
    let made = name(Format::Qcow2);
    for file in [bare.as_str(), made.as_str(), "notes.txt", "a.iso", &format!("{made}.deleted"), &format!("{made}.bak")]
    {
        fs::write(world.path(file), "x").unwrap();
    }
    symlink("/etc/passwd", world.path(name(Format::Raw).as_str())).unwrap();
    fs::create_dir(world.path(name(Format::Raw).as_str())).unwrap();
    let mut listed = world.driver.list().unwrap();
    listed.sort();
    let mut want = [bare, made];
    want.sort();
    assert_eq!(listed, want);
}

#[test]
fn drivers_are_chosen_by_type_and_level() {
    let world = World::new();
    let storlink = |kind, level| Storlink {
        id: StorlinkId(1),
        uuid: RandomIds.uuid(),
        pm: PmId(RandomIds.uuid()),
        name: "s".into(),
        link: world.dir.path().to_str().unwrap().into(),
        kind,
        level,
        usage: Usage::default(),
        desc: String::new(),
        shared: false,
        marked: false,
    };
    for kind in StorlinkType::ALL {
        for level in StorlinkLevel::ALL {
            let opened = pengx::storage::open(&storlink(*kind, *level), Arc::new(SystemRunner));
            if *level == StorlinkLevel::File && *kind != StorlinkType::Ceph {
                let driver = opened.unwrap();
                driver.check().unwrap();
                assert_eq!(driver.info().default_format, Format::Qcow2);
            } else {
                let e = opened.err().unwrap();
                assert!(matches!(e.kind(), ErrorKind::Unsupported { .. }), "{e:?}");
                assert!(
                    e.to_string().starts_with(&format!("a storlink of type {kind} and level {level} cannot")),
                    "{e}"
                );
            }
        }
    }
}
