//! Reads of PMs.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::host::{Load, Vitals};
use crate::model::{Network, Pm, PmId, PowerState};
use crate::operations::{Core, peers, vm};
use crate::store::{networks, pms};

/// A PM as it is shown.
#[derive(Debug, Clone)]
pub struct PmView {
    pub pm: Pm,
    pub up: bool,
    pub interfaces: Vec<Network>,
}

/// This host, with the interfaces that it has now.
pub fn this(core: &Core) -> Result<PmView> {
    let view = find(core, core.pm.id)?;
    Ok(PmView { interfaces: core.host.networks(), ..view })
}

/// Any PM of the site, with the interfaces that it wrote down.
pub fn find(core: &Core, id: PmId) -> Result<PmView> {
    let (pm, interfaces) = core.store.read(|c| Ok((pms::find(c, id)?, networks::of_pm(c, id)?)))?;
    let pm = pm.ok_or_else(|| Error::not_found("pm", id))?;
    Ok(PmView { up: peers::is_up(core, &pm), pm, interfaces })
}

/// All of the site, the first one registered first, in two queries.
pub fn list(core: &Core) -> Result<Vec<PmView>> {
    let (pms, all) = core.store.read(|c| Ok((pms::all(c)?, networks::all(c)?)))?;
    let mut by_pm: HashMap<PmId, Vec<Network>> = HashMap::new();
    for (pm, network) in all {
        by_pm.entry(pm).or_default().push(network);
    }
    let view = |pm: Pm| {
        let interfaces = by_pm.remove(&pm.id).unwrap_or_default();
        PmView { up: peers::is_up(core, &pm), pm, interfaces }
    };
    Ok(pms.into_iter().map(view).collect())
}

/// How busy this host is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Performance {
    pub pm: PmId,
    pub vm_count: usize,
    /// Logical CPUs.
    pub cpus: u32,
    /// vCPUs of the VMs that run.
    pub vcpus: u32,
    pub load: Load,
}

/// Asks the kernel, or the hypervisor below it, and the inventory now; waits a moment only if the server has just started.
pub async fn performance(core: &Core) -> Result<Performance> {
    tokio::time::sleep(core.sampler.too_early()).await;
    let load = core.read(|core| core.sampler.load(core.hypervisor.host_use()?)).await?;
    let mut performance = Performance { pm: core.pm.id, vm_count: 0, cpus: core.pm.cpu, vcpus: 0, load };
    for view in vm::whole(core).await?.views(core) {
        let vm = &view.listing.vm;
        if vm.pm == core.pm.id {
            performance.vm_count += 1;
            if view.observed.state == PowerState::Running {
                performance.vcpus = performance.vcpus.saturating_add(vm.cpu);
            }
        }
    }
    Ok(performance)
}

/// How this host does, in detail. Blocks for a moment when nobody has asked lately.
pub fn vitals(core: &Core) -> Result<Vitals> {
    core.host.vitals(&core.meter, || core.hypervisor.host_use())
}
