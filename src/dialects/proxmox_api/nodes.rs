//! The hosts of the site: answers that have one key for each, and what this one says of itself.
//!
//! Law: only this host answers for itself. Another one has the sentence in its place that Proxmox VE would have there.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::failure::{Failure, refused};
use super::front::{Answer, Call};
use super::reply::Reply;
use crate::error::Error;
use crate::model::{Pm, PmId};
use crate::operations::Core;
use crate::operations::pm::{self, Vitals};

pub(super) struct Nodes {
    /// The first one registered first.
    pub(super) all: Vec<Pm>,
    pub(super) here: PmId,
}

impl Nodes {
    pub(super) async fn of(core: &Core) -> Result<Self, Error> {
        let read = |core: &Core| Ok((pm::list(core)?, pm::this(core)?.pm.id));
        let (all, here) = core.read(read).await?;
        Ok(Self { all: all.into_iter().map(|view| view.pm).collect(), here })
    }

    /// One key for each; what `value` says of it.
    pub(super) fn map(&self, mut value: impl FnMut(&Pm) -> Value) -> Value {
        Value::Object(self.all.iter().map(|pm| (pm.name.clone(), value(pm))).collect::<Map<_, _>>())
    }

    /// For the container of this id, which is `owner`'s, if it is anybody's; `found` is what this host says of its own.
    pub(super) fn container(&self, id: &str, owner: Option<PmId>, mut found: impl FnMut() -> Value) -> Value {
        self.map(|pm| match owner {
            Some(owner) if owner == pm.id && owner == self.here => found(),
            Some(owner) if owner == pm.id => elsewhere(pm),
            _ => Value::String(no_container(&pm.name, id)),
        })
    }
}

fn elsewhere(pm: &Pm) -> Value {
    Value::String(refused(format_args!("ask pengx on {}", pm.name)))
}

fn no_container(node: &str, id: &str) -> String {
    refused(format_args!("Configuration file 'nodes/{node}/lxc/{id}.conf' does not exist"))
}

/// What the answer to one container is where clients of later revisions ask: what is inside of the last node that had it.
pub(super) fn collapsed(by_node: Value) -> Value {
    match by_node {
        Value::Object(nodes) => {
            let last = nodes.values().rev().find(|value| value.is_object()).cloned();
            last.unwrap_or(Value::Object(nodes))
        }
        other => other,
    }
}

#[derive(Serialize)]
struct Status {
    wait: f64,
    idle: u8,
    pveversion: &'static str,
    ksm: Value,
    loadavg: [String; 3],
    swap: Value,
    uptime: u64,
    memory: Value,
    rootfs: Value,
    cpuinfo: Value,
    cpu: f64,
    kversion: String,
}

pub(super) fn share(percent: f64) -> f64 {
    percent / 100.0
}

fn used_of(total: u64, free: u64) -> Value {
    json!({ "used": total.saturating_sub(free), "free": free, "total": total })
}

impl Status {
    fn of(vitals: &Vitals) -> Self {
        Self {
            wait: share(vitals.cpu.iowait),
            idle: 0,
            pveversion: concat!("pengx/", env!("CARGO_PKG_VERSION")),
            ksm: json!({ "shared": vitals.ksm_shared }),
            loadavg: vitals.load_average.map(|load| format!("{load:.2}")),
            swap: used_of(vitals.swap_total, vitals.swap_free),
            uptime: vitals.uptime_secs,
            memory: used_of(vitals.memory_total, vitals.memory_available),
            rootfs: json!({
                "used": vitals.root_used,
                "free": vitals.root_free,
                "avail": vitals.root_available,
                "total": vitals.root_total,
            }),
            cpuinfo: json!({
                "mhz": format!("{:.3}", vitals.mhz),
                "cpus": vitals.cpus,
                "hvm": u8::from(vitals.hvm),
                "user_hz": 100,
                "model": vitals.cpu_model,
                "sockets": vitals.sockets,
            }),
            cpu: share(vitals.cpu.total),
            kversion: vitals.kernel.clone(),
        }
    }
}

/// REPORT `/node`.
pub(super) async fn report(call: Call<'_>) -> Answer {
    let nodes = Nodes::of(&call.core).await?;
    let status = match call.core.read(pm::vitals).await {
        Ok(vitals) => inside(&Status::of(&vitals))?,
        Err(why) => Value::String(refused(why)),
    };
    Ok(Reply::value(&nodes.map(|pm| if pm.id == nodes.here { status.clone() } else { elsewhere(pm) })))
}

/// `{"data": …}`
pub(super) fn inside(data: &impl Serialize) -> Result<Value, Failure> {
    let data = serde_json::to_value(data);
    Ok(json!({ "data": data.map_err(|why| Error::internal("an answer is no JSON").caused_by(why))? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_node_that_answered_is_what_later_clients_see() {
        let by_node = json!({ "a": "no - {}", "b": { "data": 1 }, "c": { "data": 2 }, "d": "no - {}" });
        assert_eq!(collapsed(by_node), json!({ "data": 2 }));
        let none = json!({ "a": "no - {}" });
        assert_eq!(collapsed(none.clone()), none);
    }

    #[test]
    fn a_node_without_the_container_says_so_in_the_words_of_the_manual() {
        let said = "Configuration file 'nodes/pve2/lxc/100.conf' does not exist - {\"data\":null}";
        assert_eq!(no_container("pve2", "100"), said);
    }
}
