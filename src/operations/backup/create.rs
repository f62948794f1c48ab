//! Copies all disks of a VM, as they are at one instant, to a storlink, whether it runs or not.

use crate::error::{Error, Result};
use crate::model::{
    Access, Backup, BackupConfig, BackupId, BackupNic, Compensation, Disk, DiskId, DiskOwner, Lane, Layer, Lock, MiB,
    Name, Resource, StorlinkId, TaskKind, VmId, VolumeName,
};
use crate::operations::chain::Still;
use crate::operations::domain::Machine;
use crate::operations::snapshot::Needs;
use crate::operations::vm::{noun, state_now};
use crate::operations::{Core, Operation, guard};
use crate::storage::{Content, Control, NewVolume, VolumeDriver};
use crate::store::{backups, disks, nics};
use crate::tasks::Work;

use super::FORMAT;
use super::manifest::{Image, Manifest, hash};

/// Of the time that a disk takes, so many percent go to the copy, and the rest to reading it again.
const COPYING: u32 = 85;

/// What a guest that runs may write meanwhile beside its disks: so much, and a share of what they hold.
const MEANWHILE: MiB = MiB(16);
const MEANWHILE_SHARE: u64 = 32;

/// What tables and the rest of a last cluster add to the data of an image: a share, and so much.
const TABLES_SHARE: u64 = 256;
const TABLES: MiB = MiB(1);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateBackup {
    pub vm: VmId,
    /// Not unique: a backup is known by its id.
    pub name: Name,
    pub storlink: StorlinkId,
    pub desc: String,
}

impl Operation for CreateBackup {
    const KIND: TaskKind = TaskKind::BackupCreate;
    type Output = BackupId;

    fn lane(&self) -> Lane {
        Lane::Long
    }

    fn subject(&self, core: &Core) -> Result<String> {
        noun(core, self.vm)
    }

    fn locks(&self) -> Vec<Lock> {
        vec![
            Lock { resource: Resource::Vm(self.vm), access: Access::Changes },
            Lock { resource: Resource::Storlink(self.storlink), access: Access::Uses },
        ]
    }

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<BackupId> {
        let Plan { machine, mut backup, driver, data, needs } = Plan::make(self, core)?;
        needs.reserve(core, work)?;
        let still = Still::hold(core, work, &machine)?;
        let mut meter = Meter { of: still.disks.len(), done: 0 };
        let mut rows = Vec::new();
        for (disk, chain) in &still.disks {
            let row = row(core, &backup, disk);
            copy(work, driver.as_ref(), &row, chain.clone(), &meter)?;
            meter.done += 1;
            rows.push(row);
        }
        // The guest need not wait on its overlays for what comes now.
        still.release(core, work)?;
        let mut images = Vec::new();
        meter.done = 0;
        for (row, data) in rows.iter().zip(&data) {
            let reporter = work.reporter();
            let progress = |percent: u32| reporter.progress(meter.read(percent), "reading the backup again");
            let control = Control { cancel: reporter.cancel_flag(), progress: &progress };
            let digest = work.act(|| driver.digest(&row.volume, &control))?;
            images.push(Image::new(row, *data, digest));
            meter.done += 1;
        }
        let text = Manifest::new(&backup, images).text()?;
        backup.manifest = hash(&text);
        let manifest = VolumeName::manifest(backup.id);
        let undo = Compensation::DeleteVolume { storlink: backup.storlink, volume: manifest.clone() };
        work.step(&undo, || driver.write_text(&manifest, &text))?;
        work.settle(&format!("{} is made", super::noun(&backup)), &[], |tx| {
            backups::insert(tx, &backup)?;
            rows.iter().try_for_each(|row| disks::insert(tx, row))?;
            Ok(backup.id)
        })
    }
}

/// What will be made; nothing has been touched yet.
struct Plan {
    machine: Machine,
    /// Without the hash of a manifest.
    backup: Backup,
    driver: Box<dyn VolumeDriver>,
    /// Of each disk of the machine, in bytes: the most that is no hole.
    data: Vec<u64>,
    needs: Needs,
}

