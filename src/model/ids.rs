//! Ids as types of their own, so that a wrong one does not compile, and the one place that makes new ones.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

macro_rules! uuid_id {
    ($($name:ident),+) => {$(
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub struct $name(pub Uuid);

        /// Lower case, with hyphens.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        /// In any case, with or without hyphens; no braces, no `urn:uuid:`.
        impl FromStr for $name {
            type Err = String;
            fn from_str(s: &str) -> Result<Self, String> {
                let plain = s.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
                match Uuid::try_parse(s) {
                    Ok(id) if plain => Ok(Self(id)),
                    _ => Err("must be a uuid".to_owned()),
                }
            }
        }
    )+};
}

macro_rules! integer_id {
    ($($name:ident),+) => {$(
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub struct $name(pub i32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        /// ASCII digits alone.
        impl FromStr for $name {
            type Err = String;
            fn from_str(s: &str) -> Result<Self, String> {
                if s.is_empty() || !s.bytes().all(|b| b.is_ascii_digit()) {
                    return Err("must be a whole number".to_owned());
                }
                s.parse().map(Self).map_err(|_| "is too large".to_owned())
            }
        }
    )+};
}

uuid_id!(VmId, PmId, TemplateId, DiskId, SnapshotId, BackupId, TaskId, UserId, TokenId);
integer_id!(StorlinkId, NicId, VmNumber);

/// Where new ids, MAC addresses and passwords come from; tests fix it.
pub trait Ids: Send + Sync {
    /// Random, version 4.
    fn uuid(&self) -> Uuid;
    /// Ordered by time, version 7: for rows that grow for ever.
    fn ordered_uuid(&self) -> Uuid;
}

/// The operating system's randomness.
#[derive(Debug, Default, Clone, Copy)]
pub struct RandomIds;

impl Ids for RandomIds {
    #[expect(clippy::disallowed_methods, reason = "the owner of new ids")]
    fn uuid(&self) -> Uuid {
        Uuid::new_v4()
    }

    #[expect(clippy::disallowed_methods, reason = "the owner of new ids")]
    fn ordered_uuid(&self) -> Uuid {
        Uuid::now_v7()
    }
}
