//! What libvirt tells of a guest that runs: what it has used, where it is reached, how its screen looks, its document.

use std::collections::BTreeMap;

use serde::Deserialize;
use uuid::Uuid;
use virt::domain::Domain;
use virt::stream::Stream;

use super::errors::{self, Fault};
use super::ffi;
use super::link::Connection;
use super::states::power_state;
use super::{AGENT_PATIENCE, Patience, definition};
use crate::error::{Error, Result};
use crate::hypervisor::{Verb, arp};
use crate::model::{DomainStats, GuestAddress, PowerState, Screenshot, VmId};

/// Larger than a picture of a screen of eight million pixels.
const MAX_PICTURE: usize = 64 << 20;
/// What one message of a stream brings at most.
const PIECE: usize = 256 << 10;
/// More addresses than this a guest only makes up.
const MAX_ADDRESSES: usize = 256;
const MAX_NAME: usize = 64;

/// One domain of a bulk answer, by libvirt's names: `vcpu.0.time`, `net.1.rx.bytes`. A domain that could not be asked told
/// in part.
pub(super) fn read(id: Uuid, numbers: &[(&str, u64)]) -> DomainStats {
    let of = |name: &str| numbers.iter().find(|(field, _)| *field == name).map(|(_, value)| *value);
    let sum = |group: &str, what: &str| {
        let counted = numbers.iter().filter(|(field, _)| numbered(field, group, what).is_some());
        counted.fold(0_u64, |all, (_, value)| all.saturating_add(*value))
    };
    let vcpus: BTreeMap<u32, u64> =
        numbers.iter().filter_map(|(field, time)| Some((numbered(field, "vcpu", "time")?, *time))).collect();
    let vcpu_nanos: Vec<u64> = vcpus.into_values().collect();
    let available = of("balloon.available");
    let left = of("balloon.usable").or_else(|| of("balloon.unused"));
    DomainStats {
        id: VmId(id),
        cpu_nanos: of("cpu.time").unwrap_or_else(|| vcpu_nanos.iter().fold(0, |all, one| all.saturating_add(*one))),
        vcpu_nanos,
        memory_kib: of("balloon.current").unwrap_or_default(),
        max_memory_kib: of("balloon.maximum").unwrap_or_default(),
        memory_used_kib: available.zip(left).map(|(available, left)| available.saturating_sub(left)),
        net_rx: sum("net", "rx.bytes"),
        net_tx: sum("net", "tx.bytes"),
        disk_read: sum("block", "rd.bytes"),
        disk_written: sum("block", "wr.bytes"),
    }
}

/// The `N` of `group.N.what`.
fn numbered(field: &str, group: &str, what: &str) -> Option<u32> {
    let rest = field.strip_prefix(group)?.strip_prefix('.')?;
    rest.strip_suffix(what)?.strip_suffix('.')?.parse().ok()
}

