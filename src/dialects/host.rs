//! The `Host` header of those whom nothing but their place speaks for: a browser on this host would lend its place to any
//! web page whose name was rebound to the loopback.

use std::net::{Ipv4Addr, Ipv6Addr};

use warp::http::HeaderMap;
use warp::http::header::HOST;

use super::console::is_own_page;
use crate::config::PublicUrl;

/// Whether the one `Host` header, if there is one, names the loopback. A client without it is no browser.
pub(super) fn names_loopback(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    hosts.next().is_none_or(|host| host.to_str().is_ok_and(is_loopback)) && hosts.next().is_none()
}

/// Whether a browser says that a page of another site asks: one that is neither from the host and port that the request names
/// nor from `public`. No browser sends an `Origin` with what its own page reads.
pub(super) fn is_cross_site(headers: &HeaderMap, public: Option<&PublicUrl>) -> bool {
    let fetch = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    match fetch {
        Some(b"same-origin" | b"none") => false,
        Some(_) => true,
        None => !is_own_page(headers, &[], public),
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

    fn cross(headers: &[(&'static str, &str)]) -> bool {
        let public = "https://panel.example/pengx".parse().unwrap();
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        is_cross_site(&headers, Some(&public))
    }

    #[test]
    fn pages_of_other_sites_are_told_apart() {
        assert!(!cross(&[]));
        assert!(!cross(&[("host", "localhost:8000"), ("origin", "http://localhost:8000")]));
        assert!(cross(&[("host", "localhost:8000"), ("origin", "http://localhost:8001")]));
        assert!(!cross(&[("host", "localhost:8000"), ("origin", "https://panel.example")]));
        assert!(cross(&[("host", "localhost:8000"), ("origin", "http://panel.example")]));
        assert!(cross(&[("host", "localhost:8000"), ("origin", "null")]));
        assert!(cross(&[("sec-fetch-site", "cross-site")]));
        assert!(cross(&[("sec-fetch-site", "same-site")]));
        assert!(!cross(&[("sec-fetch-site", "none")]));
        assert!(!cross(&[("sec-fetch-site", "same-origin"), ("origin", "http://localhost:8000")]));
    }
}
