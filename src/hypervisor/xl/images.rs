//! Which images a domain writes to and which it only reads. Xen lets two domains write to one image, so we look first.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::model::{DiskSpec, DomainSpec, VolumeSource};

use super::BY;

/// The files of one domain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Images {
    /// Nobody else may read them.
    pub(super) written: Vec<PathBuf>,
    /// Nobody else may write them.
    pub(super) read: Vec<PathBuf>,
}

/// Which file it really is, whatever the path: device and inode.
pub(super) type Identities = HashMap<PathBuf, (u64, u64)>;

impl Images {
    pub(super) fn of_disk(disk: &DiskSpec) -> Self {
        let path = |VolumeSource::File(file): &VolumeSource| file.clone();
        Self { written: vec![path(&disk.source)], read: disk.backing.iter().map(|layer| path(&layer.source)).collect() }
    }

    pub(super) fn of(spec: &DomainSpec) -> Self {
        let mut all = Self::default();
        for disk in &spec.disks {
            all.add(Self::of_disk(disk));
        }
        all.read.extend(spec.disc.iter().map(|VolumeSource::File(file)| file.clone()));
        all
    }

    pub(super) fn add(&mut self, other: Self) {
        self.written.extend(other.written);
        self.read.extend(other.read);
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.written.iter().chain(&self.read)
    }

    /// Refused if one is not there.
    pub(super) fn are_there(&self, known: &Identities) -> Result<()> {
        match self.all().find(|file| !known.contains_key(*file)) {
            Some(missing) => Err(Error::refused(BY, format!("{}: No such file or directory", missing.display()))),
            None => Ok(()),
        }
    }

    /// Refused if the other one has an image that we may not share with it.
    pub(super) fn fit(&self, other: &Self, name: &str, known: &Identities) -> Result<()> {
        let same = |a: &PathBuf, b: &PathBuf| a == b || known.get(a).is_some_and(|a| known.get(b) == Some(a));
        let taken = |files: &[PathBuf], by: &mut dyn Iterator<Item = &PathBuf>| {
            let by: Vec<&PathBuf> = by.collect();
            files.iter().find(|file| by.iter().any(|other| same(file, other))).cloned()
        };
        let both = taken(&self.written, &mut other.all()).or_else(|| taken(&self.read, &mut other.written.iter()));
        match both {
            Some(file) => Err(Error::refused(BY, format!("{} is in use by domain {name}", file.display()))),
            None => Ok(()),
        }
    }
}

/// Of those that are there. Blocks for as long as their storage does.
pub(super) fn identities(files: Vec<PathBuf>) -> Identities {
    let identity = |file: PathBuf| file.metadata().ok().map(|found| (file, (found.dev(), found.ino())));
    files.into_iter().filter_map(identity).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(written: &[&str], read: &[&str]) -> Images {
        let paths = |all: &[&str]| all.iter().map(PathBuf::from).collect();
        Images { written: paths(written), read: paths(read) }
    }

    #[test]
    fn one_writes_or_many_read() {
        let known = [("/a", 1), ("/link to a", 1), ("/base", 2), ("/b", 3)];
        let known = known.map(|(file, inode)| (PathBuf::from(file), (1, inode))).into();
        let running = images(&["/a"], &["/base"]);
        for (ours, names) in [
            (images(&["/b"], &["/base"]), None),
            (images(&["/a"], &[]), Some("/a")),
            (images(&["/link to a"], &[]), Some("/link to a")),
            (images(&["/base"], &[]), Some("/base")),
            (images(&["/b"], &["/a"]), Some("/a")),
            (images(&[], &["/base"]), None),
        ] {
            let said = ours.fit(&running, "x", &known).err().map(|error| error.to_string());
            let expected = names.map(|file| format!("Xen refused: {file} is in use by domain x"));
            assert_eq!(said, expected);
        }
        assert!(images(&["/b"], &["/base"]).are_there(&known).is_ok());
        let said = images(&["/b"], &["/gone"]).are_there(&known).unwrap_err().to_string();
        assert_eq!(said, "Xen refused: /gone: No such file or directory");
    }
}
