//! qemu-img, as a few verbs on files.
//!
//! Law: every image is opened in the format that was declared and as exactly the file that was named: nothing is probed,
//! no backing file is followed but the one that the caller names, and no name can be read as a protocol.

use std::ffi::OsString;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde_json::{Value, json};

use super::Control;
use crate::exec::{Command, ExecError, Limits, Runner, Watch};
use crate::model::{CacheMode, Format, Layer, MiB, VolumeSource};
use crate::patience;

/// For what only touches metadata.
const QUICK: Duration = Duration::from_secs(60);
/// How long tool and storage must both have been silent for the storage to be dead and not only slow.
const SILENCE: Duration = Duration::from_secs(30);
/// The slowest storage on which a copy is still worth waiting for, in bytes a second.
const SLOWEST: u64 = 4 << 20;
/// Enough for the largest tables that a header may announce, and for the copying threads.
const ADDRESS_SPACE: u64 = 8 << 30;

/// An image file; the path is absolute.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    pub path: &'a Path,
    pub format: Format,
}

/// What is copied.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub chain: &'a [Layer],
    pub virtual_bytes: u64,
    /// How all of the chain is read.
    pub cache: CacheMode,
}

/// Makes an empty image in the file, which may exist; at most a minute.
pub fn create(runner: &dyn Runner, image: Image<'_>, size: MiB, control: &Control<'_>) -> Result<(), ExecError> {
    let mut command = Command::new("qemu-img", QUICK).args(["create", "-q", "-f", image.format.word()]);
    command = command.args(options(image.format));
    command = command.arg("--").arg(filename(image.path)).arg(size.bytes().to_string());
    run(runner, &command.limits(limits(size.bytes())), &[image.path], control)
}

/// Makes an overlay in the file, which may exist, and does not look at what is below; at most a minute.
pub fn create_overlay(
    runner: &dyn Runner,
    path: &Path,
    size: MiB,
    below: &Layer,
    control: &Control<'_>,
) -> Result<(), ExecError> {
    let command = Command::new("qemu-img", QUICK)
        .args(["create", "-q", "-u", "-f", Format::Qcow2.word()])
        .args(options(Format::Qcow2))
        .args(["-F", below.format.word(), "-b"])
        .arg(path_of(below))
        .arg("--")
        .arg(filename(path))
        .arg(size.bytes().to_string());
    run(runner, &command.limits(limits(size.bytes())), &[path], control)
}

/// Writes what the first image of the chain holds into the second one, and leaves it as it is. Time as in [`convert`].
pub fn commit(
    runner: &dyn Runner,
    chain: &[Layer],
    virtual_bytes: u64,
    cache: CacheMode,
    control: &Control<'_>,
) -> Result<(), ExecError> {
    let command = long(virtual_bytes).args(["commit", "-p", "-d", "-t", word(cache), "--"]).arg(explicit(chain));
    run(runner, &command.limits(limits(virtual_bytes)), &paths(chain), control)
}

/// Copies into the first image of the chain what it reads from the second one, and puts it on the third, if there is one.
/// Time as in [`convert`].
pub fn rebase(
    runner: &dyn Runner,
    chain: &[Layer],
    virtual_bytes: u64,
    cache: CacheMode,
    control: &Control<'_>,
) -> Result<(), ExecError> {
    let command = long(virtual_bytes).args(["rebase", "-p", "-t", word(cache)]);
    let command = match chain.get(2) {
        Some(onto) => command.args(["-F", onto.format.word(), "-b"]).arg(path_of(onto)),
        None => command.args(["-b", ""]),
    };
    let command = command.arg("--").arg(explicit(chain)).limits(limits(virtual_bytes));
    run(runner, &command, &paths(chain), control)
}

