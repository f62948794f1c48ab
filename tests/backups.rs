//! Backups hold what the disks held at one instant and nothing else, alone; they come back where they must; and whatever is
//! done to them is found.

mod damage;
mod program;
mod proof;
mod rivals;

use std::path::PathBuf;

use pengx::error::Result;
use pengx::hypervisor::Verb;
use pengx::model::*;
use pengx::operations::backup::{CreateBackup, DeleteBackup, ProveBackup, RestoreBackup, VerifyBackup};
use pengx::operations::disk::CreateDisk;
use pengx::operations::storlink::CreateStorlink;
use pengx::operations::template::DeleteTemplate;
use pengx::operations::vm::{CreateVm, DeleteVm, PoweroffVm, StartVm, SuspendVm};
use pengx::store::{backups, disks, snapshots};

use crate::harness::app::{App, Site};
use crate::harness::images::{fill, same, text};
use crate::harness::wait::PATIENCE;
use crate::harness::world::World;

/// A server with a storlink and a VM of two disks, 4 and 2 MiB, which is off.
struct Shelf {
    app: App,
    vm: VmId,
}

impl Shelf {
    fn new() -> Self {
        Self::on(Site::new(), Format::Qcow2)
    }

    /// Its disks hold something, each something else.
    fn on(site: Site, format: Format) -> Self {
        let app = site.start();
        let storlink = app.storlink();
        let template = app.template(storlink, format);
        let vm = app.run(app.vm_of(storlink, Some(template), "web1")).unwrap();
        let shelf = Self { app, vm };
        fill(&shelf.image(1), format, 0x31, 512, 700);
        shelf
    }

    /// Of the disk of this order.
    fn image(&self, order: usize) -> PathBuf {
        self.app.path(&self.app.disks(self.vm)[order])
    }

    fn create(&self) -> Result<BackupId> {
        let (name, desc) = ("nightly".parse().unwrap(), String::new());
        self.app.run(CreateBackup { vm: self.vm, name, storlink: StorlinkId(1), desc })
    }

    fn verify(&self, backup: BackupId) -> Result<()> {
        self.app.run(VerifyBackup { vm: self.vm, backup })
    }

    fn prove(&self, backup: BackupId) -> Result<()> {
        self.app.run(ProveBackup { vm: self.vm, backup })
    }

    fn restore(&self, backup: BackupId) -> Result<()> {
        self.app.run(RestoreBackup { vm: self.vm, backup })
    }

    fn delete(&self, backup: BackupId) -> Result<()> {
        self.app.run(DeleteBackup { vm: self.vm, backup })
    }

    fn start(&self) {
        self.app.run(StartVm { vm: self.vm }).unwrap();
    }

    /// Raw copies of what its disks show now.
    fn shown(&self, name: &str) -> Vec<PathBuf> {
        let all = self.app.disks(self.vm);
        let copy = |disk: &Disk| {
            let to = self.app.site.dir.path().join(format!("{name}-{}", disk.order));
            self.app.flat(disk, &to);
            to
        };
        all.iter().map(copy).collect()
    }

    fn copies(&self, backup: BackupId) -> Vec<Disk> {
        self.app.store().read(|c| disks::of_backup(c, backup)).unwrap()
    }

    fn row(&self, backup: BackupId) -> Backup {
        self.app.store().read(|c| backups::find(c, backup)).unwrap().unwrap()
    }

    /// The images of a backup show what was copied before.
    fn assert_holds(&self, backup: BackupId, shown: &[PathBuf]) {
        let copies = self.copies(backup);
        assert_eq!(copies.len(), shown.len());
        for (copy, shown) in copies.iter().zip(shown) {
            assert!(same((&self.app.path(copy), Format::Qcow2), (shown, Format::Raw)), "disk {}", copy.order);
        }
    }

    fn assert_shows(&self, shown: &[PathBuf]) {
        let now = self.shown("now");
        assert_eq!(now.len(), shown.len());
        for (order, (now, shown)) in now.iter().zip(shown).enumerate() {
            assert!(same((now, Format::Raw), (shown, Format::Raw)), "disk {order}");
        }
    }
}

#[test]
fn a_backup_holds_what_the_disks_held_whatever_the_vm_does_and_is_on() {
    for format in [Format::Qcow2, Format::Raw] {
        for on_snapshots in [0, 2] {
            for state in [PowerState::Shutdown, PowerState::Running, PowerState::Paused] {
                let shelf = Shelf::on(Site::new(), format);
                for n in 0..on_snapshots {
                    shelf.app.freeze(shelf.vm, &format!("s{n}"));
                    for order in [0, 1] {
                        fill(&shelf.image(order), Format::Qcow2, 0x41 + n as u8, 64 * n as u64 + 32, 200);
                    }
                }
                let shown = shelf.shown("before");
                if state != PowerState::Shutdown {
                    shelf.start();
                }
                if state == PowerState::Paused {
                    shelf.app.run(SuspendVm { vm: shelf.vm }).unwrap();
                }
                let backup = shelf.create().unwrap();
                shelf.assert_holds(backup, &shown);
                shelf.assert_shows(&shown);
                let info = qemu_info(&shelf.app.path(&shelf.copies(backup)[0]));
                assert!(info.contains("zstd") && !info.contains("backing"), "{info}");
                shelf.verify(backup).unwrap();
                shelf.app.assert_at_rest();
            }
        }
    }
}

