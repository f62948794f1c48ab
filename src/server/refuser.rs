//! Answers to what never becomes a request: what hyper cannot read, and connections above the limit.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use warp::http::StatusCode;

use super::connection::RequestIds;
use crate::dialects::{Refusal, RequestId};

/// Seconds after which a client that found no place may try again.
const RETRY_AFTER: u32 = 5;

pub(super) struct Refuser {
    pub(super) refusal: Refusal,
    pub(super) ids: Arc<RequestIds>,
    pub(super) header_bytes: usize,
    pub(super) connections: usize,
}

impl Refuser {
    /// The same status as hyper's answer, with a document. hyper closes after it.
    pub(super) fn instead_of(&self, hypers: &[u8], peer: SocketAddr) -> Bytes {
        let text = String::from_utf8_lossy(hypers);
        let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(StatusCode::BAD_REQUEST);
        let why = match status {
            StatusCode::URI_TOO_LONG => "the URI is longer than 65534 bytes".to_owned(),
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                format!("the headers are more than 100, or larger than {} bytes", self.header_bytes)
            }
            _ => "the request cannot be read: its first line or a header is not HTTP/1.1".to_owned(),
        };
        // Only a server's error may go without the time.
        let date = text.lines().find(|line| line.starts_with("date: ")).map(|line| format!("{line}\r\n"));
        self.answer(status, &why, &date.unwrap_or_default(), peer)
    }

    pub(super) fn no_place(&self, peer: SocketAddr) -> Bytes {
        let limit = self.connections;
        let why = format!("too many connections; the limit of {limit} is reached, try again in {RETRY_AFTER} s");
        self.answer(StatusCode::SERVICE_UNAVAILABLE, &why, &format!("retry-after: {RETRY_AFTER}\r\n"), peer)
    }

    fn answer(&self, status: StatusCode, why: &str, headers: &str, peer: SocketAddr) -> Bytes {
        let document = (self.refusal)(why);
        let id = self.ids.make();
        let request = id.as_ref().map_or("", RequestId::as_str);
        tracing::debug!(request, %peer, status = status.as_u16(), error = why, "refused");
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: close\r\n{}: {request}\r\n{headers}\r\n",
            document.content_type.to_str().unwrap_or_default(),
            document.text.len(),
            RequestId::HEADER,
        );
        (head + &document.text).into()
    }
}
