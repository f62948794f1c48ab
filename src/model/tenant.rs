//! Whom VMs are made for, as a hosting panel keeps them, and what it wants to be rid of. A tenant is no account: it cannot
//! log in anywhere.

use std::fmt;
use std::str::FromStr;

use chrono::NaiveDateTime;
use uuid::Uuid;

use super::{MiB, Secret, TaskId, VmId, VmNumber};

/// Sixteen letters and digits that name a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShortId(String);

impl ShortId {
    const LEN: usize = 16;

    /// As random as the uuid.
    pub fn new(random: Uuid) -> Self {
        const ALPHABET: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
        let letter = |byte: &u8| ALPHABET.get(usize::from(byte % 62)).map(|letter| char::from(*letter));
        Self(random.as_bytes().iter().filter_map(letter).collect())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ShortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ShortId {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        if s.len() == Self::LEN && s.bytes().all(|b| b.is_ascii_alphanumeric()) {
            Ok(Self(s.to_owned()))
        } else {
            Err(format!("must be {} letters and digits", Self::LEN))
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    pub id: ShortId,
    pub name: String,
    /// In clear: whoever keeps the list wants to read it again. It opens nothing.
    pub password: Secret,
    pub created_at: NaiveDateTime,
    /// Whether a VM was ever made for it.
    pub had_vms: bool,
}

/// A VM that is a tenant's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenancy {
    pub vm: VmId,
    pub tenant: ShortId,
    /// What the tenant was promised; a VM has no swap of ours.
    pub swap: MiB,
    pub since: NaiveDateTime,
}

/// A VM that is to be deleted when somebody says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    pub id: ShortId,
    pub vm: VmId,
    pub number: VmNumber,
    pub asked_at: NaiveDateTime,
    /// The task that deletes it now.
    pub task: Option<TaskId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ids() {
        let id = ShortId::new(Uuid::from_u128(0x0123_4567_89ab_4def_8123_4567_89ab_cdef));
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        assert_ne!(id, ShortId::new(Uuid::from_u128(0x0123_4567_89ab_4def_8123_4567_89ab_cdee)));
        for bad in ["", "dLwIT9UxNhKq7nV", "dLwIT9UxNhKq7nVt0", "dLwIT9UxNhKq7nV-"] {
            assert!(bad.parse::<ShortId>().is_err(), "{bad:?}");
        }
    }
}
