//! How an answer becomes a response.

use bytes::Bytes;
use serde::Serialize;
use warp::http::header::CONTENT_TYPE;
use warp::http::{HeaderValue, StatusCode};
use warp::reply::Response;

const JSON: &str = "application/json";

/// Compact, and without escapes where JSON needs none.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => body(status, HeaderValue::from_static(JSON), text),
        Err(why) => {
            tracing::error!(error = %why, "an answer is not to be written");
            let text = r#"{"detail":"Internal Server Error"}"#;
            body(StatusCode::INTERNAL_SERVER_ERROR, HeaderValue::from_static(JSON), text)
        }
    }
}

pub(super) fn ok(value: &impl Serialize) -> Response {
    json(StatusCode::OK, value)
}

pub(super) fn body(status: StatusCode, kind: HeaderValue, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(body.into().into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
