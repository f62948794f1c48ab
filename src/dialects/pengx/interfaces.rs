//! Network interfaces of VMs.

use std::net::IpAddr;
use std::str::FromStr;

use askama::Template;
use serde::Deserialize;

use super::fields::{Field, Judge};
use super::style::or_empty;
use super::vms::network;
use super::{Call, Failure, Reply};
use crate::error::Result;
use crate::model::{Nic, NicId, VmId};
use crate::operations::Core;
use crate::operations::nic::{self, CreateNic, DeleteNic, UpdateNic};

/// Row 49.
pub async fn index(call: Call) -> Result<Reply, Failure> {
    let vm = call.vm()?;
    let nics = call.core.read(move |core| nic::list(core, vm)).await?;
    Reply::ok(&InterfacesView { nics: &nics })
}

/// Row 47.
pub async fn create(mut call: Call) -> Result<Reply, Failure> {
    let vm = call.vm()?;
    let (network, command) = call.body::<CreateBody>().await?.read(vm);
    match command {
        Ok(command) => call.perform(command, |done| Reply::made(done.outcome)).await,
        Err(bad) => {
            let look = move |core: &Core| network.map(|network| nic::check(core, vm, &network)).transpose();
            call.refuse(bad, look).await
        }
    }
}

/// Row 48. Whatever its body says is not read.
pub async fn delete(call: Call) -> Result<Reply, Failure> {
    call.perform(DeleteNic { vm: call.vm()?, nic: call.nic()? }, |_| Reply::NoContent).await
}

/// Row 50.
pub async fn update(mut call: Call) -> Result<Reply, Failure> {
    let (vm, nic) = (call.vm()?, call.nic()?);
    let command = call.body::<UpdateBody>().await?.read(vm, nic)?;
    call.perform(command, |_| Reply::NoContent).await
}

/// Row 49: `interfaces`.
#[derive(Template)]
#[template(path = "pengx/interfaces.xml")]
pub struct InterfacesView<'a> {
    pub nics: &'a [Nic],
}

/// Row 47.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct CreateBody {
    interface_name: Field,
    ipaddress: Field,
}

impl CreateBody {
    /// The network if it can be read, and the whole command or every problem of the body.
    pub fn read(self, vm: VmId) -> (Option<String>, Result<CreateNic>) {
        let mut judge = Judge::default();
        if self.interface_name == Field::Absent {
            judge.problem("interface_name", "is required");
        }
        let network = network(&mut judge, "interface_name", self.interface_name);
        let ip = judge.optional("ipaddress", self.ipaddress).map(|Address(ip)| ip);
        let known = network.clone();
        (known, judge.done(|| Some(CreateNic { vm, network: network?, ip })))
    }
}

/// Row 50.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct UpdateBody {
    ipaddress: Field,
}

impl UpdateBody {
    pub fn read(self, vm: VmId, nic: NicId) -> Result<UpdateNic> {
        let mut judge = Judge::default();
        let ip = judge.needed("ipaddress", self.ipaddress);
        judge.done(|| ip.map(|Address(ip)| UpdateNic { vm, nic, ip }))
    }
}

struct Address(IpAddr);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| "must be an IPv4 or IPv6 address".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::pengx::reply::render;
    use crate::dialects::pengx::{de, xml};
    use crate::model::Mac;

    const VM: &str = "0f6a9c1e-0000-4000-8000-000000000001";

    fn vm() -> VmId {
        VM.parse().unwrap()
    }

    fn create(document: &str) -> Result<CreateNic, String> {
        let body: CreateBody = de::from_node(xml::parse(document).unwrap()).unwrap();
        body.read(vm()).1.map_err(|e| e.to_string())
    }

    fn update(document: &str) -> Result<UpdateNic, String> {
        let body: UpdateBody = de::from_node(xml::parse(document).unwrap()).unwrap();
        body.read(vm(), NicId(7)).map_err(|e| e.to_string())
    }

    #[test]
    fn the_manuals_examples_are_taken() {
        let name = "<interface_name>xenbr0</interface_name>";
        let expected = |ip: Option<&str>| CreateNic {
            vm: vm(),
            network: "xenbr0".to_owned(),
            ip: ip.map(|ip| ip.parse().unwrap()),
        };
        assert_eq!(create(&format!("<vms>\n  {name}\n</vms>")), Ok(expected(None)));
        let v2 = format!("<vms>\n  {name}\n  <ipaddress>192.168.0.1</ipaddress>\n</vms>");
        assert_eq!(create(&v2), Ok(expected(Some("192.168.0.1"))));
        assert_eq!(create(&format!("<vms>{name}<ipaddress/></vms>")), Ok(expected(None)));
        let changed = UpdateNic { vm: vm(), nic: NicId(7), ip: "192.168.0.1".parse().unwrap() };
        assert_eq!(update("<vms>\n  <ipaddress>192.168.0.1</ipaddress>\n</vms>"), Ok(changed));
    }

    #[test]
    fn every_problem_is_told() {
        assert_eq!(create("<vms/>").unwrap_err(), "interface_name: is required");
        assert_eq!(
            create("<v><interface_name>a b</interface_name><ipaddress>10.0.0.256</ipaddress></v>").unwrap_err(),
            "interface_name: \"a b\" is neither a number nor the name of a bridge; \
             ipaddress: must be an IPv4 or IPv6 address"
        );
        for body in ["<vms/>", "<vms><ipaddress></ipaddress></vms>"] {
            assert_eq!(update(body).unwrap_err(), "ipaddress: is required");
        }
    }

    #[test]
    fn addresses_are_ipv4_or_ipv6_and_nothing_else() {
        let with = |ip: &str| update(&format!("<v><ipaddress>{ip}</ipaddress></v>"));
        for (text, address) in
            [("10.0.0.1", "10.0.0.1"), ("FE80:0::1", "fe80::1"), ("::ffff:1.2.3.4", "::ffff:1.2.3.4")]
        {
            assert_eq!(with(text).unwrap().ip.to_string(), address);
        }
        for bad in ["10.0.0", "10.0.0.1/24", "010.0.0.1", "fe80::1%eth0", "[::1]", "host", "10.0.0.1 10.0.0.2"] {
            assert_eq!(with(bad).unwrap_err(), "ipaddress: must be an IPv4 or IPv6 address", "{bad}");
        }
    }

    #[test]
    fn the_list_is_the_manuals() {
        let nic = |id: i32, ip: Option<&str>| Nic {
            id: NicId(id),
            uuid: "0f6a9c1e-0000-4000-8000-000000000002".parse().unwrap(),
            vm: vm(),
            name: format!("eth{id}"),
            mac: Mac([0, 0x16, 0x3e, 0xa, 0xb, 0xc]),
            switch: "xenbr0".to_owned(),
            ip: ip.map(str::to_owned),
        };
        assert_eq!(
            render(&InterfacesView { nics: &[nic(1, None), nic(2, Some("10.0.0.1"))] }).unwrap(),
            r#"<interfaces>
  <interface id="1">
    <mac>00:16:3e:0a:0b:0c</mac>
    <name>eth1</name>
    <ip></ip>
    <vm id="0f6a9c1e-0000-4000-8000-000000000001" />
  </interface>
  <interface id="2">
    <mac>00:16:3e:0a:0b:0c</mac>
    <name>eth2</name>
    <ip>10.0.0.1</ip>
    <vm id="0f6a9c1e-0000-4000-8000-000000000001" />
  </interface>
</interfaces>
"#
        );
        assert_eq!(render(&InterfacesView { nics: &[] }).unwrap(), "<interfaces>\n</interfaces>\n");
    }
}
