//! What disks really show: bytes are written into images as guests would write them, and read back through the headers of
//! whole chains; and whether rows, headers, files and domains all say the same.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pengx::exec::SystemRunner;
use pengx::hypervisor::FakeHypervisor;
use pengx::model::*;
use pengx::store::{disks, snapshots, storlinks, templates, vms};

use super::app::{App, qemu_img};

/// Each block of a disk holds one byte, again and again.
pub const BLOCK: usize = 64 << 10;

/// By order.
pub fn of_vm(app: &App, vm: VmId) -> Vec<Disk> {
    app.store().read(|c| disks::of_vm(c, vm)).unwrap()
}

/// By order.
pub fn of_snapshot(app: &App, snapshot: SnapshotId) -> Vec<Disk> {
    app.store().read(|c| disks::of_snapshot(c, snapshot)).unwrap()
}

/// Oldest first.
pub fn snapshots_of(app: &App, vm: VmId) -> Vec<Snapshot> {
    app.store().read(|c| snapshots::of_vm(c, vm)).unwrap()
}

pub fn path(app: &App, disk: &Disk) -> PathBuf {
    let storlink = app.store().read(|c| storlinks::find(c, disk.storlink)).unwrap().unwrap();
    Path::new(&storlink.link).join(disk.volume.as_str())
}

/// Writes the byte into one block of the disk of this order that the VM writes to.
pub fn write(app: &App, vm: VmId, order: u32, block: usize, byte: u8) {
    let disk = of_vm(app, vm).into_iter().find(|disk| disk.order == order).unwrap();
    write_to(&path(app, &disk), disk.format, block, byte);
}

/// As [`write()`], into the image that the guest has open, whatever the rows say.
pub fn write_running(fake: &FakeHypervisor, vm: VmId, order: u32, block: usize, byte: u8) {
    let running = fake.running(vm).unwrap();
    let disk = running.disks.iter().find(|disk| disk.order == order).unwrap();
    let VolumeSource::File(file) = &disk.source;
    write_to(file, disk.format, block, byte);
}

fn write_to(file: &Path, format: Format, block: usize, byte: u8) {
    let command = format!("write -q -P {byte} {} {BLOCK}", block * BLOCK);
    let mut io = std::process::Command::new("qemu-io");
    let done = io.args(["-f", format.word(), "-c", &command]).arg(file).output().unwrap();
    assert!(done.status.success() && done.stdout.is_empty(), "{done:?}");
}

/// The byte of each block that the disk shows, down to the end of its chain, as the headers say it.
pub fn content(app: &App, disk: &Disk) -> Vec<u8> {
    let raw = tempfile::NamedTempFile::new().unwrap();
    let (from, to) = (path(app, disk), raw.path().to_str().unwrap());
    qemu_img(&["convert", "-U", "-f", disk.format.word(), "-O", "raw", from.to_str().unwrap(), to]);
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
        qemu_img(&["check", "-q", "-U", "-f", "qcow2", file.to_str().unwrap()]);
    }
}

/// Rows, headers, files and domains agree about every image of all VMs, and there is no other file but those of templates and
/// discs.
/// The images of the VMs that are qcow2.
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
    let rows: BTreeSet<_> = rows.map(|disk| path(app, disk)).collect();
    assert_eq!(files, rows, "files are on the left, what rows name is on the right");
    for (vm, disks) in &all {
        let below = |disk: &Disk| disk.backing.map(|id| disks.iter().find(|below| below.id == id).unwrap());
        for disk in disks {
            let storlink = storlinks.iter().find(|storlink| storlink.id == disk.storlink).unwrap();
            let driver = pengx::storage::open(storlink, Arc::new(SystemRunner)).unwrap();
            let said = driver.layer(&disk.volume, disk.format).unwrap();
            let wanted = below(disk).map(|below| (path(app, below), Some(below.format.word().to_owned())));
            assert_eq!(said.backing, wanted, "the header is on the left: {disk:?}");
        }
        let mut chains = Vec::new();
        for leaf in disks.iter().filter(|disk| disk.owner == DiskOwner::Vm(vm.id)) {
            let layer = |disk: &Disk| Layer { source: VolumeSource::File(path(app, disk)), format: disk.format };
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
    disks.filter(|disk| disk.format == Format::Qcow2).map(|disk| path(app, disk)).collect()
}
