//! The host itself, and what this API says of itself.

use serde::Serialize;
use serde_json::{Value, json};
use warp::reply::Response;

use super::front::Call;
use super::{Failure, reply};
use crate::error::Error;
use crate::operations::pm::{self, Vitals};

#[derive(Serialize)]
struct Name<'a> {
    host: &'a str,
}

#[derive(Serialize)]
struct Data<'a> {
    host_data: NodeInfo<'a>,
}

/// libvirt-python's `getInfo`: machine, memory in MiB, CPUs, MHz, NUMA nodes, sockets of each, cores of each, threads of each.
#[derive(Serialize)]
struct NodeInfo<'a>(&'a str, u64, u32, u64, u32, u32, u32, u32);

pub(super) async fn name(call: &Call<'_>) -> Result<Response, Failure> {
    Ok(reply::ok(&Name { host: &call.here().await?.name }))
}

pub(super) async fn data(call: &Call<'_>) -> Result<Response, Failure> {
    let vitals = call.core.read(pm::vitals).await?;
    Ok(reply::ok(&Data { host_data: node_info(&vitals) }))
}

fn node_info(vitals: &Vitals) -> NodeInfo<'_> {
    // No conversion from f64 says what it does with what is none; a text does.
    let mhz = format!("{:.0}", vitals.mhz).parse().unwrap_or(0);
    let nodes = vitals.numa_nodes.max(1);
    NodeInfo(
        &vitals.machine,
        vitals.memory_total >> 20,
        vitals.cpus,
        mhz,
        nodes,
        (vitals.sockets / nodes).max(1),
        vitals.cores_per_socket,
        vitals.threads_per_core,
    )
}

/// The table of endpoints as OpenAPI 3.1 puts it.
pub(super) fn openapi(call: &Call<'_>) -> Result<Response, Failure> {
    let mut document: Value = serde_json::from_str(include_str!("openapi.json"))
        .map_err(|why| Error::internal("the OpenAPI document is not JSON").caused_by(why))?;
    let prefix = call.ask.prefix();
    if let (Value::Object(fields), false) = (&mut document, prefix.is_empty()) {
        fields.insert("servers".to_owned(), json!([{ "url": prefix }]));
    }
    Ok(reply::ok(&document))
}
