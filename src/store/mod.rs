//! Rows: the only place that knows the database, be it SQLite or Postgres.
//!
//! The functions of the table modules take a [`Conn`] and give model types; a row type never leaves this floor. What is
//! not found is `Ok(None)`; a change of something that is not there is `NotFound`. All of them block, for some seconds at most.
//!
//! Laws:
//! - **Writers are alone.** One write transaction runs at a time in the whole database: SQLite begins it immediately,
//!   Postgres takes one advisory lock. What a write transaction read therefore still holds when it writes; nothing needs
//!   a retry, and there are no deadlocks.
//! - **Readers see one moment** and wait for nobody. A write inside [`Store::read`] fails.
//! - A store error inside a transaction ends it: return it. Postgres would drop the rest of the transaction, and
//!   [`Store::write_tx`] then fails rather than lose it silently.
//! - **Whoever caches rows sees every write.** A transaction that a document shows moves the [`Generation`]: on SQLite in
//!   memory, after the commit and before the writer is answered, for a server is the only one on its file (see
//!   [`Store::claim`]) and the rows that `pengx user` writes are in no cache; on Postgres in a row of the same transaction, because other
//!   hosts write as well. So a cache that was filled from a snapshot begun after its generation was read holds for as long as
//!   a generation that is read later is equal.
//! - No effect outside the database inside a transaction, and no transaction inside another.

pub mod accounts;
pub mod backups;
mod conn;
pub mod deletions;
pub mod disks;
mod failure;
pub mod journal;
pub mod ledger;
pub mod locks;
mod meter;
mod migrate;
pub mod networks;
pub mod nics;
pub mod numbers;
pub mod pms;
mod pool;
pub mod reservations;
mod rows;
#[rustfmt::skip]
mod schema;
pub mod seen;
pub mod site;
pub mod snapshots;
pub mod storages;
pub mod storlinks;
pub mod tasks;
pub mod templates;
pub mod tenants;
mod url;
pub mod vms;

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use conn::Begin;
pub use conn::Conn;
use meter::Meter;
pub use pool::Connections;
use pool::Pool;
use prometheus_client::registry::Registry;
use url::Place;
use uuid::Uuid;

use crate::error::{Error, Result};

/// What clients read when the database is away.
const THE_DATABASE: &str = "the database";

/// Connections at once: for reads, and on Postgres for writes as well.
const CONNECTIONS: usize = 8;

/// A transaction that takes longer waits for a database that does not move: the deadlines of its statements are shorter.
const STALLED: Duration = Duration::from_secs(10);

/// Stands for what has been written. Equal ones mean that no document is another; an order they have not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Generation(u64);

/// Whose documents show what a transaction writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Everywhere,
    /// On the other hosts alone.
    Elsewhere,
    Nowhere,
}

/// The database. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    readers: Pool,
    /// One connection, so that writers of this process queue here rather than poll SQLite's file lock.
    writer: Pool,
    migrated: AtomicBool,
    generation: AtomicU64,
    claim: OnceLock<File>,
    site: OnceLock<Uuid>,
    meter: Meter,
}

impl Store {
    /// `sqlite://PATH` or `postgres://…`. Looks at the URL (and whether the directory of PATH exists) and does not connect.
    ///
    /// # Errors
    /// `Invalid` on `database_url`.
    pub fn open(url: &str) -> Result<Self> {
        let place = Arc::new(Place::parse(url).map_err(|why| Error::invalid("database_url", why))?);
        Ok(Self(Arc::new(Inner {
            readers: Pool::new(place.clone(), CONNECTIONS),
            writer: Pool::new(place, 1),
            migrated: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            claim: OnceLock::new(),
            site: OnceLock::new(),
            meter: Meter::new(),
        })))
    }

