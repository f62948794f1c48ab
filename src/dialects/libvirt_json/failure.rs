//! What a request can fail with, and the bodies that FastAPI gives it.

use serde::Serialize;
use warp::http::header::ALLOW;
use warp::http::{HeaderValue, StatusCode};
use warp::reply::Response;

use super::reply;
use crate::error::{Error, ErrorKind};

#[derive(Debug)]
pub(super) enum Failure {
    Core(Error),
    /// Nothing is served at this path.
    UnknownPath,
    /// The endpoint is there, and takes this method alone.
    Method(&'static str),
    /// The operator has the endpoint answer this.
    Disabled(StatusCode),
    /// No VM has this name; also where one has no picture.
    NoVm(String),
    /// No list of VMs is of this type.
    NoType(String),
    /// A parameter that must be there.
    Missing(&'static str),
    NotAnInteger {
        parameter: &'static str,
        text: String,
    },
    /// Power is not to be had here.
    NoPower,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

#[derive(Serialize)]
struct Body<T> {
    detail: T,
}

/// What is wrong with one parameter, as pydantic says it.
#[derive(Serialize)]
struct Item<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    loc: [&'static str; 2],
    msg: &'static str,
    input: Option<&'a str>,
}

impl Failure {
    /// The response; and the only log line of the failure. `request` names it in the log.
    pub(super) fn into_response(self, request: &str) -> Response {
        let status = self.status();
        match &self {
            Self::Core(error) if status.is_server_error() => {
                tracing::error!(request, status = status.as_u16(), error = %error.story(), "request failed");
            }
            Self::Core(error) => {
                tracing::debug!(request, status = status.as_u16(), error = %error.story(), "request refused");
            }
            other => tracing::debug!(request, status = status.as_u16(), error = ?other, "request refused"),
        }
        let item = |kind, parameter, msg, input| {
            reply::json(status, &Body { detail: [Item { kind, loc: ["query", parameter], msg, input }] })
        };
        match &self {
            Self::Missing(parameter) => item("missing", *parameter, "Field required", None),
            Self::NotAnInteger { parameter, text } => item(
                "int_parsing",
                *parameter,
                "Input should be a valid integer, unable to parse string as an integer",
                Some(text.as_str()),
            ),
            _ => {
                let mut response = detail(status, &self.sentence());
                if let Self::Method(only) = self {
                    response.headers_mut().insert(ALLOW, HeaderValue::from_static(only));
                }
                response
            }
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Core(error) => core_status(error.kind()),
            Self::UnknownPath | Self::NoType(_) => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Disabled(status) => *status,
            Self::NoVm(_) => StatusCode::BAD_REQUEST,
            Self::Missing(_) | Self::NotAnInteger { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NoPower => StatusCode::FORBIDDEN,
        }
    }

    fn sentence(&self) -> String {
        match self {
            Self::Core(error) if !self.status().is_server_error() => error.to_string(),
            Self::NoVm(name) => format!("No VM named {name}"),
            Self::NoType(text) => format!("No such type {text}"),
            Self::NoPower => "this server starts and stops no VM through this API; see allow_power".to_owned(),
            // What went wrong behind it, the log says.
            _ => self.status().canonical_reason().unwrap_or_default().to_owned(),
        }
    }
}

/// A body with one sentence.
pub(super) fn detail(status: StatusCode, sentence: &str) -> Response {
    reply::json(status, &Body { detail: sentence })
}

/// The contract knows no status of its own for what the hypervisor, a storage or the database refuse.
fn core_status(kind: &ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::NotFound { .. } => StatusCode::NOT_FOUND,
        ErrorKind::Invalid { .. }
        | ErrorKind::Exists { .. }
        | ErrorKind::InUse { .. }
        | ErrorKind::WrongState { .. }
        | ErrorKind::Busy { .. }
        | ErrorKind::Unsupported { .. }
        | ErrorKind::Cancelled { .. } => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden { .. } => StatusCode::FORBIDDEN,
        ErrorKind::NoSpace { .. }
        | ErrorKind::Refused { .. }
        | ErrorKind::Timeout { .. }
        | ErrorKind::Unavailable { .. }
        | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
