//! `/utils`: the console of a machine, and what it used in the last hour.

use serde::Serialize;
use serde_json::{Value, json};

use super::console;
use super::container::{self, Machine};
use super::failure::{Failure, refused};
use super::front::{Answer, Call};
use super::nodes::{Nodes, inside};
use super::reply::Reply;
use crate::model::{Ids, RandomIds};
use crate::operations::vm::{self, SeriesPoint};

fn asked<'a>(call: &'a Call<'_>) -> Result<&'a str, Failure> {
    call.fields.given("id").ok_or(Failure::Said("You must specify machine ID"))
}

/// GET `/utils/vnc`. Whoever opens the address within half a minute sees the console, once.
pub(super) async fn vnc(call: Call<'_>) -> Answer {
    let id = asked(&call)?;
    let nodes = Nodes::of(&call.core).await?;
    let found = container::find(&call.core, call.fields.number("id")).await?;
    let mut why = Value::Null;
    if let Some(machine) = found.as_ref().filter(|machine| machine.pm() == nodes.here) {
        match crate::operations::console::ticket(&call.core, machine.id()).await {
            Ok(ticket) => return Ok(Reply::value(&json!({ "url": console::url(&call, machine.id(), &ticket.text) }))),
            Err(refusal) => why = Value::String(refused(refusal)),
        }
    }
    Ok(Reply::value(&nodes.container(id, found.as_ref().map(Machine::pm), || why.clone())))
}

#[derive(Serialize)]
struct Point {
    time: i64,
    cpu: f64,
    maxcpu: u32,
    mem: u64,
    maxmem: u64,
    disk: u64,
    maxdisk: u64,
    netin: f64,
    netout: f64,
    diskread: f64,
    diskwrite: f64,
}

impl Point {
    fn of(point: &SeriesPoint) -> Self {
        Self {
            time: point.at.and_utc().timestamp(),
            cpu: point.cpu,
            maxcpu: point.vcpus,
            mem: point.memory_bytes,
            maxmem: point.max_memory_bytes,
            disk: point.disk_bytes,
            maxdisk: point.max_disk_bytes,
            netin: point.net_rx,
            netout: point.net_tx,
            diskread: point.disk_read,
            diskwrite: point.disk_written,
        }
    }
}

/// GET `/utils/graphic`.
pub(super) async fn graphic(call: Call<'_>) -> Answer {
    let id = asked(&call)?;
    let nodes = Nodes::of(&call.core).await?;
    let found = container::find(&call.core, call.fields.number("id")).await?;
    let series = match found.as_ref().filter(|machine| machine.pm() == nodes.here) {
        Some(machine) => {
            let vm = machine.id();
            let points = call.core.read(move |core| vm::series(core, vm)).await?;
            inside(&points.iter().map(Point::of).collect::<Vec<_>>())?
        }
        None => Value::Null,
    };
    Ok(Reply::value(&nodes.container(id, found.as_ref().map(Machine::pm), || series.clone())))
}

/// GET `/utils/ticket`. Proxmox VE's was one for its own API; there is no such thing behind this one, so it opens nothing.
pub(super) fn ticket() -> Reply {
    let [ticket, csrf] = [(); 2].map(|()| RandomIds.uuid().simple().to_string());
    Reply::value(&json!({ "ticket": ticket, "CSRF": csrf }))
}
