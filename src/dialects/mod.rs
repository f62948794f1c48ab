//! The front doors: each dialect turns HTTP into commands and queries for [`crate::operations`], and the outcome back.
//!
//! Dialects never import one another, and never touch the store, a hypervisor or a storage.

pub mod ask;
pub mod console;
mod credentials;
mod files;
mod form;
mod host;
pub mod libvirt_json;
pub mod monitor;
pub mod open_door;
pub mod payload;
pub mod pengx;
pub mod proxmox_api;
pub mod table;
pub mod virtdancer;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use warp::http::HeaderValue;

use crate::config::PublicUrl;

/// What a dialect serves: it answers every request and never rejects.
pub type Routes = warp::filters::BoxedFilter<(warp::reply::Response,)>;

/// A dialect, ready to be put somewhere below a listener's root.
#[derive(Clone)]
pub struct Mounted {
    pub routes: Routes,
    pub knows: Knows,
}

/// Whether a dialect serves something at this path, which is as it was sent less the dialect's prefix; and whether it serves
/// a WebSocket there, if that is asked. Dialects that share a prefix are told apart by it.
pub type Knows = Arc<dyn Fn(&str, bool) -> bool + Send + Sync>;

/// Where a dialect was found: an extension of its requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    prefix: Arc<str>,
    public_url: Option<Arc<PublicUrl>>,
}

impl Mount {
    /// `prefix` as in [`Mount::prefix`], `public_url` as in [`Mount::public_url`].
    pub fn at(prefix: &str, public_url: Option<Arc<PublicUrl>>) -> Self {
        Self { prefix: prefix.into(), public_url }
    }

    /// `/libvirt-json`; empty at the root.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Where clients find the listener's root; `None`: as each says that it has reached us.
    pub fn public_url(&self) -> Option<&PublicUrl> {
        self.public_url.as_deref()
    }
}

/// The document with this sentence, for what a listener refuses before it gets to the routes.
pub type Refusal = Arc<dyn Fn(&str) -> Document + Send + Sync>;

/// A body with its media type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    pub content_type: HeaderValue,
    pub text: String,
}

/// For a listener without a dialect that has documents for it.
pub fn plain_refusal() -> Refusal {
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    Arc::new(move |why| Document { content_type: content_type.clone(), text: format!("{why}\n") })
}

/// Names one request, in the answer's `X-Request-Id` and in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    pub const HEADER: &'static str = "x-request-id";
    const MAX_LEN: usize = 64;

    /// `None` unless the text is short and plain, so that it can go to a log and a header as it is.
    pub fn new(text: HeaderValue) -> Option<Self> {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
        let sane = (1..=Self::MAX_LEN).contains(&text.len()) && text.as_bytes().iter().all(plain);
        sane.then_some(Self(text))
    }

    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// Who asked, for the log; an extension of an answer to somebody who was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User(pub String);

/// The pattern that a request's path fitted, `/vms/:vm/`: an extension of the answer, by which the server counts. An answer
/// without it was given to a path that nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route(pub &'static str);

/// What the server knows of a request besides its text; an extension of every request.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub id: RequestId,
    pub peer: SocketAddr,
    pub tls: bool,
    pub stopping: Stopping,
}

/// Tells whoever keeps a connection for long that the server stops; which waits, for as long as the drain allows, until
/// nobody holds one of these any more.
#[derive(Debug, Clone)]
pub struct Stopping(Option<watch::Receiver<()>>);

impl Stopping {
    /// From now on.
    pub fn new(stop: watch::Receiver<()>) -> Self {
        Self(Some(stop))
    }

    /// Where no server of ours is there to stop.
    pub fn never() -> Self {
        Self(None)
    }

    pub async fn asked(&mut self) {
        match &mut self.0 {
            // Whether it says so or has gone.
            Some(stop) => drop(stop.changed().await),
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_short_id_is_taken() {
        for good in ["a", "3f-00.x_Z", &"a".repeat(64)] {
            assert_eq!(RequestId::new(HeaderValue::from_str(good).unwrap()).unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a\"b", &"a".repeat(65)] {
            assert_eq!(RequestId::new(HeaderValue::from_str(bad).unwrap()), None, "{bad}");
        }
    }
}
