//! The way in for dialects that know no login: by where somebody is, in the name of one account.

use warp::http::HeaderMap;
use warp::http::header::ORIGIN;

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
    pub async fn enter(&self, headers: &HeaderMap, peer: Option<std::net::IpAddr>) -> Result<Core> {
        if !self.open.lets_in(peer) {
            return Err(forbidden("use this API from your address; its allow list does not name it"));
        }
        // A browser on a host that is let in lends its place to every page: those of other sites are told by what they send,
        // and those under a name that was bound to the loopback by it.
        if !self.open.cors && is_cross_site(headers) {
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

/// Whether a browser says that a page of another site asks. No browser sends an `Origin` with what its own page reads.
fn is_cross_site(headers: &HeaderMap) -> bool {
    let fetch = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    match fetch {
        Some(b"same-origin" | b"none") => false,
        Some(_) => true,
        None => headers.get_all(ORIGIN).iter().any(|origin| !host::is_own_origin(headers, origin)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cross(headers: &[(&'static str, &str)]) -> bool {
        is_cross_site(&headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect())
    }

    #[test]
    fn pages_of_other_sites_are_told_apart() {
        assert!(!cross(&[]));
        assert!(!cross(&[("host", "localhost:8000"), ("origin", "http://localhost:8000")]));
        assert!(cross(&[("host", "localhost:8000"), ("origin", "http://localhost:8001")]));
        assert!(cross(&[("host", "localhost:8000"), ("origin", "null")]));
        assert!(cross(&[("sec-fetch-site", "cross-site")]));
        assert!(cross(&[("sec-fetch-site", "same-site")]));
        assert!(!cross(&[("sec-fetch-site", "none")]));
        assert!(!cross(&[("sec-fetch-site", "same-origin"), ("origin", "http://localhost:8000")]));
    }
}