/// What an agent answers when it is asked for its interfaces.
#[derive(Deserialize)]
struct Told {
    #[serde(rename = "return")]
    interfaces: Vec<Interface>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Interface {
    name: String,
    hardware_address: Option<String>,
    #[serde(default)]
    ip_addresses: Vec<Ip>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Ip {
    ip_address: String,
    #[serde(default)]
    prefix: u8,
}

/// A guest can say anything; what is no address is left out.
fn told(answer: &str) -> Vec<GuestAddress> {
    let Ok(Told { interfaces }) = serde_json::from_str(answer) else { return Vec::new() };
    let of = |interface: Interface| {
        let name: String = interface.name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
        let mac = interface.hardware_address.and_then(|mac| mac.parse().ok());
        interface.ip_addresses.into_iter().filter_map(move |ip| {
            Some(GuestAddress { interface: name.clone(), mac, ip: ip.ip_address.parse().ok()?, prefix: ip.prefix })
        })
    };
    interfaces.into_iter().flat_map(of).take(MAX_ADDRESSES).collect()
}

fn leased(lease: ffi::Lease) -> Option<GuestAddress> {
    let (mac, prefix) = (lease.mac.parse().ok(), u8::try_from(lease.prefix).ok()?);
    Some(GuestAddress { interface: lease.interface, mac, ip: lease.ip.parse().ok()?, prefix })
}

impl Connection {
    pub(super) fn addresses(&self, id: VmId) -> Result<Vec<GuestAddress>, Fault> {
        let Some(domain) = self.find_if_there(id)? else { return Ok(Vec::new()) };
        let state = power_state(ffi::state(&domain)?);
        if !state.is_active() {
            return Ok(Vec::new());
        }
        // libvirt asks none that is paused.
        if state == PowerState::Running {
            let said = told(&self.unless_silent(agent(&domain))?);
            if !said.is_empty() {
                return Ok(said);
            }
        }
        let leases = self.unless_silent(ffi::leases(&domain))?;
        let leases: Vec<GuestAddress> = leases.into_iter().filter_map(leased).collect();
        if !leases.is_empty() {
            return Ok(leases);
        }
        let document = self.unless_silent(domain.xml_desc(0))?;
        let macs = if document.is_empty() { Vec::new() } else { definition::read(&document, None)?.macs };
        Ok(arp::addresses(&macs))
    }

    /// Whoever cannot be asked knows nothing; but a lost connection is said.
    fn unless_silent<T: Default>(&self, answer: Result<T, virt::error::Error>) -> Result<T, Fault> {
        match answer {
            Err(error) if errors::is_lost(&error) || !self.is_alive() => Err(error.into()),
            answer => Ok(answer.unwrap_or_default()),
        }
    }

    pub(super) fn screenshot(&self, id: VmId, patience: Patience) -> Result<Screenshot, Fault> {
        let domain = self.find(id)?;
        let state = power_state(ffi::state(&domain)?);
        if !state.is_active() {
            return Err(Verb::Screenshot.wrong_state(id, state).into());
        }
        let stream = Stream::new(&self.connect, 0)?;
        let media_type = domain.screenshot(&stream, 0, 0)?;
        match picture(&stream, patience) {
            Ok(bytes) => {
                stream.finish()?;
                Ok(Screenshot { media_type, bytes })
            }
            Err(fault) => {
                // It has failed already, or has more to say than we want.
                drop(stream.abort());
                Err(fault)
            }
        }
    }

    pub(super) fn description(&self, id: VmId) -> Result<Option<String>, Fault> {
        let Some(domain) = self.find_if_there(id)? else { return Ok(None) };
        // Without secrets, of what runs if it runs.
        match domain.xml_desc(0) {
            Ok(document) => Ok(Some(document)),
            Err(error) if errors::is_absent(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn agent(domain: &Domain) -> Result<String, virt::error::Error> {
    domain.qemu_agent_command(r#"{"execute":"guest-network-get-interfaces"}"#, AGENT_PATIENCE, 0)
}

fn picture(stream: &Stream, patience: Patience) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    let mut piece = vec![0; PIECE];
    loop {
        patience.check()?;
        let count = usize::try_from(stream.recv(&mut piece)?).unwrap_or(0);
        let Some(more) = piece.get(..count).filter(|more| !more.is_empty()) else { return Ok(bytes) };
        if bytes.len() + more.len() > MAX_PICTURE {
            return Err(Error::refused("libvirt", "the picture of the screen is too large").into());
        }
        bytes.extend_from_slice(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> Uuid {
        Uuid::from_u128(7)
    }

    #[test]
    fn numbers_of_a_bulk_answer_are_summed() {
        let stats = read(
            id(),
            &[
                ("state.state", 1),
                ("cpu.time", 900),
                ("balloon.current", 65536),
                ("balloon.maximum", 131_072),
                ("balloon.available", 60000),
                ("balloon.unused", 10000),
                ("balloon.usable", 20000),
                ("vcpu.current", 3),
                ("vcpu.10.time", 30),
                ("vcpu.0.time", 10),
                ("vcpu.2.time", 20),
                ("vcpu.0.wait.time", 99),
                ("vcpu.0.state", 1),
                ("net.count", 2),
                ("net.0.rx.bytes", 100),
                ("net.1.rx.bytes", 11),
                ("net.0.rx.pkts", 5),
                ("net.0.tx.bytes", 7),
                ("block.count", 2),
                ("block.0.rd.bytes", 1000),
                ("block.1.rd.bytes", 1),
                ("block.0.wr.bytes", 50),
                ("block.0.rd.reqs", 9),
            ],
        );
        let expected = DomainStats {
            id: VmId(id()),
            cpu_nanos: 900,
            vcpu_nanos: vec![10, 20, 30],
            memory_kib: 65536,
            max_memory_kib: 131_072,
            memory_used_kib: Some(40000),
            net_rx: 111,
            net_tx: 7,
            disk_read: 1001,
            disk_written: 50,
        };
        assert_eq!(stats, expected);
    }

    #[test]
    fn what_is_not_told_is_nothing() {
        let stats = read(id(), &[("vcpu.0.time", 10), ("vcpu.1.time", 5), ("balloon.available", 60000)]);
        assert_eq!((stats.cpu_nanos, stats.memory_used_kib, stats.memory_kib), (15, None, 0));
        let unused = read(id(), &[("balloon.available", 600), ("balloon.unused", 700)]);
        assert_eq!(unused.memory_used_kib, Some(0));
    }

    #[test]
    fn an_agent_tells_every_address_and_nonsense_is_left_out() {
        let answer = r#"{"return":[
            {"name":"lo","hardware-address":"00:00:00:00:00:00","ip-addresses":[
                {"ip-address-type":"ipv4","ip-address":"127.0.0.1","prefix":8},
                {"ip-address-type":"ipv6","ip-address":"::1","prefix":128}],"statistics":{"rx-bytes":1}},
            {"name":"eth\u00010","hardware-address":"52:54:00:0a:0b:0c","ip-addresses":[
                {"ip-address-type":"ipv4","ip-address":"999.1.1.1","prefix":24},
                {"ip-address-type":"ipv4","ip-address":"10.0.2.15","prefix":24}]},
            {"name":"eth1"}]}"#;
        let said: Vec<_> = told(answer)
            .into_iter()
            .map(|a| {
                format!("{} {}/{} {}", a.interface, a.ip, a.prefix, a.mac.map_or_else(String::new, |m| m.to_string()))
            })
            .collect();
        let zero = "00:00:00:00:00:00";
        assert_eq!(
            said,
            [
                format!("lo 127.0.0.1/8 {zero}"),
                format!("lo ::1/128 {zero}"),
                "eth0 10.0.2.15/24 52:54:00:0a:0b:0c".to_owned()
            ]
        );
        for nothing in ["", "{}", r#"{"return":{}}"#, r#"{"return":[{"name":1}]}"#] {
            assert_eq!(told(nothing), []);
        }
    }

    #[test]
    fn a_lease_is_an_address() {
        let lease = |ip: &str, prefix| ffi::Lease {
            interface: "vnet0".to_owned(),
            mac: "52:54:00:0a:0b:0c".to_owned(),
            ip: ip.to_owned(),
            prefix,
        };
        let said = leased(lease("192.168.122.9", 24)).unwrap();
        assert_eq!(
            (said.ip.to_string(), said.prefix, said.mac),
            ("192.168.122.9".to_owned(), 24, "52:54:00:0a:0b:0c".parse().ok())
        );
        assert_eq!((leased(lease("nonsense", 24)), leased(lease("10.0.0.1", 999))), (None, None));
    }
}
