//! Backups: full, self-contained copies of a VM's disks that outlive it, with a manifest beside them that says what they must
//! be. Made, deleted, restored, verified, proven, looked at.
//!
//! Law: before any tool opens an image of a backup, the manifest is the one that the row names, and the image's own header
//! and length are what the manifest says.

mod create;
mod delete;
mod manifest;
mod prove;
mod query;
mod restore;
mod verify;

pub use create::CreateBackup;
pub use delete::DeleteBackup;
pub use prove::ProveBackup;
pub use query::{list, of_vm};
pub use restore::RestoreBackup;
pub use verify::{VerifyBackup, read_again};

use crate::error::Result;
use crate::model::{Backup, BackupId, Disk, Format, Storlink, VmId};
use crate::storage::VolumeDriver;
use crate::store::disks;

use super::{Core, guard};

/// Of every image.
const FORMAT: Format = Format::Qcow2;

/// For subjects of tasks and for refusals: `backup nightly of vm web1`.
fn noun(backup: &Backup) -> String {
    format!("backup {} of vm {}", backup.name, backup.config.name)
}

fn subject(core: &Core, vm: VmId, id: BackupId) -> Result<String> {
    Ok(noun(&core.store.read(|c| guard::backup(c, core, vm, id))?))
}

/// A backup with all that is known of its images, which are all on its storlink.
struct Kept {
    backup: Backup,
    /// By order.
    disks: Vec<Disk>,
    storlink: Storlink,
}

impl Kept {
    fn load(core: &Core, vm: VmId, id: BackupId) -> Result<Self> {
        core.store.read(|c| {
            let backup = guard::backup(c, core, vm, id)?;
            let disks = disks::of_backup(c, id)?;
            let storlink = guard::storlink(c, &core.pm, backup.storlink)?;
            Ok(Self { backup, disks, storlink })
        })
    }

    /// Of a storlink that is there: one that is gone says nothing about what is on it, and nothing could be undone there.
    fn driver(&self, core: &Core) -> Result<Box<dyn VolumeDriver>> {
        let driver = (core.volumes)(&self.storlink)?;
        driver.usage()?;
        Ok(driver)
    }
}
