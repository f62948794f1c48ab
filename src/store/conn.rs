//! One connection: how it is made, and how a transaction begins and ends on each database.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use diesel::connection::{AnsiTransactionManager, Connection, SimpleConnection, TransactionManager};
use diesel::result::Error::DatabaseError;
use diesel::{ExpressionMethods, PgConnection, QueryDsl, QueryResult, RunQueryDsl, SqliteConnection};

use super::schema::generation;
use super::url::Place;
use super::{Shown, THE_DATABASE};
use crate::error::{Error, Result};

/// A connection inside a transaction; only the functions of this floor can use it.
pub struct Conn(pub(super) db::Db);

/// A module of its own, for what the derive makes beside the enum.
pub(super) mod db {
    #![allow(unreachable_pub, clippy::as_conversions, reason = "made by the derive")]
    use super::{PgConnection, SqliteConnection};

    #[derive(diesel::MultiConnection)]
    pub enum Db {
        Sqlite(SqliteConnection),
        Postgres(PgConnection),
    }
}
pub(super) use db::Db;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    Read,
    Write,
}

/// A journal entry must survive a power cut: FULL. The caches of nine connections stay below 20 MB.
const SQLITE_SETTINGS: &str = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
    PRAGMA foreign_keys = ON; PRAGMA cache_size = -2000;";

/// As long as `busy_timeout`.
const LOCKED_PATIENCE: Duration = Duration::from_secs(5);

/// A frozen client must not keep the writers' lock, nor a frozen query a thread.
const POSTGRES_SETTINGS: &str = "SET statement_timeout = '8s'; SET lock_timeout = '5s';
    SET idle_in_transaction_session_timeout = '15s'; SET client_min_messages = warning;";

/// The writers' lock: `pengx` in ASCII. Migrations have the number after it.
const WRITERS_LOCK: &str = "SELECT pg_advisory_xact_lock(482738071416)";

/// Random, not one more: a database that was restored, or failed over to a copy that lacks the last commits, never comes to a
/// value again that stood for other rows.
const MOVE_GENERATION: &str = "UPDATE generation SET value = (random() * 9007199254740992)::bigint";

/// While the log is set up or folded in by another connection, SQLite answers that it is locked at once: its own
/// `busy_timeout` does not cover these moments.
fn patiently<T>(mut attempt: impl FnMut() -> QueryResult<T>) -> QueryResult<T> {
    let deadline = Instant::now() + LOCKED_PATIENCE;
    loop {
        match attempt() {
            Err(DatabaseError(_, info)) if info.message().contains("locked") && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

impl Conn {
    /// # Errors
    /// `Unavailable`, also for a SQLite file that is not there: [`create`] makes it, once.
    pub(super) fn open(place: &Place) -> Result<Self> {
        let away =
            |e: diesel::ConnectionError| Error::unavailable(THE_DATABASE).caused_by(place.redact(&e.to_string()));
        let settings = |e: diesel::result::Error| Error::unavailable(THE_DATABASE).caused_by(e);
        match place {
            Place::Sqlite(path) => {
                // SQLite would make an empty one, and every row would seem gone.
                if !path.is_file() {
                    let why = format!("there is no file {}", path.display());
                    return Err(Error::unavailable(THE_DATABASE).context(why));
                }
                let path = path.to_str().ok_or_else(|| Error::internal("the path of the database is not UTF-8"))?;
                let mut conn = SqliteConnection::establish(path).map_err(away)?;
                patiently(|| conn.batch_execute(SQLITE_SETTINGS)).map_err(settings)?;
                Ok(Self(Db::Sqlite(conn)))
            }
            Place::Postgres { url, .. } => {
                let mut conn = PgConnection::establish(url).map_err(away)?;
                conn.batch_execute(POSTGRES_SETTINGS).map_err(settings)?;
                Ok(Self(Db::Postgres(conn)))
            }
        }
    }

    /// Whether it may have died since it was last used.
    pub(super) fn is_remote(&self) -> bool {
        matches!(self.0, Db::Postgres(_))
    }

    /// # Errors
    /// `Unavailable`: nothing but the connection, or a lock that is held too long, can make it fail.
    pub(super) fn begin(&mut self, how: Begin) -> Result<()> {
        match (&mut self.0, how) {
            // Readers have connections of their own, so nothing needs to switch it off again.
            (Db::Sqlite(c), Begin::Read) => {
                AnsiTransactionManager::begin_transaction_sql(c, "PRAGMA query_only = ON; BEGIN")
            }
            (Db::Sqlite(c), Begin::Write) => AnsiTransactionManager::begin_transaction_sql(c, "BEGIN IMMEDIATE"),
            (Db::Postgres(c), Begin::Read) => {
                AnsiTransactionManager::begin_transaction_sql(c, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            }
            (Db::Postgres(c), Begin::Write) => {
                // Each statement sees what was committed before it; so the lock comes first.
                AnsiTransactionManager::begin_transaction_sql(c, "BEGIN ISOLATION LEVEL READ COMMITTED")
            }
        }
        .map_err(unavailable)
    }

    /// Makes this transaction the only writer; SQLite's immediate begin has done that already.
    pub(super) fn be_alone(&mut self) -> Result<()> {
        match &mut self.0 {
            Db::Sqlite(_) => Ok(()),
            Db::Postgres(c) => c.batch_execute(WRITERS_LOCK).map_err(unavailable),
        }
    }

    /// `shown`: who must notice what was written.
    pub(super) fn commit(&mut self, shown: Shown) -> Result<()> {
        // COMMIT of a transaction that had an error succeeds on Postgres, as a rollback; any other statement fails.
        if let Db::Postgres(c) = &mut self.0 {
            let last = if shown == Shown::Nowhere { "SELECT 1" } else { MOVE_GENERATION };
            c.batch_execute(last).map_err(Error::from)?;
        }
        Db::commit_transaction(&mut self.0).map_err(unavailable)
    }

    /// The stored generation, by one statement that is a transaction of its own.
    pub(super) fn generation(&mut self) -> Result<i64> {
        let row = generation::table.filter(generation::id.eq(1)).select(generation::value);
        row.first(&mut self.0).map_err(unavailable)
    }

    pub(super) fn rollback(&mut self) -> Result<()> {
        let rolled_back: QueryResult<()> = Db::rollback_transaction(&mut self.0);
        rolled_back.map_err(unavailable)
    }
}

/// What the mapping calls a defect is, around a transaction, a database that does not do its work.
fn unavailable(e: diesel::result::Error) -> Error {
    let mapped = Error::from(e);
    match mapped.kind() {
        crate::error::ErrorKind::Internal => Error::unavailable(THE_DATABASE).caused_by(mapped),
        _ => mapped,
    }
}

/// Makes the file of a SQLite database where there is none, for its owner alone: it holds passwords of screens.
///
/// A file that exists is not even opened: closing it would drop the locks that SQLite has on it in this process.
pub(super) fn create(path: &Path) -> Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => {
            let why = format!("{} cannot be made", path.display());
            Err(Error::unavailable(THE_DATABASE).context(why).caused_by(e))
        }
    }
}
