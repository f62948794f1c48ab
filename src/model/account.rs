//! Who may do what.

use std::fmt;
use std::str::FromStr;

use chrono::NaiveDateTime;

use super::{Name, NameRules, Secret, TokenId, UserId, words};

words! {
    /// Stored: append-only.
    Role {
        /// Everything.
        Admin = "admin",
        /// All that concerns VMs and templates.
        Operator = "operator",
        /// Looks at everything but secrets.
        Viewer = "viewer",
    }
}

/// What an action needs; each role has those of the roles after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Right {
    /// To look, but at no secret.
    Look,
    /// To change VMs and templates, and to open their screens.
    Operate,
    /// To change what VMs stand on: storlinks, hosts, accounts.
    Administer,
}

impl Role {
    pub fn may(self, right: Right) -> bool {
        match right {
            Right::Look => true,
            Right::Operate => self != Self::Viewer,
            Right::Administer => self == Self::Admin,
        }
    }
}

impl Right {
    /// The least role that has it.
    pub fn role(self) -> Role {
        match self {
            Self::Look => Role::Viewer,
            Self::Operate => Role::Operator,
            Self::Administer => Role::Admin,
        }
    }
}

/// A [`Name`] of at most 64 characters without a colon, which ends the name in HTTP's Basic scheme.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserName(Name);

impl UserName {
    pub const MAX_CHARS: usize = 64;

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for UserName {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let name: Name = s.parse()?;
        if name.as_str().contains(':') {
            Err("must not have a colon".to_owned())
        } else if name.as_str().chars().count() > Self::MAX_CHARS {
            Err(format!("must have at most {} characters", Self::MAX_CHARS))
        } else {
            Ok(Self(name))
        }
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub name: UserName,
    /// A hash of the password: a PHC string, or crypt's of the kind `$6$`.
    pub password: Secret,
    pub role: Role,
    /// `None`: every VM.
    pub sees: Option<NameRules>,
    pub created_at: NaiveDateTime,
    pub updated_at: NaiveDateTime,
}

/// What is kept of a bearer token; the token itself is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub id: TokenId,
    pub owner: UserId,
    /// For people; may be empty.
    pub name: String,
    pub digest: TokenDigest,
    pub created_at: NaiveDateTime,
    /// Not valid from here on.
    pub expires_at: Option<NaiveDateTime>,
}

/// SHA-256 of a bearer token; written in lower-case hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest(pub [u8; 32]);

impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for TokenDigest {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let wrong = || "must be 64 hexadecimal digits".to_owned();
        if s.len() != 64 || !s.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut digest = [0; 32];
        for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
            let pair = s.get(at..at + 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_has_the_rights_of_the_ones_after_it() {
        let rights = [Right::Look, Right::Operate, Right::Administer];
        let of = |role: Role| rights.map(|right| role.may(right));
        assert_eq!(of(Role::Viewer), [true, false, false]);
        assert_eq!(of(Role::Operator), [true, true, false]);
        assert_eq!(of(Role::Admin), [true, true, true]);
        for right in rights {
            assert!(right.role().may(right));
        }
    }

    #[test]
    fn names_of_users() {
        for good in ["ann", "  ann  ", "김 관리자", &"a".repeat(64)] {
            assert_eq!(good.parse::<UserName>().unwrap().as_str(), good.trim());
        }
        for bad in ["", " ", "a:b", "a\nb", &"a".repeat(65)] {
            assert!(bad.parse::<UserName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn digests_are_written_and_read() {
        let digest = TokenDigest(std::array::from_fn(|i| u8::try_from(i * 8).unwrap()));
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for bad in ["", "00", &"g".repeat(64), &"é".repeat(32), &"0".repeat(65)] {
            assert!(bad.parse::<TokenDigest>().is_err(), "{bad:?}");
        }
    }
}
