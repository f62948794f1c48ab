//! Reads a backup again, every byte of it.

use crate::error::{ErrorKind, Result};
use crate::model::{Access, Backup, BackupId, Disk, Lane, Lock, Resource, TaskKind, VmId};
use crate::operations::{Core, Operation};
use crate::storage::{Control, VolumeDriver};
use crate::store::backups;
use crate::tasks::Work;

use super::manifest::{self, lost, wrong};
use super::{FORMAT, Kept, noun, subject};

/// A backup that is found to be damaged loses the time at which it was found whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyBackup {
    /// There, or deleted since.
    pub vm: VmId,
    pub backup: BackupId,
}

impl Operation for VerifyBackup {
    const KIND: TaskKind = TaskKind::BackupVerify;
    type Output = ();

    fn lane(&self) -> Lane {
        Lane::Long
    }

    fn subject(&self, core: &Core) -> Result<String> {
        subject(core, self.vm, self.backup)
    }

    fn locks(&self) -> Vec<Lock> {
        vec![Lock { resource: Resource::Backup(self.backup), access: Access::Uses }]
    }

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let kept = Kept::load(core, self.vm, self.backup)?;
        let driver = kept.driver(core)?;
        let reporter = work.reporter();
        let progress = |percent: u32| reporter.progress(percent, "reading the images");
        let control = Control { cancel: reporter.cancel_flag(), progress: &progress };
        let found = work.act(|| Ok(read_again(driver.as_ref(), &kept.backup, &kept.disks, &control)))?;
        let denied = found.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::Refused { .. }));
        if denied && kept.backup.verified_at.is_some() {
            core.store.write_tx(|tx| backups::set_verified(tx, self.backup, None))?;
        }
        found?;
        let now = core.clock.now();
        work.settle(&format!("{} is as it was made", noun(&kept.backup)), &[], |tx| {
            backups::set_verified(tx, self.backup, Some(now))
        })
    }
}

/// Everything against everything: the manifest against the row, every block of every image against the manifest, and the
/// tables of each image against one another.
///
/// # Errors
/// `Refused` is a finding: what is damaged, and where.
pub fn read_again(driver: &dyn VolumeDriver, backup: &Backup, disks: &[Disk], control: &Control<'_>) -> Result<()> {
    let manifest = manifest::glance(driver, backup, disks)?;
    let total = manifest.disks.iter().map(|image| image.file_bytes).sum::<u64>().max(1);
    let mut before = 0;
    for image in &manifest.disks {
        let progress = |percent: u32| {
            let done = before + image.file_bytes / 100 * u64::from(percent);
            (control.progress)(u32::try_from(done.saturating_mul(100) / total).unwrap_or(100));
        };
        let control = Control { cancel: control.cancel, progress: &progress };
        let digest = driver.digest(&image.volume, &control).map_err(|error| lost(backup, &image.volume, error))?;
        image.compare(&digest).map_err(|why| wrong(backup, why))?;
        let quietly = Control { cancel: control.cancel, progress: &|_| {} };
        driver.inspect(&image.volume, FORMAT, &quietly).map_err(|error| lost(backup, &image.volume, error))?;
        before += image.file_bytes;
    }
    Ok(())
}
