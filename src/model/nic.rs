//! A VM's network interface.

use std::fmt;
use std::str::FromStr;

use super::{NicId, VmId};

/// A MAC address; printed in lower case with colons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let wrong = || "must be a MAC address".to_owned();
        let mut bytes = [0; 6];
        let mut parts = s.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self(bytes)) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    pub id: NicId,
    pub uuid: uuid::Uuid,
    pub vm: VmId,
    /// `eth0`, `eth1`: the first that was free in its VM.
    pub name: String,
    pub mac: Mac,
    /// The bridge by the client's name for it; `[bridges]` in the configuration maps it.
    pub switch: String,
    /// What the client says it has; nobody sets it in the guest.
    pub ip: Option<String>,
}
