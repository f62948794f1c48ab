//! The state of every domain as the hypervisor told it last: pushed by its events, so that no list asks it anything.
//!
//! Law: [`Inventory::refresh`] returns only after what the hypervisor said later than the call is visible, so an
//! operation that refreshes after its effect answers with the world it made.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::hypervisor::Hypervisor;
use crate::model::{DomainStatus, PowerState, Seen, VmId, VncEndpoint};

use super::health::Pulse;

/// A lost event is made good after this long.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// While the hypervisor is away it is asked this often.
const AWAY_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct Inventory(Arc<Shared>);

struct Shared {
    hypervisor: Arc<dyn Hypervisor>,
    /// `None` while the hypervisor does not answer.
    domains: RwLock<Option<Arc<HashMap<VmId, DomainStatus>>>>,
    generation: AtomicU64,
    pulse: Mutex<Pulse>,
    /// One refresh at a time, so that an older answer never replaces a newer one; when the last one ended.
    refreshing: Mutex<Instant>,
    /// Something changed that no refresh has seen.
    dirty: Mutex<bool>,
    wake: Condvar,
    /// Waiters for a state.
    seen: Mutex<()>,
    changed: Condvar,
}

/// What is known of one VM's domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    pub state: PowerState,
    pub vnc: Option<VncEndpoint>,
}

impl Observed {
    pub(super) fn unknown() -> Self {
        Self { state: PowerState::Unknown, vnc: None }
    }

    /// As other hosts are told of it.
    pub(super) fn seen(&self) -> Seen {
        Seen { state: self.state, vnc_port: self.vnc.as_ref().map(|vnc| vnc.port) }
    }
}

impl Inventory {
    /// Listens to the hypervisor from now on.
    pub fn new(hypervisor: &Arc<dyn Hypervisor>) -> Self {
        let shared = Arc::new(Shared {
            hypervisor: hypervisor.clone(),
            domains: RwLock::default(),
            generation: AtomicU64::new(0),
            pulse: Mutex::default(),
            refreshing: Mutex::new(Instant::now()),
            dirty: Mutex::new(true),
            wake: Condvar::new(),
            seen: Mutex::default(),
            changed: Condvar::new(),
        });
        let listener = Arc::downgrade(&shared);
        hypervisor.watch(Arc::new(move || {
            if let Some(shared) = listener.upgrade() {
                *lock(&shared.dirty) = true;
                shared.wake.notify_one();
            }
        }));
        let weak = Arc::downgrade(&shared);
        if let Err(why) = std::thread::Builder::new().name("inventory".to_owned()).spawn(move || follow(&weak)) {
            tracing::error!(error = %why, "no thread to follow the hypervisor's events");
        }
        Self(shared)
    }

    /// `Unknown` while the hypervisor does not answer; a domain that it does not have is off.
    pub fn of(&self, id: VmId) -> Observed {
        let domains = self.0.domains.read().unwrap_or_else(PoisonError::into_inner);
        match domains.as_ref() {
            None => Observed::unknown(),
            Some(domains) => match domains.get(&id) {
                Some(d) => Observed { state: d.state, vnc: d.vnc.clone() },
                None => Observed { state: PowerState::Shutdown, vnc: None },
            },
        }
    }

    /// Grows whenever what [`Inventory::of`] answers may have changed.
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::SeqCst)
    }

    /// Waits until the generation is not `known` any more, or `deadline`; the generation then.
    pub fn wait_for_generation(&self, known: u64, deadline: Instant) -> u64 {
        let mut seen = lock(&self.0.seen);
        loop {
            let generation = self.generation();
            let now = Instant::now();
            if generation != known || now >= deadline {
                return generation;
            }
            let waited = self.0.changed.wait_timeout(seen, deadline - now);
            seen = waited.map_or_else(|poisoned| poisoned.into_inner().0, |(seen, _)| seen);
        }
    }

    /// Whether it answers. Does not block, whatever refreshes.
    pub(super) fn pulse(&self) -> Pulse {
        *lock(&self.0.pulse)
    }

    /// Asks the hypervisor now; one bulk call.
    pub fn refresh(&self) -> Result<()> {
        self.0.refresh()
    }

    /// Waits until `fits` is true of the VM's state, or `deadline`; the last state seen.
    pub fn wait_for(&self, id: VmId, deadline: Instant, fits: impl Fn(PowerState) -> bool) -> PowerState {
        let mut seen = lock(&self.0.seen);
        loop {
            let state = self.of(id).state;
            let now = Instant::now();
            if fits(state) || now >= deadline {
                return state;
            }
            let waited = self.0.changed.wait_timeout(seen, deadline - now);
            seen = waited.map_or_else(|poisoned| poisoned.into_inner().0, |(seen, _)| seen);
        }
    }
}

impl Shared {
    fn refresh(&self) -> Result<()> {
        let mut turn = lock(&self.refreshing);
        let answer = self.hypervisor.domains();
        lock(&self.pulse).note(answer.is_ok());
        let fresh = answer.as_ref().ok().map(|all| all.iter().map(|d| (d.id, d.clone())).collect::<HashMap<_, _>>());
        {
            let mut domains = self.domains.write().unwrap_or_else(PoisonError::into_inner);
            if domains.as_deref() != fresh.as_ref() {
                *domains = fresh.map(Arc::new);
                self.generation.fetch_add(1, Ordering::SeqCst);
            }
        }
        *turn = Instant::now();
        drop(turn);
        // A waiter between its look and its wait holds this.
        drop(lock(&self.seen));
        self.changed.notify_all();
        answer.map(|_| ())
    }
}

/// The inventory's thread: refreshes when an event says so, and now and then.
fn follow(shared: &Weak<Shared>) {
    let mut reachable = true;
    while let Some(shared) = shared.upgrade() {
        let mut dirty = lock(&shared.dirty);
        if !*dirty {
            let waited = shared.wake.wait_timeout(dirty, Duration::from_secs(1));
            dirty = waited.map_or_else(|poisoned| poisoned.into_inner().0, |(dirty, _)| dirty);
        }
        let due = std::mem::take(&mut *dirty);
        drop(dirty);
        let interval = if reachable { REFRESH_INTERVAL } else { AWAY_INTERVAL };
        if !due && lock(&shared.refreshing).elapsed() < interval {
            continue;
        }
        match shared.refresh() {
            Ok(()) if !reachable => tracing::info!("the hypervisor answers again"),
            Err(why) if reachable => tracing::warn!(error = why.story(), "the hypervisor does not answer"),
            _ => {}
        }
        reachable = shared.domains.read().unwrap_or_else(PoisonError::into_inner).is_some();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