fn qemu_info(image: &std::path::Path) -> String {
    crate::harness::tool::qemu_img(&["info", "--output=json", text(image)])
}

#[test]
fn it_needs_nothing_else_and_comes_back_when_all_else_is_gone() {
    let shelf = Shelf::new();
    shelf.app.freeze(shelf.vm, "s");
    fill(&shelf.image(0), Format::Qcow2, 0x77, 100, 300);
    let shown = shelf.shown("before");
    shelf.start();
    let backup = shelf.create().unwrap();
    shelf.app.run(PoweroffVm { vm: shelf.vm }).unwrap();
    // The VM with its snapshot, and the template.
    shelf.app.run(DeleteVm { vm: shelf.vm }).unwrap();
    let template = shelf.app.store().read(pengx::store::templates::all).unwrap()[0].id;
    shelf.app.run(DeleteTemplate { template }).unwrap();
    let world = World::of(&shelf.app);
    assert_eq!((world.files.len(), world.domains.len()), (3, 0), "two images and a manifest: {world:#?}");

    shelf.verify(backup).unwrap();
    shelf.prove(backup).unwrap();
    assert_eq!(World::of(&shelf.app).files, world.files, "it is only read");
    shelf.restore(backup).unwrap();
    shelf.assert_shows(&shown);
    shelf.delete(backup).unwrap();
    shelf.assert_shows(&shown);
    shelf.start();
    shelf.app.assert_at_rest();
}

/// The instant of the backup is when the guest moves to its overlays; what it writes from then on is in its disks alone.
#[test]
fn what_is_written_meanwhile_is_in_the_disk_and_not_in_the_backup() {
    let shelf = Shelf::new();
    let before = shelf.shown("before");
    shelf.start();
    let fake = shelf.app.site.fake.clone();
    // The copies are made; the guest is about to leave its overlays.
    fake.hold(Verb::StartBlockJob);
    let backup = std::thread::scope(|s| {
        let making = s.spawn(|| shelf.create());
        assert!(fake.wait_held(Verb::StartBlockJob, 1, PATIENCE));
        let on = fake.running(shelf.vm).unwrap();
        for disk in &on.disks {
            let VolumeSource::File(overlay) = &disk.source;
            assert_eq!(disk.backing.len(), 1, "{disk:?}");
            fill(overlay, Format::Qcow2, 0x55, 64, 128);
        }
        fake.release(Verb::StartBlockJob);
        making.join().unwrap().unwrap()
    });
    shelf.app.assert_at_rest();
    shelf.assert_holds(backup, &before);
    for shown in &before {
        fill(shown, Format::Raw, 0x55, 64, 128);
    }
    shelf.assert_shows(&before);
    // Back to how it was at that instant.
    shelf.app.run(PoweroffVm { vm: shelf.vm }).unwrap();
    shelf.restore(backup).unwrap();
    for shown in &before {
        assert!(!same((shown, Format::Raw), (&shelf.image(0), Format::Qcow2)));
    }
    let copies = shelf.copies(backup);
    for (copy, disk) in copies.iter().zip(shelf.app.disks(shelf.vm)) {
        assert!(same((&shelf.app.path(copy), Format::Qcow2), (&shelf.app.path(&disk), Format::Qcow2)));
    }
}

