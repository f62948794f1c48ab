//! Networks of this host: NICs, bridges and bonds, resolvers, virtual functions.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{Host, ovs};
use crate::model::{BridgeType, Dns, Network, NetworkKind, NetworkMethod, Sriov};

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    interface: String,
    ip: IpAddr,
    prefix: u8,
}

impl Host {
    /// Physical NICs, bridges and bonds, by name; not `lo`, and nothing of guests. The addresses are those of the host that
    /// we run on.
    pub fn networks(&self) -> Vec<Network> {
        self.networks_with(&self.addresses())
    }

    fn networks_with(&self, addresses: &[Address]) -> Vec<Network> {
        let methods = self.methods();
        let mut bridges_of_ovs = self.text("etc/openvswitch/conf.db").map(|log| ovs::bridges(&log)).unwrap_or_default();
        let mut found = Vec::new();
        for name in self.names("sys/class/net") {
            let by_ovs = bridges_of_ovs.remove(&name);
            let Some(kind) = self.kind(&name, by_ovs) else { continue };
            let address = best(&name, addresses);
            found.push(Network {
                kind,
                method: methods.get(&name).copied().unwrap_or(NetworkMethod::None),
                mac: self.line(&format!("sys/class/net/{name}/address")).and_then(|text| text.parse().ok()),
                ip: address.map(|a| a.ip),
                prefix: address.map(|a| a.prefix),
                name,
            });
        }
        found
    }

    /// `ports_of_ovs`: those that Open vSwitch keeps for a bridge of this name; its bridges look like nothing in `/sys`.
    fn kind(&self, name: &str, ports_of_ovs: Option<Vec<String>>) -> Option<NetworkKind> {
        let of = |what: &str| format!("sys/class/net/{name}/{what}");
        if self.has(&of("bridge")) {
            let mut ports = self.names(&of("brif"));
            ports.retain(|port| !self.is_of_a_guest(port));
            return Some(NetworkKind::Bridge { by: BridgeType::Bridge, ports });
        }
        if self.has(&of("bonding")) {
            let slaves = self.line(&of("bonding/slaves")).unwrap_or_default();
            let mut slaves: Vec<_> = slaves.split_ascii_whitespace().map(str::to_owned).collect();
            slaves.sort();
            let mode = self.line(&of("bonding/mode")).unwrap_or_default();
            // `802.3ad 4`
            return match mode.rsplit(' ').next().and_then(|number| number.parse().ok()) {
                Some(mode) => Some(NetworkKind::Bond { mode, slaves }),
                None => {
                    self.say(&format!("bond {name} has the mode {mode:?}"));
                    None
                }
            };
        }
        if let Some(mut ports) = ports_of_ovs {
            ports.retain(|port| port != name && !self.is_of_a_guest(port));
            return Some(NetworkKind::Bridge { by: BridgeType::Ovs, ports });
        }
        self.is_physical(name).then_some(NetworkKind::Nic)
    }

    /// Whether a device stands behind the interface, and not only the other end of a guest's.
    pub(super) fn is_physical(&self, name: &str) -> bool {
        self.has(&format!("sys/class/net/{name}/device")) && !self.is_backend(name)
    }

    fn is_of_a_guest(&self, name: &str) -> bool {
        self.has(&format!("sys/class/net/{name}/tun_flags")) || self.is_backend(name)
    }

    /// On Xen, the host's end of a guest's interface is a device too.
    fn is_backend(&self, name: &str) -> bool {
        self.linked_name(&format!("sys/class/net/{name}/device/subsystem")).is_some_and(|bus| bus == "xen-backend")
    }

    fn addresses(&self) -> Vec<Address> {
        let found = if_addrs::get_if_addrs().unwrap_or_else(|e| {
            self.say(&format!("addresses of interfaces: {e}"));
            Vec::new()
        });
        let address = |found: if_addrs::Interface| {
            let (ip, prefix) = match found.addr {
                if_addrs::IfAddr::V4(v4) => (IpAddr::V4(v4.ip), v4.prefixlen),
                if_addrs::IfAddr::V6(v6) => (IpAddr::V6(v6.ip), v6.prefixlen),
            };
            Address { interface: found.name, ip, prefix }
        };
        found.into_iter().map(address).collect()
    }

