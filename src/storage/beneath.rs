//! The files of one directory, and nothing else.
//!
//! Law: the directory is opened once per call, and everything happens below that descriptor. The path to it is the
//! operator's and may lead through symbolic links; an entry may not: it is a regular file with one name, or it is refused.
//! Everything here may block for ever on a dead mount: call it within a deadline.

mod entries;
mod marker;

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use uuid::Uuid;

use super::marks;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{MiB, Usage};

pub(super) struct Dir {
    fd: rustix::fd::OwnedFd,
    path: PathBuf,
    /// Whose files are made here.
    site: Option<Uuid>,
}

impl Dir {
    /// Never makes the directory: one that is missing was perhaps not mounted.
    pub(super) fn open(path: &Path) -> Result<Self> {
        if !path.is_absolute() {
            return Err(Error::invalid("link", format!("{} must be an absolute path", path.display())));
        }
        match fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => Ok(Self { fd, path: path.to_owned(), site: None }),
            Err(Errno::NOENT) => Err(gone(path)),
            Err(Errno::NOTDIR) => Err(refused(format!("{} is not a directory", path.display()))),
            Err(e) => Err(failed(format!("directory {} cannot be read", path.display()), path, e)),
        }
    }

    /// Every file that is made here gets the mark of this site.
    pub(super) fn of_site(self, site: Option<Uuid>) -> Self {
        Self { site, ..self }
    }

    /// What is under the name, if it is a regular file of ours.
    pub(super) fn file(&self, name: &str) -> Result<Option<Stat>> {
        match fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => self.acceptable(name, &stat).map(|()| Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(self.failed(name, "looked at", e)),
        }
    }

    pub(super) fn open_file(&self, name: &str) -> Result<Option<File>> {
        // Looked at before it is opened: opening a device has effects.
        if self.file(name)?.is_none() {
            return Ok(None);
        }
        // Without NONBLOCK, a pipe that came in between would be waited for.
        let opened = self.open_beneath(name, OFlags::RDONLY | OFlags::NONBLOCK);
        let file = match opened {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(self.failed(name, "opened", e)),
        };
        let stat = fs::fstat(&file).map_err(|e| self.failed(name, "looked at", e))?;
        self.acceptable(name, &stat)?;
        Ok(Some(file))
    }

    /// Whether files can be opened past the page cache, tried on a file that is there.
    pub(super) fn opens_direct(&self, name: &str) -> Result<bool> {
        match self.open_beneath(name, OFlags::RDONLY | OFlags::DIRECT) {
            Ok(_) => Ok(true),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(false),
            Err(e) => Err(self.failed(name, "opened", e)),
        }
    }

    fn open_beneath(&self, name: &str, how: OFlags) -> Result<rustix::fd::OwnedFd, Errno> {
        let how = how | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match fs::openat2(&self.fd, name, how, Mode::empty(), resolve) {
            // A sandbox that does not know the call. Names are one component long, so NOFOLLOW alone says the same.
            Err(Errno::NOSYS | Errno::PERM) => fs::openat(&self.fd, name, how, Mode::empty()),
            other => other,
        }
    }

    /// A new, empty file that only we may read.
    pub(super) fn make(&self, name: &str) -> Result<File> {
        let how = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match fs::openat(&self.fd, name, how, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => {
                let file = File::from(fd);
                if let Some(site) = self.site {
                    marks::put(&file, site);
                }
                Ok(file)
            }
            Err(Errno::EXIST) => Err(exists(name)),
            Err(Errno::NOENT) => Err(gone(&self.path)),
            Err(Errno::NOSPC | Errno::DQUOT) => Err(self.no_space(MiB(1), self.usage()?.free)),
            Err(e) => Err(failed(format!("directory {} cannot be written", self.path.display()), &self.path, e)),
        }
    }

    /// False if there is nothing to rename; never replaces anything.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<bool> {
        let renamed = match fs::renameat_with(&self.fd, from, &self.fd, to, RenameFlags::NOREPLACE) {
            // NFS has no such rename. The names are uuids under their task's lock, so looking first is enough there.
            Err(Errno::INVAL | Errno::NOSYS) => match fs::statat(&self.fd, to, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => fs::renameat(&self.fd, from, &self.fd, to),
                looked => looked.and(Err(Errno::EXIST)),
            },
            other => other,
        };
        match renamed {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(Errno::EXIST) => Err(exists(to)),
            Err(e) => Err(self.failed(from, "renamed", e)),
        }
    }

    /// False if there is nothing to remove. A link is removed, not what it names.
    pub(super) fn unlink(&self, name: &str) -> Result<bool> {
        match fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(self.failed(name, "removed", e)),
        }
    }

    /// Makes what was renamed and removed outlive a power cut.
    pub(super) fn sync(&self) -> Result<()> {
        fs::fsync(&self.fd).map_err(|e| failed(format!("{} cannot be synced", self.path.display()), &self.path, e))
    }

    /// The names of all regular files, in no order.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        self.each_name(|name| names.push(name.to_owned()))?;
        Ok(names)
    }

    /// One after the other the names of all regular files, in no order; those that are not UTF-8 are left out.
    pub(super) fn each_name(&self, mut look: impl FnMut(&str)) -> Result<()> {
        self.each_entry(|entry| {
            if let (Ok(name), FileType::RegularFile | FileType::Unknown) =
                (entry.file_name().to_str(), entry.file_type())
            {
                look(name);
            }
        })
    }

    fn each_entry(&self, mut look: impl FnMut(&fs::DirEntry)) -> Result<()> {
        let unreadable = |e| failed(format!("directory {} cannot be read", self.path.display()), &self.path, e);
        for entry in fs::Dir::read_from(&self.fd).map_err(unreadable)? {
            look(&entry.map_err(unreadable)?);
        }
        Ok(())
    }

    pub(super) fn usage(&self) -> Result<Usage> {
        let said = fs::fstatvfs(&self.fd)
            .map_err(|e| failed(format!("{} does not say how full it is", self.path.display()), &self.path, e))?;
        let size = |blocks: u64| MiB::from_bytes_floor(blocks.saturating_mul(said.f_frsize));
        Ok(Usage { size: size(said.f_blocks), free: size(said.f_bavail) })
    }

    pub(super) fn no_space(&self, need: MiB, free: MiB) -> Error {
        Error::new(ErrorKind::NoSpace { what: format!("the storage at {}", self.path.display()), need, free })
    }

    fn acceptable(&self, name: &str, stat: &Stat) -> Result<()> {
        let is = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if stat.st_nlink <= 1 => return Ok(()),
            FileType::RegularFile => "has other names too (hard links); copy it to a file of its own",
            FileType::Symlink => "is a symbolic link; put the file itself there",
            _ => "is not a regular file",
        };
        Err(refused(format!("{} {is}", self.path.join(name).display())))
    }

    fn failed(&self, name: &str, action: &str, e: Errno) -> Error {
        failed(format!("{} cannot be {action}", self.path.join(name).display()), &self.path, e)
    }
}

fn refused(why: String) -> Error {
    Error::refused("the storage", why)
}

fn gone(path: &Path) -> Error {
    refused(format!("storlink directory {} is gone; mount it or make it", path.display()))
}

fn exists(name: &str) -> Error {
    Error::new(ErrorKind::Exists { what: "volume", name: name.to_owned() })
}

/// Storage that does not answer is told from storage that says no.
fn failed(what: String, path: &Path, e: Errno) -> Error {
    match e {
        Errno::STALE | Errno::IO | Errno::TIMEDOUT | Errno::NOTCONN | Errno::HOSTDOWN | Errno::HOSTUNREACH => {
            Error::unavailable(format!("the storage at {}", path.display())).context(what).caused_by(e)
        }
        e => refused(format!("{what}: {e}")),
    }
}
