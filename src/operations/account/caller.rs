//! In whose name a core is used.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Right, Role};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    who: Who,
    role: Role,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    /// pengx itself.
    Server,
    /// No account exists, and the peer is on this host.
    Host,
    /// No account exists, and the operator wants no questions asked.
    Anybody,
    User(Arc<str>),
}

impl Caller {
    pub(in crate::operations) fn server() -> Self {
        Self { who: Who::Server, role: Role::Admin }
    }

    pub(super) fn host() -> Self {
        Self { who: Who::Host, role: Role::Admin }
    }

    pub(super) fn anybody() -> Self {
        Self { who: Who::Anybody, role: Role::Admin }
    }

    pub(super) fn user(name: Arc<str>, role: Role) -> Self {
        Self { who: Who::User(name), role }
    }

    /// The account's name, if it is one that speaks for the caller.
    pub(super) fn account(&self) -> Option<&str> {
        match &self.who {
            Who::User(name) => Some(name),
            Who::Server | Who::Host | Who::Anybody => None,
        }
    }

    pub fn may(&self, right: Right) -> bool {
        self.role.may(right)
    }

    /// `Forbidden`, with `action` as in "you may not ACTION", unless the caller has the right.
    pub fn require(&self, right: Right, action: impl fmt::Display) -> Result<()> {
        if self.may(right) {
            return Ok(());
        }
        let what = format!("{action} as {}; it takes the role {}", self.role, right.role());
        Err(Error::new(ErrorKind::Forbidden { what }))
    }

    /// Whether nothing but the peer's address speaks for it: then so would it for a web page in a browser on this host.
    pub fn is_known_by_place(&self) -> bool {
        self.who == Who::Host
    }
}

/// For the log.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Who::Server => f.write_str("(server)"),
            Who::Host => f.write_str("(local)"),
            Who::Anybody => f.write_str("(anybody)"),
            Who::User(name) => f.write_str(name),
        }
    }
}
