//! What a site may choose about the native API.

use std::time::Duration;

use warp::http::HeaderValue;

use super::style::Style;
use crate::config::PublicUrl;
use crate::dialects::console;

/// Which of the two shapes an answer has where the manual's v1 and v2 differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    V1,
    V2,
}

/// A place where the whole tree is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    /// Without the first slash and with the last: `api/v1/`; empty at the root.
    pub(super) path: String,
    pub(super) shape: Shape,
}

impl Prefix {
    /// From `/api/v1` or the empty text. The last segment `v1` makes the shape v1.
    pub fn new(path: &str) -> Self {
        let bare = path.trim_matches('/');
        let shape = if bare.rsplit('/').next() == Some("v1") { Shape::V1 } else { Shape::V2 };
        let path = if bare.is_empty() { String::new() } else { format!("{bare}/") };
        Self { path, shape }
    }
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub prefixes: Vec<Prefix>,
    /// The `Content-Type` of every answer.
    pub content_type: HeaderValue,
    /// The words of `<result>`.
    pub success: String,
    pub failure: String,
    pub style: Style,
    /// In bytes; a larger body is a 413.
    pub body_limit: usize,
    /// From the first look at a body until its last byte.
    pub body_deadline: Duration,
    /// The longest that `?wait` waits.
    pub wait_limit: Duration,
    /// Origins of web pages that may change things.
    pub allowed_origins: Vec<String>,
    /// Where clients find us, in place of what they say themselves.
    pub public_url: Option<PublicUrl>,
    /// With those who look at screens.
    pub console: console::Pace,
}

impl Default for Settings {
    fn default() -> Self {
        let prefixes = ["", "/api", "/api/v1", "/api/v2", "/apiv2", "/v1", "/v2"];
        Self {
            prefixes: prefixes.map(Prefix::new).to_vec(),
            content_type: HeaderValue::from_static("application/xml; charset=utf-8"),
            success: "success".to_owned(),
            failure: "failure".to_owned(),
            style: Style::default(),
            body_limit: 1 << 20,
            body_deadline: Duration::from_secs(30),
            wait_limit: Duration::from_secs(60),
            allowed_origins: Vec::new(),
            public_url: None,
            console: console::Pace::default(),
        }
    }
}
