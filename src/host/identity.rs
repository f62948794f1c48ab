//! Who this host is and how large it is.

use std::fs;
use std::path::Path;

use super::load::memory;
use crate::error::{Error, Result};
use crate::model::{MiB, PmId};

/// The file in the data directory.
const IDENTITY: &str = "pm-uuid";

/// Name and size of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub name: String,
    /// Logical CPUs.
    pub cpus: u32,
    pub memory: MiB,
}

pub fn facts() -> Result<Facts> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let meminfo = fs::read_to_string("/proc/meminfo").map_err(|e| Error::internal("/proc/meminfo").caused_by(e))?;
    let memory = memory(&meminfo).ok_or_else(|| Error::internal("/proc/meminfo without MemTotal"))?;
    Ok(Facts { name, cpus: u32::try_from(cpus).unwrap_or(u32::MAX), memory: memory.total() })
}

/// The id of this host, made once and kept in the data directory.
pub fn identity(data_dir: &Path, fresh: PmId) -> Result<PmId> {
    if let Some(known) = known_identity(data_dir)? {
        return Ok(known);
    }
    let path = data_dir.join(IDENTITY);
    let write = || -> std::io::Result<()> {
        let part = data_dir.join("pm-uuid.part");
        fs::write(&part, format!("{fresh}\n"))?;
        fs::File::open(&part)?.sync_all()?;
        fs::rename(&part, &path)
    };
    write().map_err(|e| Error::refused("the data directory", format!("{}: {e}", path.display())))?;
    Ok(fresh)
}

/// `None` where no server has made one yet.
pub fn known_identity(data_dir: &Path) -> Result<Option<PmId>> {
    let path = data_dir.join(IDENTITY);
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse() {
            Ok(id) => Ok(Some(id)),
            Err(_) => Err(Error::invalid("data_dir", format!("{} does not hold a uuid", path.display()))),
        },
        Err(absent) if absent.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(other) => Err(Error::refused("the data directory", format!("{}: {other}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_a_name_and_a_size() {
        let facts = facts().unwrap();
        assert!(!facts.name.is_empty() && facts.cpus >= 1 && facts.memory.0 > 0);
    }

    #[test]
    fn an_identity_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (PmId(uuid::Uuid::from_u128(1)), PmId(uuid::Uuid::from_u128(2)));
        assert_eq!(known_identity(dir.path()).unwrap(), None);
        assert_eq!(identity(dir.path(), first).unwrap(), first);
        assert_eq!(known_identity(dir.path()).unwrap(), Some(first));
        assert_eq!(identity(dir.path(), second).unwrap(), first);
        std::fs::write(dir.path().join("pm-uuid"), "nonsense").unwrap();
        assert!(identity(dir.path(), second).unwrap_err().to_string().contains("does not hold a uuid"));
    }
}
