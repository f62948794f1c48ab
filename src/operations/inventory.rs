//! The state of every domain as the hypervisor told it last: pushed by its events, so that no list asks it anything.
//!
//! Law: [`Inventory::refresh`] returns only after what the hypervisor said later than the call is visible, so an
//! operation that refreshes after its effect answers with the world it made. It asks for its own domain alone: a list is
//! held up by each domain that hangs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::hypervisor::Hypervisor;
use crate::model::{DomainStatus, PowerState, Seen, VmId, VncEndpoint};

use super::health::Pulse;

/// A lost event is made good after this long.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// While the hypervisor is away it is asked this often.
const AWAY_INTERVAL: Duration = Duration::from_secs(1);

/// A hypervisor that answers, but does not list its domains, is believed for so long to have those that it listed last.
/// libvirtd lists none while it ends a guest that hangs, which was seen to take it 10 s.
const HELD_UP: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct Inventory(Arc<Shared>);

struct Shared {
    hypervisor: Arc<dyn Hypervisor>,
    /// `None` while the hypervisor does not answer.
    domains: RwLock<Option<Domains>>,
    generation: AtomicU64,
    pulse: Mutex<Pulse>,
    /// Numbers each question, so that an older answer never replaces a newer one.
    questions: AtomicU64,
    /// One list at a time.
    listing: Mutex<Listing>,
    /// Something changed that no refresh has seen.
    dirty: Mutex<bool>,
    wake: Condvar,
    /// Waiters for a state.
    seen: Mutex<()>,
    changed: Condvar,
    /// The same for those who wait without a thread.
    changes: tokio::sync::watch::Sender<()>,
}

/// What was answered last.
#[derive(Debug, Default, PartialEq, Eq)]
struct Domains {
    all: HashMap<VmId, DomainStatus>,
    /// The question that was answered with all.
    listed: u64,
    /// The later ones that were answered with one.
    looked: HashMap<VmId, u64>,
}

impl Domains {
    /// Whether anything has changed.
    fn look(&mut self, question: u64, id: VmId, status: Option<DomainStatus>) -> bool {
        if question < self.listed || self.looked.get(&id).is_some_and(|later| question < *later) {
            return false;
        }
        self.looked.insert(id, question);
        match status {
            Some(status) => self.all.insert(id, status.clone()) != Some(status),
            None => self.all.remove(&id).is_some(),
        }
    }

    fn list(&mut self, question: u64, all: Vec<DomainStatus>) -> bool {
        let mut all: HashMap<VmId, DomainStatus> = all.into_iter().map(|status| (status.id, status)).collect();
        self.listed = question;
        self.looked.retain(|_, later| *later > question);
        for id in self.looked.keys() {
            match self.all.remove(id) {
                Some(status) => all.insert(*id, status),
                None => all.remove(id),
            };
        }
        let changed = self.all != all;
        self.all = all;
        changed
    }
}

struct Listing {
    /// When the last one ended.
    ended: Instant,
    /// When one succeeded last.
    succeeded: Instant,
}

/// What is known of one VM's domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    pub state: PowerState,
    pub vnc: Option<VncEndpoint>,
    /// The hypervisor's number of the domain while it runs; `None` for another host's.
    pub number: Option<u32>,
}

