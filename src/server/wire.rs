//! The bytes of one connection, between hyper and the socket. Two things happen here that hyper has no setting for: a
//! client that does not take its answer is given up, and the empty answers that hyper makes by itself become ours.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;

use super::refuser::Refuser;
use super::traffic::Held;

/// Who reads less of an answer than this within the write time-out does not read it.
const STRIDE: usize = 16 << 10;
/// How long a client that was refused may go on sending. It is listened to, because closing on what it sends would
/// destroy the answer before it is read.
const LINGER: Duration = Duration::from_secs(2);

pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin + Send {
    fn tcp(&self) -> &TcpStream;
}

impl Socket for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Socket for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Whose answer is being written. hyper answers by itself only what it cannot read, and it reads a request's head only
/// after the answer before it was flushed: so what it writes while no request has come is its own.
#[derive(Debug, Default)]
pub(super) struct Stage(AtomicU8);

impl Stage {
    const IDLE: u8 = 0;
    /// A request has come, and its answer is not yet complete.
    const ANSWERING: u8 = 1;
    /// hyper has all of the answer, and the socket perhaps not.
    const ENDED: u8 = 2;
    /// The connection speaks another protocol from here on, and hyper is out of it.
    const HANDED_OVER: u8 = 3;

    /// A request goes to the routes; its answer ends with [`Answer`].
    pub(super) fn request(&self) {
        self.0.store(Self::ANSWERING, Ordering::Relaxed);
    }

    /// The answer, which is to come, is the last one.
    pub(super) fn hand_over(&self) {
        self.0.store(Self::HANDED_OVER, Ordering::Relaxed);
    }

    fn answered(&self) {
        self.step(Self::ANSWERING, Self::ENDED);
    }

    fn flushed(&self) {
        self.step(Self::ENDED, Self::IDLE);
    }

    fn step(&self, from: u8, to: u8) {
        // In another stage it does not matter.
        self.0.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).ok();
    }

    fn is_idle(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::IDLE
    }
}

/// The body of an answer of ours; tells the wire when hyper has taken all of it.
pub(super) struct Answer<B> {
    pub(super) body: B,
    pub(super) stage: Arc<Stage>,
}

impl<B> Drop for Answer<B> {
    fn drop(&mut self) {
        self.stage.answered();
    }
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

pub(super) struct Wire {
    socket: Box<dyn Socket>,
    peer: SocketAddr,
    stage: Arc<Stage>,
    refuser: Arc<Refuser>,
    write_timeout: Duration,
    /// Runs while the client keeps us waiting.
    writing: Option<Pin<Box<Sleep>>>,
    /// Bytes that went out since it runs.
    taken: usize,
    /// What is left of the answer that stands for hyper's.
    own: Option<Bytes>,
    /// Runs once no more is sent to a client that was refused.
    lingering: Option<Pin<Box<Sleep>>>,
    /// What it takes among all connections; whoever it is handed over to holds that, too.
    _place: Option<Place>,
}

/// The slot of a connection, and its one in the count.
pub(super) type Place = (OwnedSemaphorePermit, Held);

impl Wire {
    pub(super) fn new(
        socket: Box<dyn Socket>,
        peer: SocketAddr,
        stage: Arc<Stage>,
        refuser: Arc<Refuser>,
        write_timeout: Duration,
    ) -> Self {
        let (writing, own, lingering) = (None, None, None);
        Self { socket, peer, stage, refuser, write_timeout, writing, taken: 0, own, lingering, _place: None }
    }

    /// Holds it until the connection has ended.
    pub(super) fn in_place(mut self, place: Place) -> Self {
        self._place = Some(place);
        self
    }

    /// Sends this and closes.
    pub(super) async fn refuse(mut self, answer: Bytes) -> io::Result<()> {
        self.own = Some(answer);
        poll_fn(|cx| self.poll_own(cx)).await?;
        self.shutdown().await
    }

    /// What hyper writes is given up for an answer of ours with the same status.
    fn poll_replace(&mut self, cx: &mut Context<'_>, hypers: &[u8], len: usize) -> Poll<io::Result<usize>> {
        if self.own.is_none() {
            self.own = Some(self.refuser.instead_of(hypers, self.peer));
        }
        self.poll_own(cx).map_ok(|()| len)
    }

    fn poll_own(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(own) = self.own.as_mut().filter(|own| own.has_remaining()) {
            let written = Pin::new(&mut self.socket).poll_write(cx, own);
            match written {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => own.advance(n),
                other => return self.patiently(cx, other.map_ok(drop)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn count(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let (Poll::Ready(Ok(n)), true) = (&written, self.writing.is_some()) {
            self.taken = self.taken.saturating_add(*n);
            if self.taken >= STRIDE {
                self.writing = None;
            }
        }
        self.patiently(cx, written)
    }

    /// An error in place of waiting for ever.
    fn patiently<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            return outcome;
        }
        if self.writing.is_none() {
            self.taken = 0;
        }
        let limit = self.write_timeout;
        let timer = self.writing.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(timer.as_mut().poll(cx));
        // Or the kernel would go on offering it what is left.
        let reset = self.socket.tcp().set_zero_linger();
        let why = io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer");
        Poll::Ready(Err(reset.err().unwrap_or(why)))
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.lingering.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        let mut scrap = [0; 4096];
        while timer.as_mut().poll(cx).is_pending() {
            let mut buf = ReadBuf::new(&mut scrap);
            let read = ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buf));
            if read.is_err() || buf.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(())
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.stage.is_idle() {
            return self.poll_replace(cx, buf, buf.len());
        }
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.count(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.stage.is_idle() {
            let hypers = bufs.first().map_or(&[][..], |buf| buf);
            return self.poll_replace(cx, hypers, bufs.iter().map(|buf| buf.len()).sum());
        }
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.count(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// hyper flushes when it has nothing left to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        ready!(self.patiently(cx, flushed))?;
        self.writing = None;
        self.stage.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            let shut = Pin::new(&mut self.socket).poll_shutdown(cx);
            ready!(self.patiently(cx, shut))?;
        }
        if self.own.is_some() {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
