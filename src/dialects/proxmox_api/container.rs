//! `/container`: a machine is looked at, changed, and put on the list of those that are to be deleted.

use serde::Serialize;
use serde_json::{Value, json};

use super::create::Wish;
use super::failure::Failure;
use super::front::{Answer, Call};
use super::nodes::{Nodes, collapsed, inside};
use super::reply::Reply;
use crate::error::{Error, ErrorKind};
use crate::model::{MiB, PmId, VmId, VmNumber};
use crate::operations::vm::{self, Changes, EditVm, UpdateVm, VmView};
use crate::operations::{Core, deletion, number, tenant};

#[derive(Serialize)]
struct Status {
    maxdisk: u64,
    maxswap: u64,
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    mem: u64,
    lock: &'static str,
    cpu: f64,
    netin: u64,
    netout: u64,
    template: &'static str,
    status: &'static str,
    swap: u64,
    uptime: u64,
    maxmem: u64,
    disk: u64,
    diskread: u64,
    ha: Value,
    diskwrite: u64,
    cpus: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<String>,
}

/// A machine by the number that the client gave.
pub(super) struct Machine {
    pub(super) number: VmNumber,
    pub(super) view: VmView,
}

impl Machine {
    pub(super) fn id(&self) -> VmId {
        self.view.listing.vm.id
    }

    pub(super) fn pm(&self) -> PmId {
        self.view.listing.vm.pm
    }
}

/// `None` for what is not there, or not for this caller to see.
pub(super) async fn find(core: &Core, number: Option<VmNumber>) -> Result<Option<Machine>, Failure> {
    let Some(number) = number else { return Ok(None) };
    let Some(vm) = core.read(move |core| number::find(core, number)).await? else { return Ok(None) };
    match vm::find(core, vm).await {
        Ok(view) => Ok(Some(Machine { number, view })),
        // It went, or got another name, just now.
        Err(why) if matches!(why.kind(), ErrorKind::NotFound { .. } | ErrorKind::Forbidden { .. }) => Ok(None),
        Err(why) => Err(why.into()),
    }
}

impl Status {
    async fn of(core: &Core, view: &VmView) -> Result<Self, Error> {
        let vm = &view.listing.vm;
        let id = vm.id;
        let read = move |core: &Core| Ok((tenant::tenancy(core, id)?, vm::stats(core, id)?, vm::vcpu_use(core, id)?));
        let (tenancy, stats, vcpus) = core.read(read).await?;
        let running = view.observed.state.is_active();
        let stats = stats.filter(|_| running);
        let used = |stats: &crate::model::DomainStats| stats.memory_used_kib.unwrap_or(stats.memory_kib);
        let cpu = vcpus.iter().sum::<f64>() / (100.0 * f64::from(vm.cpu.max(1)));
        let counted = stats.as_ref();
        Ok(Self {
            maxdisk: view.listing.disk_size.bytes(),
            maxswap: tenancy.map_or(0, |tenancy| tenancy.swap.bytes()),
            name: vm.name.clone(),
            kind: "lxc",
            mem: counted.map_or(0, |stats| used(stats).saturating_mul(1024)),
            lock: "",
            cpu: if running { cpu.min(1.0) } else { 0.0 },
            netin: counted.map_or(0, |stats| stats.net_rx),
            netout: counted.map_or(0, |stats| stats.net_tx),
            template: "",
            status: if running { "running" } else { "stopped" },
            swap: 0,
            uptime: view.up_secs(core),
            maxmem: vm.memory.bytes(),
            disk: 0,
            diskread: counted.map_or(0, |stats| stats.disk_read),
            ha: json!({ "managed": 0 }),
            diskwrite: counted.map_or(0, |stats| stats.disk_written),
            cpus: vm.cpu.to_string(),
            pid: view.observed.number.filter(|_| running).map(|number| number.to_string()),
        })
    }
}

