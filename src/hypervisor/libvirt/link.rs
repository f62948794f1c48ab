//! The connection to libvirtd: made when it can be, kept, and made again when it was lost.
//!
//! One thread opens connections, so at most one attempt hangs when libvirtd does; callers wait for it no longer than
//! their deadline. A second thread tells the listeners, so a slow listener delays neither libvirt's event loop nor the
//! next connection. Nothing of one connection outlives it: what is remembered about domains is kept in [`Connection`].

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use virt::connect::Connect;
use virt::error::Error as VirtError;

use super::ffi::Subscription;
use crate::error::{Error, Result};
use crate::hypervisor::Changed;
use crate::model::{VmId, VncEndpoint};

/// Between two attempts while libvirtd is away; calls do not wait for it.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// libvirtd is given up after four unanswered intervals: 20 s.
const KEEP_ALIVE_SECS: i32 = 5;
const KEEP_ALIVE_COUNT: u32 = 3;

/// One connection, alive or not, and what was learned through it.
pub(super) struct Connection {
    pub(super) connect: Arc<Connect>,
    /// The screen of each run of a domain that was asked for, by the run's number.
    pub(super) screens: Mutex<HashMap<VmId, (u32, Option<VncEndpoint>)>>,
    /// Whether libvirt offers KVM, once asked.
    pub(super) kvm: OnceLock<bool>,
    generation: u64,
}

impl Connection {
    /// Asks the library alone, never libvirtd.
    pub(super) fn is_alive(&self) -> bool {
        self.connect.is_alive().unwrap_or(false)
    }
}

struct Live {
    connection: Arc<Connection>,
    subscription: Subscription,
}

#[derive(Default)]
struct State {
    live: Option<Live>,
    /// Lost; the thread that opens also takes down.
    lost: Vec<Live>,
    /// Somebody waits for an attempt.
    wanted: bool,
    attempting_since: Option<Instant>,
    /// Attempts that ended, either way. An attempt's number is its connection's generation.
    attempts: u64,
    /// The last generation that was reported lost, perhaps before it was in use.
    lost_generation: u64,
    last_error: Option<VirtError>,
    /// For the listeners: something changed that they were not told yet.
    news: bool,
    closed: bool,
}

struct Shared {
    uri: String,
    state: Mutex<State>,
    moved: Condvar,
    listeners: Mutex<Vec<Changed>>,
}

/// The handle of the backend. Dropping it ends both threads.
pub(super) struct Link {
    shared: Arc<Shared>,
    /// The longest that an attempt may hang before callers no longer wait for it.
    patience: Duration,
}

impl Link {
    /// Begins to connect and does not wait for it. Fails only when a thread cannot be had.
    pub(super) fn new(uri: &str, patience: Duration) -> Result<Self> {
        start_event_loop()?;
        let shared = Arc::new(Shared {
            uri: uri.to_owned(),
            state: Mutex::default(),
            moved: Condvar::new(),
            listeners: Mutex::default(),
        });
        let link = Self { shared: Arc::clone(&shared), patience };
        let opener = Arc::clone(&shared);
        spawn("libvirt-link", move || keep_connected(&opener))?;
        spawn("libvirt-news", move || tell_listeners(&shared))?;
        Ok(link)
    }

    pub(super) fn listen(&self, changed: Changed) {
        self.shared.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(changed);
    }

