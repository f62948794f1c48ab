//! Keeps web pages of other sites from using a server that listens on the loopback, where a browser would lend them its
//! place: by `Origin` and `Sec-Fetch-Site`, and against rebound names by `Host`. And from opening a WebSocket to any server,
//! which browsers let every page do.

use warp::http::header::ORIGIN;
use warp::http::{HeaderMap, Method};

use super::{Failure, Settings};
use crate::dialects::{console, host};

/// For a caller that nothing but its place speaks for.
pub(super) fn place(headers: &HeaderMap) -> Result<(), Failure> {
    if host::names_loopback(headers) {
        return Ok(());
    }
    Err(Failure::CrossSite { why: "while there are no accounts, the Host header must be a loopback name" })
}

/// For a request that asks for a WebSocket.
pub(super) fn page(settings: &Settings, headers: &HeaderMap) -> Result<(), Failure> {
    if console::is_own_page(headers, &settings.allowed_origins, settings.public_url.as_ref()) {
        return Ok(());
    }
    Err(Failure::CrossSite { why: "pages of this Origin may not open a WebSocket; see allowed_origins" })
}

pub(super) fn origin(settings: &Settings, method: &Method, headers: &HeaderMap) -> Result<(), Failure> {
    let refused = |why| Err(Failure::CrossSite { why });
    if method.is_safe() {
        return Ok(());
    }
    let allowed = |origin: &[u8]| settings.allowed_origins.iter().any(|a| a.as_bytes() == origin);
    let mut origins = headers.get_all(ORIGIN).iter().peekable();
    if origins.peek().is_none() {
        return match headers.get("sec-fetch-site") {
            Some(site) if site == "cross-site" => refused("requests from other sites may not change anything"),
            _ => Ok(()),
        };
    }
    // An origin that the site allows may well be another site.
    if origins.all(|origin| allowed(origin.as_bytes())) {
        Ok(())
    } else {
        refused("requests from this Origin may not change anything; see allowed_origins")
    }
}

#[cfg(test)]
mod tests {
    use warp::http::header::HOST;

    use super::*;

    fn refused(method: &Method, headers: &[(&'static str, &str)]) -> bool {
        let settings = Settings { allowed_origins: vec!["https://panel.example".to_owned()], ..Settings::default() };
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        origin(&settings, method, &headers).is_err() || place(&headers).is_err()
    }

    #[test]
    fn hosts() {
        assert!(!refused(&Method::GET, &[]));
        assert!(!refused(&Method::GET, &[("host", "localhost:8000")]));
        assert!(refused(&Method::GET, &[("host", "rebound.example")]));
        let mut two = HeaderMap::new();
        two.append(HOST, "localhost".parse().unwrap());
        two.append(HOST, "localhost".parse().unwrap());
        assert!(place(&two).is_err());
    }

    #[test]
    fn pages_of_other_sites_change_nothing() {
        assert!(refused(&Method::POST, &[("origin", "http://evil.example")]));
        assert!(refused(&Method::DELETE, &[("origin", "null")]));
        assert!(refused(&Method::POST, &[("sec-fetch-site", "cross-site")]));
        assert!(!refused(&Method::GET, &[("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")]));
        assert!(!refused(&Method::POST, &[("sec-fetch-site", "none")]));
        assert!(!refused(&Method::POST, &[("origin", "https://panel.example"), ("sec-fetch-site", "cross-site")]));
    }
}
