//! The body of a request: read only when a handler asks, within a limit and a deadline, and never left lying in the
//! connection, where it would be taken for the next request.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use tokio::time::{Instant, timeout_at};
use warp::Buf;
use warp::http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use warp::http::{HeaderMap, HeaderValue};

type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, warp::Error>> + Send>>;

/// How much of a body that nobody wanted is read away, and for how long, so that the connection can be kept and the
/// client, which may write before it reads, gets to see the answer.
const DRAIN_BYTES: usize = 4 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// Shared by a handler, which may read it, and the front, which clears away what the handler left.
#[derive(Clone)]
pub(super) struct Payload {
    /// `None`: the request has no body.
    state: Option<Arc<Mutex<State>>>,
    declared: Option<usize>,
    /// The client waits for `100 Continue`, which is sent at the first look at the body.
    awaits_continue: bool,
}

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// In bytes.
    TooLarge {
        limit: usize,
    },
    Slow {
        after: Duration,
    },
    BrokeOff,
}

enum State {
    Unread(Chunks),
    Read,
    /// It broke off or took too long: nothing more can be read from the connection.
    Broken,
}

impl Payload {
    pub(super) fn new<S, B>(headers: &HeaderMap, stream: S) -> Self
    where
        S: Stream<Item = Result<B, warp::Error>> + Send + 'static,
        B: Buf,
    {
        let declared = headers.get(CONTENT_LENGTH).and_then(|n| n.to_str().ok()?.parse().ok());
        if declared.unwrap_or(0) == 0 && !headers.contains_key(TRANSFER_ENCODING) {
            return Self { state: None, declared: None, awaits_continue: false };
        }
        let chunks = stream.map(|chunk| chunk.map(|mut buf| buf.copy_to_bytes(buf.remaining())));
        let awaits_continue = headers.get(EXPECT).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        Self { state: Some(Arc::new(Mutex::new(State::Unread(Box::pin(chunks))))), declared, awaits_continue }
    }

    /// The whole body; empty when there is none or it was read before. `limit` in bytes.
    pub(super) async fn read(&self, limit: usize, deadline: Duration) -> Result<Bytes, Unread> {
        if self.declared.is_some_and(|n| n > limit) {
            return Err(Unread::TooLarge { limit });
        }
        let State::Unread(mut chunks) = self.replace(State::Read) else { return Ok(Bytes::new()) };
        let mut body = BytesMut::with_capacity(self.declared.unwrap_or(0));
        let end = Instant::now() + deadline;
        loop {
            match timeout_at(end, chunks.next()).await {
                Ok(Some(Ok(chunk))) if body.len() + chunk.len() > limit => {
                    self.replace(State::Unread(chunks));
                    return Err(Unread::TooLarge { limit });
                }
                Ok(Some(Ok(chunk))) => body.extend_from_slice(&chunk),
                Ok(None) => return Ok(body.freeze()),
                Ok(Some(Err(_))) => {
                    self.replace(State::Broken);
                    return Err(Unread::BrokeOff);
                }
                Err(_) => {
                    self.replace(State::Broken);
                    return Err(Unread::Slow { after: deadline });
                }
            }
        }
    }

    /// Before the answer goes out: reads away what is left, or says that the connection closes.
    pub(super) async fn settle(&self, answer: &mut HeaderMap) {
        let clear = match self.replace(State::Read) {
            State::Read => true,
            State::Broken => false,
            State::Unread(_) if self.awaits_continue => false,
            State::Unread(chunks) => drain(chunks).await,
        };
        if !clear {
            answer.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }

    fn replace(&self, state: State) -> State {
        match &self.state {
            Some(shared) => std::mem::replace(&mut *shared.lock().unwrap_or_else(PoisonError::into_inner), state),
            None => State::Read,
        }
    }
}

/// Whether the end was reached.
async fn drain(mut chunks: Chunks) -> bool {
    let end = Instant::now() + DRAIN_TIME;
    let mut seen = 0;
    loop {
        match timeout_at(end, chunks.next()).await {
            Ok(Some(Ok(chunk))) if seen + chunk.len() <= DRAIN_BYTES => seen += chunk.len(),
            Ok(None) => return true,
            _ => return false,
        }
    }
}
