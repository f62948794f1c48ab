//! What the guests of this host use: looked at once a minute for a series of each, and once a second while somebody asks.
//!
//! Law: there is one look at a time, at all guests, whoever wants it; and a look that fails leaves nothing but a gap.

mod kept;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use chrono::NaiveDateTime;

use self::kept::{Kept, Look};
use crate::error::Result;
use crate::hypervisor::Hypervisor;
use crate::model::{Clock, DomainStats, PowerState, VmId};

use super::inventory::Inventory;

/// How long the thread may keep a core alive that nobody else wants.
const TICK: Duration = Duration::from_secs(1);
/// The most points of a series.
const POINTS: u32 = 70;

/// What a VM used up to a moment, since the point before. Sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SeriesPoint {
    pub at: NaiveDateTime,
    /// Of all its vCPUs, from 0 to 1.
    pub cpu: f64,
    pub vcpus: u32,
    /// What its programs use, or what it has if it does not tell.
    pub memory_bytes: u64,
    pub max_memory_bytes: u64,
    /// 0 where nobody asked the storage.
    pub disk_bytes: u64,
    pub max_disk_bytes: u64,
    /// Bytes per second.
    pub net_rx: f64,
    pub net_tx: f64,
    pub disk_read: f64,
    pub disk_written: f64,
}

/// When to look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Between two points of a series.
    minute: Duration,
    /// Between two looks while somebody asks.
    second: Duration,
    /// Somebody asks who asked so lately. After so long a look that failed is tried again.
    interest: Duration,
    /// Two looks that are compared are so far apart at least.
    apart: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            minute: Duration::from_secs(60),
            second: Duration::from_secs(1),
            interest: Duration::from_secs(10),
            apart: Duration::from_millis(250),
        }
    }
}

pub(super) struct Samples(Arc<Shared>);

struct Shared {
    hypervisor: Arc<dyn Hypervisor>,
    clock: Arc<dyn Clock>,
    inventory: Inventory,
    pace: Pace,
    kept: Mutex<Kept>,
    /// Somebody has begun to ask.
    wake: Condvar,
    /// Held by the one who looks.
    turn: Mutex<()>,
}

impl Samples {
    pub(super) fn new(
        hypervisor: Arc<dyn Hypervisor>,
        clock: Arc<dyn Clock>,
        inventory: Inventory,
        pace: Pace,
    ) -> Self {
        let (kept, wake, turn) = (Mutex::default(), Condvar::new(), Mutex::default());
        Self(Arc::new(Shared { hypervisor, clock, inventory, pace, kept, wake, turn }))
    }

    /// Starts the thread that looks; it ends with the core.
    pub(super) fn follow(&self) {
        let weak = Arc::downgrade(&self.0);
        if let Err(why) = std::thread::Builder::new().name("samples".to_owned()).spawn(move || follow(&weak)) {
            tracing::error!(error = %why, "no thread to look at what the guests use");
        }
    }

    /// As of the last second. `None`: it is off.
    pub(super) fn newest(&self, id: VmId) -> Result<Option<DomainStats>> {
        if self.0.is_off(id) {
            return Ok(None);
        }
        let asked = Instant::now();
        let of = |look: &Look| look.all.get(&id).cloned();
        let recent = lock(&self.0.kept).newest().filter(|look| look.begun.elapsed() < self.0.pace.second);
        match recent.as_deref().and_then(of) {
            Some(stats) => Ok(Some(stats)),
            None => Ok(of(&*self.0.fresh(asked)?)),
        }
    }

    /// How much of one CPU of the host each vCPU used lately, in percent. `None`: it is off, or was until just now.
    pub(super) fn vcpu_use(&self, id: VmId) -> Result<Option<Vec<f64>>> {
        if self.0.is_off(id) {
            return Ok(None);
        }
        let (before, now) = self.0.pair()?;
        Ok(now.vcpu_use(&before, id))
    }

    pub(super) fn series(&self, id: VmId) -> Vec<SeriesPoint> {
        lock(&self.0.kept).series(id)
    }
}

impl Shared {
    fn is_off(&self, id: VmId) -> bool {
        matches!(self.inventory.of(id).state, PowerState::Shutdown | PowerState::Crashed)
    }

    /// Two looks of which the newer one is of now, more or less. The first one who asks waits for both.
    fn pair(&self) -> Result<(Arc<Look>, Arc<Look>)> {
        let asked = Instant::now();
        {
            let mut kept = lock(&self.kept);
            let had_begun = kept.ask(asked, &self.pace);
            if let Some(pair) = kept.pair(asked, &self.pace) {
                return Ok(pair);
            }
            if !had_begun {
                self.wake.notify_all();
            }
        }
        let _turn = lock(&self.turn);
        {
            let kept = lock(&self.kept);
            kept.failed_since(asked)?;
            if let Some(pair) = kept.pair(Instant::now(), &self.pace) {
                return Ok(pair);
            }
        }
        let before = self.look()?;
        std::thread::sleep(self.pace.apart);
        let now = self.look()?;
        Ok((before, now))
    }

    /// A look that was begun after `asked`.
    fn fresh(&self, asked: Instant) -> Result<Arc<Look>> {
        let _turn = lock(&self.turn);
        {
            let kept = lock(&self.kept);
            kept.failed_since(asked)?;
            if let Some(look) = kept.newest().filter(|look| look.begun >= asked) {
                return Ok(look);
            }
        }
        self.look()
    }

    /// By the one whose turn it is.
    fn look(&self) -> Result<Arc<Look>> {
        let begun = Instant::now();
        let mut answer = self.hypervisor.stats();
        if answer.is_err() && self.hypervisor.info().is_ok() {
            // A guest that hung just then spoiled it for all; it does so once.
            answer = self.hypervisor.stats();
        }
        let (at, time) = (Instant::now(), self.clock.now());
        let mut kept = lock(&self.kept);
        match answer {
            Ok(all) => {
                let all = all.into_iter().map(|stats| (stats.id, stats)).collect();
                let look = Arc::new(Look { begun, at, time, all });
                let is_on = |id| !self.is_off(id);
                kept.note(&look, &self.pace, is_on, |id| self.inventory.may_have(id));
                Ok(look)
            }
            Err(why) => {
                kept.fail(at, why.kind().clone());
                Err(why)
            }
        }
    }
}

/// The thread that looks.
fn follow(shared: &Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        let kept = lock(&shared.kept);
        let now = Instant::now();
        let wait = kept.due(now, &shared.pace).saturating_duration_since(now);
        if !wait.is_zero() {
            drop(shared.wake.wait_timeout(kept, wait.min(TICK)));
            continue;
        }
        drop(kept);
        let _turn = lock(&shared.turn);
        // Another one may have looked meanwhile.
        let now = Instant::now();
        if lock(&shared.kept).due(now, &shared.pace) > now {
            continue;
        }
        if let Err(why) = shared.look() {
            tracing::debug!(error = why.story(), "the guests were not looked at");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
