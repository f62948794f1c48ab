//! What lies beside the images of a backup as `<backup uuid>.json`: what it takes to make the VM again without a database,
//! and what every byte of the images must be.

use chrono::NaiveDateTime;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Backup, BackupConfig, BackupId, Disk, DiskId, VmId, VolumeName};
use crate::storage::{BLOCK, FileDigest, VolumeDriver};

use super::{FORMAT, noun};

/// The only form so far.
const VERSION: u32 = 1;

/// Fields are append-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// The form of the rest.
    pub(super) pengx_backup: u32,
    pub(super) id: BackupId,
    pub(super) name: String,
    pub(super) desc: String,
    pub(super) created_at: NaiveDateTime,
    pub(super) vm: VmId,
    pub(super) config: BackupConfig,
    pub(super) block_bytes: u64,
    /// By order.
    pub(super) disks: Vec<Image>,
}

/// One disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Image {
    pub(super) order: u32,
    pub(super) id: DiskId,
    pub(super) volume: VolumeName,
    pub(super) desc: Option<String>,
    /// What the guest sees.
    pub(super) virtual_bytes: u64,
    /// The most of it that is no hole.
    pub(super) data_bytes: u64,
    pub(super) file_bytes: u64,
    /// Of each block of the file, and of the rest.
    pub(super) sha256: Vec<String>,
}

impl Image {
    pub(super) fn new(disk: &Disk, data_bytes: u64, digest: FileDigest) -> Self {
        Self {
            order: disk.order,
            id: disk.id,
            volume: disk.volume.clone(),
            desc: disk.desc.clone(),
            virtual_bytes: disk.size.bytes(),
            data_bytes,
            file_bytes: digest.bytes,
            sha256: digest.blocks,
        }
    }

    /// Whether a file is this image to the last byte; else where it first is not.
    pub(super) fn compare(&self, digest: &FileDigest) -> std::result::Result<(), String> {
        let differs = |n: usize| {
            let (of, at) = (self.sha256.len().max(1), u64::try_from(n).unwrap_or(u64::MAX).saturating_mul(BLOCK));
            format!("image {} is not what it was in block {} of {of}, from byte {at} on", self.volume, n + 1)
        };
        let pairs = self.sha256.iter().zip(&digest.blocks);
        // A file that was cut off or that grew differs where the shorter one ends.
        let both = self.sha256.len().min(digest.blocks.len());
        match pairs.into_iter().position(|(must, is)| must != is) {
            Some(n) => Err(differs(n)),
            None if self.sha256.len() != digest.blocks.len() || self.file_bytes != digest.bytes => Err(differs(both)),
            None => Ok(()),
        }
    }
}

impl Manifest {
    /// Of a backup whose images are these.
    pub(super) fn new(backup: &Backup, disks: Vec<Image>) -> Self {
        Self {
            pengx_backup: VERSION,
            id: backup.id,
            name: backup.name.clone(),
            desc: backup.desc.clone(),
            created_at: backup.created_at,
            vm: backup.vm,
            config: backup.config.clone(),
            block_bytes: BLOCK,
            disks,
        }
    }

    /// For people too.
    pub(super) fn text(&self) -> Result<Vec<u8>> {
        let mut text =
            serde_json::to_vec_pretty(self).map_err(|e| Error::internal("a manifest as JSON").caused_by(e))?;
        text.push(b'\n');
        Ok(text)
    }

    pub(super) fn image(&self, disk: &Disk) -> Result<&Image> {
        let found = self.disks.iter().find(|image| image.id == disk.id);
        found.ok_or_else(|| Error::internal(format!("the manifest has no disk {}", disk.id)))
    }
}

/// As a row has it.
pub(super) fn hash(text: &[u8]) -> String {
    format!("{:x}", Sha256::digest(text))
}

