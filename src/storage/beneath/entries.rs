//! What lies in a directory, whoever put it there: looked at, never followed; and removed only as what it was seen to be.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, OFlags};
use rustix::io::Errno;

use super::{Dir, refused};
use crate::error::{Error, Result};
use crate::model::{FileKind, MadeName, Mark, VolumeFile, VolumeFiles};
use crate::storage::{header, marks};

impl Dir {
    /// Every entry, so many at most: those whose names could be ours first, then by name.
    pub(in crate::storage) fn entries(&self, most: usize) -> Result<VolumeFiles> {
        let mut names: BTreeSet<(bool, CString)> = BTreeSet::new();
        let mut seen: usize = 0;
        self.each_entry(|entry| {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                return;
            }
            seen += 1;
            let is_strange = !name.to_str().is_ok_and(|name| MadeName::parse(name).is_some());
            names.insert((is_strange, name.to_owned()));
            if names.len() > most {
                names.pop_last();
            }
        })?;
        let unlisted = u64::try_from(seen.saturating_sub(names.len())).unwrap_or(u64::MAX);
        let mut files = Vec::with_capacity(names.len());
        for (_, name) in names {
            files.extend(self.entry(&name)?);
        }
        files.sort_by(|a: &VolumeFile, b| a.name.cmp(&b.name));
        Ok(VolumeFiles { files, unlisted })
    }

    /// One entry, as it is itself. `None`: it is not there.
    pub(in crate::storage) fn entry(&self, name: &CString) -> Result<Option<VolumeFile>> {
        let shown = name.to_string_lossy();
        let stat = match fs::statat(&self.fd, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(self.failed(&shown, "looked at", e)),
        };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Directory,
            FileType::Symlink => FileKind::Symlink,
            FileType::Fifo => FileKind::Fifo,
            FileType::Socket => FileKind::Socket,
            _ => FileKind::Device,
        };
        // Only what could be ours is opened: its mark decides.
        let mark = match kind {
            FileKind::File if MadeName::parse(&shown).is_some() => self.mark_of(&shown),
            _ => Mark::None,
        };
        Ok(Some(VolumeFile {
            name: shown.into_owned(),
            kind,
            inode: stat.st_ino,
            links: stat.st_nlink,
            bytes: u64::try_from(stat.st_size).unwrap_or_default(),
            // The kernel counts in units of 512, whatever the blocks of the file system are.
            allocated_bytes: u64::try_from(stat.st_blocks).unwrap_or_default().saturating_mul(512),
            changed_at: marks::time(&stat),
            mark,
        }))
    }

    /// Whoever may not read a file has not made it.
    fn mark_of(&self, name: &str) -> Mark {
        self.peek(name).map_or(Mark::None, |file| marks::read(&file, self.site))
    }

    /// Removes a file that is still what it was; gone is success.
    pub(in crate::storage) fn discard(&self, seen: &VolumeFile) -> Result<()> {
        let name = CString::new(seen.name.as_str()).map_err(|e| Error::internal("a name with NUL").caused_by(e))?;
        match self.entry(&name)? {
            None => Ok(()),
            Some(now) if now == *seen => {
                self.unlink(&seen.name)?;
                self.sync()
            }
            Some(_) => Err(refused(format!("{} has just changed", self.path.join(&seen.name).display()))),
        }
    }

    /// An image here whose header says that it reads from a file of this name, wherever that is. What has no name of ours is
    /// not looked into.
    pub(in crate::storage) fn reader_of(&self, name: &str) -> Result<Option<String>> {
        let mut images = self.names()?;
        images.retain(|image| MadeName::parse(image).is_some());
        Ok(images.into_iter().find(|image| {
            let backing = self.peek(image).and_then(|mut file| header::backing_name(&mut file).ok()).flatten();
            backing.is_some_and(|path| Path::new(&path).file_name().is_some_and(|file| file == name))
        }))
    }

    /// The file under a name, to be looked into and whatever else leads to it.
    fn peek(&self, name: &str) -> Option<File> {
        let file = File::from(self.open_beneath(name, OFlags::RDONLY | OFlags::NONBLOCK).ok()?);
        file.metadata().ok()?.is_file().then_some(file)
    }
}
