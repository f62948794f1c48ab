//! What a request can fail with, as Dancer and libvirt's Perl binding say it.

use serde::Serialize;
use warp::http::header::{CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use warp::http::{HeaderValue, StatusCode};
use warp::reply::Response;

use super::document;
use crate::dialects::RequestId;
use crate::dialects::payload::Unread;
use crate::error::{Error, ErrorKind};
use crate::model::PowerState;

#[derive(Debug)]
pub(super) enum Failure {
    Core(Error),
    /// Nothing is there, or not for this method.
    NoSuchPath,
    BadUuid(String),
    UnknownAction(String),
    BadBody(String),
    Unread(Unread),
    /// A web page of another site may be behind it.
    CrossSite,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

impl From<Unread> for Failure {
    fn from(unread: Unread) -> Self {
        Self::Unread(unread)
    }
}

#[derive(Serialize)]
struct Told<'a> {
    title: String,
    status: u16,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exception: Option<String>,
}

/// What the error object says besides its status.
#[derive(Debug, PartialEq, Eq)]
enum Says {
    Message(String),
    /// Dancer's 500: the message is empty.
    Exception(String),
    /// 401 has no object.
    Nothing,
}

impl Failure {
    /// The response to a request for `path`; and the only log line of the failure.
    pub(super) fn into_response(self, path: &str, id: Option<&RequestId>) -> Response {
        let (status, says) = self.told(path);
        self.log(status, id);
        let (message, exception) = match says {
            Says::Nothing => return login(),
            Says::Message(text) => (text, None),
            Says::Exception(text) => (String::new(), Some(text + "\n")),
        };
        let reason = status.canonical_reason().unwrap_or_default();
        let title = format!("Error {} - {reason}", status.as_u16());
        let told = Told { title, status: status.as_u16(), message: &message, exception };
        // Strings and numbers are always JSON.
        let mut response = document(serde_json::to_string(&told).unwrap_or_default());
        *response.status_mut() = status;
        response
    }

    fn told(&self, path: &str) -> (StatusCode, Says) {
        let message = |status, text: &str| (status, Says::Message(text.to_owned()));
        let exception = |text| (StatusCode::INTERNAL_SERVER_ERROR, Says::Exception(text));
        match self {
            Self::Core(error) => core(error, path),
            Self::NoSuchPath => message(StatusCode::NOT_FOUND, path),
            Self::BadUuid(text) => exception(libvirt(8, "invalid argument", format!("malformed uuid {text:?}"))),
            Self::UnknownAction(text) => {
                exception(format!("Unknown action \"{text}\"; it is one of start, pause, shutdown and destroy"))
            }
            Self::BadBody(why) => message(StatusCode::BAD_REQUEST, &format!("Failed to deserialize content: {why}")),
            Self::Unread(Unread::TooLarge { limit }) => {
                message(StatusCode::PAYLOAD_TOO_LARGE, &format!("the body is larger than {limit} bytes"))
            }
            Self::Unread(Unread::Slow { after }) => {
                let text = format!("the body did not arrive within {} s", after.as_secs_f32());
                message(StatusCode::REQUEST_TIMEOUT, &text)
            }
            Self::Unread(Unread::BrokeOff) => {
                message(StatusCode::BAD_REQUEST, "Failed to deserialize content: it broke off")
            }
            Self::CrossSite => message(StatusCode::FORBIDDEN, "Access denied to pages of other sites"),
        }
    }

    fn log(&self, status: StatusCode, id: Option<&RequestId>) {
        let request = id.map_or("", RequestId::as_str);
        let status = status.as_u16();
        match self {
            Self::Core(error) if matches!(error.kind(), ErrorKind::Internal | ErrorKind::Unavailable { .. }) => {
                tracing::error!(request, status, error = %error.story(), "request failed")
            }
            Self::Core(error) => tracing::debug!(request, status, error = %error.story(), "request refused"),
            other => tracing::debug!(request, status, error = ?other, "request refused"),
        }
    }
}

/// Each kind in the words of the original, where it had some.
fn core(error: &Error, path: &str) -> (StatusCode, Says) {
    let exception = |code, words| (StatusCode::INTERNAL_SERVER_ERROR, Says::Exception(libvirt(code, words, error)));
    match error.kind() {
        ErrorKind::NotFound { .. } => (StatusCode::NOT_FOUND, Says::Message(path.to_owned())),
        ErrorKind::Unauthenticated => (StatusCode::UNAUTHORIZED, Says::Nothing),
        ErrorKind::Forbidden { .. } => (StatusCode::FORBIDDEN, Says::Message("Access denied".to_owned())),
        ErrorKind::Unavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, Says::Message(error.to_string())),
        ErrorKind::WrongState { is, .. } => {
            let text = match is.parse() {
                Ok(PowerState::Running) => "domain is already running".to_owned(),
                Ok(PowerState::Paused) => "domain is paused".to_owned(),
                Ok(PowerState::Shutdown | PowerState::Crashed) => "domain is not running".to_owned(),
                Ok(PowerState::Unknown) | Err(_) => error.to_string(),
            };
            let text = libvirt(55, "Requested operation is not valid", &text);
            (StatusCode::INTERNAL_SERVER_ERROR, Says::Exception(text))
        }
        ErrorKind::InUse { .. } => exception(55, "Requested operation is not valid"),
        // What libvirt says of a domain with which somebody else is busy.
        ErrorKind::Busy { .. } | ErrorKind::Timeout { .. } => exception(68, "Timed out during operation"),
        ErrorKind::Invalid { .. } | ErrorKind::Exists { .. } => exception(8, "invalid argument"),
        ErrorKind::Unsupported { .. } => exception(84, "Operation not supported"),
        ErrorKind::NoSpace { .. } | ErrorKind::Refused { .. } => exception(9, "operation failed"),
        ErrorKind::Cancelled { .. } => exception(78, "operation aborted"),
        ErrorKind::Internal => exception(1, "internal error"),
    }
}

