//! Threads for tasks that hold their locks: two lanes, both bounded, so that a copy never starves a power button.
//! Threads start when they are needed and end when they have been idle for a while.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::model::Lane;

use super::lock;

/// An idle thread ends after this long.
const IDLE: Duration = Duration::from_secs(30);

type Run = Box<dyn FnOnce() + Send>;

pub(super) struct Lanes {
    quick: Arc<Pool>,
    long: Arc<Pool>,
}

struct Pool {
    name: &'static str,
    max: usize,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Run>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Lanes {
    pub(super) fn new(quick: usize, long: usize) -> Self {
        Self { quick: Pool::new("task-quick", quick), long: Pool::new("task-long", long) }
    }

    pub(super) fn push(&self, lane: Lane, run: Run) {
        match lane {
            Lane::Quick => self.quick.push(run),
            Lane::Long => self.long.push(run),
        }
    }

    /// Tasks that wait for a thread.
    pub(super) fn queued(&self) -> usize {
        lock(&self.quick.state).queue.len() + lock(&self.long.state).queue.len()
    }

    /// Idle threads end; what is queued is dropped.
    pub(super) fn close(&self) {
        for pool in [&self.quick, &self.long] {
            let mut state = lock(&pool.state);
            state.closed = true;
            state.queue.clear();
            pool.wake.notify_all();
        }
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.close();
    }
}

impl Pool {
    fn new(name: &'static str, max: usize) -> Arc<Self> {
        Arc::new(Self { name, max: max.max(1), state: Mutex::default(), wake: Condvar::new() })
    }

    fn push(self: &Arc<Self>, run: Run) {
        let mut state = lock(&self.state);
        if state.closed {
            return;
        }
        state.queue.push_back(run);
        if state.idle >= state.queue.len() || state.threads >= self.max {
            self.wake.notify_one();
            return;
        }
        let pool = self.clone();
        match std::thread::Builder::new().name(self.name.to_owned()).spawn(move || pool.work()) {
            Ok(_) => state.threads += 1,
            // The threads that run take it when they are free; the first one is only refused by a sick machine.
            Err(why) => tracing::error!(error = %why, lane = self.name, "no new task thread"),
        }
    }

    fn work(&self) {
        while let Some(run) = self.next() {
            // The engine catches panics of operations; one that comes this far has left its task to the next start.
            if std::panic::catch_unwind(AssertUnwindSafe(run)).is_err() {
                tracing::error!(lane = self.name, "a task was abandoned");
            }
        }
    }

    fn next(&self) -> Option<Run> {
        let mut state = lock(&self.state);
        loop {
            if let Some(run) = state.queue.pop_front() {
                return Some(run);
            }
            if state.closed {
                state.threads -= 1;
                return None;
            }
            state.idle += 1;
            let waited = self.wake.wait_timeout(state, IDLE);
            let timed_out;
            (state, timed_out) = match waited {
                Ok((state, result)) => (state, result.timed_out()),
                Err(poisoned) => (poisoned.into_inner().0, true),
            };
            state.idle -= 1;
            if timed_out && state.queue.is_empty() {
                state.threads -= 1;
                return None;
            }
        }
    }
}
