//! What disks really show: bytes are written into images as guests would write them, and read back through the headers of
//! whole chains; and whether rows, headers, files and domains all say the same.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use pengx::exec::SystemRunner;
use pengx::hypervisor::FakeHypervisor;
use pengx::model::*;
use pengx::operations::snapshot::TakeSnapshot;
use pengx::operations::storlink::CreateStorlink;
use pengx::store::{disks, snapshots, storlinks, templates, vms};

use super::app::App;
use super::tool::qemu_img;

/// Each block of a disk holds one byte, again and again.
pub const BLOCK: usize = 64 << 10;

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
            link: text(dir).to_owned(),
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

    /// What a domain of these disks must have, by order.
    pub fn images(&self, disks: &[Disk]) -> Vec<(u32, VolumeSource)> {
        disks.iter().map(|disk| (disk.order, VolumeSource::File(self.path(disk)))).collect()
    }

    /// What the guest of a VM that is off sees of a disk is this byte from here on.
    pub fn fill(&self, disk: &Disk, byte: u8, at_kib: u64, kib: u64) {
        fill(&self.path(disk), disk.format, byte, at_kib, kib);
    }

    /// All that a guest sees of a disk, as a raw file.
    pub fn flat(&self, disk: &Disk, to: &Path) {
        flat(&self.path(disk), disk.format, to);
    }

    /// Takes a snapshot: all its disks become overlays, beside the first one, on what they were.
    pub fn freeze(&self, vm: VmId, name: &str) -> SnapshotId {
        let (name, storlink, desc) = (name.parse().unwrap(), self.disks(vm)[0].storlink, String::new());
        self.run(TakeSnapshot { vm, name, storlink, desc }).unwrap().id
    }
}

/// What a domain writes to, by order.
pub fn images_of(spec: &DomainSpec) -> Vec<(u32, VolumeSource)> {
    let mut images: Vec<_> = spec.disks.iter().map(|disk| (disk.order, disk.source.clone())).collect();
    images.sort_by_key(|(order, _)| *order);
    images
}

/// Fills so many KiB with a byte, from an offset on, as a guest would.
pub fn fill(image: &Path, format: Format, byte: u8, at_kib: u64, kib: u64) {
    let command = format!("write -q -P {byte} {at_kib}k {kib}k");
    let done = Command::new("qemu-io").args(["-f", format.word(), "-c", &command]).arg(image).output().unwrap();
    // Some errors it only says.
    assert!(done.status.success() && done.stdout.is_empty(), "{command} {}: {done:?}", image.display());
}

/// A raw copy of all that an image shows, on whatever it is.
pub fn flat(image: &Path, format: Format, to: &Path) {
    qemu_img(&["convert", "-U", "-f", format.word(), "-O", "raw", text(image), text(to)]);
}

/// To the byte; what is longer is zeros. A guest may hold one that it does not write to.
pub fn same(a: (&Path, Format), b: (&Path, Format)) -> bool {
    let formats = ["-f", a.1.word(), "-F", b.1.word()];
    let done = Command::new("qemu-img").args(["compare", "-q", "-U"]).args(formats).args([a.0, b.0]).output().unwrap();
    match done.status.code() {
        Some(0) => true,
        Some(1) => false,
        _ => panic!("qemu-img compare {a:?} {b:?}: {done:?}"),
    }
}

#[track_caller]
pub fn assert_same(a: (&Path, Format), b: (&Path, Format)) {
    assert!(same(a, b), "{a:?} and {b:?} differ");
}

/// In bytes.
pub fn allocated(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).unwrap().blocks() * 512
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// By order.
pub fn of_snapshot(app: &App, snapshot: SnapshotId) -> Vec<Disk> {
    app.store().read(|c| disks::of_snapshot(c, snapshot)).unwrap()
}

/// Oldest first.
pub fn snapshots_of(app: &App, vm: VmId) -> Vec<Snapshot> {
    app.store().read(|c| snapshots::of_vm(c, vm)).unwrap()
}

/// Writes the byte into one block of the disk of this order that the VM writes to.
pub fn write(app: &App, vm: VmId, order: u32, block: usize, byte: u8) {
    let disk = app.disks(vm).into_iter().find(|disk| disk.order == order).unwrap();
    fill_block(&app.path(&disk), disk.format, block, byte);
}

/// As [`write()`], into the image that the guest has open, whatever the rows say.
pub fn write_running(fake: &FakeHypervisor, vm: VmId, order: u32, block: usize, byte: u8) {
    let running = fake.running(vm).unwrap();
    let disk = running.disks.iter().find(|disk| disk.order == order).unwrap();
    let VolumeSource::File(file) = &disk.source;
    fill_block(file, disk.format, block, byte);
}

fn fill_block(image: &Path, format: Format, block: usize, byte: u8) {
    let kib = BLOCK as u64 >> 10;
    fill(image, format, byte, block as u64 * kib, kib);
}

