//! A guest that stands still for a moment, while what it runs on is exchanged.
//!
//! When a guest reboots, Xen starts it on what it was told last. So the guest does not run from before QEMU moves its disks
//! until Xen has been told, and a note beside its definition says that it is to go on: whoever finds the note and nobody at
//! work tells Xen what is so, and lets the guest go.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::error::{Error, Result};
use crate::model::VmId;

use super::definitions::Kept;
use super::parse::{Row, RunState};
use super::seen::{Age, Sight};
use super::{BY, Inner};

#[derive(Default)]
pub(super) struct Holds(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Those that somebody here is at work on: one at a time for each.
    at_work: HashSet<VmId>,
    /// Those that could not go on, and why.
    stuck: HashMap<VmId, String>,
}

impl Holds {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<Self>, id: VmId) -> Option<Hold> {
        self.lock().at_work.insert(id).then(|| Hold { holds: Arc::clone(self), id })
    }

    pub(super) fn stuck(&self) -> HashSet<VmId> {
        self.lock().stuck.keys().copied().collect()
    }
}

struct Hold {
    holds: Arc<Holds>,
    id: VmId,
}

impl Hold {
    /// Whether the guest goes on; said once, not once a second.
    fn learn(&self, gone: &Result<()>) {
        let mut known = self.holds.lock();
        let Err(why) = gone else {
            known.stuck.remove(&self.id);
            return;
        };
        let why = why.story();
        if known.stuck.get(&self.id) != Some(&why) {
            tracing::warn!(vm = %self.id, error = why, "a guest that stands still cannot go on");
            known.stuck.insert(self.id, why);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.holds.lock().at_work.remove(&self.id);
    }
}

impl Inner {
    fn hold(&self, id: VmId) -> Result<Hold> {
        let busy = || Error::refused(BY, format!("vm {id} is about to go on; ask again in a moment"));
        self.holds.take(id).ok_or_else(busy)
    }

    /// When QEMU does not say where the disks are now, the guest stays as it is until it does.
    pub(super) fn while_it_stands(&self, row: &Row, change: impl FnOnce() -> Result<()>) -> Result<()> {
        if row.state != RunState::Running {
            return change().and(self.settle(row).map(drop));
        }
        let hold = self.hold(row.id)?;
        self.definitions.mark(row.id, Kept::Hold)?;
        let began = Instant::now();
        let changed = self.tell(row, "pause", []).and_then(|()| change());
        let gone = self.let_go(row);
        hold.learn(&gone);
        tracing::info!(vm = %row.id, ms = began.elapsed().as_millis(), "a guest stood still while its disks changed hands");
        self.seen.touch();
        changed.and(gone)
    }

    fn let_go(&self, row: &Row) -> Result<()> {
        self.settle(row)?;
        self.tell(row, "unpause", [])?;
        self.definitions.remove(row.id, Kept::Hold)
    }

    /// For one who holds nothing: does nothing if the guest is not to go on.
    pub(super) fn let_go_on(&self, id: VmId) -> Result<()> {
        let hold = self.hold(id)?;
        // What was seen before may be from a hold that is over.
        let sight = self.look(Age::Fresh)?;
        let gone = match sight.row(id).filter(|row| row.state == RunState::Paused) {
            _ if !sight.is_held(id) => Ok(()),
            Some(row) => self.let_go(row),
            None => self.definitions.remove(id, Kept::Hold),
        };
        hold.learn(&gone);
        self.seen.touch();
        gone
    }

    /// Lets those go that nobody is at work on any more, each apart: a QEMU that hangs holds up nobody else.
    pub(super) fn let_all_go(self: &Arc<Self>, sight: &Sight) {
        let waits = |id: &VmId| !self.holds.lock().at_work.contains(id);
        for id in sight.held().filter(waits) {
            let inner = Arc::clone(self);
            let thread = std::thread::Builder::new().name("xl-let-go".to_owned());
            // What is wrong with it was told.
            if let Err(why) = thread.spawn(move || drop(inner.let_go_on(id))) {
                tracing::warn!(vm = %id, error = %why, "a guest that stands still waits for a thread");
            }
        }
    }
}
