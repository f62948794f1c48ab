//! The golden guest: its image, and the heartbeat that it writes to its disks.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use pengx::model::Format;

use super::app::wait_within;

/// An emulated guest on a loaded machine takes its time.
pub const BOOT: Duration = Duration::from_secs(150);

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
#[derive(Debug, Clone, Copy)]
pub struct Beat {
    pub boots: u64,
    pub seq: u64,
}

/// `None`: there is none yet.
fn beat(image: &Path, format: Format, offset: u64) -> Option<Beat> {
    let read = lab("heartbeat.sh").arg(image).arg(format.word()).arg(offset.to_string()).output().unwrap();
    // An image that is written to may be caught between two of its own changes.
    let line = read.status.success().then(|| String::from_utf8_lossy(&read.stdout).into_owned())?;
    let number = |key: &str| line.split(' ').find_map(|word| word.strip_prefix(key)?.parse().ok());
    line.starts_with("PENGX-HB ").then_some(Beat { boots: number("boots=")?, seq: number("seq=")? })
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
