//! What the hypervisor tells of a VM that runs here: what it uses, where it is reached, how its screen looks.

use std::net::IpAddr;

use crate::error::{Error, Result};
use crate::model::{DomainStats, GuestAddress, Network, Screenshot, Vm, VmId};
use crate::operations::samples::SeriesPoint;
use crate::operations::{Core, guard};
use crate::store::disks;

fn here(core: &Core, id: VmId) -> Result<Vm> {
    core.store.read(|c| guard::vm(c, core, id))
}

/// What it has used since it started, as of the last second. `None`: it is off.
pub fn stats(core: &Core, vm: VmId) -> Result<Option<DomainStats>> {
    here(core, vm)?;
    core.samples.newest(vm)
}

/// How much of one CPU of the host each of its vCPUs used lately, in percent; zeros when it is off. Whoever asks is told of the
/// last second or so, and the first one after a while waits a moment for it.
pub fn vcpu_use(core: &Core, vm: VmId) -> Result<Vec<f64>> {
    let known = here(core, vm)?;
    Ok(match core.samples.vcpu_use(vm)? {
        Some(shares) if !shares.is_empty() => shares,
        _ => (0..known.cpu).map(|_| 0.0).collect(),
    })
}

/// What it used in each minute of the last hour or so that it ran, oldest first; at most 70 points. How full its disks are
/// nobody asks every minute, so `disk_bytes` is 0.
pub fn series(core: &Core, vm: VmId) -> Result<Vec<SeriesPoint>> {
    let disks = core.store.read(|c| {
        guard::vm(c, core, vm)?;
        disks::of_vm(c, vm)
    })?;
    let most = disks.iter().fold(0_u64, |all, disk| all.saturating_add(disk.size.0.saturating_mul(1 << 20)));
    let points = core.samples.series(vm);
    Ok(points.into_iter().map(|point| SeriesPoint { max_disk_bytes: most, ..point }).collect())
}

/// Where it is reached, as its agent, a lease or this host's own traffic tells; empty when nobody knows.
pub fn addresses(core: &Core, vm: VmId) -> Result<Vec<GuestAddress>> {
    here(core, vm)?;
    let mut addresses = core.hypervisor.addresses(vm)?;
    if addresses.iter().any(|address| address.prefix == 0) {
        let networks = core.host.networks();
        for address in addresses.iter_mut().filter(|address| address.prefix == 0) {
            address.prefix = prefix(address.ip, &networks);
        }
    }
    Ok(addresses)
}

/// Of the network of this host that the address is in; else of the address alone.
fn prefix(ip: IpAddr, networks: &[Network]) -> u8 {
    let of = |network: &Network| {
        let (own, prefix) = (network.ip?, network.prefix?);
        shares_prefix(ip, own, prefix).then_some(prefix)
    };
    let alone = if ip.is_ipv4() { 32 } else { 128 };
    networks.iter().filter_map(of).max().unwrap_or(alone)
}

fn shares_prefix(one: IpAddr, other: IpAddr, prefix: u8) -> bool {
    let (bits, width) = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (u128::from(one.to_bits() ^ other.to_bits()), 32),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits(), 128),
        _ => return false,
    };
    let rest = u32::from(width - prefix.min(width));
    bits.checked_shr(rest).unwrap_or(0) == 0
}

/// What its screen shows.
///
/// # Errors
/// `WrongState` when it is off.
pub fn screenshot(core: &Core, vm: VmId) -> Result<Screenshot> {
    here(core, vm)?;
    core.hypervisor.screenshot(vm)
}

/// The document of its domain in libvirt's form, without secrets: as it runs, or as it will when it is off.
pub fn description(core: &Core, vm: VmId) -> Result<String> {
    here(core, vm)?;
    core.hypervisor.description(vm)?.ok_or_else(|| Error::not_found("vm", vm))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{NetworkKind, NetworkMethod};

    #[test]
    fn an_address_has_the_prefix_of_the_network_that_it_is_in() {
        let network = |ip: &str, prefix| Network {
            name: "br0".to_owned(),
            kind: NetworkKind::Nic,
            method: NetworkMethod::Manual,
            mac: None,
            ip: ip.parse().ok(),
            prefix: Some(prefix),
        };
        let networks =
            [network("10.0.0.1", 8), network("10.1.0.1", 16), network("fd00::1", 64), network("192.168.1.1", 32)];
        for (ip, is) in [
            ("10.1.2.3", 16),
            ("10.2.2.3", 8),
            ("192.168.1.2", 32),
            ("172.16.0.1", 32),
            ("fd00::7", 64),
            ("fd01::7", 128),
        ] {
            assert_eq!(prefix(ip.parse().unwrap(), &networks), is, "{ip}");
        }
        assert_eq!(prefix("8.8.8.8".parse().unwrap(), &[network("1.1.1.1", 0)]), 0);
    }
}
