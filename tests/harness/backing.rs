//! Images that read from others, and what is in them.

use std::path::{Path, PathBuf};
use std::process::Command;

use pengx::model::*;
use pengx::operations::snapshot::TakeSnapshot;
use pengx::store::disks;

use super::app::{App, qemu_img};

/// Takes a snapshot: all its disks become overlays on what they were.
pub fn freeze(app: &App, vm: VmId, name: &str) {
    let (name, desc) = (name.parse().unwrap(), String::new());
    app.run(TakeSnapshot { vm, name, storlink: StorlinkId(1), desc }).unwrap();
}

/// Where the volume of a disk is, if it is on the first storlink.
pub fn path(app: &App, disk: &Disk) -> PathBuf {
    app.site.store_dir().join(disk.volume.as_str())
}

pub fn disks_of(app: &App, vm: VmId) -> Vec<Disk> {
    app.store().read(|c| disks::of_vm(c, vm)).unwrap()
}

/// Fills so many KiB from an offset in KiB with a byte, as a guest would.
pub fn fill(image: &Path, format: &str, byte: u8, at: u64, length: u64) {
    let order = format!("write -P {byte} {at}k {length}k");
    let done = Command::new("qemu-io").args(["-f", format, "-c", &order]).arg(image).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.contains("wrote"), "{said}");
}

/// A raw copy of all that an image shows, on whatever it is.
pub fn flat(image: &Path, format: &str, to: &Path) {
    qemu_img(&["convert", "-U", "-f", format, "-O", "raw", text(image), text(to)]);
}

/// Whether two images show the same bytes.
pub fn same(a: &Path, a_format: &str, b: &Path, b_format: &str) -> bool {
    let mut tool = Command::new("qemu-img");
    tool.args(["compare", "-q", "-U", "-f", a_format, "-F", b_format, text(a), text(b)]);
    match tool.output().unwrap().status.code() {
        Some(0) => true,
        Some(1) => false,
        other => panic!("qemu-img compare {} {}: {other:?}", a.display(), b.display()),
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