    /// The connection. When there is none, one attempt is made for the caller; `Unavailable` if it fails or takes too
    /// long, and at once while an attempt hangs.
    pub(super) fn connection(&self, deadline: Instant) -> Result<Arc<Connection>> {
        let mut state = self.shared.lock();
        let hangs = |state: &State| state.attempting_since.is_some_and(|since| since.elapsed() >= self.patience);
        let enough = state.attempts + 1;
        loop {
            if let Some(live) = &state.live {
                return Ok(Arc::clone(&live.connection));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.attempts >= enough || left.is_zero() || hangs(&state) {
                let error = unavailable(&self.shared.uri);
                return Err(match &state.last_error {
                    Some(cause) => error.caused_by(cause.clone()),
                    None => error,
                });
            }
            if state.attempting_since.is_none() && !state.wanted {
                state.wanted = true;
                self.shared.moved.notify_all();
            }
            state = self.shared.moved.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The connection is of no use any more.
    pub(super) fn lost(&self, connection: &Connection) -> Error {
        self.shared.lost(connection.generation);
        unavailable(&self.shared.uri)
    }
}

pub(super) fn unavailable(uri: &str) -> Error {
    Error::unavailable(format!("libvirt at {uri}"))
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.moved.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self, generation: u64) {
        let mut state = self.lock();
        state.lost_generation = state.lost_generation.max(generation);
        if let Some(live) = state.live.take_if(|live| live.connection.generation == generation) {
            state.lost.push(live);
            state.news = true;
            self.moved.notify_all();
        }
    }

    fn changed(&self) {
        self.lock().news = true;
        self.moved.notify_all();
    }
}

/// The thread that opens connections and takes lost ones down.
fn keep_connected(shared: &Arc<Shared>) {
    let mut pause = SHORTEST_PAUSE;
    let mut next_try = Instant::now();
    while wait_for_work(shared, next_try) {
        let (generation, first) = {
            let mut state = shared.lock();
            state.wanted = false;
            state.attempting_since = Some(Instant::now());
            (state.attempts + 1, state.last_error.is_none())
        };
        let opened = open(shared, generation);
        let mut state = shared.lock();
        state.attempting_since = None;
        state.attempts = generation;
        match opened {
            Ok(live) if state.lost_generation < generation => {
                tracing::info!(uri = shared.uri, "connected to libvirt");
                state.live = Some(live);
                state.last_error = None;
                state.news = true;
                pause = SHORTEST_PAUSE;
            }
            Ok(live) => state.lost.push(live),
            Err(error) => {
                if first {
                    tracing::warn!(uri = shared.uri, %error, "libvirt does not answer");
                }
                state.last_error = Some(error);
            }
        }
        next_try = Instant::now() + pause;
        pause = (pause * 2).min(LONGEST_PAUSE);
        drop(state);
        shared.moved.notify_all();
    }
}

/// Until an attempt is due. False when the backend was dropped.
fn wait_for_work(shared: &Shared, next_try: Instant) -> bool {
    let mut state = shared.lock();
    loop {
        let mut done = std::mem::take(&mut state.lost);
        if state.closed {
            done.extend(state.live.take());
        }
        if !done.is_empty() {
            drop(state);
            for Live { connection, subscription } in done {
                tracing::info!(uri = shared.uri, "a connection to libvirt has ended");
                drop(subscription);
                drop(connection);
            }
            state = shared.lock();
            continue;
        }
        if state.closed {
            return false;
        }
        if state.live.is_some() {
            state = shared.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        let left = next_try.saturating_duration_since(Instant::now());
        if state.wanted || left.is_zero() {
            return true;
        }
        state = shared.moved.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn open(shared: &Arc<Shared>, generation: u64) -> Result<Live, VirtError> {
    let connect = Arc::new(Connect::open(Some(&shared.uri))?);
    connect.set_keep_alive(KEEP_ALIVE_SECS, KEEP_ALIVE_COUNT)?;
    let (changed, closed) = (Arc::clone(shared), Arc::clone(shared));
    let subscription =
        Subscription::new(Arc::clone(&connect), move || changed.changed(), move || closed.lost(generation))?;
    let connection = Connection { connect, screens: Mutex::default(), kvm: OnceLock::new(), generation };
    Ok(Live { connection: Arc::new(connection), subscription })
}

/// The thread that calls the listeners. Changes that come while it does are told once, afterwards.
fn tell_listeners(shared: &Shared) {
    let mut state = shared.lock();
    loop {
        state = shared.moved.wait_while(state, |s| !s.news && !s.closed).unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return;
        }
        state.news = false;
        drop(state);
        let listeners = shared.listeners.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for changed in listeners {
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| changed())).is_err() {
                tracing::error!("a listener of domain events panicked");
            }
        }
        state = shared.lock();
    }
}

/// Once for the process, and before its first connection: else keep-alive and events do not exist.
fn start_event_loop() -> Result<()> {
    static START: Once = Once::new();
    static FAILED: Mutex<Option<String>> = Mutex::new(None);
    START.call_once(|| {
        virt::error::clear_error_callback();
        let started = virt::event::event_register_default_impl()
            .map_err(|e| e.to_string())
            .and_then(|()| spawn("libvirt-events", run_event_loop).map_err(|e| e.story()));
        *FAILED.lock().unwrap_or_else(PoisonError::into_inner) = started.err();
    });
    match &*FAILED.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(why) => Err(Error::internal(format!("starting libvirt's event loop: {why}"))),
        None => Ok(()),
    }
}

fn run_event_loop() {
    loop {
        if let Err(error) = virt::event::event_run_default_impl() {
            tracing::error!(%error, "libvirt's event loop");
            // So that an error that lasts does not take a processor.
            thread::sleep(Duration::from_millis(100));
        }
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    match thread::Builder::new().name(name.to_owned()).spawn(body) {
        Ok(_) => Ok(()),
        Err(e) => Err(Error::internal(format!("starting the thread {name}")).caused_by(e)),
    }
}
