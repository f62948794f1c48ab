//! Between columns and model types. A stored value that cannot be is a defect, with its column named, and never a panic.

use std::fmt::Display;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::model::MiB;

/// A stored word, uuid or address.
pub(super) fn parse<T: FromStr<Err = String>>(column: &str, text: &str) -> Result<T> {
    text.parse().map_err(|why| Error::internal(format!("{column} holds {text:?}, which {why}")))
}

pub(super) fn parse_optional<T: FromStr<Err = String>>(column: &str, text: Option<String>) -> Result<Option<T>> {
    text.map(|text| parse(column, &text)).transpose()
}

/// A uuid that has no type of its own.
pub(super) fn uuid(column: &str, text: &str) -> Result<uuid::Uuid> {
    uuid::Uuid::try_parse(text).map_err(|e| Error::internal(format!("{column} holds {text:?}")).caused_by(e))
}

/// A number, either way.
pub(super) fn number<T: TryFrom<F>, F: Copy + Display>(column: &str, value: F) -> Result<T> {
    T::try_from(value).map_err(|_| Error::internal(format!("{column} cannot be {value}")))
}

pub(super) fn mib(column: &str, value: i64) -> Result<MiB> {
    number(column, value).map(MiB)
}

pub(super) fn from_mib(column: &str, size: MiB) -> Result<i64> {
    number(column, size.0)
}

/// `NotFound` unless a change hit its row.
pub(super) fn hit(rows: usize, what: &'static str, id: impl Display) -> Result<()> {
    if rows == 0 { Err(Error::not_found(what, id)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Mac, Os};

    #[test]
    fn what_cannot_be_stored_or_read_names_its_column() {
        for e in [
            parse::<Os>("templates.os", "BEOS").unwrap_err(),
            parse::<Mac>("nics.mac", "").unwrap_err(),
            uuid("tasks.process", "x").unwrap_err(),
            mib("vms.memory", -1).map(drop).unwrap_err(),
            from_mib("disks.size", MiB(u64::MAX)).map(drop).unwrap_err(),
        ] {
            assert_eq!(e.kind().name(), "internal");
            assert!(e.story().contains(['.']), "{e:?}");
        }
    }
}