/// The byte of each block that the disk shows, down to the end of its chain, as the headers say it.
pub fn content(app: &App, disk: &Disk) -> Vec<u8> {
    let raw = tempfile::NamedTempFile::new().unwrap();
    app.flat(disk, raw.path());
    let bytes = std::fs::read(raw.path()).unwrap();
    assert_eq!(bytes.len(), usize::try_from(disk.size.bytes()).unwrap(), "{disk:?}");
    let byte = |block: &[u8]| {
        assert!(block.iter().all(|byte| *byte == block[0]), "a block of {disk:?} is torn");
        block[0]
    };
    bytes.chunks(BLOCK).map(byte).collect()
}

/// By order.
pub fn contents(app: &App, disks: &[Disk]) -> Vec<(u32, Vec<u8>)> {
    disks.iter().map(|disk| (disk.order, content(app, disk))).collect()
}

/// As [`assert_agreed`], and every image is sound.
pub fn assert_whole(app: &App) {
    for file in assert_agreed(app) {
        qemu_img(&["check", "-q", "-U", "-f", "qcow2", text(&file)]);
    }
}

/// Rows, headers, files and domains agree about every image of all VMs, and there is no other file but those of templates and
/// discs. Returns the images of the VMs that are qcow2.
pub fn assert_agreed(app: &App) -> Vec<PathBuf> {
    let (all, templates, storlinks) = app
        .store()
        .read(|c| {
            let mut all = Vec::new();
            for listing in vms::listing(c)? {
                let mut disks = disks::of_vm(c, listing.vm.id)?;
                for snapshot in snapshots::of_vm(c, listing.vm.id)? {
                    assert_eq!(snapshot.vm, listing.vm.id);
                    assert_ne!(snapshot.kind, SnapshotKind::Going, "{snapshot:?}");
                    disks.extend(disks::of_snapshot(c, snapshot.id)?);
                }
                all.push((listing.vm, disks));
            }
            let mut of_templates = Vec::new();
            for template in templates::all(c)? {
                of_templates.extend(disks::of_template(c, template.id)?);
            }
            Ok((all, of_templates, storlinks::all(c)?))
        })
        .unwrap();
    let mut files = BTreeSet::new();
    for storlink in &storlinks {
        let entries = std::fs::read_dir(&storlink.link).unwrap().map(|entry| entry.unwrap().path());
        files.extend(entries.filter(|file| file.extension().is_none_or(|kind| kind != "iso")));
    }
    let rows = all.iter().flat_map(|(_, disks)| disks).chain(&templates);
    let rows: BTreeSet<_> = rows.map(|disk| app.path(disk)).collect();
    assert_eq!(files, rows, "files are on the left, what rows name is on the right");
    for (vm, disks) in &all {
        let below = |disk: &Disk| disk.backing.map(|id| disks.iter().find(|below| below.id == id).unwrap());
        for disk in disks {
            let storlink = storlinks.iter().find(|storlink| storlink.id == disk.storlink).unwrap();
            let driver = pengx::storage::open(storlink, Arc::new(SystemRunner)).unwrap();
            let said = driver.layer(&disk.volume, disk.format).unwrap();
            let wanted = below(disk).map(|below| (app.path(below), Some(below.format.word().to_owned())));
            assert_eq!(said.backing, wanted, "the header is on the left: {disk:?}");
        }
        let mut chains = Vec::new();
        for leaf in disks.iter().filter(|disk| disk.owner == DiskOwner::Vm(vm.id)) {
            let layer = |disk: &Disk| Layer { source: VolumeSource::File(app.path(disk)), format: disk.format };
            let chain = std::iter::successors(Some(leaf), |disk| below(disk)).map(layer).collect();
            chains.push((leaf.order, chain));
        }
        let of_domain = |spec: &DomainSpec| {
            let mut chains: Vec<(u32, Vec<Layer>)> = spec.disks.iter().map(|disk| (disk.order, disk.chain())).collect();
            chains.sort_by_key(|(order, _)| *order);
            chains
        };
        let hypervisor = &app.site.hypervisor;
        if hypervisor.kind() == "fake" {
            let defined = app.site.fake.definitions().into_iter().find(|spec| spec.id == vm.id);
            assert_eq!(defined.map(|spec| of_domain(&spec)), Some(chains.clone()), "the definition of {}", vm.name);
        }
        if hypervisor.domain(vm.id).unwrap().is_some_and(|domain| domain.state.is_active()) {
            for (order, chain) in chains {
                let images: Vec<VolumeSource> = chain.into_iter().map(|layer: Layer| layer.source).collect();
                assert_eq!(hypervisor.chain(vm.id, order).unwrap(), images, "what runs of {}", vm.name);
            }
        }
    }
    let disks = all.iter().flat_map(|(_, disks)| disks);
    disks.filter(|disk| disk.format == Format::Qcow2).map(|disk| app.path(disk)).collect()
}
