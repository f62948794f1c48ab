//! Images from outside that lie, lead elsewhere or are broken.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::symlink;
use std::path::Path;

use pengx::model::*;
use rustix::fs::inotify;

use super::Scene;
use crate::harness::app::{make_image, qemu_img};

/// A file that nothing may open, and the watch that sees it.
struct Secret {
    dir: tempfile::TempDir,
    watch: rustix::fd::OwnedFd,
}

impl Secret {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
        let secret = Self { dir, watch };
        fs::write(secret.path(), "secret".repeat(200_000)).unwrap();
        secret
    }

    fn path(&self) -> String {
        self.dir.path().join("secret.img").to_str().unwrap().to_owned()
    }

    /// Sees that nothing opens the file while `call` runs.
    fn guarded<T>(&self, case: &str, call: impl FnOnce() -> T) -> T {
        let opened = inotify::WatchFlags::OPEN | inotify::WatchFlags::ACCESS;
        let guard = inotify::add_watch(&self.watch, self.path(), opened).unwrap();
        let value = call();
        let seen = rustix::io::read(&self.watch, &mut [0; 4096]);
        assert_eq!(seen, Err(rustix::io::Errno::AGAIN), "{case}: the file was opened");
        inotify::remove_watch(&self.watch, guard).unwrap();
        // The kernel says that it is removed.
        rustix::io::read(&self.watch, &mut [0; 4096]).unwrap();
        value
    }
}

type Make = Box<dyn Fn(&Path, &Secret)>;

struct Case {
    name: &'static str,
    format: &'static str,
    make: Make,
    says: &'static str,
}

fn case(name: &'static str, format: &'static str, says: &'static str, make: impl Fn(&Path, &Secret) + 'static) -> Case {
    Case { name, format, make: Box::new(make), says }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn qcow2(path: &Path) {
    make_image(path, Format::Qcow2, 1);
}

/// A good image with some bytes of it changed.
fn patched(name: &'static str, says: &'static str, at: u64, bytes: &'static [u8]) -> Case {
    case(name, "qcow2", says, move |path, _| {
        qcow2(path);
        patch(path, at, bytes);
    })
}

fn patch(path: &Path, at: u64, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

/// An overlay whose backing file is only text: qemu-img does not look at it.
fn overlay(path: &Path, backing: &str) {
    qemu_img(&["create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", "raw", text(path), "1M"]);
}

fn foreign(tool: &'static str, says: &'static str) -> [Case; 2] {
    let make = move |path: &Path, _: &Secret| drop(qemu_img(&["create", "-q", "-f", tool, text(path), "1M"]));
    [case(tool, "raw", says, make), case(tool, "qcow2", says, make)]
}

fn cases() -> Vec<Case> {
    let mut all = vec![
        case("no file", "qcow2", "has no image", |_, _| {}),
        case("no bytes", "qcow2", "is empty", |path, _| drop(File::create(path).unwrap())),
        case("no bytes", "raw", "is empty", |path, _| drop(File::create(path).unwrap())),
        case("a header cut short", "qcow2", "ends inside its own header", |path, _| {
            qcow2(path);
            OpenOptions::new().write(true).open(path).unwrap().set_len(50).unwrap();
        }),
        case("tables cut off", "qcow2", "is it cut short?", |path, _| {
            qcow2(path);
            OpenOptions::new().write(true).open(path).unwrap().set_len(65_536).unwrap();
        }),
        case("raw as qcow2", "qcow2", "perhaps it is raw", |path, _| make_image(path, Format::Raw, 1)),
        case("qcow2 as raw", "raw", "it is a qcow2 image", |path, _| qcow2(path)),
        case("an absolute backing file", "qcow2", "backing file", |path, secret| overlay(path, &secret.path())),
        case("a relative backing file", "qcow2", "backing file", |path, _| overlay(path, "../pengx.db")),
        case("a backing file in JSON", "qcow2", "backing file", |path, secret| {
            let file = secret.path();
            overlay(path, &format!(r#"json:{{"driver":"raw","file":{{"driver":"file","filename":"{file}"}}}}"#));
        }),
        case("a backing server", "qcow2", "backing file", |path, _| overlay(path, "nbd://127.0.0.1:1/x")),
        case("a backing file as raw", "raw", "it is a qcow2 image", |path, secret| overlay(path, &secret.path())),
        case("a data file", "qcow2", "data in another file", |path, secret| {
            let data = format!("{}.data", secret.path());
            let options = format!("data_file={data},data_file_raw=on");
            qemu_img(&["create", "-q", "-f", "qcow2", "-o", &options, text(path), "1M"]);
            fs::remove_file(data).unwrap();
        }),
        case("an internal snapshot", "qcow2", "internal snapshots", |path, _| {
            qcow2(path);
            qemu_img(&["snapshot", "-c", "s1", text(path)]);
        }),
        case("LUKS inside", "qcow2", "is encrypted", |path, _| {
            let options = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
            let secret = "secret,id=s,data=x";
            qemu_img(&["create", "-q", "--object", secret, "-f", "qcow2", "-o", options, text(path), "1M"]);
        }),
        case("a petabyte", "qcow2", "at most", |path, _| {
            qemu_img(&["create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", text(path), "1P"]);
        }),
        patched("marked corrupt", "is marked corrupt", 72, &[0, 0, 0, 0, 0, 0, 0, 2]),
        patched("unknown features", "features that are not known", 72, &[0x80, 0, 0, 0, 0, 0, 0, 0]),
        patched("a size beyond its tables", "first table", 24, &[0x7f; 8]),
        patched("no size", "size of 0", 24, &[0; 8]),
        patched("a first table of 16 GiB", "first table", 36, &[0x7f, 0xff, 0xff, 0xff]),
        patched("a first table far away", "outside the file", 40, &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]),
        patched("a huge reference count table", "reference count table", 56, &[0xff; 4]),
        patched("clusters of 2^40 bytes", "clusters of 2^40", 20, &[0, 0, 0, 40]),
        patched("version 9", "version 9", 4, &[0, 0, 0, 9]),
        patched("a header of 4 GiB", "a header of", 100, &[0xff, 0xff, 0xff, 0xf8]),
        case("a link", "qcow2", "is a symbolic link", |path, secret| symlink(secret.path(), path).unwrap()),
        case("a link to nothing", "raw", "is a symbolic link", |path, _| symlink("/nonexistent/x", path).unwrap()),
        case("a second name", "raw", "hard links", |path, _| {
            let other = path.with_extension("other");
            make_image(&other, Format::Raw, 1);
            fs::hard_link(other, path).unwrap();
        }),
        case("a pipe", "raw", "is not a regular file", |path, _| {
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        }),
        case("a directory", "qcow2", "is not a regular file", |path, _| fs::create_dir(path).unwrap()),
        case("a socket", "qcow2", "is not a regular file", |path, _| {
            drop(std::os::unix::net::UnixListener::bind(path).unwrap());
        }),
    ];
    for (tool, says) in [
        ("vmdk", "it is a vmdk image"),
        ("vpc", "it is a vhd image"),
        ("vhdx", "it is a vhdx image"),
        ("vdi", "it is a vdi image"),
        ("qed", "it is a qed image"),
        ("parallels", "it is a parallels image"),
    ] {
        all.extend(foreign(tool, says));
    }
    all
}

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
            if image.is_dir() {
                fs::remove_dir(&image).unwrap()
            } else {
                drop(fs::remove_file(&image))
            }
            fs::remove_file(image.with_extension("other")).ok();
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
