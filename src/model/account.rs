//! Who may do what.

use super::words;

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
