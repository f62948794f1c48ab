//! The way in for dialects that know no login: by where somebody is, in the name of one account.

use super::ask::Ask;
use super::host;
use crate::config::Open;
use crate::error::{Error, ErrorKind, Result};
use crate::operations::{Core, Gate};

#[derive(Clone)]
pub struct OpenDoor {
    gate: Gate,
    open: Open,
}

impl OpenDoor {
    pub fn new(gate: Gate, open: Open) -> Self {
        Self { gate, open }
    }

    /// Whether pages of other sites may ask.
    pub fn cors(&self) -> bool {
        self.open.cors
    }

    /// A core in the account's name.
    ///
    /// # Errors
    /// `Forbidden` for whom the list does not name, for pages of other sites, and while there is no such account;
    /// `Unavailable` while accounts cannot be read.
    pub async fn enter(&self, ask: &Ask) -> Result<Core> {
        let (headers, peer) = (&ask.headers, ask.peer());
        if !self.open.lets_in(peer) {
            return Err(forbidden("use this API from your address; its allow list does not name it"));
        }
        // A browser on a host that is let in lends its place to every page: those of other sites are told by what they send,
        // and those under a name that was bound to the loopback by it.
        if !self.open.cors && host::is_cross_site(headers, ask.public_url()) {
            return Err(forbidden("use this API from a page of another site; its setting cors is off"));
        }
        if peer.is_some_and(|peer| peer.to_canonical().is_loopback()) && !host::names_loopback(headers) {
            return Err(forbidden("use this API from its own host under a Host that is no loopback name"));
        }
        self.gate.act_as(self.open.act_as.as_str(), peer).await
    }
}

fn forbidden(what: &str) -> Error {
    Error::new(ErrorKind::Forbidden { what: what.to_owned() })
}
