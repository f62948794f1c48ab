//! What hosts know of their networks: interfaces, resolvers, virtual functions. A host replaces all of its own at once.

use diesel::prelude::*;

use super::Conn;
use super::rows::{number, parse, parse_optional};
use super::schema::{dns, networks, sriov};
use crate::error::{Error, Result};
use crate::model::{BridgeType, Dns, Network, NetworkCategory, NetworkKind, NetworkMethod, PmId, Sriov};

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = networks, treat_none_as_default_value = false)]
struct NetworkRow {
    pm: String,
    name: String,
    category: String,
    method: String,
    mac: Option<String>,
    ip: Option<String>,
    prefix: Option<i32>,
    bridge_type: Option<String>,
    bridge_ports: Option<String>,
    bond_slaves: Option<String>,
    bond_mode: Option<i32>,
}

impl NetworkRow {
    fn of(pm: PmId, network: &Network) -> Self {
        let (mut bridge, mut bond) = (None, None);
        match &network.kind {
            NetworkKind::Nic => {}
            NetworkKind::Bridge { by, ports } => bridge = Some((by.to_string(), ports.join(","))),
            NetworkKind::Bond { mode, slaves } => bond = Some((i32::from(*mode), slaves.join(","))),
        }
        let (bridge_type, bridge_ports) = bridge.unzip();
        let (bond_mode, bond_slaves) = bond.unzip();
        Self {
            pm: pm.to_string(),
            name: network.name.clone(),
            category: network.kind.category().to_string(),
            method: network.method.to_string(),
            mac: network.mac.map(|mac| mac.to_string()),
            ip: network.ip.map(|ip| ip.to_string()),
            prefix: network.prefix.map(i32::from),
            bridge_type,
            bridge_ports,
            bond_slaves,
            bond_mode,
        }
    }

    fn model(self) -> Result<(PmId, Network)> {
        let missing = |column| Error::internal(format!("{column} of network {} is null", self.name));
        let kind = match parse::<NetworkCategory>("networks.category", &self.category)? {
            NetworkCategory::Nic => NetworkKind::Nic,
            NetworkCategory::Bridge => NetworkKind::Bridge {
                by: parse_optional::<BridgeType>("networks.bridge_type", self.bridge_type)?
                    .ok_or_else(|| missing("networks.bridge_type"))?,
                ports: names(self.bridge_ports),
            },
            NetworkCategory::Bond => NetworkKind::Bond {
                mode: number("networks.bond_mode", self.bond_mode.ok_or_else(|| missing("networks.bond_mode"))?)?,
                slaves: names(self.bond_slaves),
            },
        };
        let network = Network {
            kind,
            method: parse::<NetworkMethod>("networks.method", &self.method)?,
            mac: parse_optional("networks.mac", self.mac)?,
            ip: address("networks.ip", self.ip)?,
            prefix: self.prefix.map(|prefix| number("networks.prefix", prefix)).transpose()?,
            name: self.name,
        };
        Ok((parse("networks.pm", &self.pm)?, network))
    }
}

/// No interface has a comma or nothing as its name.
fn names(text: Option<String>) -> Vec<String> {
    let text = text.unwrap_or_default();
    text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn address(column: &str, text: Option<String>) -> Result<Option<std::net::IpAddr>> {
    let read = |text: String| {
        text.parse()
            .map_err(|e: std::net::AddrParseError| Error::internal(format!("{column} holds {text:?}")).caused_by(e))
    };
    text.map(read).transpose()
}

/// Of every PM, in the order in which each host told them.
pub fn all(c: &mut Conn) -> Result<Vec<(PmId, Network)>> {
    let rows = networks::table.order((networks::pm, networks::id)).select(NetworkRow::as_select());
    rows.load::<NetworkRow>(&mut c.0)?.into_iter().map(NetworkRow::model).collect()
}

/// In the order in which the host told them.
pub fn of_pm(c: &mut Conn, pm: PmId) -> Result<Vec<Network>> {
    let rows = networks::table.filter(networks::pm.eq(pm.to_string())).order(networks::id);
    let rows = rows.select(NetworkRow::as_select()).load::<NetworkRow>(&mut c.0)?;
    rows.into_iter().map(|row| Ok(row.model()?.1)).collect()
}

/// # Errors
/// `InUse` if the PM is not there.
pub fn replace(c: &mut Conn, pm: PmId, all: &[Network]) -> Result<()> {
    diesel::delete(networks::table.filter(networks::pm.eq(pm.to_string()))).execute(&mut c.0)?;
    for network in all {
        diesel::insert_into(networks::table).values(&NetworkRow::of(pm, network)).execute(&mut c.0)?;
    }
    Ok(())
}

pub fn dns_of_pm(c: &mut Conn, pm: PmId) -> Result<Option<Dns>> {
    let row: Option<(Option<String>, Option<String>)> = dns::table
        .filter(dns::pm.eq(pm.to_string()))
        .select((dns::ipaddress1, dns::ipaddress2))
        .first(&mut c.0)
        .optional()?;
    row.map(|(first, second)| {
        Ok(Dns { first: address("dns.ipaddress1", first)?, second: address("dns.ipaddress2", second)? })
    })
    .transpose()
}

/// # Errors
/// `InUse` if the PM is not there.
pub fn replace_dns(c: &mut Conn, pm: PmId, resolvers: Dns) -> Result<()> {
    diesel::delete(dns::table.filter(dns::pm.eq(pm.to_string()))).execute(&mut c.0)?;
    let values = (
        dns::pm.eq(pm.to_string()),
        dns::ipaddress1.eq(resolvers.first.map(|ip| ip.to_string())),
        dns::ipaddress2.eq(resolvers.second.map(|ip| ip.to_string())),
    );
    diesel::insert_into(dns::table).values(values).execute(&mut c.0)?;
    Ok(())
}

/// In the order in which the host told them.
pub fn sriov_of_pm(c: &mut Conn, pm: PmId) -> Result<Vec<Sriov>> {
    let rows: Vec<(String, String)> = sriov::table
        .filter(sriov::pm.eq(pm.to_string()))
        .order(sriov::id)
        .select((sriov::pf, sriov::vf))
        .load(&mut c.0)?;
    Ok(rows.into_iter().map(|(pf, vf)| Sriov { pf, vf }).collect())
}

/// # Errors
/// `InUse` if the PM is not there.
pub fn replace_sriov(c: &mut Conn, pm: PmId, all: &[Sriov]) -> Result<()> {
    diesel::delete(sriov::table.filter(sriov::pm.eq(pm.to_string()))).execute(&mut c.0)?;
    for function in all {
        let values = (sriov::pm.eq(pm.to_string()), sriov::pf.eq(&function.pf), sriov::vf.eq(&function.vf));
        diesel::insert_into(sriov::table).values(values).execute(&mut c.0)?;
    }
    Ok(())
}
