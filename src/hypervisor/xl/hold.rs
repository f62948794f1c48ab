//! A guest that stands still for a moment, while what it runs on is exchanged.
//!
//! When a guest reboots, Xen starts it on what it was told last. So the guest does not run from before QEMU moves its disks
//! until Xen has been told, and a note beside its definition says that it is to go on: whoever finds the note and nobody at
//! work tells Xen what is so, and lets the guest go.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use crate::model::VmId;

use super::Inner;
use super::definitions::Kept;
use super::parse::{Row, RunState};
use super::seen::Sight;

/// Those that somebody here holds.
#[derive(Default)]
pub(super) struct Holds(Mutex<HashSet<VmId>>);

impl Holds {
    fn has(&self, id: VmId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    fn take(&self, id: VmId) -> Hold<'_> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        Hold { holds: self, id }
    }
}

struct Hold<'a> {
    holds: &'a Holds,
    id: VmId,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.holds.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl Inner {
    /// When QEMU does not say where the disks are now, the guest stays as it is until it does.
    pub(super) fn while_it_stands(&self, row: &Row, change: impl FnOnce() -> Result<()>) -> Result<()> {
        if row.state != RunState::Running {
            return change().and(self.settle(row).map(drop));
        }
        let _hold = self.holds.take(row.id);
        self.definitions.mark(row.id, Kept::Hold)?;
        let changed = self.tell(row, "pause", []).and_then(|()| change());
        let gone = self.let_go(row);
        self.seen.touch();
        changed.and(gone)
    }

    fn let_go(&self, row: &Row) -> Result<()> {
        self.settle(row)?;
        self.tell(row, "unpause", [])?;
        self.definitions.remove(row.id, Kept::Hold)
    }

    /// Lets those go that nobody holds any more.
    pub(super) fn let_all_go(&self, sight: &Sight) -> Result<()> {
        for id in sight.held().filter(|id| !self.holds.has(*id)) {
            match sight.row(id).filter(|row| row.state == RunState::Paused) {
                Some(row) => self.let_go(row)?,
                None => self.definitions.remove(id, Kept::Hold)?,
            }
            self.seen.touch();
        }
        Ok(())
    }
}
