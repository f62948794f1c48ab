//! The golden guest: its image, and the heartbeat that it writes to its disks.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::wait::{BOOT, wait_within};
use pengx::model::Format;

/// Where the heartbeat is on the golden image, and on every other disk.
pub const SYSTEM: u64 = 34_603_008;
pub const EXTRA: u64 = 0;

/// The golden image; built once and kept between runs.
pub fn golden() -> &'static Path {
    static GOLDEN: OnceLock<PathBuf> = OnceLock::new();
    GOLDEN.get_or_init(|| {
        let own = || Path::new(env!("CARGO_TARGET_TMPDIR")).join("lab");
        let image = std::env::var_os("PENGX_LAB_CACHE").map_or_else(own, PathBuf::from).join("golden.qcow2");
        let built = lab("build-guest.sh").arg("-o").arg(&image).output().unwrap();
        assert!(built.status.success(), "build-guest.sh: {}", String::from_utf8_lossy(&built.stderr));
        image
    })
}

/// The last heartbeat on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    pub boots: u64,
    pub seq: u64,
}

/// What the guest finds plugged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    pub cpus: u32,
    /// Memory that its kernel has to give, in KiB.
    pub memory: u64,
    /// `vda`, `vdb`.
    pub disks: Vec<String>,
    pub nics: u32,
    /// The label of the disc in the drive.
    pub disc: Option<String>,
}

/// `None`: there is none yet.
fn line(image: &Path, format: Format, offset: u64) -> Option<String> {
    let read = lab("heartbeat.sh").arg(image).arg(format.word()).arg(offset.to_string()).output().unwrap();
    // An image that is written to may be caught between two of its own changes.
    let line = read.status.success().then(|| String::from_utf8_lossy(&read.stdout).into_owned())?;
    line.starts_with("PENGX-HB ").then_some(line)
}

fn word<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.trim_end().split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// The newest; `None` before the first, and now and then while the guest writes.
pub fn beat(image: &Path, format: Format, offset: u64) -> Option<Beat> {
    let line = line(image, format, offset)?;
    Some(Beat { boots: word(&line, "boots")?.parse().ok()?, seq: word(&line, "seq")?.parse().ok()? })
}

fn sight(image: &Path, format: Format) -> Option<Sight> {
    let line = line(image, format, SYSTEM)?;
    Some(Sight {
        cpus: word(&line, "cpus")?.parse().ok()?,
        memory: word(&line, "mem")?.parse().ok()?,
        disks: word(&line, "disks")?.split(',').map(str::to_owned).collect(),
        nics: word(&line, "nics")?.parse().ok()?,
        disc: word(&line, "cd").filter(|label| *label != "-").map(str::to_owned),
    })
}

/// Waits until the guest of this system disk says that it finds this; what it then says.
pub fn until_seen(image: &Path, format: Format, what: &str, is: impl Fn(&Sight) -> bool) -> Sight {
    let mut last = None;
    wait_within(BOOT, &format!("the guest of {} to see {what}", image.display()), || {
        last = sight(image, format);
        Ok(last.as_ref().is_some_and(&is))
    });
    last.unwrap()
}

/// Waits until the guest of this system disk has booted for the n-th time and lives.
pub fn until_booted(image: &Path, format: Format, boots: u64) {
    wait_within(BOOT, &format!("boot {boots} of the guest of {}", image.display()), || {
        Ok(beat(image, format, SYSTEM).is_some_and(|beat| beat.boots >= boots))
    });
    assert_eq!(next_beat(image, format, SYSTEM).boots, boots);
}

/// Waits until the guest has written one more heartbeat than there is now; the newest.
pub fn next_beat(image: &Path, format: Format, offset: u64) -> Beat {
    let before = beat(image, format, offset);
    let mut now = before;
    wait_within(BOOT, &format!("a heartbeat after {before:?} on {} at {offset}", image.display()), || {
        now = beat(image, format, offset);
        Ok(now.is_some_and(|now| before.is_none_or(|before| now.seq > before.seq)))
    });
    now.unwrap()
}

fn lab(script: &str) -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab").join(script))
}
