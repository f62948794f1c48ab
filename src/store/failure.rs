//! What a database's error means to a client.

use diesel::result::{DatabaseErrorInformation, DatabaseErrorKind, Error as Diesel};

use super::THE_DATABASE;
use crate::error::{Error, ErrorKind};

impl From<Diesel> for Error {
    fn from(e: Diesel) -> Self {
        let kind = match &e {
            Diesel::DatabaseError(kind, info) => of_database(kind, &**info),
            Diesel::BrokenTransactionManager | Diesel::RollbackErrorOnCommit { .. } => away(),
            _ => ErrorKind::Internal,
        };
        Self::new(kind).caused_by(e)
    }
}

fn away() -> ErrorKind {
    ErrorKind::Unavailable { what: THE_DATABASE.to_owned() }
}

fn of_database(kind: &DatabaseErrorKind, info: &(dyn DatabaseErrorInformation + Send + Sync)) -> ErrorKind {
    match kind {
        DatabaseErrorKind::UniqueViolation => ErrorKind::Exists { what: "record", name: violated(info) },
        DatabaseErrorKind::ForeignKeyViolation | DatabaseErrorKind::RestrictViolation => in_use(info.table_name()),
        DatabaseErrorKind::UnableToSendCommand | DatabaseErrorKind::ClosedConnection => away(),
        _ => of_message(info.message()),
    }
}

fn in_use(by: Option<&str>) -> ErrorKind {
    ErrorKind::InUse { what: "record".to_owned(), by: by.unwrap_or("another record").to_owned() }
}

/// What was unique: the constraint on Postgres, the columns on SQLite.
fn violated(info: &(dyn DatabaseErrorInformation + Send + Sync)) -> String {
    let told = || info.message().split_once(": ").map_or(info.message(), |(_, columns)| columns);
    info.constraint_name().unwrap_or_else(told).to_owned()
}

/// diesel gives neither SQLite's code nor Postgres' SQLSTATE: their English words must do. In another language it is an error
/// of our own, which is the safe side; a lost connection shows without words, as a rollback that fails.
fn of_message(message: &str) -> ErrorKind {
    const FULL: [&str; 2] = ["database or disk is full", "No space left on device"];
    const AWAY: [&str; 9] = [
        "database is locked",
        "database table is locked",
        "disk I/O error",
        "unable to open database file",
        "statement timeout",
        "lock timeout",
        "terminating connection",
        "server closed the connection",
        "the database system is",
    ];
    let says = |words: &[&str]| words.iter().any(|w| message.contains(w));
    if says(&FULL) {
        let why = "the disk that holds it is full; make room there".to_owned();
        ErrorKind::Refused { by: THE_DATABASE.to_owned(), why }
    } else if says(&AWAY) {
        away()
    } else if message == "FOREIGN KEY constraint failed" {
        // SQLite reports ON DELETE RESTRICT as if a trigger had failed.
        in_use(None)
    } else {
        ErrorKind::Internal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(kind: DatabaseErrorKind, message: &str) -> ErrorKind {
        Error::from(Diesel::DatabaseError(kind, Box::new(message.to_owned()))).kind().clone()
    }

    #[test]
    fn each_failure_has_its_kind() {
        let unknown = |m| kind_of(DatabaseErrorKind::Unknown, m);
        assert_eq!(unknown("database is locked").name(), "unavailable");
        assert_eq!(unknown("canceling statement due to statement timeout").name(), "unavailable");
        assert_eq!(unknown("database or disk is full").name(), "refused");
        assert_eq!(unknown("no such table: vms").name(), "internal");
        assert_eq!(kind_of(DatabaseErrorKind::ClosedConnection, "").name(), "unavailable");
        assert_eq!(kind_of(DatabaseErrorKind::ForeignKeyViolation, "").name(), "in_use");
        assert_eq!(
            kind_of(DatabaseErrorKind::UniqueViolation, "UNIQUE constraint failed: vms.name"),
            ErrorKind::Exists { what: "record", name: "vms.name".to_owned() }
        );
    }

    #[test]
    fn the_client_reads_nothing_of_a_defect() {
        let e =
            Error::from(Diesel::DatabaseError(DatabaseErrorKind::Unknown, Box::new("no such table: vms".to_owned())));
        assert!(!e.to_string().contains("vms"));
        assert!(e.story().contains("no such table: vms"));
    }
}
