//! Reads of VMs: rows from the store, kept while nobody writes; states from the inventory. No hypervisor call.
//!
//! Law: a read shows every write whose writer was answered before the read began, and every state that the inventory told
//! before it. What the other hosts' VMs show, their rows say, and which hosts are up; that is known to some seconds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::error::{Error, Result};
use crate::model::VmId;
use crate::operations::Core;
use crate::operations::generation::{self, Asked};
use crate::operations::inventory::Observed;
use crate::operations::peers::{self, Up};
use crate::store::Generation;
use crate::store::vms::{self, VmListing};

/// A VM as it is shown.
#[derive(Debug, Clone)]
pub struct VmView {
    pub listing: Arc<VmListing>,
    pub observed: Observed,
}

impl VmView {
    /// For how long it has been on, in seconds, as far as we started it; 0 while it is off.
    pub fn up_secs(&self, core: &Core) -> u64 {
        let since = self.listing.vm.recent_booted_at.filter(|_| self.observed.state.is_active());
        since.map_or(0, |since| u64::try_from((core.clock.now() - since).num_seconds()).unwrap_or(0))
    }
}

/// What a list shows, without the list: two that are equal show the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edition {
    rows: Generation,
    /// The inventory's generation, read before its states are.
    states: u64,
    /// Empty where all VMs are of this host.
    up: Up,
}

/// All VMs of the site that the caller sees.
pub struct VmList {
    edition: Edition,
    rows: Arc<Rows>,
    /// No VM is left out.
    whole: bool,
}

/// Rows read before, valid for as long as the store says that nothing was written since.
#[derive(Default)]
pub struct Listings {
    kept: RwLock<Kept>,
    asked: Asked,
    /// One reads all rows, and others wait for what it finds.
    turn: Mutex<()>,
}

#[derive(Default)]
struct Kept {
    generation: Generation,
    all: Option<Arc<Rows>>,
    single: HashMap<VmId, Arc<VmListing>>,
}

struct Rows {
    /// Oldest first.
    listings: Vec<Arc<VmListing>>,
    /// Some VMs are of other hosts.
    elsewhere: bool,
}

impl Listings {
    fn look<T>(&self, generation: Generation, pick: impl FnOnce(&Kept) -> Option<T>) -> Option<T> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        if generation == kept.generation { pick(&kept) } else { None }
    }

    /// `generation` was read before the rows were.
    fn keep(&self, generation: Generation, put: impl FnOnce(&mut Kept)) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if kept.generation != generation {
            *kept = Kept { generation, ..Kept::default() };
        }
        put(&mut kept);
    }

    fn one(&self, generation: Generation, id: VmId) -> Option<Arc<VmListing>> {
        self.look(generation, |kept| kept.single.get(&id).cloned())
    }

    fn all(&self, generation: Generation) -> Option<(Generation, Arc<Rows>)> {
        self.look(generation, |kept| kept.all.clone()).map(|all| (generation, all))
    }
}

impl VmList {
    /// `None` where VMs are left out: such a list is for its caller alone.
    pub fn edition(&self) -> Option<&Edition> {
        self.whole.then_some(&self.edition)
    }

    /// Oldest first. Does not block.
    pub fn views(&self, core: &Core) -> Vec<VmView> {
        self.rows.listings.iter().map(|listing| view(core, &self.edition.up, listing)).collect()
    }
}

/// One VM. Answers from memory when it can, and else blocks a thread for queries.
pub async fn find(core: &Core, id: VmId) -> Result<VmView> {
    let generation = generation::now(core, &core.listings.asked).await?;
    let listing = match core.listings.one(generation, id) {
        Some(listing) => listing,
        None => core.read(move |core| load_one(core, generation, id)).await?,
    };
    core.caller.require_sight(&listing.vm.name)?;
    let up = if listing.vm.pm == core.pm.id { Up::default() } else { up(core).await? };
    Ok(view(core, &up, &listing))
}

/// Those of the site that the caller sees, as [`find`] answers; cheap, however many there are, while nobody writes.
pub async fn list(core: &Core) -> Result<VmList> {
    let all = whole(core).await?;
    if core.caller.sees_all() {
        return Ok(all);
    }
    let seen = all.rows.listings.iter().filter(|listing| core.caller.sees(&listing.vm.name));
    let rows = Rows { listings: seen.cloned().collect(), elsewhere: all.rows.elsewhere };
    Ok(VmList { rows: Arc::new(rows), whole: false, ..all })
}

/// All of the site, whoever asks: to count them.
pub(in crate::operations) async fn whole(core: &Core) -> Result<VmList> {
    let generation = generation::now(core, &core.listings.asked).await?;
    let (generation, rows) = match core.listings.all(generation) {
        Some(kept) => kept,
        None => core.read(load_all).await?,
    };
    let up = if rows.elsewhere { up(core).await? } else { Up::default() };
    let edition = Edition { rows: generation, states: core.inventory.generation(), up };
    Ok(VmList { edition, rows, whole: true })
}

/// Which hosts are up, as far as their rows said some seconds ago.
async fn up(core: &Core) -> Result<Up> {
    let peers = match peers::kept(core) {
        Some(peers) => peers,
        None => core.read(peers::load).await?,
    };
    Ok(peers.up(core))
}

/// Another host's VM is in the state that its host saw last, as long as that host is there.
fn view(core: &Core, up: &Up, listing: &Arc<VmListing>) -> VmView {
    let vm = &listing.vm;
    let observed = if vm.pm == core.pm.id { core.inventory.of(vm.id) } else { up.observed(vm.pm, vm.seen) };
    VmView { listing: listing.clone(), observed }
}

/// Under `generation`, which was read before.
fn load_one(core: &Core, generation: Generation, id: VmId) -> Result<Arc<VmListing>> {
    let listing = core.store.read(|c| vms::listing_of(c, id))?.ok_or_else(|| Error::not_found("vm", id))?;
    let listing = Arc::new(listing);
    core.listings.keep(generation, |kept| {
        kept.single.insert(id, listing.clone());
    });
    Ok(listing)
}

fn load_all(core: &Core) -> Result<(Generation, Arc<Rows>)> {
    let _turn = core.listings.turn.lock().unwrap_or_else(PoisonError::into_inner);
    // Another one by now, perhaps; and its rows were read by whoever had the turn before.
    let generation = core.store.read_generation()?;
    if let Some(kept) = core.listings.all(generation) {
        return Ok(kept);
    }
    let listings: Vec<_> = core.store.read(vms::listing)?.into_iter().map(Arc::new).collect();
    let elsewhere = listings.iter().any(|listing| listing.vm.pm != core.pm.id);
    let rows = Arc::new(Rows { listings, elsewhere });
    core.listings.keep(generation, |kept| kept.all = Some(rows.clone()));
    Ok((generation, rows))
}
