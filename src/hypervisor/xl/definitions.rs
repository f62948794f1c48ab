//! What is kept of our domains: one directory, for each domain a configuration file, and beside it what its last run was
//! started with and whether that run crashed. A file is replaced as a whole or not at all, and nobody else may read it: it
//! holds the password of a screen.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::model::VmId;

use super::config_file::ConfigFile;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// What the next start starts.
    Definition,
    /// What the last start started, with what was plugged in since; `xl` was given this file.
    Run,
    /// Empty: the last run crashed.
    Crash,
    /// Empty: it stands still, and is to go on.
    Hold,
    /// Empty: it runs on another host, and is to come here.
    Expected,
}

impl Kept {
    const ALL: [Self; 5] = [Self::Definition, Self::Run, Self::Crash, Self::Hold, Self::Expected];

    fn suffix(self) -> &'static str {
        match self {
            Self::Definition => "cfg",
            Self::Run => "run",
            Self::Crash => "crashed",
            Self::Hold => "held",
            Self::Expected => "expected",
        }
    }
}

/// What is there of one domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Known {
    pub(super) defined: bool,
    pub(super) run: bool,
    pub(super) crashed: bool,
    pub(super) held: bool,
    pub(super) expected: bool,
}

pub(super) struct Definitions {
    dir: PathBuf,
    /// What lies in a drive without a disc.
    blank: PathBuf,
}

/// Enough for a drive to take it for a disc; there is nothing on it.
const BLANK_BYTES: u64 = 64 << 10;

impl Definitions {
    /// Makes the directory and what belongs to all domains if it is not there.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let blank = dir.join("blank.iso");
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir).and_then(|()| {
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&blank)?;
            file.set_len(BLANK_BYTES)
        });
        made.map_err(|e| Error::invalid("data_dir", format!("{}: {e}", dir.display())))?;
        Ok(Self { dir: dir.to_owned(), blank })
    }

    pub(super) fn blank(&self) -> &Path {
        &self.blank
    }

    pub(super) fn path(&self, id: VmId, what: Kept) -> PathBuf {
        self.dir.join(Self::file_name(id, what))
    }

    pub(super) fn file_name(id: VmId, what: Kept) -> String {
        format!("{id}.{}", what.suffix())
    }

    pub(super) fn has(&self, id: VmId, what: Kept) -> bool {
        super::exists(&self.path(id, what))
    }

    pub(super) fn known(&self, id: VmId) -> Known {
        let [defined, run, crashed, held, expected] = Kept::ALL.map(|what| self.has(id, what));
        Known { defined, run, crashed, held, expected }
    }

    /// Everything that is there, in one look.
    pub(super) fn all(&self) -> Result<BTreeMap<VmId, Known>> {
        let wrong = |e: io::Error| self.wrong(&self.dir, e);
        let mut all: BTreeMap<VmId, Known> = BTreeMap::new();
        for entry in fs::read_dir(&self.dir).map_err(wrong)? {
            let name = PathBuf::from(entry.map_err(wrong)?.file_name());
            let suffix = name.extension().and_then(OsStr::to_str);
            let what = Kept::ALL.into_iter().find(|what| suffix == Some(what.suffix()));
            let id = name.file_stem().and_then(OsStr::to_str).and_then(|stem| stem.parse().ok());
            if let (Some(id), Some(what)) = (id, what) {
                let known = all.entry(id).or_default();
                match what {
                    Kept::Definition => known.defined = true,
                    Kept::Run => known.run = true,
                    Kept::Crash => known.crashed = true,
                    Kept::Hold => known.held = true,
                    Kept::Expected => known.expected = true,
                }
            }
        }
        Ok(all)
    }

    pub(super) fn read(&self, id: VmId, what: Kept) -> Result<Option<ConfigFile>> {
        let path = self.path(id, what);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(absent) if absent.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(self.wrong(&path, e)),
        };
        match ConfigFile::parse(&text, &self.blank) {
            Some(file) if file.spec.id == id => Ok(Some(file)),
            _ => Err(Error::internal(format!("{} is not what pengx wrote", path.display()))),
        }
    }

    pub(super) fn write(&self, file: &ConfigFile, what: Kept) -> Result<()> {
        self.replace(file.spec.id, what, &file.write(&self.blank)?)
    }

    pub(super) fn mark(&self, id: VmId, what: Kept) -> Result<()> {
        self.replace(id, what, "")
    }

    /// Absent is success.
    pub(super) fn remove(&self, id: VmId, what: Kept) -> Result<()> {
        let path = self.path(id, what);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(self.wrong(&path, e)),
            _ => Ok(()),
        }
    }

    /// The definition goes last, so that what is left of it after a crash is still found.
    pub(super) fn forget(&self, id: VmId) -> Result<()> {
        let notes = [Kept::Run, Kept::Crash, Kept::Hold, Kept::Expected];
        notes.into_iter().chain([Kept::Definition]).try_for_each(|what| self.remove(id, what))
    }

    fn replace(&self, id: VmId, what: Kept, text: &str) -> Result<()> {
        let path = self.path(id, what);
        let part = self.dir.join(format!("{id}.{}.part", what.suffix()));
        let write = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&part, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|e| self.wrong(&path, e))
    }

    fn wrong(&self, path: &Path, e: io::Error) -> Error {
        Error::unavailable("the data directory").context(path.display().to_string()).caused_by(e)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::tests::definition;
    use super::*;

    #[test]
    fn what_is_kept_is_found_and_nobody_else_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let definitions = Definitions::open(&dir.path().join("a/b")).unwrap();
        let file = definition("5f1d3e0a-9f5c-4f43-8b6e-1d1f6a3f2a10");
        let id = file.spec.id;
        assert_eq!(definitions.read(id, Kept::Definition).unwrap(), None);
        definitions.write(&file, Kept::Definition).unwrap();
        definitions.write(&file, Kept::Definition).unwrap();
        fs::write(definitions.path(id, Kept::Run), "half").unwrap();
        fs::write(dir.path().join("a/b/README"), "").unwrap();
        assert_eq!(definitions.read(id, Kept::Definition).unwrap(), Some(file));
        assert!(definitions.read(id, Kept::Run).is_err());
        let known = Known { defined: true, run: true, ..Known::default() };
        assert_eq!(definitions.all().unwrap(), [(id, known)].into());
        let mode = fs::metadata(definitions.path(id, Kept::Definition)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for _ in 0..2 {
            definitions.forget(id).unwrap();
            assert!(definitions.all().unwrap().is_empty());
        }
    }
}