impl Plan {
    fn make(wish: CreateBackup, core: &Core) -> Result<Self> {
        let machine = Machine::load(core, wish.vm)?;
        let (storlink, nics) =
            core.store.read(|c| Ok((guard::storlink(c, &core.pm, wish.storlink)?, nics::of_vm(c, wish.vm)?)))?;
        let driver = (core.volumes)(&storlink)?;
        if !driver.info().formats.contains(&FORMAT) {
            return Err(guard::unsupported(format!("keep a backup on storlink {}", storlink.name)));
        }
        let active = state_now(core, wish.vm)?.is_active();
        let mut data = Vec::new();
        let mut needs = Needs::default();
        for disk in &machine.disks {
            let bytes = data_of(core, &machine, disk)?;
            needs.add(&storlink, MiB::from_bytes_ceil(bytes + bytes / TABLES_SHARE) + TABLES);
            if active {
                let home = machine.storlinks.get(&disk.storlink);
                let home = home.ok_or_else(|| Error::internal(format!("disk {} without its storlink", disk.id)))?;
                needs.add(home, MEANWHILE + MiB::from_bytes_ceil(bytes / MEANWHILE_SHARE));
            }
            data.push(bytes);
        }
        let nics = nics.into_iter();
        let config = BackupConfig {
            name: machine.vm.name.clone(),
            desc: machine.vm.desc.clone(),
            cpu: machine.vm.cpu,
            memory: machine.vm.memory,
            maxmem: machine.vm.maxmem,
            template: machine.vm.template,
            nics: nics.map(|n| BackupNic { name: n.name, mac: n.mac, switch: n.switch, ip: n.ip }).collect(),
        };
        let backup = Backup {
            id: BackupId(core.ids.uuid()),
            vm: wish.vm,
            name: wish.name.into_string(),
            storlink: storlink.id,
            size: machine.disks.iter().map(|disk| disk.size).sum(),
            desc: wish.desc,
            created_at: core.clock.now(),
            config,
            manifest: String::new(),
            verified_at: None,
            proven_at: None,
        };
        Ok(Self { machine, backup, driver, data, needs })
    }
}

/// What the images of a disk occupy together, at most what it shows.
fn data_of(core: &Core, machine: &Machine, disk: &Disk) -> Result<u64> {
    let mut bytes = 0_u64;
    for image in std::iter::once(disk).chain(machine.below.get(&disk.id).into_iter().flatten()) {
        let said = machine.driver(core, image)?.layer(&image.volume, image.format)?;
        bytes = bytes.saturating_add(said.facts.allocated_bytes);
    }
    Ok(bytes.min(disk.size.bytes()))
}

fn row(core: &Core, backup: &Backup, disk: &Disk) -> Disk {
    let id = DiskId(core.ids.uuid());
    Disk {
        id,
        owner: DiskOwner::Backup(backup.id),
        order: disk.order,
        size: disk.size,
        format: FORMAT,
        storlink: backup.storlink,
        volume: VolumeName::new(id, FORMAT),
        desc: disk.desc.clone(),
        created_at: backup.created_at,
        backing: None,
    }
}

fn copy(work: &mut Work<'_>, driver: &dyn VolumeDriver, row: &Disk, chain: Vec<Layer>, meter: &Meter) -> Result<()> {
    let undo = Compensation::DeleteVolume { storlink: row.storlink, volume: row.volume.clone() };
    let make = NewVolume { format: FORMAT, size: row.size, content: Content::Compressed(chain) };
    let reporter = work.reporter();
    let step = format!("copying disk {}", row.order);
    let progress = |percent: u32| reporter.progress(meter.copied(percent), &step);
    let control = Control { cancel: reporter.cancel_flag(), progress: &progress };
    work.step(&undo, || driver.create(&row.volume, &make, &control))
}

/// How far all disks together are: first all are copied, then all are read.
struct Meter {
    of: usize,
    done: usize,
}

impl Meter {
    fn share(&self, percent: u32, of: u32) -> u32 {
        let (all, done) = (u32::try_from(self.of.max(1)).unwrap_or(1), u32::try_from(self.done).unwrap_or(0));
        (done.saturating_mul(100).saturating_add(percent)).saturating_mul(of) / all / 100
    }

    fn copied(&self, percent: u32) -> u32 {
        self.share(percent, COPYING)
    }

    fn read(&self, percent: u32) -> u32 {
        COPYING + self.share(percent, 100 - COPYING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_goes_on_and_ends_at_all() {
        let at = |done| Meter { of: 2, done };
        let seen = [at(0).copied(0), at(0).copied(100), at(1).copied(50), at(1).copied(100)];
        assert_eq!(seen, [0, 42, 63, 85]);
        assert_eq!([at(0).read(0), at(0).read(100), at(1).read(100)], [85, 92, 100]);
        assert_eq!(Meter { of: 0, done: 0 }.read(100), 100);
    }
}