    fn methods(&self) -> HashMap<String, NetworkMethod> {
        let dir = "etc/network/interfaces.d";
        let parts = self.names(dir).into_iter().map(|name| format!("{dir}/{name}"));
        let mut methods = HashMap::new();
        for file in std::iter::once("etc/network/interfaces".to_owned()).chain(parts) {
            for (name, method) in self.text(&file).iter().flat_map(|text| ifupdown(text)) {
                methods.entry(name).or_insert(method);
            }
        }
        methods
    }

    /// The first two resolvers.
    pub fn dns(&self) -> Dns {
        let text = self.text("etc/resolv.conf").unwrap_or_default();
        let mut servers = text.lines().filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            if words.next()? == "nameserver" { words.next()?.parse().ok() } else { None }
        });
        Dns { first: servers.next(), second: servers.next() }
    }

    /// The virtual functions that the NICs offer, by NIC and then by their number.
    pub fn sriov(&self) -> Vec<Sriov> {
        let mut found = Vec::new();
        for pf in self.names("sys/class/net") {
            let device = format!("sys/class/net/{pf}/device");
            let mut functions: Vec<(u32, String)> = self
                .names(&device)
                .into_iter()
                .filter_map(|name| Some((name.strip_prefix("virtfn")?.parse().ok()?, name)))
                .collect();
            functions.sort();
            for (_, function) in functions {
                let vf = self.linked_name(&format!("{device}/{function}"));
                found.extend(vf.map(|vf| Sriov { pf: pf.clone(), vf }));
            }
        }
        found
    }
}

/// The IPv4 address if there is one: clients of this API show a single one.
fn best<'a>(name: &str, addresses: &'a [Address]) -> Option<&'a Address> {
    let mut all = addresses.iter().filter(|a| a.interface == name);
    all.clone().find(|a| a.ip.is_ipv4()).or_else(|| all.next())
}

