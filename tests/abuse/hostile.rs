//! Images that lie, lead elsewhere or are broken, for whatever reads an image.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::symlink;
use std::path::Path;

use pengx::model::*;
use rustix::fs::inotify;

use crate::harness::app::make_image;
use crate::harness::tool::qemu_img;

/// A file that nothing may open, and the watch that sees it.
pub(super) struct Secret {
    dir: tempfile::TempDir,
    watch: rustix::fd::OwnedFd,
}

impl Secret {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
        let secret = Self { dir, watch };
        fs::write(secret.path(), "secret".repeat(200_000)).unwrap();
        secret
    }

    pub(super) fn path(&self) -> String {
        self.dir.path().join("secret.img").to_str().unwrap().to_owned()
    }

    /// Sees that nothing opens the file while `call` runs.
    pub(super) fn guarded<T>(&self, case: &str, call: impl FnOnce() -> T) -> T {
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

pub(super) type Make = Box<dyn Fn(&Path, &Secret)>;

pub(super) struct Case {
    pub(super) name: &'static str,
    /// What it is declared to be.
    pub(super) format: &'static str,
    /// Where there is nothing yet.
    pub(super) make: Make,
    /// What is said of it when it comes from outside.
    pub(super) says: &'static str,
}

impl Case {
    /// What is said of it in the place of a volume of our own: there a backing file may be, if it is the right one, and
    /// whatever is in a raw one is a guest's own business. `None`: it is taken, as the bytes that it is.
    pub(super) fn says_of_volume(&self) -> Option<&'static str> {
        match (self.format, self.says) {
            (_, "has no image") => Some("is not on storlink"),
            ("raw", "is empty") => Some("shows 0 bytes"),
            ("raw", says) if says.starts_with("it is a ") => None,
            (_, "backing file") => Some("is on "),
            (_, "is empty" | "perhaps it is raw") => Some("is not a qcow2 image"),
            (_, says) if says.starts_with("it is a ") => Some("is not a qcow2 image"),
            (_, says) => Some(says),
        }
    }

    /// Takes it away again, whatever it is.
    pub(super) fn clear(path: &Path) {
        match fs::symlink_metadata(path) {
            Ok(is) if is.is_dir() => fs::remove_dir(path).unwrap(),
            Ok(_) => fs::remove_file(path).unwrap(),
            Err(_) => {}
        }
        fs::remove_file(path.with_extension("other")).ok();
    }
}

fn case(name: &'static str, format: &'static str, says: &'static str, make: impl Fn(&Path, &Secret) + 'static) -> Case {
    Case { name, format, make: Box::new(make), says }
}

pub(super) fn text(path: &Path) -> &str {
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

pub(super) fn cases() -> Vec<Case> {
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
        case("a backing web page", "qcow2", "backing file", |path, _| overlay(path, "http://127.0.0.1:1/x")),
        case("a circle", "qcow2", "backing file", |path, _| {
            let another = format!("/{}", "x".repeat(text(path).len() - 1));
            overlay(path, &another);
            let bytes = fs::read(path).unwrap();
            let at = bytes.windows(another.len()).position(|window| window == another.as_bytes()).unwrap();
            patch(path, at as u64, text(path).as_bytes());
        }),
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
    for format in ["raw", "qcow2"] {
        all.push(case("a vmdk of a foreign file", format, "it is a vmdk image", |path, secret| {
            let extent = format!("RW 2048 FLAT \"{}\" 0\n", secret.path());
            let head =
                "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n";
            fs::write(path, format!("{head}{extent}")).unwrap();
        }));
        all.push(case("a vhd with a foreign parent", format, "it is a vhd image", |path, secret| {
            qemu_img(&["create", "-q", "-f", "vpc", text(path), "1M"]);
            // Differencing, and its parent by name.
            patch(path, 60, &[0, 0, 0, 4]);
            let name: Vec<u8> = secret.path().encode_utf16().flat_map(u16::to_be_bytes).collect();
            patch(path, 512 + 64, &name);
        }));
    }
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
