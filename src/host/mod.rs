//! Facts of this host: who it is, how large and how busy it is, its networks and mounts. Reads `/proc`, `/sys`, `/etc` and
//! `/dev`, never a hypervisor and no tool.
//!
//! Law: a fact that cannot be read is left out and said once in the log; nothing here keeps a start from going on.

pub mod authorized_keys;
mod identity;
mod load;
mod networks;
mod ovs;
mod storages;
mod vitals;

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub use identity::{Facts, facts, identity, known_identity};
pub use load::{Load, Sampler};
pub use vitals::{CpuShares, Meter, NicCounters, Vitals};

/// What is larger is not read: no fact is.
const MAX_BYTES: u64 = 16 << 20;

/// A host as its file systems tell of it. Cloning gives another handle to the same one.
#[derive(Debug, Clone)]
pub struct Host {
    root: PathBuf,
    /// Complaints that are in the log already.
    said: Arc<Mutex<BTreeSet<String>>>,
}

impl Host {
    /// The host that we run on.
    pub fn this() -> Self {
        Self::below(Path::new("/"))
    }

    /// One whose `/proc`, `/sys`, `/etc` and `/dev` are below another directory.
    pub fn below(root: &Path) -> Self {
        Self { root: root.to_owned(), said: Arc::default() }
    }

    /// The content of a file; `None` if it is not there or cannot be read.
    fn text(&self, path: &str) -> Option<String> {
        let read = || {
            let mut bytes = Vec::new();
            fs::File::open(self.root.join(path))?.take(MAX_BYTES).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        self.there(path, read())
    }

    /// The first line of a file, trimmed.
    fn line(&self, path: &str) -> Option<String> {
        let text = self.text(path)?;
        text.lines().next().map(|line| line.trim().to_owned())
    }

    fn number(&self, path: &str) -> Option<u64> {
        self.line(path)?.parse().ok()
    }

    /// The names in a directory, sorted; none if it is not there.
    fn names(&self, path: &str) -> Vec<String> {
        let read = || {
            let mut names = Vec::new();
            for entry in fs::read_dir(self.root.join(path))? {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
            names.sort();
            Ok(names)
        };
        self.there(path, read()).unwrap_or_default()
    }

    /// What a symbolic link says, as it says it.
    fn link(&self, path: &str) -> Option<String> {
        let link = fs::read_link(self.root.join(path));
        self.there(path, link).map(|to| to.to_string_lossy().into_owned())
    }

    /// The last part of what a symbolic link says.
    fn linked_name(&self, path: &str) -> Option<String> {
        self.link(path)?.rsplit('/').next().map(str::to_owned)
    }

    fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    fn there<T>(&self, path: &str, read: std::io::Result<T>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => None,
            Err(e) => {
                self.say(&format!("/{path} cannot be read: {e}"));
                None
            }
        }
    }

    /// Once, however often it is found again.
    fn say(&self, what: &str) {
        if self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(what.to_owned()) {
            tracing::warn!("a fact of this host is left out: {what}");
        }
    }
}

/// What this process takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessUsage {
    pub resident_bytes: u64,
    pub threads: u64,
    pub open_fds: usize,
}

/// `None` where there is no `/proc`.
pub fn process_usage() -> Option<ProcessUsage> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let resident_kib: u64 = field(&status, "VmRSS:")?.strip_suffix("kB")?.trim().parse().ok()?;
    // Less the one that lists them.
    let open_fds = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    let threads = field(&status, "Threads:")?.parse().ok()?;
    Some(ProcessUsage { resident_bytes: resident_kib * 1024, threads, open_fds })
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// A made-up host for unit tests.
#[cfg(test)]
pub(crate) mod tree {
    use super::*;

    pub(crate) struct Tree(tempfile::TempDir);

    impl Tree {
        /// Files with their content; `-> x` as content is a symbolic link to `x`.
        pub(crate) fn of(files: &[(&str, &str)]) -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            for (path, content) in files {
                let path = tree.0.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                match content.strip_prefix("-> ") {
                    Some(to) => std::os::unix::fs::symlink(to, &path).unwrap(),
                    None => fs::write(&path, content).unwrap(),
                }
            }
            tree
        }

        pub(crate) fn host(&self) -> Host {
            Host::below(self.0.path())
        }
    }
}
