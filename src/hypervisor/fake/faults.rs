//! What a test can make go wrong in the fake hypervisor, and what it can count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::hypervisor::Verb;

/// The deadline of a call that a test holds.
const PATIENCE: Duration = Duration::from_secs(60);

/// What becomes of a call that is made to fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nothing happens.
    Refuse(ErrorKind),
    /// The effect happens, and its answer is lost.
    Lose(ErrorKind),
}

#[derive(Default)]
pub(super) struct Faults {
    inner: Mutex<Inner>,
    moved: Condvar,
}

#[derive(Default)]
struct Inner {
    unreachable: bool,
    next: Vec<(Verb, Answer)>,
    every: BTreeMap<Verb, Answer>,
    /// Counts down with each effect.
    effect: Option<(u64, Answer)>,
    effects: u64,
    calls: BTreeMap<Verb, u64>,
    held: BTreeSet<Verb>,
    waiting: BTreeMap<Verb, usize>,
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every call begins here: counted, held, then let through, or failed. `Some`: go on, but lose the answer.
    pub(super) fn enter(&self, verb: Verb) -> Result<Option<ErrorKind>> {
        let mut inner = self.wait_at_gate(verb)?;
        if inner.unreachable {
            return Err(unreachable());
        }
        match inner.answer(verb) {
            None => Ok(None),
            Some(Answer::Refuse(kind)) => Err(Error::new(kind)),
            Some(Answer::Lose(kind)) => Ok(Some(kind)),
        }
    }

    fn wait_at_gate(&self, verb: Verb) -> Result<MutexGuard<'_, Inner>> {
        let mut inner = self.lock();
        *inner.calls.entry(verb).or_default() += 1;
        *inner.waiting.entry(verb).or_default() += 1;
        self.moved.notify_all();
        let (mut inner, late) = self
            .moved
            .wait_timeout_while(inner, PATIENCE, |i| i.held.contains(&verb))
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = inner.waiting.get_mut(&verb) {
            *waiting = waiting.saturating_sub(1);
        }
        if late.timed_out() { Err(unreachable()) } else { Ok(inner) }
    }

    pub(super) fn set_reachable(&self, reachable: bool) {
        self.lock().unreachable = !reachable;
    }

    pub(super) fn fail_next(&self, verb: Verb, answer: Answer) {
        self.lock().next.push((verb, answer));
    }

    pub(super) fn fail_every(&self, verb: Verb, answer: Answer) {
        self.lock().every.insert(verb, answer);
    }

    /// The `n`-th effect from now, of whatever verb; 1 is the next.
    pub(super) fn fail_effect(&self, n: u64, answer: Answer) {
        self.lock().effect = Some((n, answer));
    }

    pub(super) fn heal(&self) {
        let mut inner = self.lock();
        inner.unreachable = false;
        inner.next.clear();
        inner.every.clear();
        inner.effect = None;
        inner.held.clear();
        drop(inner);
        self.moved.notify_all();
    }

    pub(super) fn hold(&self, verb: Verb) {
        self.lock().held.insert(verb);
    }

    pub(super) fn release(&self, verb: Verb) {
        self.lock().held.remove(&verb);
        self.moved.notify_all();
    }

    /// Waits until so many calls of the verb are held; false when they are not there in time.
    pub(super) fn wait_held(&self, verb: Verb, count: usize, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let mut inner = self.lock();
        while inner.waiting.get(&verb).copied().unwrap_or(0) < count {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            inner = self.moved.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    pub(super) fn calls(&self, verb: Verb) -> u64 {
        self.lock().calls.get(&verb).copied().unwrap_or(0)
    }

    pub(super) fn all_calls(&self) -> u64 {
        self.lock().calls.values().sum()
    }

    pub(super) fn effects(&self) -> u64 {
        self.lock().effects
    }
}

impl Inner {
    fn answer(&mut self, verb: Verb) -> Option<Answer> {
        if verb.is_effect() {
            self.effects += 1;
            match &mut self.effect {
                Some((1, _)) => return self.effect.take().map(|(_, answer)| answer),
                Some((n, _)) => *n = n.saturating_sub(1),
                None => {}
            }
        }
        if let Some(at) = self.next.iter().position(|(v, _)| *v == verb) {
            return Some(self.next.remove(at).1);
        }
        self.every.get(&verb).cloned()
    }
}

fn unreachable() -> Error {
    Error::unavailable("the fake hypervisor")
}