/// The manifest of a backup, after all was looked at that costs little: that it is the one that the row names, and that the
/// length and the header of each image are what it says.
///
/// # Errors
/// `Refused` names what is missing, exchanged or cut off.
pub(super) fn glance(driver: &dyn VolumeDriver, backup: &Backup, disks: &[Disk]) -> Result<Manifest> {
    let manifest = read(driver, backup)?;
    let listed = manifest.disks.iter().map(|image| (image.order, image.id, &image.volume, image.virtual_bytes));
    if !listed.eq(disks.iter().map(|disk| (disk.order, disk.id, &disk.volume, disk.size.bytes()))) {
        return Err(wrong(backup, "its manifest has other disks than its record"));
    }
    for image in &manifest.disks {
        let said = driver.probe(&image.volume, FORMAT).map_err(|e| lost(backup, &image.volume, e))?;
        if said.file_bytes != image.file_bytes {
            let (volume, is, must) = (&image.volume, said.file_bytes, image.file_bytes);
            return Err(wrong(backup, format!("image {volume} has {is} bytes, and had {must} when it was made")));
        }
        if said.virtual_bytes != image.virtual_bytes {
            let (volume, is, must) = (&image.volume, said.virtual_bytes, image.virtual_bytes);
            return Err(wrong(backup, format!("image {volume} shows a disk of {is} bytes, and {must} were backed up")));
        }
    }
    Ok(manifest)
}

fn read(driver: &dyn VolumeDriver, backup: &Backup) -> Result<Manifest> {
    let name = VolumeName::manifest(backup.id);
    let text = driver.read_text(&name).map_err(|e| lost(backup, &name, e))?;
    if hash(&text) != backup.manifest {
        return Err(wrong(backup, format!("its manifest {name} is not the one that was written when it was made")));
    }
    // From here on it is what we wrote.
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|e| wrong(backup, format!("its manifest {name}: {e}")))?;
    if (manifest.pengx_backup, manifest.block_bytes) != (VERSION, BLOCK) {
        let form = manifest.pengx_backup;
        return Err(wrong(backup, format!("its manifest {name} has form {form}, and {VERSION} is known here")));
    }
    if (manifest.id, manifest.vm) != (backup.id, backup.vm) {
        return Err(wrong(backup, format!("its manifest {name} is of backup {} of vm {}", manifest.id, manifest.vm)));
    }
    Ok(manifest)
}

/// A finding: the backup is not what it was.
pub(super) fn wrong(backup: &Backup, why: impl std::fmt::Display) -> Error {
    Error::refused("pengx", format!("{} cannot be trusted: {why}", noun(backup)))
}

/// The client named the backup: that a file of it is missing is a finding, and no 404.
pub(super) fn lost(backup: &Backup, volume: &VolumeName, error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound { .. } => wrong(backup, format!("{volume} is gone")).caused_by(error),
        ErrorKind::Refused { why, .. } => wrong(backup, why).caused_by(error),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Format, MiB, StorlinkId};

    fn image(blocks: &[&str], bytes: u64) -> Image {
        let id = DiskId(uuid::Uuid::nil());
        let disk = Disk {
            id,
            owner: crate::model::DiskOwner::Backup(BackupId(uuid::Uuid::nil())),
            order: 0,
            size: MiB(1),
            format: Format::Qcow2,
            storlink: StorlinkId(1),
            volume: VolumeName::new(id, Format::Qcow2),
            desc: None,
            created_at: NaiveDateTime::default(),
            backing: None,
        };
        Image::new(&disk, 0, digest(blocks, bytes))
    }

    fn digest(blocks: &[&str], bytes: u64) -> FileDigest {
        FileDigest { bytes, blocks: blocks.iter().map(|&block| block.to_owned()).collect() }
    }

    #[test]
    fn the_first_difference_is_told() {
        let two = (BLOCK + 5, ["a", "b"]);
        let must = image(&two.1, two.0);
        assert_eq!(must.compare(&digest(&["a", "b"], two.0)), Ok(()));
        for (blocks, bytes, says) in [
            (&["x", "b"][..], two.0, "block 1 of 2, from byte 0 on"),
            (&["a", "x"], two.0, "block 2 of 2, from byte 16777216 on"),
            (&["a"], BLOCK, "block 2 of 2, from byte 16777216 on"),
            (&[], 0, "block 1 of 2, from byte 0 on"),
            (&["a", "b", "c"], 3 * BLOCK, "block 3 of 2, from byte 33554432 on"),
        ] {
            let told = must.compare(&digest(blocks, bytes)).unwrap_err();
            assert!(told.ends_with(says), "{told}");
        }
        assert_eq!(image(&[], 0).compare(&digest(&[], 0)), Ok(()));
    }
}