impl Observed {
    pub(super) fn unknown() -> Self {
        Self { state: PowerState::Unknown, vnc: None, number: None }
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
            questions: AtomicU64::new(0),
            listing: Mutex::new(Listing { ended: Instant::now(), succeeded: Instant::now() }),
            dirty: Mutex::new(true),
            wake: Condvar::new(),
            seen: Mutex::default(),
            changed: Condvar::new(),
            changes: tokio::sync::watch::Sender::default(),
        });
        let listener = Arc::downgrade(&shared);
        hypervisor.watch(Arc::new(move || {
            if let Some(shared) = listener.upgrade() {
                shared.wake();
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
        let domains = self.0.read();
        match domains.as_ref() {
            None => Observed::unknown(),
            Some(domains) => match domains.all.get(&id) {
                Some(d) => Observed { state: d.state, vnc: d.vnc.clone(), number: d.number },
                None => Observed { state: PowerState::Shutdown, vnc: None, number: None },
            },
        }
    }

    /// Whether the hypervisor may have the domain; it does not have it when it has said so.
    pub(super) fn may_have(&self, id: VmId) -> bool {
        self.0.read().as_ref().is_none_or(|domains| domains.all.contains_key(&id))
    }

    /// Grows whenever what [`Inventory::of`] answers may have changed.
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::SeqCst)
    }

    /// Tells whenever what [`Inventory::of`] answers may have changed.
    pub(super) fn changes(&self) -> tokio::sync::watch::Receiver<()> {
        self.0.changes.subscribe()
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

    /// Asks the hypervisor now for this domain.
    pub fn refresh(&self, id: VmId) -> Result<()> {
        self.0.refresh(id)
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
    fn refresh(&self, id: VmId) -> Result<()> {
        if self.read().is_none() {
            return self.list();
        }
        let question = self.question();
        let status = self.hypervisor.domain(id).inspect_err(|_| self.wake())?;
        let changed = self.write().as_mut().is_some_and(|domains| domains.look(question, id, status));
        self.tell(changed);
        Ok(())
    }

    fn list(&self) -> Result<()> {
        let mut listing = lock(&self.listing);
        let question = self.question();
        let mut answer = self.hypervisor.domains();
        let mut held_up = false;
        if answer.is_err() && self.hypervisor.info().is_ok() {
            // It may have come back just now.
            answer = self.hypervisor.domains();
            held_up = answer.is_err() && listing.succeeded.elapsed() < HELD_UP && self.read().is_some();
        }
        lock(&self.pulse).note(answer.is_ok() || held_up);
        let (changed, done) = match answer {
            Ok(all) => {
                listing.succeeded = Instant::now();
                let mut domains = self.write();
                let was_away = domains.is_none();
                (domains.get_or_insert_default().list(question, all) || was_away, Ok(()))
            }
            Err(why) if held_up => {
                tracing::warn!(
                    error = why.story(),
                    "domains are not listed; those listed last are believed to be there"
                );
                (false, Ok(()))
            }
            Err(why) => (self.write().take().is_some(), Err(why)),
        };
        listing.ended = Instant::now();
        drop(listing);
        self.tell(changed);
        done
    }

    fn question(&self) -> u64 {
        self.questions.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn wake(&self) {
        *lock(&self.dirty) = true;
        self.wake.notify_one();
    }

    fn tell(&self, changed: bool) {
        if changed {
            self.generation.fetch_add(1, Ordering::SeqCst);
            self.changes.send_replace(());
        }
        // A waiter between its look and its wait holds this.
        drop(lock(&self.seen));
        self.changed.notify_all();
    }

    fn read(&self) -> RwLockReadGuard<'_, Option<Domains>> {
        self.domains.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Option<Domains>> {
        self.domains.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The inventory's thread: lists when an event says so, and now and then.
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
        if !due && lock(&shared.listing).ended.elapsed() < interval {
            continue;
        }
        match shared.list() {
            Ok(()) if !reachable => tracing::info!("the hypervisor answers again"),
            Err(why) if reachable => tracing::warn!(error = why.story(), "the hypervisor does not answer"),
            _ => {}
        }
        reachable = shared.read().is_some();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::error::ErrorKind;
    use crate::hypervisor::{Answer, FakeHypervisor, Start, Verb};
    use crate::model::{DomainSpec, MiB, Secret};

    const PATIENCE: Duration = Duration::from_secs(60);

    fn status(number: u128, state: PowerState) -> DomainStatus {
        DomainStatus { id: VmId(Uuid::from_u128(number)), state, vnc: None, number: None }
    }

    #[test]
    fn an_older_answer_never_replaces_a_newer_one() {
        let [off, on, other] =
            [status(1, PowerState::Shutdown), status(1, PowerState::Running), status(2, PowerState::Paused)];
        let id = off.id;
        let mut known = Domains::default();
        assert!(known.list(1, vec![off.clone()]));
        assert!(!known.list(2, vec![off.clone()]));
        assert!(known.look(4, id, Some(on.clone())), "asked for while the list was made");
        assert!(known.list(3, vec![off.clone(), other.clone()]), "the other one is new");
        assert_eq!(known.all, [(id, on.clone()), (other.id, other.clone())].into());
        assert!(!known.look(3, id, None), "an answer that comes late");
        assert!(known.look(5, id, None));
        assert!(!known.list(4, vec![on.clone(), other.clone()]), "gone since the list was asked for");
        assert!(known.list(6, vec![on.clone(), other]));
        assert_eq!(known.all.get(&id), Some(&on));
        assert!(known.looked.is_empty());
    }

    /// An inventory of one domain, which is off.
    fn one() -> (FakeHypervisor, Inventory, VmId) {
        let spec = DomainSpec {
            id: VmId(Uuid::from_u128(1)),
            title: "one".to_owned(),
            os: None,
            vcpus: 1,
            max_vcpus: 1,
            memory: MiB(64),
            max_memory: MiB(64),
            disks: Vec::new(),
            nics: Vec::new(),
            pci: None,
            disc: None,
            console: None,
            vnc_password: Secret::new("12345678".to_owned()),
        };
        let fake = FakeHypervisor::new();
        fake.define(&spec).unwrap();
        let hypervisor: Arc<dyn Hypervisor> = Arc::new(fake.clone());
        let inventory = Inventory::new(&hypervisor);
        assert_eq!(wait(&inventory, spec.id, PowerState::Shutdown), PowerState::Shutdown);
        (fake, inventory, spec.id)
    }

    fn wait(inventory: &Inventory, id: VmId, state: PowerState) -> PowerState {
        inventory.wait_for(id, Instant::now() + PATIENCE, |now| now == state)
    }

    #[test]
    fn a_list_that_is_held_up_delays_nobody() {
        let (fake, inventory, id) = one();
        fake.hold(Verb::Domains);
        fake.start(id, Start::Running).unwrap();
        assert!(fake.wait_held(Verb::Domains, 1, PATIENCE), "the event asked for a list");
        inventory.refresh(id).unwrap();
        assert_eq!(inventory.of(id).state, PowerState::Running);
        fake.destroy(id).unwrap();
        inventory.refresh(id).unwrap();
        assert_eq!(inventory.of(id).state, PowerState::Shutdown);
        fake.release(Verb::Domains);
        fake.start(id, Start::Paused).unwrap();
        assert_eq!(wait(&inventory, id, PowerState::Paused), PowerState::Paused);
    }

    #[test]
    fn domains_are_believed_to_be_there_while_none_are_listed_and_unknown_when_nobody_answers() {
        let (fake, inventory, id) = one();
        fake.fail_every(Verb::Domains, Answer::Refuse(ErrorKind::Unavailable { what: "the list".to_owned() }));
        fake.start(id, Start::Running).unwrap();
        inventory.refresh(id).unwrap();
        inventory.0.list().unwrap();
        assert_eq!(inventory.of(id).state, PowerState::Running);
        assert!(!inventory.pulse().failing);
        fake.set_reachable(false);
        inventory.0.list().unwrap_err();
        assert_eq!(inventory.of(id).state, PowerState::Unknown);
        fake.heal();
        assert_eq!(wait(&inventory, id, PowerState::Running), PowerState::Running);
        assert!(!inventory.pulse().failing);
    }
}
