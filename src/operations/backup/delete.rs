//! Deletes a backup: images and manifest can come back until its rows go, and go for good right after.

use crate::error::Result;
use crate::model::{Access, BackupId, Compensation, Lock, Resource, TaskKind, VmId, VolumeName};
use crate::operations::{Core, Operation};
use crate::store::{backups, disks};
use crate::tasks::Work;

use super::{Kept, noun, subject};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteBackup {
    /// There, or deleted since.
    pub vm: VmId,
    pub backup: BackupId,
}

impl Operation for DeleteBackup {
    const KIND: TaskKind = TaskKind::BackupDelete;
    type Output = ();

    fn subject(&self, core: &Core) -> Result<String> {
        subject(core, self.vm, self.backup)
    }

    fn locks(&self) -> Vec<Lock> {
        vec![Lock { resource: Resource::Backup(self.backup), access: Access::Changes }]
    }

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let kept = Kept::load(core, self.vm, self.backup)?;
        let (storlink, driver) = (kept.storlink.id, kept.driver(core)?);
        let images = kept.disks.iter().map(|disk| disk.volume.clone());
        let mut finish = Vec::new();
        for volume in images.chain([VolumeName::manifest(self.backup)]) {
            let undo = Compensation::RestoreVolume { storlink, volume: volume.clone() };
            work.step(&undo, || driver.set_aside(&volume))?;
            finish.push(Compensation::PurgeVolume { storlink, volume });
        }
        work.settle(&format!("{} is deleted", noun(&kept.backup)), &finish, |tx| {
            kept.disks.iter().try_for_each(|disk| disks::remove(tx, disk.id))?;
            backups::remove(tx, self.backup)
        })
    }
}
