//! Facts of this host: who it is, how large it is, which interfaces it has. Reads `/proc` and `/sys`, never a hypervisor.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use crate::error::{Error, Result};
use crate::model::{Mac, MiB, PmId};

/// A NIC or a bridge of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub mac: Option<Mac>,
    pub ip: Option<IpAddr>,
}

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
    let meminfo = read("/proc/meminfo")?;
    let memory = total_memory(&meminfo).ok_or_else(|| Error::internal("/proc/meminfo without MemTotal"))?;
    Ok(Facts { name, cpus: u32::try_from(cpus).unwrap_or(u32::MAX), memory })
}

/// Physical NICs and bridges, by name; not `lo`, and not the taps of guests.
pub fn interfaces() -> Result<Vec<Interface>> {
    let mut found = BTreeMap::new();
    let net = fs::read_dir("/sys/class/net").map_err(|e| Error::internal("/sys/class/net").caused_by(e))?;
    for entry in net {
        let entry = entry.map_err(|e| Error::internal("/sys/class/net").caused_by(e))?;
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        if path.join("device").exists() || path.join("bridge").exists() {
            let mac = fs::read_to_string(path.join("address")).ok().and_then(|text| text.trim().parse().ok());
            found.insert(name.clone(), Interface { name, mac, ip: None });
        }
    }
    let addresses = if_addrs::get_if_addrs().map_err(|e| Error::internal("addresses of interfaces").caused_by(e))?;
    for address in addresses {
        if let Some(interface) = found.get_mut(&address.name) {
            // The IPv4 address if there is one: clients of this API show a single one.
            if interface.ip.is_none() || (address.ip().is_ipv4() && !interface.ip.is_some_and(|ip| ip.is_ipv4())) {
                interface.ip = Some(address.ip());
            }
        }
    }
    Ok(found.into_values().collect())
}

/// The id of this host, made once and kept in the data directory.
pub fn identity(data_dir: &Path, fresh: PmId) -> Result<PmId> {
    let path = data_dir.join("pm-uuid");
    match fs::read_to_string(&path) {
        Ok(text) => text
            .trim()
            .parse()
            .map_err(|_| Error::invalid("data_dir", format!("{} does not hold a uuid", path.display()))),
        Err(absent) if absent.kind() == std::io::ErrorKind::NotFound => {
            let write = || -> std::io::Result<()> {
                let part = data_dir.join("pm-uuid.part");
                fs::write(&part, format!("{fresh}\n"))?;
                fs::File::open(&part)?.sync_all()?;
                fs::rename(&part, &path)
            };
            write().map_err(|e| Error::refused("the data directory", format!("{}: {e}", path.display())))?;
            Ok(fresh)
        }
        Err(other) => Err(Error::refused("the data directory", format!("{}: {other}", path.display()))),
    }
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).map_err(|e| Error::internal(path).caused_by(e))
}

/// `MemTotal:       24689420 kB`
fn total_memory(meminfo: &str) -> Option<MiB> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(MiB(kib / 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_memory_is_read_in_mib() {
        assert_eq!(total_memory("MemTotal:       24689420 kB\nMemFree: 1 kB\n"), Some(MiB(24110)));
        assert_eq!(total_memory("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn this_host_has_a_name_and_a_size() {
        let facts = facts().unwrap();
        assert!(!facts.name.is_empty() && facts.cpus >= 1 && facts.memory.0 > 0);
    }

    #[test]
    fn an_identity_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (PmId(uuid::Uuid::from_u128(1)), PmId(uuid::Uuid::from_u128(2)));
        assert_eq!(identity(dir.path(), first).unwrap(), first);
        assert_eq!(identity(dir.path(), second).unwrap(), first);
        std::fs::write(dir.path().join("pm-uuid"), "nonsense").unwrap();
        assert!(identity(dir.path(), second).unwrap_err().to_string().contains("does not hold a uuid"));
    }
}
