//! What a storlink must survive: failing tools, full and vanished disks, hostile entries, a killed server.

use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::process::Stdio;
use std::time::Instant;

use super::*;
use crate::harness::small::SmallDisk;
use crate::harness::wait::wait_until;

#[test]
fn a_tool_that_fails_or_lies_leaves_nothing() {
    let source = tempfile::tempdir().unwrap();
    let raw = source.path().join("disk");
    disk_with_data(&raw);
    for format in Format::ALL {
        for (make, good) in [
            (empty(*format, 9), 0),
            (copy(&raw, Format::Raw, *format, 9), 0),
            // The copy succeeds, growing it does not.
            (copy(&raw, Format::Raw, *format, 9), 1),
        ] {
            for (how, why) in [
                (Fault::Before, "qemu-img refused: the moon is wrong"),
                (Fault::After, "qemu-img refused: the moon is wrong"),
                (Fault::Lie, "refused: volume"),
            ] {
                let world = World::with(Arc::new(Faulty { good, runs: AtomicUsize::new(0), how }));
                let volume = name(*format);
                refused(world.create(&volume, &make), why);
                assert_eq!(world.files(), [""; 0], "{make:?}");
                assert!(!world.driver.exists(&volume).unwrap());
            }
        }
    }
}

#[test]
fn a_copy_that_is_cancelled_ends_and_leaves_nothing() {
    let world = World::new();
    let source = tempfile::tempdir().unwrap();
    let raw = source.path().join("disk");
    let mut file = File::create(&raw).unwrap();
    for _ in 0..64 {
        file.write_all(&[7; 1 << 20]).unwrap();
    }
    let cancel = AtomicBool::new(false);
    let control = Control { cancel: &cancel, progress: &|_| cancel.store(true, Ordering::Relaxed) };
    let volume = name(Format::Qcow2);
    let make = copy(&raw, Format::Raw, Format::Qcow2, 64);
    // In the middle, and before it began.
    for _ in 0..2 {
        let e = world.driver.create(&volume, &make, &control).unwrap_err();
        assert_eq!(*e.kind(), ErrorKind::Cancelled { what: format!("making volume {volume}") });
        assert_eq!(world.files(), [""; 0]);
    }
}

#[test]
fn a_disk_that_is_too_small_is_told_before_copying() {
    let disk = SmallDisk::mount("8m");
    // No tool may run.
    let driver = DirDriver::open(disk.path(), Arc::new(Faulty::before(0)));
    let source = tempfile::tempdir().unwrap();
    let raw = source.path().join("disk");
    fs::write(&raw, vec![7; 20 << 20]).unwrap();
    let make = copy(&raw, Format::Raw, Format::Qcow2, 20);
    let e = create(&driver, &name(Format::Qcow2), &make).unwrap_err();
    let ErrorKind::NoSpace { need, free, .. } = *e.kind() else { panic!("{e:?}") };
    assert_eq!((need, free), (MiB(20), MiB(8)));
    assert!(files(disk.path()).is_empty());
}

#[test]
fn a_disk_that_fills_up_is_told_and_left_as_it_was() {
    let disk = SmallDisk::mount("8m");
    let driver = DirDriver::open(disk.path(), Arc::new(SystemRunner));
    assert_eq!(driver.usage().unwrap(), Usage { size: MiB(8), free: MiB(8) });
    let source = tempfile::tempdir().unwrap();
    let (raw, small) = (source.path().join("disk"), source.path().join("small"));
    fs::write(&raw, vec![7; 32 << 20]).unwrap();
    // Compressed, it looks as if it would fit.
    let (raw, small_name) = (raw.to_str().unwrap(), small.to_str().unwrap());
    tool("qemu-img", &["convert", "-c", "-f", "raw", "-O", "qcow2", raw, small_name]);
    for format in Format::ALL {
        let e = create(&driver, &name(*format), &copy(&small, Format::Qcow2, *format, 32)).unwrap_err();
        let ErrorKind::NoSpace { need, free, .. } = *e.kind() else { panic!("{e:?}") };
        assert!(need > free, "{e}");
        assert!(files(disk.path()).is_empty());
        // A child of another test, between its fork and its exec, may hold the removed file open for a moment.
        wait_until("the space is free again", || Ok(driver.usage()?.free == MiB(8)));
    }
}

#[test]
fn a_directory_that_is_gone_is_said_to_be_gone_and_never_made() {
    let world = World::new();
    let (volume, link) = (name(Format::Raw), world.dir.path().to_owned());
    fs::remove_dir(&link).unwrap();
    let driver = &world.driver;
    let why = format!("storlink directory {} is gone", link.display());
    refused(driver.check(), &why);
    refused(driver.usage(), &why);
    refused(driver.list(), &why);
    refused(driver.exists(&volume), &why);
    refused(driver.source(&volume), &why);
    refused(driver.probe(&volume, Format::Raw), &why);
    refused(driver.cache_mode(), &why);
    refused(driver.set_aside(&volume), &why);
    refused(driver.restore(&volume), &why);
    refused(driver.purge(&volume), &why);
    refused(driver.remove(&volume), &why);
    refused(world.create(&volume, &empty(Format::Raw, 1)), &why);
    assert!(!link.exists());
}