/// Has the overlay read from another image; looks at neither of the two that it read and will read from. At most a minute.
pub fn reattach(
    runner: &dyn Runner,
    overlay: &Layer,
    onto: &Layer,
    virtual_bytes: u64,
    cache: CacheMode,
) -> Result<(), ExecError> {
    let command = Command::new("qemu-img", QUICK)
        .args(["rebase", "-q", "-u", "-t", word(cache), "-F", onto.format.word(), "-b"])
        .arg(path_of(onto))
        .arg("--")
        .arg(explicit(std::slice::from_ref(overlay)));
    let alone = Control { cancel: &AtomicBool::new(false), progress: &|_| {} };
    run(runner, &command.limits(limits(virtual_bytes)), &[path_of(overlay)], &alone)
}

/// Makes `to` a full, self-contained copy of what the source shows, compressed if it is `packed`; zeros stay sparse.
///
/// Ends with an error if it stands still, or after a time that even slow storage keeps. The data is on the disk when it
/// returns: with `cache` none it goes there directly (also the fastest: 1.2 GiB took 0.7 s where going through the page
/// cache took 0.9 to 3.5 s), with writeback by the flush at the end. qemu-img's own default flushes nothing. Images that
/// guests use are not in the page cache, so reading past it is no slower, and leaves it to others.
///
/// Clusters are packed many at once, and written as they are done: in their order, one core waits for another.
pub fn convert(
    runner: &dyn Runner,
    from: &Source<'_>,
    to: Image<'_>,
    packed: bool,
    cache: CacheMode,
    control: &Control<'_>,
) -> Result<(), ExecError> {
    let caches = ["-T", word(from.cache), "-t", word(cache)];
    let mut command = long(from.virtual_bytes).args(["convert", "-p"]).args(caches).args(["-O", to.format.word()]);
    command = command.args(options(to.format));
    if packed {
        command = command.args(["-c", "-o", "compression_type=zstd", "-W", "-m", "16"]);
    }
    let command = command.arg("--").arg(explicit(from.chain)).arg(filename(to.path));
    let mut paths = paths(from.chain);
    paths.push(to.path);
    run(runner, &command.limits(limits(from.virtual_bytes)), &paths, control)
}

/// Looks whether the tables of an image that is self-contained agree, and changes nothing. Time as in [`convert`].
pub fn check(runner: &dyn Runner, layer: &Layer, virtual_bytes: u64, control: &Control<'_>) -> Result<(), ExecError> {
    let command = Command::new("qemu-img", long(virtual_bytes).deadline).args(["check", "-q", "--"]);
    let command = command.arg(explicit(std::slice::from_ref(layer)));
    run(runner, &command.limits(limits(virtual_bytes)), &[path_of(layer)], control)
}

/// For what copies so many bytes and reports each percent; the rest is for the flush at the end.
fn long(virtual_bytes: u64) -> Command {
    let seconds = Duration::from_secs(virtual_bytes / SLOWEST);
    Command::new("qemu-img", Duration::from_secs(3600) + seconds).stall(Duration::from_secs(600) + seconds / 100)
}

fn word(cache: CacheMode) -> &'static str {
    match cache {
        CacheMode::None => "none",
        CacheMode::Writeback => "writeback",
    }
}

/// Grows the image; a smaller size is refused. At most a minute.
pub fn grow(runner: &dyn Runner, image: Image<'_>, size: MiB, control: &Control<'_>) -> Result<(), ExecError> {
    let command = Command::new("qemu-img", QUICK)
        .args(["resize", "-q", "-f", image.format.word(), "--"])
        .arg(filename(image.path))
        .arg(size.bytes().to_string());
    run(runner, &command.limits(limits(size.bytes())), &[image.path], control)
}

