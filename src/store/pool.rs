//! Connections that are kept open. Bounded; made by the thread that needs one, so a database that is down says so at once
//! instead of after a time-out, and there are no threads of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::THE_DATABASE;
use super::conn::{Begin, Conn};
use super::url::Place;
use crate::error::{Error, Result};

/// How long a caller waits for another to give a connection back.
const WAIT: Duration = Duration::from_secs(5);

pub(super) struct Pool {
    place: Arc<Place>,
    size: usize,
    state: Mutex<State>,
    freed: Condvar,
}

/// How many connections there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// Lent, or being made.
    pub in_use: usize,
    pub idle: usize,
    pub max: usize,
}

#[derive(Default)]
struct State {
    /// The last one given back is the next one taken, so that few are in use when there is little to do.
    idle: Vec<Conn>,
    /// Idle, leased or being made.
    open: usize,
    /// When each lease began, by its number: the oldest stands first.
    leases: BTreeMap<u64, Instant>,
    next: u64,
}

impl Pool {
    pub(super) fn new(place: Arc<Place>, size: usize) -> Self {
        Self { place, size, state: Mutex::default(), freed: Condvar::new() }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn connections(&self) -> Connections {
        let state = self.state();
        let idle = state.idle.len();
        Connections { in_use: state.open.saturating_sub(idle), idle, max: self.size }
    }

    /// A connection in a transaction.
    ///
    /// # Errors
    /// `Unavailable` if there is none, within a few seconds.
    pub(super) fn begin(&self, how: Begin) -> Result<Lease<'_>> {
        let (mut lease, ()) = self.lend(|conn| conn.begin(how))?;
        if how == Begin::Write {
            lease.conn()?.be_alone()?;
        }
        Ok(lease)
    }

    /// One statement that changes nothing, outside a transaction.
    ///
    /// # Errors
    /// As [`Pool::begin`], and the statement's.
    pub(super) fn ask<T>(&self, statement: impl Fn(&mut Conn) -> Result<T>) -> Result<T> {
        let (lease, answer) = self.lend(statement)?;
        lease.give_back();
        Ok(answer)
    }

    /// A connection and its answer to `first`. One that died while it was idle (Postgres was restarted) shows here, where
    /// nothing has been done yet, and is replaced.
    fn lend<T>(&self, first: impl Fn(&mut Conn) -> Result<T>) -> Result<(Lease<'_>, T)> {
        loop {
            let mut lease = self.take()?;
            let kept = lease.kept;
            let conn = lease.conn()?;
            match first(conn) {
                Ok(answer) => return Ok((lease, answer)),
                Err(_) if kept && conn.is_remote() => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn take(&self) -> Result<Lease<'_>> {
        let deadline = Instant::now() + WAIT;
        let mut state = self.state();
        loop {
            if let Some(conn) = state.idle.pop() {
                let number = state.lend();
                return Ok(Lease { pool: self, number, conn: Some(conn), kept: true, healthy: false });
            }
            if state.open < self.size {
                state.open += 1;
                let number = state.lend();
                drop(state);
                // From here on the lease counts it: if there is no connection, its drop frees the place.
                let mut lease = Lease { pool: self, number, conn: None, kept: false, healthy: false };
                lease.conn = Some(Conn::open(&self.place)?);
                return Ok(lease);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let why = format!("all {} connections were busy for {} s", self.size, WAIT.as_secs());
                return Err(Error::unavailable(THE_DATABASE).context(why));
            }
            state = self.freed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How long the oldest transaction under way has been going on.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.state().leases.values().next().map(Instant::elapsed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code of others runs under the lock, so a poisoned one is in order all the same.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn lend(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        self.leases.insert(number, Instant::now());
        number
    }
}

/// A connection on loan; closed when it is dropped, unless it was given back.
pub(super) struct Lease<'a> {
    pool: &'a Pool,
    number: u64,
    conn: Option<Conn>,
    kept: bool,
    healthy: bool,
}

impl Lease<'_> {
    pub(super) fn conn(&mut self) -> Result<&mut Conn> {
        self.conn.as_mut().ok_or_else(|| Error::internal("a lease without a connection"))
    }

    /// Only outside a transaction: there was none, or it has ended well.
    pub(super) fn give_back(mut self) {
        self.healthy = true;
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let conn = self.conn.take();
        let mut state = self.pool.state();
        state.leases.remove(&self.number);
        match conn {
            Some(conn) if self.healthy => state.idle.push(conn),
            dead => {
                state.open = state.open.saturating_sub(1);
                drop(state);
                drop(dead);
            }
        }
        self.pool.freed.notify_one();
    }
}
