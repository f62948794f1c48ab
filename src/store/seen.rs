//! What a host saw last of the domains of its VMs and templates, for the other hosts.

use diesel::prelude::*;

use super::Conn;
use super::rows::{number, parse};
use super::schema::{templates, vms};
use crate::error::Result;
use crate::model::{PmId, Seen, Template, TemplateId, VmId};

type SeenRow = (String, String, Option<i32>);

/// Of each VM and template of a PM, by the id of its domain.
pub fn of_pm(c: &mut Conn, pm: PmId) -> Result<Vec<(VmId, Seen)>> {
    let of_vms: Vec<SeenRow> =
        vms::table.filter(vms::pm.eq(pm.to_string())).select((vms::id, vms::state, vms::vnc_port)).load(&mut c.0)?;
    let of_templates: Vec<SeenRow> = templates::table
        .filter(templates::pm.eq(pm.to_string()))
        .select((templates::id, templates::state, templates::vnc_port))
        .load(&mut c.0)?;
    let mut all = Vec::with_capacity(of_vms.len() + of_templates.len());
    for row in of_vms {
        all.push((parse("vms.id", &row.0)?, seen("vms.state", &row)?));
    }
    for row in of_templates {
        all.push((Template::domain(parse::<TemplateId>("templates.id", &row.0)?), seen("templates.state", &row)?));
    }
    Ok(all)
}

fn seen(column: &str, (_, state, port): &SeenRow) -> Result<Seen> {
    let vnc_port = port.map(|port| number("vnc_port", port)).transpose()?;
    Ok(Seen { state: parse(column, state)?, vnc_port })
}

/// Nothing happens if the VM or template went meanwhile, or is another PM's by now.
pub fn record(c: &mut Conn, pm: PmId, domain: VmId, seen: Seen) -> Result<()> {
    let (state, port) = (seen.state.word(), seen.vnc_port.map(i32::from));
    let (id, pm) = (domain.to_string(), pm.to_string());
    let rows = diesel::update(vms::table.filter(vms::id.eq(&id).and(vms::pm.eq(&pm))))
        .set((vms::state.eq(state), vms::vnc_port.eq(port)))
        .execute(&mut c.0)?;
    if rows == 0 {
        diesel::update(templates::table.filter(templates::id.eq(&id).and(templates::pm.eq(&pm))))
            .set((templates::state.eq(state), templates::vnc_port.eq(port)))
            .execute(&mut c.0)?;
    }
    Ok(())
}
