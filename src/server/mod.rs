//! The listener: takes connections within limits, keeps slow and silent clients from holding them, and stops in order.
//!
//! HTTP/1 only, on purpose: the library's detection of HTTP/2 waits for a client's first bytes without a deadline.

mod connection;
mod descriptors;
mod mounts;
mod refuser;
mod tls;
mod traffic;
mod wire;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::dialects::{Refusal, Stopping};
use connection::RequestIds;
use refuser::Refuser;
use wire::{Answer, Socket, Stage, Wire};

pub use descriptors::raise as raise_descriptors;
pub use mounts::Mounts;
pub use tls::Tls;
pub use traffic::Traffic;

/// What clients connect to.
pub struct Listener {
    pub socket: TcpListener,
    /// `None`: plain HTTP.
    pub tls: Option<Tls>,
    pub limits: Limits,
    pub traffic: Traffic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// At a time; a further one is refused at once.
    pub connections: usize,
    /// Of TLS: from the connection's start to the end of the handshake.
    pub handshake_timeout: Duration,
    /// From the end of one request, or from the connection's start, to the end of the next one's headers.
    pub header_timeout: Duration,
    /// Of a request's line and headers, in bytes, at least 8 KiB. Not exact: hyper looks between two reads, and each may
    /// bring as much again.
    pub header_bytes: usize,
    /// A client that takes less than 16 KiB of a waiting answer in this time is cut.
    pub write_timeout: Duration,
    /// How long requests in flight may go on after the stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1000,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(15),
            header_bytes: 64 << 10,
            write_timeout: Duration::from_secs(30),
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
/// Refusals under way at a time; beyond them a connection above the limit is closed without a word.
const REFUSALS: usize = 64;
/// The log says at most so often that connections are refused.
const COMPLAINT: Duration = Duration::from_secs(10);

/// What all connections share.
struct Edge {
    http: http1::Builder,
    mounts: Mounts,
    ids: Arc<RequestIds>,
    refuser: Arc<Refuser>,
    tls: Option<Tls>,
    limits: Limits,
    traffic: Traffic,
}

/// Serves until `shutdown` ends; then takes no new connection, lets requests in flight end, and cuts what remains.
pub async fn serve(listener: Listener, mounts: impl Into<Mounts>, refusal: Refusal, shutdown: impl Future) -> Stopped {
    let Listener { socket, tls, limits, traffic } = listener;
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.header_bytes.max(8192));
    let ids = Arc::new(RequestIds::new());
    let refuser =
        Refuser { refusal, ids: Arc::clone(&ids), header_bytes: limits.header_bytes, connections: limits.connections };
    let mounts = mounts.into();
    let edge = Arc::new(Edge { http, mounts, ids, refuser: Arc::new(refuser), tls, limits, traffic });
    let slots = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
    let (stop, _) = watch::channel(());
    let (mut connections, mut refusals) = (JoinSet::new(), JoinSet::new());
    let mut complained: Option<Instant> = None;
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            _ = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            Some(_) = refusals.join_next() => continue,
            accepted = accept(&socket) => accepted,
        };
        let Some((stream, peer)) = accepted else { continue };
        if let Ok(slot) = Arc::clone(&slots).try_acquire_owned() {
            connections.spawn(Arc::clone(&edge).converse(stream, peer, slot, stop.subscribe()));
            continue;
        }
        if complained.is_none_or(|at| at.elapsed() > COMPLAINT) {
            complained = Some(Instant::now());
            tracing::warn!(%peer, limit = limits.connections, "limits.connections is reached; connections are refused");
        }
        // Over TLS a refusal would cost a handshake.
        if edge.tls.is_none() && refusals.len() < REFUSALS {
            refusals.spawn(Arc::clone(&edge).refuse(stream, peer));
        }
    }
    drop(socket);
    stop.send_replace(());
    if timeout(limits.drain, stop.closed()).await.is_ok() {
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

/// Dropping the future loses no connection.
async fn accept(socket: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    match socket.accept().await {
        Ok((stream, peer)) => {
            if let Err(e) = stream.set_nodelay(true) {
                tracing::debug!(%peer, error = %e, "TCP_NODELAY was not set");
            }
            Some((stream, peer))
        }
        Err(e) => {
            tracing::warn!(error = %e, "no connection could be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

impl Edge {
    /// One connection, from its handshake to its end.
    async fn converse(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        slot: OwnedSemaphorePermit,
        mut stopping: watch::Receiver<()>,
    ) {
        let place = (slot, self.traffic.connection());
        let opened = tokio::select! {
            opened = self.open(stream, peer) => opened,
            _ = stopping.changed() => None,
        };
        let Some(socket) = opened else { return };
        let stage = Arc::new(Stage::default());
        let refuser = Arc::clone(&self.refuser);
        let wire = Wire::new(socket, peer, Arc::clone(&stage), refuser, self.limits.write_timeout).in_place(place);
        let later = Stopping::new(stopping.clone());
        let service = service_fn(|request| {
            stage.request();
            let arrived = connection::Arrived {
                ids: &self.ids,
                pending: self.traffic.request(),
                peer,
                tls: self.tls.is_some(),
                stopping: later.clone(),
            };
            let answer = connection::answer(&self.mounts, arrived, request);
            let stage = Arc::clone(&stage);
            async move {
                answer.await.map(|response| {
                    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                        stage.hand_over();
                    }
                    response.map(|body| Answer { body, stage })
                })
            }
        });
        // Whoever takes an upgraded connection over ends it by itself when we stop.
        let mut connection = pin!(self.http.serve_connection(TokioIo::new(wire), service).with_upgrades());
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            _ = stopping.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(e) = ended {
            tracing::debug!(%peer, error = %e, "connection ended");
        }
    }

    /// `None`: there was no handshake.
    async fn open(&self, stream: TcpStream, peer: SocketAddr) -> Option<Box<dyn Socket>> {
        let Some(tls) = &self.tls else { return Some(Box::new(stream)) };
        match timeout(self.limits.handshake_timeout, tls.acceptor().accept(stream)).await {
            Ok(Ok(stream)) => return Some(Box::new(stream)),
            Ok(Err(e)) => tracing::debug!(%peer, error = %e, "no TLS handshake"),
            Err(_) => tracing::debug!(%peer, "no TLS handshake in time"),
        }
        None
    }

    async fn refuse(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let refuser = Arc::clone(&self.refuser);
        let answer = refuser.no_place(peer);
        let wire = Wire::new(Box::new(stream), peer, Arc::default(), refuser, self.limits.write_timeout);
        if let Err(e) = wire.refuse(answer).await {
            tracing::debug!(%peer, error = %e, "refusal ended");
        }
    }
}
