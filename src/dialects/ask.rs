//! One request, whole, for the dialects whose paths a single look tells apart; and the filter that makes it.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use warp::http::header::{CONNECTION, HOST, UPGRADE};
use warp::http::{HeaderMap, Method, StatusCode};
use warp::path::FullPath;
use warp::reply::Response;
use warp::ws::Ws;
use warp::{Filter, Reply};

use super::payload::{Payload, Unread};
use crate::config::PublicUrl;

use super::{Arrival, Mount, Routes, form, table};

/// What is taken of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bodies {
    pub limit_bytes: usize,
    /// From the first look at it until its last byte.
    pub deadline: Duration,
}

impl Default for Bodies {
    fn default() -> Self {
        Self { limit_bytes: 1 << 20, deadline: Duration::from_secs(30) }
    }
}

pub struct Ask {
    pub method: Method,
    /// As it was sent, less the mount's prefix; begins with a slash.
    pub path: String,
    pub query: Option<String>,
    pub headers: HeaderMap,
    /// `None` when no listener of ours took the request.
    pub arrival: Option<Arrival>,
    mount: Option<Mount>,
    bodies: Bodies,
    payload: Payload,
    ws: Option<Ws>,
}

impl Ask {
    /// See [`table::segments`].
    pub fn segments(&self) -> Option<Vec<String>> {
        table::segments(&self.path)
    }

    /// The last value of a key of the query, decoded.
    pub fn query(&self, key: &str) -> Option<String> {
        form::last(self.query.as_deref()?, key).map(std::borrow::Cow::into_owned)
    }

    /// The body, once; empty when there is none.
    pub async fn body(&self) -> Result<Bytes, Unread> {
        self.payload.read(self.bodies.limit_bytes, self.bodies.deadline).await
    }

    pub fn peer(&self) -> Option<IpAddr> {
        self.arrival.as_ref().map(|arrival| arrival.peer.ip())
    }

    /// The WebSocket that the client asks for, once.
    pub fn upgrade(&mut self) -> Option<Ws> {
        self.ws.take()
    }

    /// Where the client finds the mount, as the operator says, or else by its own account: `http://host:port/prefix`, without a
    /// slash at the end.
    pub fn base(&self) -> String {
        let own = || {
            let host = self.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
            (self.arrival.as_ref().is_some_and(|arrival| arrival.tls), host)
        };
        let (secure, host) = self.public_url().map_or_else(own, |public| (public.secure, &public.host));
        let scheme = if secure { "https" } else { "http" };
        format!("{scheme}://{host}{}", self.prefix())
    }

    /// The path of [`Ask::base`]: empty, or with a slash at its beginning alone.
    pub fn prefix(&self) -> String {
        let path = self.public_url().map_or("", |public| &public.path);
        format!("{path}{}", self.mount.as_ref().map_or("", Mount::prefix))
    }

    /// As in [`Mount::public_url`].
    pub fn public_url(&self) -> Option<&PublicUrl> {
        self.mount.as_ref().and_then(Mount::public_url)
    }
}

/// Answers every request by `answer`. One that panics is a 500 without a body.
pub fn serve<F, A>(bodies: Bodies, answer: A) -> Routes
where
    A: Fn(Ask) -> F + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let answer = Arc::new(answer);
    let query = warp::query::raw().map(Some).or(warp::any().map(|| None)).unify();
    let ws = warp::ws().map(Some).or(warp::any().map(|| None)).unify();
    warp::path::full()
        .and(warp::method())
        .and(warp::header::headers_cloned())
        .and(query)
        .and(warp::ext::optional::<Arrival>())
        .and(warp::ext::optional::<Mount>())
        .and(ws)
        .and(warp::body::stream())
        .then(move |path: FullPath, method, headers: HeaderMap, query, arrival, mount, ws: Option<Ws>, stream| {
            let payload = Payload::new(&headers, stream);
            let ask = Ask {
                method,
                path: path.as_str().to_owned(),
                query,
                headers,
                arrival,
                mount,
                bodies,
                payload: payload.clone(),
                ws,
            };
            let answer = Arc::clone(&answer);
            async move {
                let answered = AssertUnwindSafe(async { answer(ask).await }).catch_unwind().await;
                let mut response = answered.unwrap_or_else(|_| {
                    tracing::error!("a handler panicked");
                    StatusCode::INTERNAL_SERVER_ERROR.into_response()
                });
                payload.settle(response.headers_mut()).await;
                response
            }
        })
        .boxed()
}

/// Whether these headers ask for a WebSocket.
pub fn wants_web_socket(headers: &HeaderMap) -> bool {
    let has = |name, word: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value: &str| value.split(',').any(|token| token.trim().eq_ignore_ascii_case(word)))
    };
    has(UPGRADE, "websocket") && has(CONNECTION, "upgrade")
}
