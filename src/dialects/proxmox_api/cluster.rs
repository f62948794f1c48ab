//! `/cluster`: all nodes at a glance, the next id, and what is to be deleted.

use chrono::NaiveDateTime;
use serde::Serialize;
use serde_json::{Value, json};

use super::front::{Answer, Call};
use super::nodes::{Nodes, inside, share};
use super::reply::Reply;
use crate::model::{Pm, VmNumber};
use crate::operations::pm::{self, Vitals};
use crate::operations::{deletion, number};

/// A number, or a text to clients of later revisions.
pub(super) fn id(call: &Call<'_>, number: VmNumber) -> Value {
    if call.settings.late { Value::String(number.to_string()) } else { json!(number.0) }
}

#[derive(Serialize)]
struct Summary<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    node: &'a str,
    uptime: u64,
    cpu: f64,
    maxcpu: u32,
    mem: u64,
    maxmem: u64,
    disk: u64,
    maxdisk: u64,
    level: &'static str,
}

impl<'a> Summary<'a> {
    /// Of another host no more is known than its size.
    fn of(pm: &'a Pm, vitals: Option<&Vitals>) -> Self {
        let id = format!("node/{}", pm.name);
        let least = Self {
            kind: "node",
            id,
            node: &pm.name,
            uptime: 0,
            cpu: 0.0,
            maxcpu: pm.cpu,
            mem: 0,
            maxmem: pm.memory.bytes(),
            disk: 0,
            maxdisk: 0,
            level: "",
        };
        let Some(vitals) = vitals else { return least };
        Self {
            uptime: vitals.uptime_secs,
            cpu: share(vitals.cpu.total),
            maxcpu: vitals.cpus,
            mem: vitals.memory_total.saturating_sub(vitals.memory_available),
            maxmem: vitals.memory_total,
            disk: vitals.root_used,
            maxdisk: vitals.root_total,
            ..least
        }
    }
}

/// REPORT `/cluster`.
pub(super) async fn report(call: Call<'_>) -> Answer {
    let nodes = Nodes::of(&call.core).await?;
    let vitals = call.core.read(pm::vitals).await?;
    let summary = |pm| Summary::of(pm, Some(&vitals).filter(|_| pm.id == nodes.here));
    let data: Vec<_> = nodes.all.iter().map(summary).collect();
    Ok(Reply::value(&inside(&data)?))
}

#[derive(Serialize)]
struct Scheduled {
    destroy: String,
    date: String,
    #[serde(rename = "_id")]
    id: String,
}

/// ISO 8601 in UTC, as JavaScript writes it.
fn date(at: NaiveDateTime) -> String {
    at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// GET `/cluster`.
pub(super) async fn scheduled(call: Call<'_>) -> Answer {
    let all = call.core.read(deletion::list).await?;
    let all = all.into_iter().map(|it| Scheduled {
        destroy: it.number.to_string(),
        date: date(it.asked_at),
        id: it.id.to_string(),
    });
    Reply::json(&all.collect::<Vec<_>>())
}

/// DELETE `/cluster`. The answer waits for none of it.
pub(super) async fn carry_out(call: Call<'_>) -> Answer {
    call.core.read(deletion::carry_out).await?;
    Ok(Reply::done())
}

/// GET `/cluster/nextid`. The id is the client's for a minute.
pub(super) async fn next_id(call: Call<'_>) -> Answer {
    let number = call.core.read(number::reserve).await?;
    Ok(Reply::value(&json!({ "data": id(&call, number) })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_javascripts() {
        let at = chrono::DateTime::from_timestamp_micros(1_470_237_487_220_999).unwrap().naive_utc();
        assert_eq!(date(at), "2016-08-03T15:18:07.220Z");
    }
}
