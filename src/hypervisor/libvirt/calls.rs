//! Blocking calls with a deadline, on a bounded set of threads.
//!
//! libvirt's calls cannot be interrupted: when libvirtd hangs, they return only once its connection is given up. So a
//! call runs on a thread of this set while its caller waits no longer than its deadline. A call that did not begin in time
//! never begins. Threads are started when needed and stay.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::model::VmId;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Missed {
    /// Every thread is with a call that is past its deadline: this one was not tried.
    AllStuck,
    /// No thread was free in time: the call did not begin, and will not.
    NotBegun,
    /// It began and goes on; nobody will hear its answer.
    StillRunning,
    /// A defect: the call panicked, or no thread could be had.
    Broken(Error),
}

/// Is given the number of its thread, and what frees that thread, to be called between its work and its answer: who has
/// heard the answer and calls again finds the thread.
type Job = Box<dyn FnOnce(usize, &dyn Fn()) + Send>;

pub(super) struct Calls {
    shared: Arc<Shared>,
    limit: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(u64, Option<VmId>, Job)>,
    running: HashMap<u64, Running>,
    threads: usize,
    tickets: u64,
    closed: bool,
}

/// A call in progress.
struct Running {
    /// The domain that it is to change.
    about: Option<VmId>,
    /// Its caller has left.
    given_up: bool,
}

impl State {
    fn stuck(&self) -> impl Iterator<Item = &Running> {
        self.running.values().filter(|call| call.given_up)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls {
    pub(super) fn new(limit: usize) -> Self {
        Self { shared: Arc::default(), limit }
    }

    /// Whether a call about this domain is past its deadline.
    pub(super) fn is_stuck_with(&self, domain: VmId) -> bool {
        self.shared.lock().stuck().any(|call| call.about == Some(domain))
    }

    /// The answer of `call`, or why there is none at `deadline`. It is given the number of its thread, from 0.
    pub(super) fn run<T: Send + 'static>(
        &self,
        deadline: Instant,
        about: Option<VmId>,
        call: impl FnOnce(usize) -> T + Send + 'static,
    ) -> Result<T, Missed> {
        // Room for the answer, so that a thread never waits for a caller that has left.
        let (sender, answer) = sync_channel(1);
        let job: Job = Box::new(move |thread, free| {
            let value = call(thread);
            free();
            drop(sender.send(value));
        });
        let ticket = self.enqueue(about, job)?;
        match answer.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(value) => Ok(value),
            Err(RecvTimeoutError::Timeout) => {
                // The job, if it is still here, is dropped after the lock.
                let job = self.give_up(ticket);
                match (job, answer.recv_timeout(Duration::ZERO)) {
                    (Some(_), _) => Err(Missed::NotBegun),
                    (None, Ok(value)) => Ok(value),
                    (None, Err(_)) => Err(Missed::StillRunning),
                }
            }
            Err(RecvTimeoutError::Disconnected) => Err(Missed::Broken(Error::internal("a libvirt call panicked"))),
        }
    }

    fn enqueue(&self, about: Option<VmId>, job: Job) -> Result<u64, Missed> {
        let mut state = self.shared.lock();
        if state.stuck().count() >= self.limit {
            return Err(Missed::AllStuck);
        }
        let busy = state.running.len() + state.queue.len();
        if busy >= state.threads && state.threads < self.limit {
            let (shared, number) = (Arc::clone(&self.shared), state.threads);
            let thread = thread::Builder::new().name("libvirt-call".to_owned()).spawn(move || serve(&shared, number));
            match thread {
                Ok(_) => state.threads += 1,
                Err(_) if state.threads > 0 => {}
                Err(e) => return Err(Missed::Broken(Error::internal("starting a thread").caused_by(e))),
            }
        }
        state.tickets += 1;
        let ticket = state.tickets;
        state.queue.push_back((ticket, about, job));
        drop(state);
        self.shared.work.notify_one();
        Ok(ticket)
    }

    /// Takes a call back that has not begun; else marks it, so that it counts as stuck while it lasts.
    fn give_up(&self, ticket: u64) -> Option<Job> {
        let mut state = self.shared.lock();
        if let Some(at) = state.queue.iter().position(|(t, ..)| *t == ticket) {
            return state.queue.remove(at).map(|(.., job)| job);
        }
        if let Some(call) = state.running.get_mut(&ticket) {
            call.given_up = true;
        }
        None
    }
}

impl Drop for Calls {
    /// Lets idle threads end; one that is stuck ends when libvirt lets it go.
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_all();
    }
}

