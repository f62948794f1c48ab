//! What this host does, for charts. Types are the original's: its web page does arithmetic on them.

use std::collections::BTreeMap;

use serde::Serialize;
use warp::reply::Response;

use super::{Failure, json};
use crate::operations::pm::{NicCounters, Vitals};

/// In percent of all CPUs.
#[derive(Serialize)]
struct Cpu {
    usr: String,
    sys: String,
    steal: String,
    iowait: String,
    irq: String,
    total: String,
}

/// In bytes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    mem_total: u64,
    mem_free: u64,
    mem_buffer: u64,
    swap_total: u64,
    swap_free: u64,
}

/// In bytes, as text.
#[derive(Serialize)]
struct Nic {
    tx: Option<String>,
    rx: Option<String>,
}

pub(super) fn cpu(vitals: &Vitals) -> Result<Response, Failure> {
    let text = |percent: f64| format!("{percent:.2}");
    let cpu = &vitals.cpu;
    json(&Cpu {
        usr: text(cpu.user),
        sys: text(cpu.system),
        steal: text(cpu.steal),
        iowait: text(cpu.iowait),
        irq: text(cpu.irq),
        total: text(cpu.total),
    })
}

pub(super) fn memory(vitals: &Vitals) -> Result<Response, Failure> {
    json(&Memory {
        mem_total: vitals.memory_total,
        mem_free: vitals.memory_free,
        mem_buffer: vitals.memory_buffers,
        swap_total: vitals.swap_total,
        swap_free: vitals.swap_free,
    })
}

/// Two keys for each interface; a chart draws a line for each, so there are no others.
pub(super) fn nics(vitals: &Vitals, physical: bool) -> Result<Response, Failure> {
    let shown = vitals.nics.iter().filter(|nic| nic.physical || !physical);
    let keys = |nic: &NicCounters| {
        [(format!("{}_rx", nic.name), nic.rx.to_string()), (format!("{}_tx", nic.name), nic.tx.to_string())]
    };
    json(&shown.flat_map(keys).collect::<BTreeMap<_, _>>())
}

pub(super) fn nic(vitals: &Vitals, name: &str) -> Result<Response, Failure> {
    // No interface is called so: these are ways out of a directory.
    if name.contains('/') || name.contains("..") {
        return Err(Failure::NoSuchPath);
    }
    let found = vitals.nics.iter().find(|nic| nic.name == name);
    json(&Nic { tx: found.map(|nic| nic.tx.to_string()), rx: found.map(|nic| nic.rx.to_string()) })
}