    /// Makes this process the only server on a SQLite file, for as long as it lives; other programs may still look at it and
    /// change it. On Postgres servers share.
    ///
    /// # Errors
    /// `Invalid` on `database_url` while another server has it.
    pub fn claim(&self) -> Result<()> {
        let Place::Sqlite(path) = self.0.writer.place() else { return Ok(()) };
        let wrong = |why: String| Error::invalid("database_url", format!("{}: {why}", path.display()));
        let mut lock = path.as_os_str().to_owned();
        lock.push(".lock");
        let file = File::create(&lock).map_err(|e| wrong(e.to_string()))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            wrong("another pengx serves from it; each server needs a database of its own, or Postgres".to_owned())
        })?;
        // Claimed before by this very store: the new lock goes, the old one stays.
        drop(self.0.claim.set(file));
        Ok(())
    }

    /// Whether a transaction has been under way for so long that the database seems to stand still. Does not block. There is
    /// no deadline on our side of libpq: who waits for a transaction asks this, and goes.
    pub fn stalled(&self) -> bool {
        [&self.0.readers, &self.0.writer].into_iter().filter_map(Pool::oldest).any(|age| age > STALLED)
    }

    /// Brings the tables up to date; may be called again and again. Creates the file of SQLite, for its owner alone.
    ///
    /// # Errors
    /// `Unavailable` while the database does not answer; `Refused` if a newer pengx has migrated it.
    pub fn migrate(&self) -> Result<()> {
        migrate::run(self.0.writer.place())?;
        self.0.migrated.store(true, Ordering::Release);
        Ok(())
    }

    /// The name that all hosts of the site share: made of `fresh` when the first one asks, and asked of the database once.
    ///
    /// # Errors
    /// `Unavailable` while the database does not answer, and nobody has asked before.
    pub fn site(&self, fresh: impl FnOnce() -> Uuid) -> Result<Uuid> {
        if let Some(known) = self.0.site.get() {
            return Ok(*known);
        }
        let known = match self.read(site::find)? {
            Some(known) => known,
            None => self.note_tx(|c| site::name(c, fresh()))?,
        };
        Ok(*self.0.site.get_or_init(|| known))
    }

    /// Takes the tables as they are, for a look beside a server.
    ///
    /// # Errors
    /// `Refused` if they are those of another version; `Unavailable` while the database does not answer.
    pub fn look(&self) -> Result<()> {
        migrate::compare(self.0.writer.place())?;
        self.0.migrated.store(true, Ordering::Release);
        Ok(())
    }

    /// Runs `f` over one consistent snapshot of all tables.
    pub fn read<T>(&self, f: impl FnOnce(&mut Conn) -> Result<T>) -> Result<T> {
        self.transaction(Begin::Read, Shown::Nowhere, f)
    }

    /// Runs `f` as the only writer and commits if it is `Ok`; the generation is another one when this returns.
    pub fn write_tx<T>(&self, f: impl FnOnce(&mut Conn) -> Result<T>) -> Result<T> {
        self.transaction(Begin::Write, Shown::Everywhere, f)
    }

    /// As [`Store::write_tx`], for rows that no cached document shows (tasks, locks, journal): the generation stays.
    pub fn note_tx<T>(&self, f: impl FnOnce(&mut Conn) -> Result<T>) -> Result<T> {
        self.transaction(Begin::Write, Shown::Nowhere, f)
    }

    /// As [`Store::write_tx`], for rows that the documents of other hosts show, and those of this one do not: where there can
    /// be no other host, the generation stays.
    pub fn tell_tx<T>(&self, f: impl FnOnce(&mut Conn) -> Result<T>) -> Result<T> {
        self.transaction(Begin::Write, Shown::Elsewhere, f)
    }

    /// The generation, where it is in memory; `None` on Postgres, where [`Store::read_generation`] must ask. Does not block.
    pub fn generation(&self) -> Option<Generation> {
        match self.0.writer.place() {
            Place::Sqlite(_) => Some(Generation(self.0.generation.load(Ordering::Acquire))),
            Place::Postgres { .. } => None,
        }
    }

    /// The generation, after all that was committed before the call.
    ///
    /// # Errors
    /// `Unavailable` while the database does not answer.
    pub fn read_generation(&self) -> Result<Generation> {
        if let Some(known) = self.generation() {
            return Ok(known);
        }
        self.migrated()?;
        let began = Instant::now();
        let value = self.0.readers.ask(Conn::generation);
        self.0.meter.ended("generation", began.elapsed(), &value);
        Ok(Generation(value?.cast_unsigned()))
    }

    /// Has `registry` show the transactions.
    pub fn register(&self, registry: &mut Registry) {
        self.0.meter.register(registry);
    }

    /// Of readers and of writers, now. Does not block.
    pub fn connections(&self) -> [(&'static str, Connections); 2] {
        [("read", self.0.readers.connections()), ("write", self.0.writer.connections())]
    }

    /// Measured: [`Store::attempt`].
    fn transaction<T>(&self, begin: Begin, shown: Shown, f: impl FnOnce(&mut Conn) -> Result<T>) -> Result<T> {
        let (pool, kind) = match begin {
            Begin::Read => (&self.0.readers, "read"),
            Begin::Write => (&self.0.writer, "write"),
        };
        let began = Instant::now();
        let result = self.attempt(pool, begin, shown, f);
        self.0.meter.ended(kind, began.elapsed(), &result);
        result
    }

    fn attempt<T>(&self, pool: &Pool, begin: Begin, shown: Shown, f: impl FnOnce(&mut Conn) -> Result<T>) -> Result<T> {
        self.migrated()?;
        // Dropped by a panic or an early return, the lease closes its connection, and with it the transaction.
        let mut lease = pool.begin(begin)?;
        let result = f(lease.conn()?);
        let ended = match &result {
            Ok(_) => {
                let committed = lease.conn()?.commit(shown);
                // Also after a failed commit: nobody knows whether it took place.
                if shown == Shown::Everywhere {
                    self.0.generation.fetch_add(1, Ordering::AcqRel);
                }
                committed
            }
            Err(_) => lease.conn()?.rollback(),
        };
        match (result, ended) {
            (result, Ok(())) => {
                lease.give_back();
                result
            }
            (Ok(_), Err(e)) => Err(e),
            // Not even a rollback: the connection was lost, and the error below is only how that showed.
            (Err(e), Err(_)) if *e.kind() == crate::error::ErrorKind::Internal => {
                Err(Error::unavailable(THE_DATABASE).caused_by(e))
            }
            (Err(e), Err(_)) => Err(e),
        }
    }

    fn migrated(&self) -> Result<()> {
        if self.0.migrated.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(Error::unavailable(THE_DATABASE).context("it has not been migrated yet"))
    }
}
