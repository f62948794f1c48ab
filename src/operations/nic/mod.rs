//! Network interfaces of VMs. One is plugged into a running guest at once; none is ever pulled out of it.

mod create;
mod delete;
mod query;
mod update;

pub use create::{CreateNic, check};
pub use delete::DeleteNic;
pub use query::list;
pub use update::UpdateNic;

use crate::error::{Error, Result};
use crate::model::{Mac, Nic, NicId, VmId};
use crate::store::Conn;
use crate::store::nics::{self, NewNic};

use super::{Core, bridge};

/// A NIC that is to be, on the bridge of a network item: with a MAC address that nobody in the site has, and the first
/// name that is free `beside` the other names and addresses of its VM.
pub(super) fn draft(core: &Core, vm: VmId, item: &str, mac_prefix: [u8; 3], beside: &[(&str, Mac)]) -> Result<NewNic> {
    let mut number = 0_u32;
    let mut name = format!("eth{number}");
    while beside.iter().any(|(other, _)| *other == name) {
        number += 1;
        name = format!("eth{number}");
    }
    let mac = core.store.read(|c| {
        loop {
            let mac = random_mac(core, mac_prefix);
            if beside.iter().all(|(_, other)| *other != mac) && !nics::mac_taken(c, mac)? {
                return Ok(mac);
            }
        }
    })?;
    Ok(NewNic { uuid: core.ids.uuid(), vm, name, mac, switch: bridge::name(core, item), ip: None })
}

/// One for each item of a network list.
pub(super) fn draft_all(core: &Core, vm: VmId, items: &[String], mac_prefix: [u8; 3]) -> Result<Vec<NewNic>> {
    let mut nics: Vec<NewNic> = Vec::with_capacity(items.len());
    for item in items {
        let beside: Vec<_> = nics.iter().map(|nic| (nic.name.as_str(), nic.mac)).collect();
        let nic = draft(core, vm, item, mac_prefix, &beside)?;
        nics.push(nic);
    }
    Ok(nics)
}

fn random_mac(core: &Core, [a, b, c]: [u8; 3]) -> Mac {
    let [.., x, y, z] = core.ids.uuid().into_bytes();
    Mac([a, b, c, x, y, z])
}

/// One of this VM; another VM's is not there.
fn find(c: &mut Conn, vm: VmId, id: NicId) -> Result<Nic> {
    let nic = nics::of_vm(c, vm)?.into_iter().find(|nic| nic.id == id);
    nic.ok_or_else(|| Error::not_found("interface", id))
}
