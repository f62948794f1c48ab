//! Disks with data of their own, snapshots made by hand, and what a guest would see of an image.

use std::path::{Path, PathBuf};

use pengx::model::*;
use pengx::operations::domain::Machine;
use pengx::operations::storlink::CreateStorlink;
use pengx::store::{Conn, disks, snapshots, storlinks, vms};

use super::app::{App, qemu_img};

impl App {
    /// A second storlink, beside the first one.
    pub fn second_storlink(&self) -> StorlinkId {
        let dir = self.site.second_dir();
        std::fs::create_dir_all(&dir).unwrap();
        self.storlink_at("store2", &dir)
    }

    pub fn storlink_at(&self, name: &str, dir: &Path) -> StorlinkId {
        self.run(CreateStorlink {
            name: name.parse().unwrap(),
            link: dir.to_str().unwrap().to_owned(),
            kind: StorlinkType::Local,
            level: StorlinkLevel::File,
            desc: String::new(),
            shared: false,
        })
        .unwrap()
    }

    /// By order.
    pub fn disks(&self, vm: VmId) -> Vec<Disk> {
        self.store().read(|c| disks::of_vm(c, vm)).unwrap()
    }

    pub fn path(&self, disk: &Disk) -> PathBuf {
        let storlink = self.store().read(|c| storlinks::find(c, disk.storlink)).unwrap().unwrap();
        PathBuf::from(storlink.link).join(disk.volume.as_str())
    }

    /// What the guest of a VM that is off sees of a disk is this byte from here on.
    pub fn write(&self, disk: &Disk, at_kib: u64, kib: u64, byte: u8) {
        let command = format!("write -q -P {byte} {at_kib}k {kib}k");
        qemu_io(&["-f", disk.format.word(), "-c", &command, text(&self.path(disk))]);
    }

    /// All that a guest sees of a disk, as a raw file.
    pub fn flat(&self, disk: &Disk, to: &Path) {
        qemu_img(&["convert", "-U", "-f", disk.format.word(), "-O", "raw", text(&self.path(disk)), text(to)]);
    }

    /// A snapshot of a VM that is off: its disks are frozen, and it goes on from empty overlays beside them.
    pub fn freeze(&self, vm: VmId, name: &str) -> SnapshotId {
        let store = self.store();
        let row = store.read(|c| vms::find(c, vm)).unwrap().unwrap();
        let id = SnapshotId(uuid::Uuid::new_v4());
        let (kind, desc, created_at) = (SnapshotKind::Saved, String::new(), row.created_at);
        let snapshot = Snapshot { id, vm, name: name.to_owned(), kind, parent: row.snapshot, desc, created_at };
        let overlay = |frozen: Disk| {
            let id = DiskId(uuid::Uuid::new_v4());
            let (format, volume) = (Format::Qcow2, VolumeName::new(id, Format::Qcow2));
            (frozen.clone(), Disk { id, format, volume, backing: Some(frozen.id), ..frozen })
        };
        let pairs: Vec<(Disk, Disk)> = self.disks(vm).into_iter().map(overlay).collect();
        for (frozen, leaf) in &pairs {
            let (below, top) = (self.path(frozen), self.path(leaf));
            let format = frozen.format.word();
            qemu_img(&["create", "-q", "-f", "qcow2", "-F", format, "-b", text(&below), text(&top)]);
        }
        let change = |c: &mut Conn| {
            snapshots::insert(c, &snapshot)?;
            for (frozen, leaf) in &pairs {
                disks::hand_over(c, frozen.id, DiskOwner::Snapshot(id), frozen.order, frozen.backing)?;
                disks::insert(c, leaf)?;
            }
            vms::set_snapshot(c, vm, Some(id))
        };
        store.write_tx(change).unwrap();
        let spec = Machine::load(&self.core, vm).unwrap().spec(&self.core).unwrap();
        self.site.hypervisor.define(&spec).unwrap();
        id
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// To the byte; what is longer is zeros. A guest may hold one that it does not write to.
pub fn assert_same(a: (&Path, Format), b: (&Path, Format)) {
    qemu_img(&["compare", "-U", "-q", "-f", a.1.word(), "-F", b.1.word(), text(a.0), text(b.0)]);
}

/// In bytes.
pub fn allocated(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).unwrap().blocks() * 512
}

pub fn qemu_io(args: &[&str]) {
    let done = std::process::Command::new("qemu-io").args(args).output().unwrap();
    assert!(done.status.success(), "qemu-io {args:?}: {}", String::from_utf8_lossy(&done.stderr));
}
