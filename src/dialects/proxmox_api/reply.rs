//! What is answered: JSON, or plain text that says it is HTML, as Express sent it.

use serde::Serialize;
use warp::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CONTENT_TYPE,
    HeaderName, X_CONTENT_TYPE_OPTIONS, X_DNS_PREFETCH_CONTROL, X_FRAME_OPTIONS, X_XSS_PROTECTION,
};
use warp::http::{HeaderMap, HeaderValue, StatusCode};
use warp::reply::Response;

use super::failure::Failure;
use crate::error::Error;

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

#[derive(Debug)]
pub(super) struct Reply {
    content_type: HeaderValue,
    body: String,
    allow: Option<String>,
}

impl Reply {
    pub(super) fn text(body: impl Into<String>) -> Self {
        Self { content_type: HTML, body: body.into(), allow: None }
    }

    /// `OK`.
    pub(super) fn done() -> Self {
        Self::text("OK")
    }

    pub(super) fn json(value: &impl Serialize) -> Result<Self, Failure> {
        let body = serde_json::to_string(value);
        let body = body.map_err(|why| Error::internal("an answer is no JSON").caused_by(why))?;
        Ok(Self { content_type: JSON, body, allow: None })
    }

    /// A value that is JSON already.
    pub(super) fn value(value: &serde_json::Value) -> Self {
        Self { content_type: JSON, body: value.to_string(), allow: None }
    }

    pub(super) fn allowing(mut self, methods: String) -> Self {
        self.allow = Some(methods);
        self
    }

    pub(super) fn into_response(self) -> Response {
        self.with_status(StatusCode::OK)
    }

    pub(super) fn with_status(self, status: StatusCode) -> Response {
        let mut response = Response::new(self.body.into());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, self.content_type);
        if let Some(allow) = self.allow.and_then(|allow| HeaderValue::try_from(allow).ok()) {
            headers.insert(ALLOW, allow);
        }
        response
    }
}

/// The headers of every answer. That any page may read it says nothing of whether it gets one: the door does.
pub(super) fn dress(headers: &mut HeaderMap) {
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "Origin, X-Requested-With, Content-Type, Accept"),
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, DELETE, OPTIONS, REPORT"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "SAMEORIGIN"),
        (X_DNS_PREFETCH_CONTROL, "off"),
        (X_XSS_PROTECTION, "1; mode=block"),
        (HeaderName::from_static("x-download-options"), "noopen"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
