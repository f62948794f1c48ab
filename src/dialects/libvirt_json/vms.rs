//! VMs, by name: lists, states, and all that is only looked at.

use serde::Serialize;
use warp::http::{HeaderValue, StatusCode};
use warp::reply::Response;

use super::filter::Filter;
use super::front::Call;
use super::{Failure, accept, reply, state as states};
use crate::error::{Error, ErrorKind};
use crate::model::{MiB, PowerState, VmId};
use crate::operations::vm::{self, VmView};
use crate::operations::{Core, snapshot};

#[derive(Serialize)]
struct List<'a> {
    vms: Vec<Item<'a>>,
}

#[derive(Serialize)]
struct Item<'a> {
    name: &'a str,
    state: &'static str,
    /// The number of the running domain.
    id: i64,
}

/// libvirt's `virDomainInfo`; memory in KiB, time in ns.
#[derive(Serialize)]
struct Info {
    state: u8,
    max_mem: u64,
    cur_mem: u64,
    vcpu: usize,
    cputime: u64,
}

#[derive(Serialize)]
struct Addresses {
    ips: Vec<String>,
}

#[derive(Serialize)]
struct Description {
    xml: String,
}

#[derive(Serialize)]
struct Viewer {
    ip: Option<String>,
    port: Option<u16>,
}

#[derive(Serialize)]
struct State<T> {
    state: T,
}

#[derive(Serialize)]
struct Lookup {
    vm_status: &'static str,
    is_running: bool,
}

impl Call<'_> {
    /// Those of this host, oldest first: this API knows no other.
    async fn vms(&self) -> Result<Vec<VmView>, Error> {
        let here = self.here().await?.id;
        let mut all = vm::list(&self.core).await?.views(&self.core);
        all.retain(|view| view.listing.vm.pm == here);
        Ok(all)
    }

    /// The VM that `name` names: no two of the site have one name, which the database sees to.
    pub(super) async fn vm(&self) -> Result<VmView, Failure> {
        let name = self.required("name")?;
        let named = self.vms().await?.into_iter().find(|view| view.listing.vm.name == name);
        named.ok_or(Failure::NoVm(name))
    }

    /// What is asked of the VM that `name` names, which may have gone meanwhile.
    async fn of<T: Send + 'static>(
        &self,
        view: &VmView,
        query: impl FnOnce(&Core, VmId) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Failure> {
        let id = view.listing.vm.id;
        self.core.read(move |core| query(core, id)).await.map_err(|error| gone(view, error))
    }
}

/// A VM that is not there any more is one of no name.
pub(super) fn gone(view: &VmView, error: Error) -> Failure {
    match error.kind() {
        ErrorKind::NotFound { .. } => Failure::NoVm(view.listing.vm.name.clone()),
        _ => Failure::Core(error),
    }
}

pub(super) async fn list(call: &Call<'_>) -> Result<Response, Failure> {
    let text = call.required("type")?;
    let filter = Filter::parse(&text).ok_or(Failure::NoType(text))?;
    let mut all = call.vms().await?;
    all.retain(|view| filter.fits(view.observed.state));
    if filter.asks_for_snapshots() {
        all = call.core.read(move |core| by_snapshots(core, filter, all)).await?;
    }
    all.sort_by(|a, b| a.listing.vm.name.cmp(&b.listing.vm.name));
    Ok(reply::ok(&List { vms: all.iter().map(Item::of).collect() }))
}

impl<'v> Item<'v> {
    fn of(view: &'v VmView) -> Self {
        Self {
            name: &view.listing.vm.name,
            state: states::word_of(view.observed.state),
            id: view.observed.number.map_or(-1, i64::from),
        }
    }
}