#[test]
fn disks_come_back_where_they_are_now_and_in_the_format_that_they_have_now() {
    let shelf = Shelf::on(Site::new(), Format::Raw);
    let other = shelf.app.site.dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let storlink = CreateStorlink {
        name: "store2".parse().unwrap(),
        link: text(&other).to_owned(),
        kind: StorlinkType::Local,
        level: StorlinkLevel::File,
        desc: String::new(),
        shared: false,
    };
    let second = shelf.app.run(storlink).unwrap();
    let data = CreateDisk { vm: shelf.vm, storlink: second, size: MiB(3), format: None, desc: "data".to_owned() };
    shelf.app.run(data.clone()).unwrap();
    let backup = shelf.create().unwrap();
    let had = shelf.app.disks(shelf.vm);
    // Disk 1 is gone by now, and there is a new disk 3.
    let gone = had[1].id;
    shelf.app.run(pengx::operations::disk::DeleteDisk { vm: shelf.vm, disk: gone }).unwrap();
    shelf.app.store().write_tx(|tx| disks::hand_over(tx, had[2].id, had[2].owner, 5, None)).unwrap();
    shelf.restore(backup).unwrap();
    let now = shelf.app.disks(shelf.vm);
    let told: Vec<_> = now.iter().map(|disk| (disk.order, disk.storlink, disk.format, disk.size)).collect();
    let first = StorlinkId(1);
    assert_eq!(
        told,
        [
            (0, first, Format::Raw, MiB(4)),
            // Those whose order is free go beside disk 0.
            (1, first, Format::Qcow2, MiB(2)),
            (2, first, Format::Qcow2, MiB(3)),
        ]
    );
    assert_eq!(now[2].desc.as_deref(), Some("data"));
    // Again, now that order 2 is on another storlink and raw.
    let vm = shelf.vm;
    shelf.app.run(pengx::operations::disk::DeleteDisk { vm, disk: now[2].id }).unwrap();
    shelf.app.run(CreateDisk { format: Some(Format::Raw), ..data }).unwrap();
    shelf.restore(backup).unwrap();
    let now = shelf.app.disks(shelf.vm);
    assert_eq!((now[2].storlink, now[2].format), (second, Format::Raw));
    assert!(other.join(now[2].volume.as_str()).exists());
    let kept = shelf.app.store().read(|c| snapshots::of_vm(c, vm)).unwrap();
    assert_eq!(kept.len(), 2);
    shelf.start();
    shelf.app.assert_at_rest();
}

/// The most likely reason for a restore of all.
#[test]
fn a_vm_whose_images_are_lost_is_restored_and_a_failure_leaves_it_as_it_was() {
    let shelf = Shelf::new();
    let shown = shelf.shown("before");
    let backup = shelf.create().unwrap();
    for order in [0, 1] {
        std::fs::remove_file(shelf.image(order)).unwrap();
    }
    let before = World::of(&shelf.app);
    // The last thing that can fail.
    let settle = {
        let probe = Shelf::new();
        let backup = probe.create().unwrap();
        for order in [0, 1] {
            std::fs::remove_file(probe.image(order)).unwrap();
        }
        probe.app.fuse.arm(&[]);
        probe.restore(backup).unwrap();
        probe.app.fuse.names().iter().position(|name| *name == "settle").unwrap() + 1
    };
    shelf.app.fuse.arm(&[(settle, pengx::tasks::Fate::Fail)]);
    shelf.restore(backup).unwrap_err();
    shelf.app.assert_at_rest();
    assert_eq!(World::of(&shelf.app).files, before.files);
    assert_eq!(World::of(&shelf.app).rows, before.rows);
    shelf.app.fuse.arm(&[]);
    shelf.restore(backup).unwrap();
    shelf.assert_shows(&shown);
    shelf.start();
    shelf.app.assert_at_rest();
}

#[test]
fn a_manifest_tells_people_all_that_it_takes() {
    let shelf = Shelf::new();
    let backup = shelf.create().unwrap();
    let name = shelf.app.site.store_dir().join(format!("{backup}.json"));
    let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&name).unwrap()).unwrap();
    let row = shelf.row(backup);
    assert_eq!(manifest["pengx_backup"], 1);
    assert_eq!(manifest["id"], backup.to_string());
    assert_eq!(manifest["vm"], shelf.vm.to_string());
    assert_eq!(manifest["config"]["name"], "web1");
    assert_eq!(manifest["config"]["memory_mib"], 64);
    let macs: Vec<_> = manifest["config"]["nics"].as_array().unwrap().iter().map(|nic| nic["mac"].clone()).collect();
    assert_eq!(macs, row.config.nics.iter().map(|nic| nic.mac.to_string()).collect::<Vec<_>>());
    // The hashes are those that anybody's tool gives.
    for (entry, copy) in manifest["disks"].as_array().unwrap().iter().zip(shelf.copies(backup)) {
        let image = shelf.app.path(&copy);
        assert_eq!(entry["volume"], copy.volume.as_str());
        assert_eq!(entry["file_bytes"], std::fs::metadata(&image).unwrap().len());
        let said = std::process::Command::new("sha256sum").arg(&image).output().unwrap();
        let said = String::from_utf8(said.stdout).unwrap();
        assert_eq!(entry["sha256"], serde_json::json!([said.split(' ').next().unwrap()]), "less than one block");
    }
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(&name).unwrap().mode() & 0o777, 0o600);
}

/// A VM with an empty disk larger than a block of hashes; its content, which nothing makes smaller.
fn large(app: &App) -> VmId {
    let storlink = app.storlink();
    let wish = CreateVm {
        os_disk_size: Some(MiB(40)),
        extra_disk_size: None,
        format: Some(Format::Raw),
        ..app.vm_of(storlink, None, "web1")
    };
    let vm = app.run(wish).unwrap();
    let image = app.path(&app.disks(vm)[0]);
    let mut noise = std::fs::File::open("/dev/urandom").unwrap();
    let mut file = std::fs::OpenOptions::new().write(true).open(image).unwrap();
    std::io::copy(&mut std::io::Read::take(&mut noise, 36 << 20), &mut file).unwrap();
    vm
}