/// `iface eth0 inet dhcp`; what is said of IPv4 goes before what is said of IPv6.
fn ifupdown(text: &str) -> Vec<(String, NetworkMethod)> {
    let mut said: Vec<(bool, String, NetworkMethod)> = Vec::new();
    for line in text.lines() {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        if let ["iface", name, family, method] = words[..] {
            let method = method.parse().unwrap_or(NetworkMethod::None);
            said.push((family == "inet6", name.to_owned(), method));
        }
    }
    said.sort_by_key(|(v6, ..)| *v6);
    said.into_iter().map(|(_, name, method)| (name, method)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tree::Tree;
    use crate::model::Mac;

    fn address(interface: &str, ip: &str, prefix: u8) -> Address {
        Address { interface: interface.to_owned(), ip: ip.parse().unwrap(), prefix }
    }

    #[test]
    fn nics_bridges_and_bonds_are_told_apart() {
        let tree = Tree::of(&[
            ("sys/class/net/bonding_masters", "bond0\n"),
            ("sys/class/net/lo/address", "00:00:00:00:00:00\n"),
            ("sys/class/net/eth0/device/vendor", "0x8086\n"),
            ("sys/class/net/eth0/address", "52:54:00:00:00:0A\n"),
            ("sys/class/net/eth1/device/vendor", "0x8086\n"),
            ("sys/class/net/eth2/device/vendor", "0x8086\n"),
            ("sys/class/net/bond0/bonding/mode", "802.3ad 4\n"),
            ("sys/class/net/bond0/bonding/slaves", "eth2 eth1\n"),
            ("sys/class/net/bond0/address", "52:54:00:00:00:0b\n"),
            ("sys/class/net/bond1/bonding/mode", "\n"),
            ("sys/class/net/xenbr0/bridge/bridge_id", "8000.1\n"),
            ("sys/class/net/xenbr0/brif/eth0/port_no", "0x1\n"),
            ("sys/class/net/xenbr0/brif/vnet0/port_no", "0x2\n"),
            ("sys/class/net/xenbr0/brif/vif1.0/port_no", "0x3\n"),
            ("sys/class/net/vnet0/tun_flags", "0x1002\n"),
            ("sys/class/net/vif1.0/device/subsystem", "-> ../../../bus/xen-backend"),
            ("sys/class/net/dummy0/address", "52:54:00:00:00:0c\n"),
            (
                "etc/network/interfaces",
                "auto lo\niface lo inet loopback\niface eth0 inet6 auto\n iface eth0 inet manual\n",
            ),
            ("etc/network/interfaces.d/br", "iface xenbr0 inet dhcp\niface bond0 inet static\n  address 10.0.0.2/24\n"),
        ]);
        let addresses = [
            address("xenbr0", "fe80::1", 64),
            address("xenbr0", "10.0.0.1", 16),
            address("bond0", "fd00::2", 48),
            address("vnet0", "10.9.9.9", 24),
        ];
        let names = |all: &[&str]| all.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let network = |name: &str, kind, method| Network {
            name: name.to_owned(),
            kind,
            method,
            mac: None,
            ip: None,
            prefix: None,
        };
        let bond = NetworkKind::Bond { mode: 4, slaves: names(&["eth1", "eth2"]) };
        let bridge = NetworkKind::Bridge { by: BridgeType::Bridge, ports: names(&["eth0"]) };
        let expected = [
            Network {
                mac: Some(Mac([0x52, 0x54, 0, 0, 0, 0x0b])),
                ip: Some("fd00::2".parse().unwrap()),
                prefix: Some(48),
                ..network("bond0", bond, NetworkMethod::Static)
            },
            Network {
                mac: Some(Mac([0x52, 0x54, 0, 0, 0, 0x0a])),
                ..network("eth0", NetworkKind::Nic, NetworkMethod::Manual)
            },
            network("eth1", NetworkKind::Nic, NetworkMethod::None),
            network("eth2", NetworkKind::Nic, NetworkMethod::None),
            Network {
                ip: Some("10.0.0.1".parse().unwrap()),
                prefix: Some(16),
                ..network("xenbr0", bridge, NetworkMethod::Dhcp)
            },
        ];
        assert_eq!(tree.host().networks_with(&addresses), expected);
        assert_eq!(Tree::of(&[]).host().networks_with(&addresses), []);
    }

    #[test]
    fn bridges_of_open_vswitch_are_bridges() {
        let tree = Tree::of(&[
            ("sys/class/net/ovsbr0/address", "52:54:00:00:00:0d\n"),
            ("sys/class/net/eth0/device/vendor", "0x8086\n"),
            ("sys/class/net/vnet0/tun_flags", "0x1002\n"),
            ("etc/openvswitch/conf.db", ovs::tests::LOG),
        ]);
        let found = tree.host().networks_with(&[]);
        let kinds: Vec<_> = found.iter().map(|n| (n.name.as_str(), n.kind.clone())).collect();
        let bridge = NetworkKind::Bridge { by: BridgeType::Ovs, ports: vec!["eth0".to_owned()] };
        assert_eq!(kinds, [("eth0", NetworkKind::Nic), ("ovsbr0", bridge)]);
    }

    #[test]
    fn the_first_two_resolvers_count() {
        let tree = Tree::of(&[(
            "etc/resolv.conf",
            "# nameserver 1.1.1.1\nsearch x\nnameserver 10.0.0.53\nnameserver x\nnameserver fd00::53\nnameserver 9.9.9.9\n",
        )]);
        let dns = tree.host().dns();
        assert_eq!(dns, Dns { first: "10.0.0.53".parse().ok(), second: "fd00::53".parse().ok() });
        assert_eq!(Tree::of(&[]).host().dns(), Dns::default());
    }

    #[test]
    fn virtual_functions_are_found_by_their_number() {
        let tree = Tree::of(&[
            ("sys/class/net/eth0/device/virtfn10", "-> ../0000:03:11.2"),
            ("sys/class/net/eth0/device/virtfn2", "-> ../0000:03:10.4"),
            ("sys/class/net/eth0/device/sriov_numvfs", "2\n"),
            ("sys/class/net/eth1/device/vendor", "0x8086\n"),
        ]);
        let function = |vf: &str| Sriov { pf: "eth0".to_owned(), vf: vf.to_owned() };
        assert_eq!(tree.host().sriov(), [function("0000:03:10.4"), function("0000:03:11.2")]);
    }

    #[test]
    fn this_host_can_be_read() {
        let host = Host::this();
        for network in host.networks() {
            assert!(!network.name.is_empty() && network.name != "lo", "{network:?}");
        }
        drop((host.dns(), host.sriov()));
    }
}