fn by_snapshots(core: &Core, filter: Filter, all: Vec<VmView>) -> Result<Vec<VmView>, Error> {
    let mut fitting = Vec::new();
    for view in all {
        match snapshot::list(core, view.listing.vm.id) {
            Ok(snapshots) if filter.fits_snapshots(!snapshots.is_empty()) => fitting.push(view),
            Ok(_) => {}
            Err(gone) if matches!(gone.kind(), ErrorKind::NotFound { .. }) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(fitting)
}

pub(super) async fn info(call: &Call<'_>) -> Result<Response, Failure> {
    let view = call.vm().await?;
    let vm = &view.listing.vm;
    let kib = |memory: MiB| memory.0.saturating_mul(1024);
    let stats = if view.observed.state.is_active() { call.of(&view, vm::stats).await? } else { None };
    let state = states::number(view.observed.state);
    let cpus = usize::try_from(vm.cpu).unwrap_or_default();
    Ok(reply::ok(&match stats {
        Some(now) => Info {
            state,
            max_mem: now.max_memory_kib,
            cur_mem: now.memory_kib,
            vcpu: if now.vcpu_nanos.is_empty() { cpus } else { now.vcpu_nanos.len() },
            cputime: now.cpu_nanos,
        },
        None => Info { state, max_mem: kib(vm.maxmem), cur_mem: kib(vm.memory), vcpu: cpus, cputime: 0 },
    }))
}

pub(super) async fn addresses(call: &Call<'_>) -> Result<Response, Failure> {
    let view = call.vm().await?;
    let known = if view.observed.state.is_active() { call.of(&view, vm::addresses).await? } else { Vec::new() };
    let ips = known.iter().map(|address| format!("{}/{}", address.ip, address.prefix)).collect();
    Ok(reply::ok(&Addresses { ips }))
}

/// The XML as it is; or within JSON, for the client that asks for that by name.
pub(super) async fn description(call: &Call<'_>) -> Result<Response, Failure> {
    let view = call.vm().await?;
    let xml = call.of(&view, vm::description).await?;
    if accept::names_json(&call.ask.headers) {
        return Ok(reply::ok(&Description { xml }));
    }
    Ok(reply::body(StatusCode::OK, HeaderValue::from_static("application/xml"), xml))
}

/// The screens of our VMs are VNC.
pub(super) async fn viewer(call: &Call<'_>) -> Result<Response, Failure> {
    let vnc = call.vm().await?.observed.vnc;
    let (ip, port) = vnc.map(|vnc| (vnc.host, vnc.port)).unzip();
    Ok(reply::ok(&Viewer { ip, port }))
}

pub(super) async fn state(call: &Call<'_>) -> Result<Response, Failure> {
    let state = call.vm().await?.observed.state;
    Ok(reply::ok(&State { state: states::number(state) }))
}

/// Of a VM, or of a number; a VM's goes first.
pub(super) async fn status(call: &Call<'_>) -> Result<Response, Failure> {
    let number = call.integer("state")?;
    let word = match (call.ask.query("name"), number) {
        (None, Some(number)) => states::word(number),
        _ => states::word_of(call.vm().await?.observed.state),
    };
    Ok(reply::ok(&State { state: word }))
}

pub(super) fn status_lookup(call: &Call<'_>) -> Result<Response, Failure> {
    let vm_status = states::word(call.integer("state")?.ok_or(Failure::Missing("state"))?);
    let is_running = vm_status == states::word_of(PowerState::Running);
    Ok(reply::ok(&Lookup { vm_status, is_running }))
}

pub(super) async fn screenshot(call: &Call<'_>) -> Result<Response, Failure> {
    let view = call.vm().await?;
    let picture = call.of(&view, vm::screenshot).await.map_err(|failure| match &failure {
        Failure::Core(error)
            if matches!(error.kind(), ErrorKind::WrongState { .. } | ErrorKind::Unsupported { .. }) =>
        {
            Failure::NoVm(view.listing.vm.name.clone())
        }
        _ => failure,
    })?;
    let kind = HeaderValue::try_from(picture.media_type)
        .map_err(|why| Error::internal("the type of a screenshot is no header").caused_by(why))?;
    Ok(reply::body(StatusCode::OK, kind, picture.bytes))
}
