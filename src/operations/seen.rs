//! Writes down what this host sees of its domains, for the other hosts: off the way of every request, and only what changed.
//!
//! Law: rows that no other host would read differently are not written; and a change that could not be written, or that came
//! with a row from elsewhere, is made good by looking again now and then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::store::seen;

use super::Core;

/// How long the thread may keep a core alive that nobody else wants.
const TICK: Duration = Duration::from_secs(1);
/// After so long it looks again even if the inventory tells nothing new.
const AGAIN: Duration = Duration::from_secs(30);
/// While the rows cannot be written, and for the first answer of the hypervisor.
const SOON: Duration = Duration::from_secs(5);

/// Starts the thread that writes; it ends with the core.
pub(super) fn follow(core: &Core) {
    let (weak, inventory) = (Arc::downgrade(&core.inner), core.inventory.clone());
    let write = move || {
        let (mut known, mut due, mut well) = (0, Instant::now() + SOON, true);
        loop {
            let generation = inventory.wait_for_generation(known, Instant::now() + TICK);
            let Some(inner) = weak.upgrade() else { return };
            if generation == known && Instant::now() < due {
                continue;
            }
            known = generation;
            let done = record(&Core::of_server(inner));
            due = Instant::now() + if done.is_ok() { AGAIN } else { SOON };
            if let (true, Err(why)) = (well, &done) {
                tracing::warn!(error = why.story(), "the states of the vms cannot be written for the other hosts");
            }
            well = done.is_ok();
        }
    };
    if let Err(why) = std::thread::Builder::new().name("seen".to_owned()).spawn(write) {
        tracing::error!(error = %why, "no thread to write the states of the vms for the other hosts");
    }
}

fn record(core: &Core) -> Result<()> {
    let rows = core.store.read(|c| seen::of_pm(c, core.pm.id))?;
    let changed: Vec<_> = rows
        .into_iter()
        .filter_map(|(domain, was)| {
            let is = core.inventory.of(domain).seen();
            (is != was).then_some((domain, is))
        })
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    core.store.tell_tx(|tx| changed.iter().try_for_each(|(domain, is)| seen::record(tx, core.pm.id, *domain, *is)))
}
