//! Full copies of a VM's disks on one storlink: what they take, and making them.
//!
//! Law: there is room for all that will be written before the first byte is, and a copy is as sparse as what it is of.

use crate::error::{Error, Result};
use crate::model::{Compensation, Disk, DiskId, DiskOwner, MiB, Storlink, VolumeName};
use crate::storage::{Content, Control, NewVolume, VolumeDriver};
use crate::tasks::{Reporter, Work};

use super::chain::{self, Still};
use super::domain::Machine;
use super::{Core, space};

/// Disks, and what they become on a storlink. Nothing has been touched yet.
pub(super) struct Copies {
    pub(super) storlink: Storlink,
    pub(super) driver: Box<dyn VolumeDriver>,
    /// Each disk and its copy, which is flat and of the same format.
    pub(super) pairs: Vec<(Disk, Disk)>,
    /// What is written when all of them are copied.
    need: MiB,
}

impl Copies {
    /// Of the disks of a VM that are `wanted`; every header has been read.
    pub(super) fn plan(
        core: &Core,
        machine: &Machine,
        storlink: Storlink,
        owner: DiskOwner,
        wanted: impl Fn(&Disk) -> bool,
    ) -> Result<Self> {
        let driver = (core.volumes)(&storlink)?;
        let (now, mut pairs, mut need) = (core.clock.now(), Vec::new(), MiB(0));
        for disk in machine.disks.iter().filter(|disk| wanted(disk)) {
            if !driver.info().formats.contains(&disk.format) {
                let (name, format) = (&storlink.name, disk.format);
                return Err(Error::invalid("storlink", format!("storlink {name} has no {format} volumes")));
            }
            chain::of(core, machine, disk)?;
            need = need + occupied(core, machine, disk)?;
            let id = DiskId(core.ids.uuid());
            let copy = Disk {
                id,
                owner,
                storlink: storlink.id,
                volume: VolumeName::new(id, disk.format),
                created_at: now,
                backing: None,
                ..disk.clone()
            };
            pairs.push((disk.clone(), copy));
        }
        Ok(Self { storlink, driver, pairs, need })
    }

    /// Takes the room for the copies; and for what a guest that runs writes meanwhile, `more` of it on each of these storlinks.
    ///
    /// # Errors
    /// `NoSpace` with what is needed and what is free.
    pub(super) fn reserve(&self, core: &Core, work: &mut Work<'_>, more: &[(&Storlink, MiB)]) -> Result<()> {
        let mut needs = vec![(&self.storlink, self.need)];
        for (storlink, size) in more {
            match needs.iter_mut().find(|(known, _)| known.id == storlink.id) {
                Some((_, need)) => *need = *need + *size,
                None => needs.push((storlink, *size)),
            }
        }
        for (storlink, need) in needs {
            let driver = (core.volumes)(storlink)?;
            space::reserve(core, work, storlink, driver.as_ref(), need)?;
        }
        Ok(())
    }

    /// Copies what the disks hold at the moment at which they stand still.
    pub(super) fn make(&self, work: &mut Work<'_>, still: &Still) -> Result<()> {
        let told = Told::new(work, self.pairs.iter().map(|(disk, _)| disk));
        for (disk, copy) in &self.pairs {
            let held = still.disks.iter().find(|(held, _)| held.id == disk.id);
            let (_, chain) = held.ok_or_else(|| Error::internal(format!("disk {} does not stand still", disk.id)))?;
            let make = NewVolume { format: copy.format, size: copy.size, content: Content::Copy(chain.clone()) };
            let progress = |percent: u32| told.copied(disk, percent.into(), 100);
            let control = Control { cancel: told.reporter.cancel_flag(), progress: &progress };
            progress(0);
            work.step(&making(copy), || self.driver.create(&copy.volume, &make, &control))?;
        }
        Ok(())
    }
}

/// How a volume that a task makes for a disk is undone.
pub(super) fn making(disk: &Disk) -> Compensation {
    Compensation::DeleteVolume { storlink: disk.storlink, volume: disk.volume.clone() }
}

/// What is kept free for what a guest writes to one disk while it is copied: a twentieth of it, 1 GiB at most. A guest that
/// writes more fills up what is free beside it.
pub(super) fn written_meanwhile(disk: &Disk) -> MiB {
    MiB((disk.size.0 / 20).clamp(1, 1024))
}

/// What a full copy of a disk takes: what its images occupy together, at most its size.
fn occupied(core: &Core, machine: &Machine, disk: &Disk) -> Result<MiB> {
    let mut bytes = 0_u64;
    for image in std::iter::once(disk).chain(machine.below.get(&disk.id).into_iter().flatten()) {
        let said = machine.driver(core, image)?.layer(&image.volume, image.format)?;
        bytes = bytes.saturating_add(said.facts.allocated_bytes);
    }
    Ok(MiB::from_bytes_ceil(bytes).min(disk.size).max(MiB(1)))
}

/// Tells how far the copying of several disks is: `copying disk 0: 512 of 4096 MiB`, and the percents of all together.
pub(super) struct Told {
    pub(super) reporter: Reporter,
    /// Order and size of each.
    disks: Vec<(u32, MiB)>,
}

impl Told {
    pub(super) fn new<'a>(work: &Work<'_>, disks: impl Iterator<Item = &'a Disk>) -> Self {
        Self { reporter: work.reporter(), disks: disks.map(|disk| (disk.order, disk.size)).collect() }
    }

    /// `done` parts of `total` of this disk; the ones before it are copied.
    pub(super) fn copied(&self, disk: &Disk, done: u64, total: u64) {
        let (percent, step) = tell(&self.disks, disk.order, done, total);
        self.reporter.progress(percent, &step);
    }
}

fn tell(disks: &[(u32, MiB)], order: u32, done: u64, total: u64) -> (u32, String) {
    let part = |of: u64, done: u64, total: u64| {
        let share = u128::from(of) * u128::from(done.min(total)) / u128::from(total.max(1));
        u64::try_from(share).unwrap_or(of)
    };
    let before: MiB = disks.iter().take_while(|(other, _)| *other != order).map(|(_, size)| *size).sum();
    let all: MiB = disks.iter().map(|(_, size)| *size).sum();
    let size = disks.iter().find(|(other, _)| *other == order).map_or(MiB(0), |(_, size)| *size);
    let copied = MiB(part(size.0, done, total));
    let percent = u32::try_from(part(100, (before + copied).0, all.0)).unwrap_or(100);
    (percent, format!("copying disk {order}: {copied} of {size} MiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_in_bytes_of_the_disk_and_percents_of_all() {
        let disks = [(0, MiB(4096)), (2, MiB(1024))];
        let said = |order, done, total| tell(&disks, order, done, total);
        assert_eq!(said(0, 0, 100), (0, "copying disk 0: 0 of 4096 MiB".to_owned()));
        assert_eq!(said(0, 25, 100), (20, "copying disk 0: 1024 of 4096 MiB".to_owned()));
        assert_eq!(said(0, 100, 100), (80, "copying disk 0: 4096 of 4096 MiB".to_owned()));
        assert_eq!(said(2, 50, 100), (90, "copying disk 2: 512 of 1024 MiB".to_owned()));
        // A job that has grown, one that is empty, and one whose numbers are large.
        assert_eq!(said(2, 300, 200).0, 100);
        assert_eq!(said(0, 0, 0).0, 0);
        assert_eq!(said(2, u64::MAX, u64::MAX).0, 100);
    }
}