fn serve(shared: &Shared, thread: usize) {
    let mut state = shared.lock();
    loop {
        state =
            shared.work.wait_while(state, |s| s.queue.is_empty() && !s.closed).unwrap_or_else(PoisonError::into_inner);
        let Some((ticket, about, job)) = state.queue.pop_front() else { return };
        state.running.insert(ticket, Running { about, given_up: false });
        drop(state);
        // The caller of a call that panicked finds its channel closed.
        let free = || {
            shared.lock().running.remove(&ticket);
        };
        drop(catch_unwind(AssertUnwindSafe(|| job(thread, &free))));
        free();
        state = shared.lock();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(300)
    }

    fn ample() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn answers_come_back_and_threads_are_used_again() {
        let calls = Calls::new(4);
        for n in 0..100 {
            assert_eq!(calls.run(ample(), None, move |_| n).unwrap(), n);
        }
        assert_eq!(calls.shared.lock().threads, 1, "one caller needs no more");
    }

    #[test]
    fn so_many_calls_as_threads_run_at_once() {
        let calls = Arc::new(Calls::new(3));
        let together = Arc::new(Barrier::new(3));
        let callers: Vec<_> = (0..3)
            .map(|_| {
                let (calls, together) = (Arc::clone(&calls), Arc::clone(&together));
                thread::spawn(move || calls.run(ample(), None, move |_| together.wait()).is_ok())
            })
            .collect();
        assert!(callers.into_iter().all(|caller| caller.join().unwrap()));
    }

    #[test]
    fn each_thread_has_a_number_of_its_own() {
        let calls = Arc::new(Calls::new(3));
        let together = Arc::new(Barrier::new(3));
        let callers: Vec<_> = (0..3)
            .map(|_| {
                let (calls, together) = (Arc::clone(&calls), Arc::clone(&together));
                let call = move |thread| {
                    together.wait();
                    thread
                };
                thread::spawn(move || calls.run(ample(), None, call).unwrap())
            })
            .collect();
        let mut numbers: Vec<usize> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2]);
    }

    #[test]
    fn a_stuck_set_refuses_at_once_and_recovers() {
        let calls = Calls::new(2);
        let (release, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        for _ in 0..2 {
            let gate = Arc::clone(&gate);
            let missed = calls.run(soon(), None, move |_| gate.lock().unwrap().recv().ok());
            assert!(matches!(missed, Err(Missed::StillRunning)), "{missed:?}");
        }
        assert!(matches!(calls.run(ample(), None, |_| ()), Err(Missed::AllStuck)));
        drop(release);
        // The threads come free in a moment, not at once.
        let deadline = ample();
        while calls.run(ample(), None, |_| ()).is_err() {
            assert!(Instant::now() < deadline, "the threads never came free");
            thread::yield_now();
        }
    }

    #[test]
    fn a_call_that_is_stuck_is_known_by_its_domain() {
        let calls = Calls::new(2);
        let [sick, well] = [1, 2].map(|n| VmId(uuid::Uuid::from_u128(n)));
        let (release, gate) = mpsc::channel::<()>();
        let missed = calls.run(soon(), Some(sick), move |_| gate.recv().ok());
        assert!(matches!(missed, Err(Missed::StillRunning)), "{missed:?}");
        assert!(calls.is_stuck_with(sick) && !calls.is_stuck_with(well));
        drop(release);
        let deadline = ample();
        while calls.is_stuck_with(sick) {
            assert!(Instant::now() < deadline, "it never came free");
            thread::yield_now();
        }
    }

    #[test]
    fn a_call_that_did_not_begin_in_time_never_begins() {
        let calls = Arc::new(Calls::new(1));
        let (release, gate) = mpsc::channel::<()>();
        let (begun, first_runs) = mpsc::channel();
        let first = Arc::clone(&calls);
        let first = thread::spawn(move || {
            first.run(ample(), None, move |_| {
                begun.send(()).unwrap();
                gate.recv().ok()
            })
        });
        first_runs.recv().unwrap();
        let ran = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ran);
        let missed = calls.run(soon(), None, move |_| flag.store(true, Ordering::SeqCst));
        assert!(matches!(missed, Err(Missed::NotBegun)), "{missed:?}");
        drop(release);
        first.join().unwrap().unwrap();
        calls.run(ample(), None, |_| ()).unwrap();
        assert!(!ran.load(Ordering::SeqCst));
    }

    #[test]
    fn a_panic_is_an_error_of_its_own_call_alone() {
        let calls = Calls::new(1);
        let missed = calls.run(ample(), None, |_| panic!("as a test"));
        assert!(matches!(missed, Err::<(), _>(Missed::Broken(_))), "{missed:?}");
        assert_eq!(calls.run(ample(), None, |_| 7).unwrap(), 7);
    }
}