/// What each node says of this id.
async fn by_node(call: &Call<'_>, nodes: &Nodes, id: &str, found: Option<&Machine>) -> Result<Value, Failure> {
    let status = match found.filter(|machine| machine.pm() == nodes.here) {
        Some(machine) => inside(&Status::of(&call.core, &machine.view).await?)?,
        None => Value::Null,
    };
    Ok(nodes.container(id, found.map(Machine::pm), || status.clone()))
}

/// GET.
pub(super) async fn status(call: Call<'_>) -> Answer {
    let late = |by_node| if call.settings.late { collapsed(by_node) } else { by_node };
    if let Some(name) = call.fields.given("username") {
        return of_user(&call, name).await;
    }
    let Some(id) = call.fields.given("id") else {
        return Err(Failure::Said("You must specify machine ID or username"));
    };
    let nodes = Nodes::of(&call.core).await?;
    let found = find(&call.core, call.fields.number("id")).await?;
    let by_node = late(by_node(&call, &nodes, id, found.as_ref()).await?);
    Ok(Reply::value(&if call.settings.late { json!([by_node]) } else { by_node }))
}

async fn of_user(call: &Call<'_>, name: &str) -> Answer {
    let name = name.to_owned();
    let read = move |core: &Core| Ok((tenant::find(core, &name)?, number::all(core)?));
    let (tenant, numbers) = call.core.read(read).await?;
    let Some(tenant) = tenant else { return Err(Failure::Null) };
    let nodes = Nodes::of(&call.core).await?;
    let mut machines = Vec::new();
    for vm in &tenant.vms {
        let number = numbers.iter().find(|(_, numbered)| numbered == vm).map(|(number, _)| *number);
        if let Some(found) = find(&call.core, number).await? {
            let by_node = by_node(call, &nodes, &found.number.to_string(), Some(&found)).await?;
            machines.push(if call.settings.late { collapsed(by_node) } else { by_node });
        }
    }
    // An object, not a list, where there is none.
    Ok(Reply::value(&if machines.is_empty() { json!({}) } else { Value::Array(machines) }))
}

/// PUT. What is not given stays.
pub(super) async fn modify(call: Call<'_>) -> Answer {
    let id = call.fields.given("id").ok_or(Failure::Said("You must specify machine ID"))?;
    let wish = Wish::read(&call.fields)?;
    let nodes = Nodes::of(&call.core).await?;
    let found = find(&call.core, call.fields.number("id")).await?;
    if let Some(machine) = found.as_ref().filter(|machine| machine.pm() == nodes.here) {
        if wish.disk.is_some() {
            let why = "the disk of a machine keeps its size";
            return Err(Failure::Fields(vec![("rootfs", why.to_owned())]));
        }
        change(&call.core, machine, &wish).await?;
    }
    Ok(Reply::value(&nodes.container(id, found.as_ref().map(Machine::pm), || json!({ "data": null }))))
}

async fn change(core: &Core, machine: &Machine, wish: &Wish) -> Result<(), Error> {
    let vm = machine.id();
    let most = machine.view.listing.vm.maxmem;
    let maxmem = wish.memory.filter(|memory| *memory > most);
    if wish.vcpus().is_some() || wish.memory.is_some() {
        let changes = Changes { cpu: wish.vcpus(), memory: wish.memory, maxmem, iso: None };
        core.wait(core.submit(UpdateVm { vm, changes }).await?).await?;
    }
    if wish.hostname.is_some() {
        core.wait(core.submit(EditVm { vm, name: wish.hostname.clone(), desc: None }).await?).await?;
    }
    match wish.swap {
        Some(MiB(swap)) => core.read(move |core| tenant::set_swap(core, vm, MiB(swap))).await,
        None => Ok(()),
    }
}

/// DELETE. The answer is the same for what is not there.
pub(super) async fn schedule(call: Call<'_>) -> Answer {
    if let Some(machine) = find(&call.core, call.fields.number("id")).await? {
        let vm = machine.id();
        match call.core.read(move |core| deletion::ask(core, vm)).await {
            Err(why) if !matches!(why.kind(), ErrorKind::NotFound { .. }) => return Err(why.into()),
            _ => {}
        }
    }
    Ok(Reply::value(&json!({ "message": "Machine status changed to destroy" })))
}
