//! What every request gets before the routes see it, and every answer after: a request id, the peer's address, one
//! line in the log.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::Version;
use hyper::body::Incoming;
use hyper::header::{HOST, UPGRADE};
use hyper::service::Service;
use warp::http::{HeaderName, HeaderValue, Request};
use warp::reply::Response;

use crate::dialects::{Arrival, RequestId, Stopping, User};
use crate::model::{Ids, RandomIds};

use super::mounts::Mounts;
use super::traffic::Pending;

/// Request ids for clients that bring none: unique over runs of the server, and in order within one.
#[derive(Debug)]
pub(super) struct RequestIds {
    run: u32,
    next: AtomicU64,
}

impl RequestIds {
    pub(super) fn new() -> Self {
        Self { run: RandomIds.uuid().as_fields().0, next: AtomicU64::new(0) }
    }

    pub(super) fn make(&self) -> Option<RequestId> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        RequestId::new(HeaderValue::from_str(&format!("{:08x}-{number:x}", self.run)).ok()?)
    }
}

/// What is known of a request before it is looked at.
pub(super) struct Arrived<'a> {
    pub(super) ids: &'a RequestIds,
    pub(super) pending: Pending,
    pub(super) peer: SocketAddr,
    pub(super) tls: bool,
    pub(super) stopping: Stopping,
}

pub(super) fn answer(
    mounts: &Mounts,
    arrived: Arrived<'_>,
    mut request: Request<Incoming>,
) -> impl Future<Output = Result<Response, Infallible>> + Send + 'static {
    let Arrived { ids, pending, peer, tls, stopping } = arrived;
    let brought = request.headers().get(RequestId::HEADER).cloned().and_then(RequestId::new);
    let id = brought.or_else(|| ids.make());
    if let Some(id) = &id {
        request.extensions_mut().insert(Arrival { id: id.clone(), peer, tls, stopping });
    }
    // A request line with an authority overrides Host (RFC 9112, 3.2.2); so there is one place to look.
    if let Some(host) = request.uri().authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok()) {
        request.headers_mut().insert(HOST, host);
    }
    // What HTTP/1.0 asks for cannot be had, and would be promised.
    if request.version() < Version::HTTP_11 {
        request.headers_mut().remove(UPGRADE);
    }
    let method = request.method().clone();
    let line = request.uri().clone();
    let answering = mounts.call(request);
    async move {
        let mut response = answering.await?;
        let status = response.status().as_u16();
        let duration_ms = pending.answered(&method, &response).as_secs_f64() * 1000.0;
        let request = id.as_ref().map_or("", RequestId::as_str);
        // Never the query: a client may have put a secret there.
        let path = line.path();
        let user = response.extensions().get::<User>().map_or("", |User(name)| name);
        if method.is_safe() {
            tracing::debug!(request, %peer, user, %method, path, status, duration_ms, "answered");
        } else {
            tracing::info!(request, %peer, user, %method, path, status, duration_ms, "answered");
        }
        if let Some(id) = &id {
            response.headers_mut().insert(HeaderName::from_static(RequestId::HEADER), id.header());
        }
        Ok(response)
    }
}
