//! VirtDancer's REST API: VMs with four power buttons, statistics for charts, and their screens, behind HTTP's Basic login.
//!
//! As the original answers, but for what `docs/compatibility.md` says. Its two user interfaces are files of the operator's.

mod console;
mod failure;
mod front;
mod stats;
mod vms;

pub use front::{TABLE, mount};

use failure::Failure;
use serde::Serialize;
use warp::http::HeaderValue;
use warp::http::header::CONTENT_TYPE;
use warp::reply::Response;

use crate::error::Error;

/// 200.
fn json(view: &impl Serialize) -> Result<Response, Failure> {
    let text = serde_json::to_string(view).map_err(|e| Error::internal("an answer is no JSON").caused_by(e))?;
    Ok(document(text))
}

fn document(text: String) -> Response {
    let mut response = Response::new(text.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
