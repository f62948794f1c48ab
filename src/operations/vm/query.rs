//! Reads of VMs: rows from the store, kept while nobody writes; states from the inventory. No hypervisor call.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::error::{Error, Result};
use crate::model::VmId;
use crate::operations::Core;
use crate::operations::inventory::Observed;
use crate::operations::peers::{self, Peers};
use crate::store::vms::{self, VmListing};

/// A VM as it is shown.
#[derive(Debug, Clone)]
pub struct VmView {
    pub listing: Arc<VmListing>,
    pub observed: Observed,
}

/// Rows read before, valid for as long as the store says that nothing was written since.
#[derive(Default)]
pub struct Listings(RwLock<Kept>);

#[derive(Default)]
struct Kept {
    generation: u64,
    all: Option<Arc<Vec<Arc<VmListing>>>>,
    single: HashMap<VmId, Arc<VmListing>>,
}

impl Listings {
    fn look<T>(&self, generation: Option<u64>, pick: impl FnOnce(&Kept) -> Option<T>) -> Option<T> {
        let kept = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if generation == Some(kept.generation) { pick(&kept) } else { None }
    }

    /// `generation` was read before the rows were.
    fn keep(&self, generation: Option<u64>, put: impl FnOnce(&mut Kept)) {
        let Some(generation) = generation else { return };
        let mut kept = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if kept.generation < generation {
            *kept = Kept { generation, ..Kept::default() };
        }
        if kept.generation == generation {
            put(&mut kept);
        }
    }
}

/// One VM. Answers from memory when it can, and else blocks one thread for a query.
pub async fn find(core: &Core, id: VmId) -> Result<VmView> {
    let kept = core.listings.look(core.store.generation(), |kept| kept.single.get(&id).cloned());
    let listing = match kept {
        Some(listing) => listing,
        None => core.read(move |core| load_one(core, id)).await?,
    };
    let peers = peers(core, std::slice::from_ref(&listing)).await?;
    Ok(view(core, &peers, &listing))
}

/// All of the site, oldest first.
pub async fn list(core: &Core) -> Result<Vec<VmView>> {
    let kept = core.listings.look(core.store.generation(), |kept| kept.all.clone());
    let all = match kept {
        Some(all) => all,
        None => core.read(load_all).await?,
    };
    let peers = peers(core, &all).await?;
    Ok(all.iter().map(|listing| view(core, &peers, listing)).collect())
}

/// Who is not asked after is not known: mostly all VMs are of this host.
async fn peers(core: &Core, listings: &[Arc<VmListing>]) -> Result<Peers> {
    if listings.iter().all(|listing| listing.vm.pm == core.pm.id) {
        return Ok(Peers::default());
    }
    match peers::kept(core) {
        Some(peers) => Ok(peers),
        None => core.read(peers::load).await,
    }
}

/// Another host's VM is in the state that its host saw last, as long as that host is there.
fn view(core: &Core, peers: &Peers, listing: &Arc<VmListing>) -> VmView {
    let vm = &listing.vm;
    let observed = if vm.pm == core.pm.id { core.inventory.of(vm.id) } else { peers.observed(core, vm.pm, vm.seen) };
    VmView { listing: listing.clone(), observed }
}

fn load_one(core: &Core, id: VmId) -> Result<Arc<VmListing>> {
    let generation = core.store.generation();
    let listing = core.store.read(|c| vms::listing_of(c, id))?.ok_or_else(|| Error::not_found("vm", id))?;
    let listing = Arc::new(listing);
    core.listings.keep(generation, |kept| {
        kept.single.insert(id, listing.clone());
    });
    Ok(listing)
}

fn load_all(core: &Core) -> Result<Arc<Vec<Arc<VmListing>>>> {
    let generation = core.store.generation();
    let all: Vec<_> = core.store.read(vms::listing)?.into_iter().map(Arc::new).collect();
    let all = Arc::new(all);
    core.listings.keep(generation, |kept| kept.all = Some(all.clone()));
    Ok(all)
}
