//! From a client's word for a network to what a NIC is plugged into.

use crate::error::Result;
use crate::hypervisor::Capabilities;
use crate::model::NicLink;

use super::Core;

/// The client's name of a network item: `0` is bridge `<prefix>0`, any other word is a bridge already.
pub fn name(core: &Core, item: &str) -> String {
    if !item.is_empty() && item.bytes().all(|b| b.is_ascii_digit()) {
        format!("{}{item}", core.settings.bridge_prefix)
    } else {
        item.to_owned()
    }
}

/// What stands behind a bridge's name here; the inner error is for the field that named it.
pub fn resolve(core: &Core, name: &str, can: &Capabilities) -> Result<std::result::Result<NicLink, String>> {
    match core.settings.bridges.get(name) {
        Some(NicLink::User) if !can.user_network => {
            Ok(Err(format!("bridge {name} is mapped to user networking, which this hypervisor does not have")))
        }
        Some(link) => Ok(Ok(link.clone())),
        None if core.hypervisor.has_bridge(name)? => Ok(Ok(NicLink::Bridge(name.to_owned()))),
        None => Ok(Err(format!("bridge {name} neither exists on this host nor is mapped in [bridges]"))),
    }
}
