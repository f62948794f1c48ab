//! The console gateway: a guest's screen, as its hypervisor shows it by VNC, in a WebSocket. Any dialect may serve it; what
//! noVNC and its like need is all that it does.
//!
//! Who opens one has shown who it is by then, so the gateway logs in at the screen and asks the viewer for nothing.

mod relay;
mod rfb;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use warp::Reply;
use warp::http::HeaderMap;
use warp::http::header::{HOST, HeaderValue, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use warp::reply::Response;
use warp::ws::Ws;

use super::{Arrival, Stopping};
use crate::config::PublicUrl;
use crate::error::{Error, Result};
use crate::model::{VmId, VncEndpoint};
use crate::operations::{Core, console};
use rfb::{Inbox, Login};

/// The screen is on this host or next to it: no login takes longer.
const LOGIN: Duration = Duration::from_secs(10);

/// In bytes. A viewer sends clicks and keys, and now and then what somebody has copied.
const MOST_RECEIVED: usize = 256 << 10;
/// More than is ever sent at once, and than the library wants to collect.
const MOST_UNSENT: usize = 512 << 10;

/// The subprotocol of old viewers; new ones ask for none, and mean the same.
const BINARY: &str = "binary";

/// How patient the gateway is with a viewer.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// From the handshake of the WebSocket to the end of that of RFB.
    pub welcome: Duration,
    /// Between two pings; who has not said anything by the next one is gone.
    pub ping: Duration,
    /// Between two looks whether it may still see the screen.
    pub look: Duration,
    /// How long a screen may not take what a viewer sends.
    pub stuck: Duration,
    /// From our goodbye to the viewer's.
    pub goodbye: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self { welcome: secs(30), ping: secs(20), look: secs(2), stuck: secs(30), goodbye: secs(5) }
    }
}

/// A screen that has let us in.
pub struct Screen {
    core: Core,
    vm: VmId,
    at: VncEndpoint,
    stream: TcpStream,
    pace: Pace,
}

/// Opens the screen of a running VM.
///
/// # Errors
/// As [`console::endpoint`]; `Unavailable` or `Refused` if there is no RFB to be had from the screen.
pub async fn open(core: &Core, vm: VmId) -> Result<Screen> {
    let console::Endpoint { at, password } = console::endpoint(core, vm).await?;
    let login = async {
        let mut stream = TcpStream::connect((reachable(&at.host), at.port)).await?;
        stream.set_nodelay(true)?;
        log_in(&mut stream, Login::new(password)).await.map(|()| stream)
    };
    let silent = || Error::unavailable(format!("the screen of vm {vm}"));
    match timeout(LOGIN, login).await {
        Ok(Ok(stream)) => Ok(Screen { core: core.clone(), vm, at, stream, pace: Pace::default() }),
        Ok(Err(why)) if why.kind() == std::io::ErrorKind::InvalidData => {
            Err(Error::refused(format!("the screen of vm {vm}"), why.to_string()))
        }
        Ok(Err(why)) => Err(silent().caused_by(why)),
        Err(late) => Err(silent().caused_by(late)),
    }
}

/// A screen that listens everywhere listens here.
fn reachable(host: &str) -> String {
    match host.parse() {
        Ok(IpAddr::V4(ip)) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
        Ok(IpAddr::V6(ip)) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.to_string(),
        _ => host.to_owned(),
    }
}

async fn log_in(stream: &mut TcpStream, mut login: Login) -> std::io::Result<()> {
    use std::io::{Error, ErrorKind};
    let (mut inbox, mut out, mut buf) = (Inbox::default(), Vec::new(), [0; 512]);
    loop {
        let done = login.step(&mut inbox, &mut out).map_err(|fault| Error::new(ErrorKind::InvalidData, fault))?;
        stream.write_all(&out).await?;
        out.clear();
        if done {
            // It speaks again when it is spoken to.
            return Ok(());
        }
        let read = stream.read(&mut buf).await?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        inbox.push(buf.get(..read).unwrap_or_default());
    }
}

/// Whether the page that opens the WebSocket, if it is a page, is one of ours: it came from the host and port that the request
/// names, or from `public`, or from one of the origins that are `allowed`.
pub fn is_own_page(headers: &HeaderMap, allowed: &[String], public: Option<&PublicUrl>) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    headers.get_all(ORIGIN).iter().all(|origin| {
        let Ok(origin) = origin.to_str() else { return false };
        if allowed.iter().any(|allowed| allowed == origin) {
            return true;
        }
        // What it needs to be one with a host and nothing more; a page without one says `null`.
        let Ok(origin) = origin.parse::<PublicUrl>() else { return false };
        let own = |host: &str| {
            let own_port = if origin.secure { ":443" } else { ":80" };
            host.strip_suffix(own_port).unwrap_or(host).eq_ignore_ascii_case(&origin.host)
        };
        host.is_some_and(own)
            || public.is_some_and(|public| (public.secure, &public.host) == (origin.secure, &origin.host))
    })
}