/// As `Sys::Virt::Error` prints itself.
fn libvirt(code: u32, words: &str, why: impl std::fmt::Display) -> String {
    format!("libvirt error code: {code}, message: {words}: {why}")
}

/// The browser asks its user.
fn login() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    let headers = response.headers_mut();
    headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"Please login\""));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::MiB;

    #[test]
    fn every_kind_is_told_as_the_original_tells_it() {
        let text = || "x".to_owned();
        let invalid = "libvirt error code: 55, message: Requested operation is not valid: ";
        for (error, status, says) in [
            (Error::not_found("vm", 1), 404, "/vm/1".to_owned()),
            (Error::new(ErrorKind::Unauthenticated), 401, String::new()),
            (Error::new(ErrorKind::Forbidden { what: text() }), 403, "Access denied".to_owned()),
            (Error::unavailable("the database"), 503, "the database does not answer".to_owned()),
            (Error::wrong_state("vm a", "RUNNING", "x"), 500, format!("{invalid}domain is already running")),
            (Error::wrong_state("vm a", "PAUSED", "x"), 500, format!("{invalid}domain is paused")),
            (Error::wrong_state("vm a", "SHUTDOWN", "x"), 500, format!("{invalid}domain is not running")),
            (Error::wrong_state("vm a", "CRASHED", "x"), 500, format!("{invalid}domain is not running")),
            (Error::wrong_state("vm a", "on pm b", "ask it"), 500, format!("{invalid}vm a is on pm b; ask it")),
            (Error::new(ErrorKind::InUse { what: text(), by: text() }), 500, format!("{invalid}x is in use by x")),
            (
                Error::new(ErrorKind::Busy { what: text(), by: text(), since: text() }),
                500,
                "libvirt error code: 68, message: Timed out during operation: x is busy: x since x".to_owned(),
            ),
            (
                Error::new(ErrorKind::Timeout { action: "it did not".to_owned(), after: Duration::from_secs(2) }),
                500,
                "libvirt error code: 68, message: Timed out during operation: it did not in 2 s".to_owned(),
            ),
            (
                Error::invalid("name", "is bad"),
                500,
                "libvirt error code: 8, message: invalid argument: name: is bad".to_owned(),
            ),
            (
                Error::new(ErrorKind::Unsupported { what: text(), by: text() }),
                500,
                "libvirt error code: 84, message: Operation not supported: x cannot x".to_owned(),
            ),
            (
                Error::new(ErrorKind::NoSpace { what: text(), need: MiB(2), free: MiB(1) }),
                500,
                "libvirt error code: 9, message: operation failed: \
                 x has too little room: 2 MiB needed, 1 MiB free"
                    .to_owned(),
            ),
            (
                Error::refused("the hypervisor", "no"),
                500,
                "libvirt error code: 9, message: operation failed: the hypervisor refused: no".to_owned(),
            ),
            (
                Error::new(ErrorKind::Cancelled { what: text() }),
                500,
                "libvirt error code: 78, message: operation aborted: x was cancelled".to_owned(),
            ),
        ] {
            let told = Failure::from(error).told("/vm/1");
            let expected = match status {
                401 => Says::Nothing,
                500 => Says::Exception(says),
                _ => Says::Message(says),
            };
            assert_eq!((told.0.as_u16(), told.1), (status, expected));
        }
    }

    #[test]
    fn a_failure_of_ours_tells_nothing() {
        let (status, says) = Failure::from(Error::internal("row 7 has no owner")).told("/");
        assert_eq!(status, 500);
        assert!(!format!("{says:?}").contains("row 7"), "{says:?}");
    }
}
