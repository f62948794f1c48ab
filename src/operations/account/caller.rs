//! In whose name a core is used.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{NameRules, Right, Role, Secret, TokenDigest, User};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    who: Who,
    role: Role,
    /// `None`: every VM.
    sees: Option<Arc<NameRules>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    /// pengx itself.
    Server,
    /// No account exists, and the peer is on this host.
    Host,
    /// No account exists, and the operator wants no questions asked.
    Anybody,
    User {
        name: Arc<str>,
        by: Proof,
    },
}

/// What an account was known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Proof {
    /// The hash of its password.
    Password(Secret),
    Token(TokenDigest),
    /// The operator's word.
    Configuration,
}

impl Caller {
    pub(in crate::operations) fn server() -> Self {
        Self { who: Who::Server, role: Role::Admin, sees: None }
    }

    pub(super) fn host() -> Self {
        Self { who: Who::Host, role: Role::Admin, sees: None }
    }

    pub(super) fn anybody() -> Self {
        Self { who: Who::Anybody, role: Role::Admin, sees: None }
    }

    pub(super) fn user(user: &User, by: Proof) -> Self {
        let sees = user.sees.clone().map(Arc::new);
        Self { who: Who::User { name: user.name.as_str().into(), by }, role: user.role, sees }
    }

    /// The account's name and what it was known by, if it is one.
    pub(super) fn proof(&self) -> Option<(&str, &Proof)> {
        if let Who::User { name, by } = &self.who { Some((name, by)) } else { None }
    }

    /// What VMs stand on is everybody's, so only who sees every VM may administer it.
    pub fn may(&self, right: Right) -> bool {
        self.role.may(right) && (right != Right::Administer || self.sees_all())
    }

    pub fn sees_all(&self) -> bool {
        self.sees.is_none()
    }

    /// Whether its rules show VMs of this name.
    pub fn sees(&self, vm: &str) -> bool {
        self.sees.as_ref().is_none_or(|rules| rules.show(vm))
    }

    /// `Forbidden` unless [`Caller::sees`]; the sentence names nothing.
    pub(in crate::operations) fn require_sight(&self, vm: &str) -> Result<()> {
        if self.sees(vm) { Ok(()) } else { Err(hidden()) }
    }

    /// Who uses a thing may be a VM that the caller does not see.
    pub(in crate::operations) fn discreet(&self, why: Error) -> Error {
        match why.kind() {
            ErrorKind::InUse { what, .. } if !self.sees_all() => {
                let (what, by) = (what.clone(), "something else".to_owned());
                Error::new(ErrorKind::InUse { what, by }).caused_by(why)
            }
            _ => why,
        }
    }

    /// Of tasks: the account's name, if it is one.
    pub(in crate::operations) fn account(&self) -> Option<&str> {
        self.proof().map(|(name, _)| name)
    }

    /// `Forbidden`, with `action` as in "you may not ACTION", unless the caller has the right.
    pub fn require(&self, right: Right, action: impl fmt::Display) -> Result<()> {
        if self.may(right) {
            return Ok(());
        }
        let what = match self.role.may(right) {
            true => format!("{action} unless you see every vm"),
            false => format!("{action} as {}; it takes the role {}", self.role, right.role()),
        };
        Err(Error::new(ErrorKind::Forbidden { what }))
    }

    /// Whether nothing but the peer's address speaks for it: then so would it for a web page in a browser on this host.
    pub fn is_known_by_place(&self) -> bool {
        self.who == Who::Host
    }
}

/// What is not for the caller to see. That there is something may be known, and nothing more.
pub(in crate::operations) fn hidden() -> Error {
    Error::new(ErrorKind::Forbidden { what: "see or use a vm that the rules of your account do not show".to_owned() })
}

/// For the log.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Who::Server => f.write_str("(server)"),
            Who::Host => f.write_str("(local)"),
            Who::Anybody => f.write_str("(anybody)"),
            Who::User { name, .. } => f.write_str(name),
        }
    }
}
