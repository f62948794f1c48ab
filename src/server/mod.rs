//! The listener: takes connections within limits, keeps slow and silent clients from holding them, and stops in order.
//!
//! HTTP/1 only, on purpose: the library's detection of HTTP/2 waits for a client's first bytes without a deadline.

mod connection;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::dialects::Routes;
use connection::RequestIds;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// At a time; further ones wait in the kernel's queue.
    pub connections: usize,
    /// From the end of one request, or from the connection's start, to the end of the next one's headers.
    pub header_timeout: Duration,
    /// Of a request's line and headers, in bytes, at least 8 KiB. Not exact: hyper looks between two reads, and each may
    /// bring as much again.
    pub header_bytes: usize,
    /// How long requests in flight may go on after the stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            header_timeout: Duration::from_secs(15),
            header_bytes: 64 << 10,
            drain: Duration::from_secs(10),
        }
    }
}

/// How a listener stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// Connections that were cut because they outlasted the drain.
    pub cut: usize,
}

/// How long to wait after a failure to accept, which mostly means that the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` ends; then takes no new connection, lets requests in flight end, and cuts what remains.
pub async fn serve(listener: TcpListener, routes: Routes, limits: Limits, shutdown: impl Future) -> Stopped {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.header_bytes.max(8192));
    let routes = TowerToHyperService::new(warp::service(routes));
    let ids = Arc::new(RequestIds::new());
    let slots = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            _ = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &slots) => accepted,
        };
        let Some((stream, peer, slot)) = accepted else { continue };
        let (routes, ids) = (routes.clone(), Arc::clone(&ids));
        let service = service_fn(move |request| connection::answer(routes.clone(), Arc::clone(&ids), peer, request));
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        connections.spawn(async move {
            if let Err(e) = connection.await {
                tracing::debug!(%peer, error = %e, "connection ended");
            }
            drop(slot);
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_ok() {
        return Stopped { cut: 0 };
    }
    let mut cut = 0;
    connections.abort_all();
    while let Some(ended) = connections.join_next().await {
        cut += usize::from(ended.is_err_and(|e| e.is_cancelled()));
    }
    tracing::warn!(cut, "connections outlasted the drain and were cut");
    Stopped { cut }
}

type Accepted = (tokio::net::TcpStream, std::net::SocketAddr, tokio::sync::OwnedSemaphorePermit);

/// A connection with its slot. Dropping the future loses neither.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> Option<Accepted> {
    // The semaphore is never closed.
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            if let Err(e) = stream.set_nodelay(true) {
                tracing::debug!(%peer, error = %e, "TCP_NODELAY was not set");
            }
            Some((stream, peer, slot))
        }
        Err(e) => {
            tracing::warn!(error = %e, "no connection could be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}
