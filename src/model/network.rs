//! What a host knows of its networks: interfaces, resolvers, virtual functions.

use std::net::IpAddr;

use super::{Mac, words};

/// A NIC, bridge or bond of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    pub name: String,
    pub kind: NetworkKind,
    pub method: NetworkMethod,
    pub mac: Option<Mac>,
    /// One of its addresses; an IPv4 one if there is any.
    pub ip: Option<IpAddr>,
    /// The length of that address' network prefix: 24 is the netmask 255.255.255.0.
    pub prefix: Option<u8>,
}

/// With the names of the interfaces below it, sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkKind {
    Nic,
    /// The ports of guests come and go and are not listed.
    Bridge {
        by: BridgeType,
        ports: Vec<String>,
    },
    Bond {
        /// The number that the kernel's bonding driver gives the mode: 1 is active-backup, 4 is 802.3ad.
        mode: u8,
        slaves: Vec<String>,
    },
}

impl NetworkKind {
    pub fn category(&self) -> NetworkCategory {
        match self {
            Self::Nic => NetworkCategory::Nic,
            Self::Bridge { .. } => NetworkCategory::Bridge,
            Self::Bond { .. } => NetworkCategory::Bond,
        }
    }
}

words! {
    /// Stored: append-only.
    NetworkCategory {
        Nic = "nic",
        Bridge = "bridge",
        Bond = "bond",
    }
}

words! {
    /// How an interface gets its address. Stored: append-only.
    NetworkMethod {
        Manual = "manual",
        Static = "static",
        Dhcp = "dhcp",
        /// `/etc/network/interfaces` does not say.
        None = "none",
    }
}

words! {
    /// Stored: append-only.
    BridgeType {
        /// Of the kernel itself.
        Bridge = "bridge",
        Ovs = "ovs",
    }
}

/// The first two resolvers of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dns {
    pub first: Option<IpAddr>,
    pub second: Option<IpAddr>,
}

/// A virtual function that a host's NIC offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sriov {
    /// The NIC by its name.
    pub pf: String,
    /// The PCI address, as in `0000:03:10.0`.
    pub vf: String,
}