/// The subprotocol to answer with, by what the request offers; `None`: none.
pub fn subprotocol(headers: &HeaderMap) -> Option<&'static str> {
    let offers = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|offers| offers.to_str().ok());
    let mut words = offers.flat_map(|offers| offers.split(',')).map(str::trim);
    words.any(|word| word == BINARY).then_some(BINARY)
}

impl Screen {
    #[must_use]
    pub fn paced(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// The answer that makes the connection a WebSocket; from then on the screen is in it, until one of the two ends, the VM
    /// stops or goes elsewhere, the viewer may not see it any more, or the server stops.
    pub fn serve(self, ws: Ws, subprotocol: Option<&'static str>, arrival: Option<&Arrival>) -> Response {
        let stopping = arrival.map_or_else(Stopping::never, |arrival| arrival.stopping.clone());
        let ws = ws.max_message_size(MOST_RECEIVED).max_frame_size(MOST_RECEIVED).max_write_buffer_size(MOST_UNSENT);
        let mut response = ws.on_upgrade(move |socket| relay::run(socket, self, stopping)).into_response();
        if let Some(name) = subprotocol {
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn screens_that_listen_everywhere_are_reached_here() {
        for (host, reached) in [
            ("0.0.0.0", "127.0.0.1"),
            ("::", "::1"),
            ("127.0.0.1", "127.0.0.1"),
            ("10.1.2.3", "10.1.2.3"),
            ("host9", "host9"),
        ] {
            assert_eq!(reachable(host), reached);
        }
    }

    #[test]
    fn pages_of_other_sites_are_told_apart() {
        let allowed = ["https://panel.example".to_owned()];
        let public = "https://outside.example/pengx".parse().unwrap();
        let own = |host: &'static str, origins: &[&'static str]| {
            let mut headers = HeaderMap::new();
            if !host.is_empty() {
                headers.insert(HOST, HeaderValue::from_static(host));
            }
            for origin in origins {
                headers.append(ORIGIN, HeaderValue::from_static(origin));
            }
            is_own_page(&headers, &allowed, Some(&public))
        };
        for (host, origins) in [
            ("", &[][..]),
            ("localhost:8000", &[]),
            ("localhost:8000", &["http://localhost:8000"]),
            ("LocalHost:8000", &["https://localhost:8000"]),
            ("vm.example", &["https://vm.example"]),
            ("vm.example:443", &["https://vm.example"]),
            ("vm.example:80", &["http://vm.example"]),
            ("[::1]:8000", &["http://[::1]:8000"]),
            ("localhost:8000", &["https://panel.example"]),
            ("10.0.0.1:8000", &["https://outside.example"]),
            ("localhost:8000", &["https://panel.example", "http://localhost:8000"]),
        ] {
            assert!(own(host, origins), "{host} {origins:?}");
        }
        for (host, origins) in [
            ("localhost:8000", &["http://localhost:8001"][..]),
            ("localhost:8000", &["http://localhost"]),
            ("localhost:80", &["https://localhost"]),
            ("localhost:8000", &["null"]),
            ("localhost:8000", &[""]),
            ("localhost:8000", &["localhost:8000"]),
            ("localhost:8000", &["http://evil.example"]),
            ("localhost:8000", &["http://localhost:8000.evil.example"]),
            ("localhost:8000", &["http://panel.example"]),
            ("10.0.0.1:8000", &["http://outside.example"]),
            ("localhost:8000", &["http://localhost:8000", "http://evil.example"]),
            ("", &["http://localhost:8000"]),
        ] {
            assert!(!own(host, origins), "{host} {origins:?}");
        }
    }

    #[test]
    fn the_subprotocol_is_answered_if_it_is_offered() {
        let of = |offers: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for offer in offers {
                headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(offer));
            }
            subprotocol(&headers)
        };
        for none in [&[][..], &["base64"], &["binary2, Binary"]] {
            assert_eq!(of(none), None, "{none:?}");
        }
        for some in [&["binary"][..], &["base64, binary"], &["base64", " binary ,x"]] {
            assert_eq!(of(some), Some("binary"), "{some:?}");
        }
    }
}
