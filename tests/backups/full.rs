//! A storlink that fills up at any moment: nothing is lost, and when there is room again nothing is left.

use std::fs;
use std::path::Path;

use pengx::error::ErrorKind;

use super::*;

/// A file system of 96 MiB, for as long as this lives.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap();
        tool("mount", &["-t", "tmpfs", "-o", "size=96m", "none", text(dir.path())]);
        Self(dir)
    }

    fn ballast(&self) -> PathBuf {
        self.0.path().join("ballast")
    }

    fn names(&self) -> usize {
        fs::read_dir(self.0.path()).unwrap().count()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        tool("umount", &["-l", text(self.0.path())]);
    }
}

fn tool(program: &str, args: &[&str]) {
    let done = std::process::Command::new(program).args(args).output().unwrap();
    assert!(done.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Until not a byte fits.
fn fill_up(ballast: &Path) {
    use std::io::Write;
    let mut file = fs::File::create(ballast).unwrap();
    let page = [1; 4096];
    while file.write_all(&page).is_ok() {}
}

#[test]
fn a_storlink_that_is_full_at_any_step_costs_the_backup_and_nothing_else() {
    let disk = SmallDisk::mount();
    let shelf = Shelf::new();
    let link = text(disk.0.path()).to_owned();
    let small = shelf
        .app
        .run(CreateStorlink {
            name: "small".parse().unwrap(),
            link,
            kind: StorlinkType::Local,
            level: StorlinkLevel::File,
            desc: String::new(),
            shared: false,
        })
        .unwrap();
    shelf.start();
    let shown = shelf.shown("before");
    let create = || {
        let (name, desc) = ("nightly".parse().unwrap(), String::new());
        shelf.app.run(CreateBackup { vm: shelf.vm, name, storlink: small, desc })
    };
    let (mut refused, mut n) = (0, 0);
    loop {
        n += 1;
        let before = World::of(&shelf.app);
        shelf.app.fuse.arm(&[]);
        let ballast = disk.ballast();
        shelf.app.fuse.also_at(n, move || fill_up(&ballast));
        let outcome = create();
        let reached = shelf.app.fuse.passed() >= n;
        shelf.app.fuse.arm(&[]);
        fs::remove_file(disk.ballast()).ok();
        shelf.app.assert_at_rest();
        match outcome {
            Ok(backup) => {
                shelf.app.run(VerifyBackup { vm: shelf.vm, backup }).unwrap();
                shelf.delete(backup).unwrap();
                shelf.app.assert_at_rest();
            }
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::NoSpace { .. }), "point {n}: {error:?}");
                let told = error.to_string();
                assert!(told.contains("MiB needed, ") && told.ends_with("MiB free"), "{told}");
                refused += 1;
            }
        }
        assert_eq!(World::of(&shelf.app), before, "point {n}");
        assert_eq!(disk.names(), 0, "point {n}");
        shelf.assert_shows(&shown);
        if !reached {
            break;
        }
    }
    println!("backups: the storlink was full at {} points, {refused} of them mattered", n - 1);
    assert!(refused >= 4 && n > 15);
}

#[test]
fn a_restore_to_a_full_storlink_leaves_the_vm_as_it_was() {
    let disk = SmallDisk::mount();
    let shelf = Shelf::new();
    let link = text(disk.0.path()).to_owned();
    let small = shelf
        .app
        .run(CreateStorlink {
            name: "small".parse().unwrap(),
            link,
            kind: StorlinkType::Local,
            level: StorlinkLevel::File,
            desc: String::new(),
            shared: false,
        })
        .unwrap();
    let wish = CreateVm { os_disk_size: Some(MiB(8)), ..shelf.app.vm_of(small, None, "web2") };
    let vm = shelf.app.run(wish).unwrap();
    let image = disk.0.path().join(shelf.app.disks(vm)[0].volume.as_str());
    fill(&image, Format::Qcow2, 0x42, 0, 6 << 10);
    let (name, desc) = ("b".parse().unwrap(), String::new());
    let backup = shelf.app.run(CreateBackup { vm, name, storlink: StorlinkId(1), desc }).unwrap();
    let restore = || shelf.app.run(RestoreBackup { vm, backup });
    let mut refused = 0;
    for n in 1.. {
        let before = World::of(&shelf.app);
        shelf.app.fuse.arm(&[]);
        let ballast = disk.ballast();
        shelf.app.fuse.also_at(n, move || fill_up(&ballast));
        let outcome = restore();
        let reached = shelf.app.fuse.passed() >= n;
        shelf.app.fuse.arm(&[]);
        fs::remove_file(disk.ballast()).ok();
        shelf.app.assert_at_rest();
        let Err(error) = outcome else {
            // From here on the room had been used already.
            assert!(refused >= 2, "{refused}");
            break;
        };
        assert!(matches!(error.kind(), ErrorKind::NoSpace { .. }), "point {n}: {error:?}");
        assert_eq!((World::of(&shelf.app), disk.names()), (before, 2), "point {n}");
        refused += 1;
        assert!(reached);
    }
}
