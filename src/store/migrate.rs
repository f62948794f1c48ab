//! The tables, brought up to date.

use std::collections::BTreeSet;

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::migration::{Migration, MigrationSource, MigrationVersion};
use diesel::{QueryDsl, RunQueryDsl};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::THE_DATABASE;
use super::conn::{self, Conn, Db};
use super::url::Place;
use crate::error::{Error, ErrorKind, Result};

const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
const POSTGRES: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// Rewriting a large table takes its time; and another PM may be at it.
const PATIENCE: &str = "SET statement_timeout = '10min'; SET lock_timeout = '1min';";

/// On a connection of its own, which is closed at the end and with it the lock.
pub(super) fn run(place: &Place) -> Result<()> {
    if let Place::Sqlite(path) = place {
        conn::create(path)?;
    }
    match &mut Conn::open(place)?.0 {
        // Dropped with the connection if it fails: all that was pending, or nothing.
        Db::Sqlite(c) => {
            AnsiTransactionManager::begin_transaction_sql(c, "BEGIN IMMEDIATE")?;
            pending(c, SQLITE)?;
            Ok(AnsiTransactionManager::commit_transaction(c)?)
        }
        Db::Postgres(c) => {
            c.batch_execute(PATIENCE)?;
            // PMs that start together migrate one after the other; each migration is a transaction, so the lock is the session's.
            c.batch_execute("SELECT pg_advisory_lock(482738071417)")?;
            pending(c, POSTGRES)
        }
    }
}

diesel::table! {
    __diesel_schema_migrations (version) {
        version -> Text,
    }
}

/// Whether the tables are those of this version; nothing is written.
pub(super) fn compare(place: &Place) -> Result<()> {
    let ours: Vec<Box<dyn Migration<diesel::sqlite::Sqlite>>> = SQLITE.migrations().map_err(failed)?;
    let ours: BTreeSet<String> = ours.iter().map(|m| m.name().version().to_string()).collect();
    let versions = __diesel_schema_migrations::table.select(__diesel_schema_migrations::version);
    let mut conn = Conn::open(place)?;
    let applied: Vec<String> = match versions.load(&mut conn.0).map_err(Error::from) {
        Err(none) if *none.kind() == ErrorKind::Internal => {
            return Err(Error::refused(THE_DATABASE, "it has no tables of pengx").caused_by(none));
        }
        loaded => loaded?,
    };
    let (missing, newer) = (ours.iter().find(|v| !applied.contains(v)), applied.iter().find(|v| !ours.contains(*v)));
    match (newer, missing) {
        (Some(newer), _) => Err(is_newer(newer)),
        (None, Some(missing)) => {
            let why = format!("it lacks migration {missing}; start the server of this version once");
            Err(Error::refused(THE_DATABASE, why))
        }
        (None, None) => Ok(()),
    }
}

fn is_newer(version: impl std::fmt::Display) -> Error {
    let why = format!("a newer pengx has migrated it (migration {version}); run that one, or restore a backup");
    Error::refused(THE_DATABASE, why)
}

fn pending<B, C>(conn: &mut C, source: EmbeddedMigrations) -> Result<()>
where
    B: diesel::backend::Backend,
    C: MigrationHarness<B>,
    EmbeddedMigrations: MigrationSource<B>,
{
    let ours: Vec<Box<dyn Migration<B>>> = source.migrations().map_err(failed)?;
    let ours: BTreeSet<MigrationVersion<'_>> = ours.iter().map(|m| m.name().version()).collect();
    let applied = conn.applied_migrations().map_err(failed)?;
    if let Some(newer) = applied.iter().find(|version| !ours.contains(version)) {
        return Err(is_newer(newer));
    }
    conn.run_pending_migrations(source).map(drop).map_err(failed)
}

fn failed(e: Box<dyn std::error::Error + Send + Sync>) -> Error {
    match e.downcast::<diesel::result::Error>() {
        Ok(e) => Error::from(*e),
        Err(e) => Error::internal("the database cannot be migrated").caused_by(e),
    }
}