/// Ends it when a directory of `paths` is silent, which whoever asks the storlink there finds out: a tool that hangs on dead
/// storage keeps a thread from tasks that need another one.
fn run(runner: &dyn Runner, command: &Command, paths: &[&Path], control: &Control<'_>) -> Result<(), ExecError> {
    let mut line = |line: &str| {
        if let Some(percent) = percent(line) {
            (control.progress)(percent);
        }
    };
    let lost = |quiet: Duration| {
        let dirs = paths.iter().filter_map(|path| path.parent());
        let silent = |dir: &&Path| patience::silence(dir).is_some_and(|silence| silence.min(quiet) >= SILENCE);
        dirs.filter(silent).map(patience::name).next()
    };
    runner.run(command, &mut Watch { cancel: control.cancel, line: &mut line, lost: &lost }).map(|_| ())
}

/// What is fixed about new images, whatever the defaults of the tool are.
fn options(format: Format) -> &'static [&'static str] {
    match format {
        Format::Qcow2 => &["-o", "compat=1.1,lazy_refcounts=off"],
        Format::Raw => &[],
    }
}

/// A name that is a file, even if its path looks like a protocol.
fn filename(path: &Path) -> OsString {
    let mut name = OsString::from("file:");
    name.push(path);
    name
}

/// A chain with each of its images named, and nothing behind the last one. Links are text, so a path that is not cannot be
/// one of ours: it is not found.
fn explicit(chain: &[Layer]) -> String {
    let node = chain.iter().rev().fold(Value::Null, |below, layer| {
        let file = json!({"driver": "file", "filename": path_of(layer).to_string_lossy()});
        match layer.format {
            Format::Qcow2 => json!({"driver": "qcow2", "backing": below, "file": file}),
            Format::Raw => json!({"driver": "raw", "file": file}),
        }
    });
    format!("json:{node}")
}

fn paths(chain: &[Layer]) -> Vec<&Path> {
    chain.iter().map(path_of).collect()
}

fn path_of(layer: &Layer) -> &Path {
    let VolumeSource::File(path) = &layer.source;
    path
}

/// A file may become as large as the disk, and the tables of qcow2 in all formats of its clusters are below a 64th.
fn limits(virtual_bytes: u64) -> Limits {
    let file_bytes = virtual_bytes.saturating_add(virtual_bytes / 64).saturating_add(64 << 20);
    Limits { address_space_bytes: Some(ADDRESS_SPACE), cpu_secs: None, file_bytes: Some(file_bytes) }
}

/// `    (12.34/100%)`, whole percents.
fn percent(line: &str) -> Option<u32> {
    let number = line.trim().strip_prefix('(')?.strip_suffix("/100%)")?;
    let whole = number.split_once('.').map_or(number, |(whole, _)| whole);
    whole.parse().ok().filter(|percent| *percent <= 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_are_read_as_qemu_img_writes_them() {
        for (line, want) in [
            ("    (0.00/100%)", Some(0)),
            ("    (12.34/100%)", Some(12)),
            ("    (100.00/100%)", Some(100)),
            ("(7/100%)", Some(7)),
            ("", None),
            ("    (100.01%)", None),
            ("(101.00/100%)", None),
            ("(-1.00/100%)", None),
            ("Image resized.", None),
        ] {
            assert_eq!(percent(line), want, "{line}");
        }
    }

    #[test]
    fn names_cannot_be_read_as_anything_but_files() {
        assert_eq!(filename(Path::new("/a/nbd:x,y=z")), "file:/a/nbd:x,y=z");
        let layer = |path: &str, format| Layer { source: VolumeSource::File(path.into()), format };
        let raw = layer("/a/\"b\",c", Format::Raw);
        let below = r#"{"driver":"raw","file":{"driver":"file","filename":"/a/\"b\",c"}}"#;
        assert_eq!(explicit(std::slice::from_ref(&raw)), format!("json:{below}"));
        let qcow2 = layer("/a", Format::Qcow2);
        assert!(explicit(std::slice::from_ref(&qcow2)).contains(r#""backing":null"#));
        assert!(explicit(&[qcow2, raw]).contains(&format!(r#""backing":{below}"#)));
    }
}
