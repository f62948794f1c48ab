//! VMs: the list, one of them, its four buttons, and what its virtual CPUs do.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use warp::reply::Response;

use super::{Failure, json};
use crate::dialects::ask::Ask;
use crate::model::{DomainStats, PowerState, VmId};
use crate::operations::vm::{self, PoweroffVm, RequestShutdownVm, ResumeVm, StartVm, SuspendVm, VmView};
use crate::operations::{Core, Operation};

#[derive(Serialize)]
struct Listed<'a> {
    uuid: String,
    name: &'a str,
    active: bool,
}

impl<'a> Listed<'a> {
    fn of(view: &'a VmView) -> Self {
        let vm = &view.listing.vm;
        Self { uuid: vm.id.to_string(), name: &vm.name, active: view.observed.state.is_active() }
    }
}

#[derive(Serialize)]
struct Detail<'a> {
    id: i64,
    uuid: String,
    name: &'a str,
    active: bool,
    persistent: bool,
    /// Whether the next start brings another size.
    updated: bool,
    os: String,
    autostart: bool,
    info: Info,
}

/// Sizes in KiB.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    max_mem: u64,
    memory: u64,
    /// In nanoseconds.
    cpu_time: u64,
    nr_virt_cpu: u32,
    state: u8,
}

/// libvirt's numbers.
fn number(state: PowerState) -> u8 {
    match state {
        PowerState::Unknown => 0,
        PowerState::Running => 1,
        PowerState::Paused => 3,
        PowerState::Shutdown => 5,
        PowerState::Crashed => 6,
    }
}

pub(super) async fn list(core: &Core) -> Result<Response, Failure> {
    let views = vm::list(core).await?.views(core);
    json(&views.iter().map(Listed::of).collect::<Vec<_>>())
}

pub(super) async fn show(core: &Core, id: VmId) -> Result<Response, Failure> {
    let view = vm::find(core, id).await?;
    // A running domain of this host has a number; another host's is not ours to ask for.
    let runs_here = view.observed.number.is_some();
    let (stats, os) = core
        .read(move |core| {
            let stats = if runs_here { vm::stats(core, id)? } else { None };
            let os = vm::description(core, id).ok().as_deref().and_then(os_type).map(str::to_owned);
            Ok((stats, os))
        })
        .await?;
    json(&detail(&view, stats.as_ref(), os))
}

fn detail<'a>(view: &'a VmView, stats: Option<&DomainStats>, os: Option<String>) -> Detail<'a> {
    let (row, state) = (&view.listing.vm, view.observed.state);
    let (maxmem, memory) = (row.maxmem.0 << 10, row.memory.0 << 10);
    let plugged = stats.map_or(row.cpu, |stats| u32::try_from(stats.vcpu_nanos.len()).unwrap_or(row.cpu));
    let most = stats.map_or(maxmem, |stats| stats.max_memory_kib);
    Detail {
        id: view.observed.number.map_or(-1, i64::from),
        uuid: row.id.to_string(),
        name: &row.name,
        active: state.is_active(),
        persistent: true,
        updated: plugged != row.cpu || most >> 10 != row.maxmem.0,
        os: os.unwrap_or_else(|| "hvm".to_owned()),
        autostart: false,
        info: Info {
            max_mem: most,
            memory: stats.map_or(memory, |stats| stats.memory_kib),
            cpu_time: stats.map_or(0, |stats| stats.cpu_nanos),
            nr_virt_cpu: plugged,
            state: number(state),
        },
    }
}

/// The type of operating system in a domain's XML. No text in it has a bracket.
fn os_type(xml: &str) -> Option<&str> {
    let (_, os) = xml.split_once("<os>")?;
    let (_, kind) = os.split_once("<type")?.1.split_once('>')?;
    match kind.split_once("</type>")?.0 {
        // An older word for the same.
        "linux" => Some("xen"),
        kind => Some(kind),
    }
}

pub(super) async fn cpu(core: &Core, id: VmId) -> Result<Response, Failure> {
    let percents = core.read(move |core| vm::vcpu_use(core, id)).await?;
    let rounded =
        percents.iter().enumerate().map(|(n, percent)| (format!("cpu_{n}"), (percent * 100.0).round() / 100.0));
    json(&rounded.collect::<BTreeMap<_, _>>())
}

/// What is to be done, of the body, which is JSON whatever it is called, or else of the query.
pub(super) async fn wish(ask: &Ask) -> Result<String, Failure> {
    let body = ask.body().await?;
    let wanted = if body.is_empty() {
        None
    } else {
        let mut body: Value = serde_json::from_slice(&body).map_err(|why| Failure::BadBody(why.to_string()))?;
        body.get_mut("action").map(Value::take)
    };
    Ok(match wanted {
        Some(Value::String(word)) => word,
        Some(other) => other.to_string(),
        None => ask.query("action").unwrap_or_default(),
    })
}

/// The answer comes when the hypervisor has done it; to a shutdown, when the guest was asked.
pub(super) async fn act(core: &Core, id: VmId, wish: &str) -> Result<Response, Failure> {
    let is_paused = vm::find(core, id).await?.observed.state == PowerState::Paused;
    match wish {
        "start" if is_paused => run(core, ResumeVm { vm: id }).await?,
        "start" => run(core, StartVm { vm: id }).await?,
        "pause" => run(core, SuspendVm { vm: id }).await?,
        // `stop` is what the original's manual says and its server does not know.
        "shutdown" | "stop" => {
            // One that stands still would not hear it.
            if is_paused {
                run(core, ResumeVm { vm: id }).await?;
            }
            run(core, RequestShutdownVm { vm: id }).await?;
        }
        "destroy" => run(core, PoweroffVm { vm: id }).await?,
        other => return Err(Failure::UnknownAction(other.to_owned())),
    }
    json(&BTreeMap::from([("result", "done")]))
}

async fn run<O: Operation<Output = ()>>(core: &Core, operation: O) -> Result<(), Failure> {
    let handle = core.submit(operation).await?;
    core.wait(handle).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_of_the_system_is_read_out_of_the_xml() {
        for (xml, kind) in [
            ("<domain><os><type arch='x86_64' machine='q35'>hvm</type><boot dev='hd'/></os></domain>", Some("hvm")),
            ("<domain><os>\n  <type>linux</type></os></domain>", Some("xen")),
            ("<os><type>xenpvh</type></os>", Some("xenpvh")),
            ("<domain><console><target type='serial'/></console></domain>", None),
            ("<os><type>", None),
        ] {
            assert_eq!(os_type(xml), kind, "{xml}");
        }
    }

    #[test]
    fn states_have_the_numbers_of_libvirt() {
        let all =
            [PowerState::Unknown, PowerState::Running, PowerState::Paused, PowerState::Shutdown, PowerState::Crashed];
        assert_eq!(all.map(number), [0, 1, 3, 5, 6]);
    }
}