#[test]
fn check_says_what_is_wrong_with_a_link() {
    let world = World::new();
    world.driver.check().unwrap();
    assert_eq!(world.files(), [""; 0], "the check leaves nothing");
    fs::write(world.path("file"), "").unwrap();
    fs::create_dir(world.path("real")).unwrap();
    symlink(world.path("real"), world.path("alias")).unwrap();
    let driver = |path: &Path| DirDriver::open(path, Arc::new(SystemRunner));
    refused(driver(&world.path("file")).check(), "is not a directory");
    refused(driver(&world.path("absent")).check(), "is gone");
    driver(&world.path("alias")).check().unwrap();
    let e = driver(Path::new("relative")).check().unwrap_err();
    assert_eq!(e.to_string(), "link: relative must be an absolute path");

    let disk = SmallDisk::mount("8m");
    tool("mount", &["-o", "remount,ro", disk.path().to_str().unwrap()]);
    refused(driver(disk.path()).check(), "cannot be written: Read-only file system");
}

#[test]
fn the_cache_mode_is_what_the_file_system_can_do() {
    let world = World::new();
    let path = world.path("direct");
    let direct = Command::new("dd", MINUTE).arg("if=/dev/zero").arg(format!("of={}", path.display())).args([
        "bs=4096",
        "count=1",
        "oflag=direct",
    ]);
    let want = if SystemRunner.run_quietly(&direct).is_ok() { CacheMode::None } else { CacheMode::Writeback };
    fs::remove_file(&path).unwrap();
    assert_eq!(world.driver.cache_mode().unwrap(), want);
    assert_eq!(world.files(), [""; 0]);
}

// What others put into a storlink.

type Plant<'a> = &'a dyn Fn(&Path);

#[test]
fn entries_that_lead_elsewhere_are_refused_and_what_they_name_is_never_touched() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("precious");
    let content = disk_with_data(&target);
    let plant: [(&str, Plant<'_>); 6] = [
        ("is a symbolic link", &|at| symlink(&target, at).unwrap()),
        ("is a symbolic link", &|at| symlink("/nowhere/at/all", at).unwrap()),
        ("has other names too (hard links)", &|at| fs::hard_link(&target, at).unwrap()),
        ("is not a regular file", &|at| drop(tool("mkfifo", &[at.to_str().unwrap()]))),
        ("is not a regular file", &|at| drop(tool("mknod", &[at.to_str().unwrap(), "c", "1", "5"]))),
        ("is not a regular file", &|at| fs::create_dir(at).unwrap()),
    ];
    for (why, plant) in plant {
        let world = World::new();
        let volume = name(Format::Raw);
        let at = world.path(volume.as_str());
        plant(&at);
        refused(world.driver.exists(&volume), why);
        refused(world.driver.source(&volume), why);
        refused(world.driver.probe(&volume, Format::Raw), why);
        refused(world.create(&volume, &empty(Format::Raw, 1)), why);
        refused(world.create(&name(Format::Raw), &copy(&at, Format::Raw, Format::Raw, 8)), why);
        assert_eq!(world.files(), [volume.to_string()]);
        // Under the name of the unfinished volume it is not written through either.
        fs::rename(&at, world.path(format!("{volume}.part"))).unwrap();
        exists_already(world.create(&volume, &empty(Format::Raw, 1)));
        if world.path(format!("{volume}.part")).is_dir() && !world.path(format!("{volume}.part")).is_symlink() {
            refused(world.driver.remove(&volume), "cannot be removed");
        } else {
            world.driver.remove(&volume).unwrap();
            assert_eq!(world.files(), [""; 0]);
        }
        assert!(fs::read(&target).unwrap() == content, "{why}: what was named was touched");
    }
    assert!(fs::metadata("/dev/zero").unwrap().file_type().is_char_device());
}

#[test]
fn an_image_from_outside_that_names_another_file_is_refused_and_never_copied() {
    let world = World::with(Arc::new(Faulty::before(0)));
    let outside = tempfile::tempdir().unwrap();
    let base = outside.path().join("base");
    fs::write(&base, [1; 1 << 20]).unwrap();
    let volume = name(Format::Qcow2);
    let path = world.path(volume.as_str());
    let (base, at) = (base.to_str().unwrap(), path.to_str().unwrap());
    tool("qemu-img", &["create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", at]);
    refused(world.driver.probe(&volume, Format::Qcow2), "has a backing file");
    refused(world.create(&name(Format::Raw), &copy(&path, Format::Qcow2, Format::Raw, 1)), "has a backing file");
    assert_eq!(world.files(), [volume.to_string()]);
}

#[test]
fn a_server_that_is_killed_takes_its_tools_along() {
    // In a process of its own this very test is the server.
    const PID_FILE: &str = "PENGX_TEST_PID_FILE";
    if let Ok(file) = std::env::var(PID_FILE) {
        let script = format!("echo $$ > {file}; exec sleep 1000");
        SystemRunner.run_quietly(&Command::new("sh", 20 * MINUTE).args(["-c", &script])).unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let pid_file = dir.path().join("pid");
    let mut server = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["backends::volumes::faults::a_server_that_is_killed_takes_its_tools_along", "--exact"])
        .env(PID_FILE, &pid_file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut pid = String::new();
    until("the tool runs", || {
        pid = fs::read_to_string(&pid_file).unwrap_or_default();
        pid.ends_with('\n')
    });
    // Its shell has become `sleep`, and its signal has outlived that.
    until("the tool is sleeping", || running(pid.trim()).as_deref() == Some("sleep"));
    server.kill().unwrap();
    server.wait().unwrap();
    until("the tool is gone", || running(pid.trim()).is_none());
}

/// The program that a process runs, if it runs.
fn running(pid: &str) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.split_once('(')?;
    let (program, rest) = rest.rsplit_once(") ")?;
    (!rest.starts_with(['Z', 'X'])).then(|| program.to_owned())
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + MINUTE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}
