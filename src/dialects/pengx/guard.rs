//! Keeps web pages of other sites from using a server that listens on the loopback, where a browser would lend them its
//! place: by `Origin` and `Sec-Fetch-Site`, and against rebound names by `Host`.

use std::net::{Ipv4Addr, Ipv6Addr};

use warp::http::header::{HOST, ORIGIN};
use warp::http::{HeaderMap, Method};

use super::{Failure, Settings};

/// For a caller that nothing but its place speaks for.
pub(super) fn host(headers: &HeaderMap) -> Result<(), Failure> {
    let mut hosts = headers.get_all(HOST).iter();
    // A client without Host is no browser.
    if hosts.next().is_some_and(|host| !host.to_str().is_ok_and(is_loopback)) || hosts.next().is_some() {
        return Err(Failure::CrossSite { why: "while there are no accounts, the Host header must be a loopback name" });
    }
    Ok(())
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

/// Whether a `Host`, with or without a port, names the loopback.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => {
            let Some((ip, port)) = rest.split_once(']') else { return false };
            return (port.is_empty() || port.starts_with(':')) && ip.parse().is_ok_and(|ip: Ipv6Addr| ip.is_loopback());
        }
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse().is_ok_and(|ip: Ipv4Addr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(method: &Method, headers: &[(&'static str, &str)]) -> bool {
        let settings = Settings { allowed_origins: vec!["https://panel.example".to_owned()], ..Settings::default() };
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        origin(&settings, method, &headers).is_err() || host(&headers).is_err()
    }

    #[test]
    fn loopback_names() {
        for host in [
            "localhost",
            "LOCALHOST:8000",
            "a.localhost",
            "127.0.0.1:8000",
            "127.9.9.9",
            "[::1]",
            "[::1]:80",
            "localhost.",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "[::2]",
            "[::1",
            "[::1]x",
            "127.0.0.1.nip.io",
            "::1",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn hosts() {
        assert!(!refused(&Method::GET, &[]));
        assert!(!refused(&Method::GET, &[("host", "localhost:8000")]));
        assert!(refused(&Method::GET, &[("host", "rebound.example")]));
        let mut two = HeaderMap::new();
        two.append(HOST, "localhost".parse().unwrap());
        two.append(HOST, "localhost".parse().unwrap());
        assert!(host(&two).is_err());
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
