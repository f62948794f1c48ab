//! What a request can fail with, and the one place that gives each failure its status.

use std::fmt;
use std::time::Duration;

use warp::http::header::{SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE};
use warp::http::{HeaderValue, Method, StatusCode};
use warp::reply::Response;

use super::{Settings, reply};
use crate::dialects::payload::Unread;
use crate::dialects::{Arrival, RequestId};
use crate::error::{Error, ErrorKind};

#[derive(Debug)]
pub enum Failure {
    Core(Error),
    /// Nothing is served at this path.
    UnknownUri,
    MethodNotAllowed {
        method: Method,
        allow: HeaderValue,
    },
    NotAcceptable,
    /// What is here is a WebSocket.
    UpgradeRequired,
    /// In bytes.
    TooLarge {
        limit: usize,
    },
    SlowBody {
        after: Duration,
    },
    UnsupportedMediaType {
        got: String,
    },
    BadBody {
        why: String,
    },
    /// A row of the contract that a later release brings.
    NotYet {
        method: Method,
        uri: &'static str,
    },
    /// A web page of another site may be behind it.
    CrossSite {
        why: &'static str,
    },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

impl From<Unread> for Failure {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::TooLarge { limit } => Self::TooLarge { limit },
            Unread::Slow { after } => Self::SlowBody { after },
            Unread::BrokeOff => Self::BadBody { why: "it broke off".to_owned() },
        }
    }
}

/// The sentence that the client reads.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Core(error) => error.fmt(f),
            Self::UnknownUri => f.write_str("there is nothing at this URI"),
            Self::MethodNotAllowed { method, allow } => {
                write!(f, "{method} is not allowed here; use one of {}", allow.to_str().unwrap_or_default())
            }
            Self::NotAcceptable => f.write_str("the answer is XML, which the Accept header excludes"),
            Self::UpgradeRequired => f.write_str("there is a WebSocket (RFC 6455) here; ask for an upgrade to it"),
            Self::TooLarge { limit } => write!(f, "the body is larger than {limit} bytes"),
            Self::SlowBody { after } => write!(f, "the body did not arrive within {} s", after.as_secs_f32()),
            Self::UnsupportedMediaType { got } if got.is_empty() => {
                f.write_str("the body has no media type and is not XML; send application/xml")
            }
            Self::UnsupportedMediaType { got } => write!(f, "bodies of type {got} are not read; send application/xml"),
            Self::BadBody { why } => write!(f, "the body cannot be read: {why}"),
            Self::NotYet { method, uri } => write!(f, "{method} {uri} is not available in this release"),
            Self::CrossSite { why } => f.write_str(why),
        }
    }
}

impl Failure {
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Core(error) => core_status(error.kind()),
            Self::UnknownUri => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SlowBody { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::UnsupportedMediaType { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BadBody { .. } => StatusCode::BAD_REQUEST,
            Self::NotYet { .. } => StatusCode::NOT_IMPLEMENTED,
            Self::CrossSite { .. } => StatusCode::FORBIDDEN,
        }
    }

    /// The response; and the only log line of the failure.
    pub(super) fn into_response(self, settings: &Settings, arrival: Option<&Arrival>) -> Response {
        let status = self.status();
        self.log(status, arrival.map(|a| &a.id));
        let mut response = reply::document(settings, status, reply::root(&settings.failure, &self.to_string()));
        if status == StatusCode::UNAUTHORIZED {
            for challenge in ["Basic realm=\"pengx\"", "Bearer realm=\"pengx\""] {
                response.headers_mut().append(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
        }
        if status == StatusCode::UPGRADE_REQUIRED {
            let headers = response.headers_mut();
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        response
    }

    fn log(&self, status: StatusCode, id: Option<&RequestId>) {
        let request = id.map_or("", RequestId::as_str);
        let status = status.as_u16();
        match self {
            Self::Core(error) if status >= 500 => {
                tracing::error!(request, status, error = %error.story(), "request failed")
            }
            Self::Core(error) => tracing::debug!(request, status, error = %error.story(), "request refused"),
            other => tracing::debug!(request, status, error = %other, "request refused"),
        }
    }
}

fn core_status(kind: &ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::NotFound { .. } => StatusCode::NOT_FOUND,
        ErrorKind::Invalid { .. }
        | ErrorKind::Exists { .. }
        | ErrorKind::InUse { .. }
        | ErrorKind::WrongState { .. }
        | ErrorKind::Busy { .. }
        | ErrorKind::Unsupported { .. }
        | ErrorKind::NoSpace { .. }
        | ErrorKind::Refused { .. }
        | ErrorKind::Timeout { .. }
        | ErrorKind::Cancelled { .. } => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden { .. } => StatusCode::FORBIDDEN,
        ErrorKind::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_ours_tells_the_client_nothing() {
        let failure = Failure::from(Error::internal("row 7 has no owner").caused_by("disk I/O error"));
        assert_eq!(failure.status(), 500);
        let text = failure.to_string();
        assert!(!text.contains("row 7") && !text.contains("disk"), "{text}");
    }

    #[test]
    fn credentials_are_asked_for() {
        let failure = Failure::from(Error::new(ErrorKind::Unauthenticated));
        let response = failure.into_response(&Settings::default(), None);
        assert_eq!(response.status(), 401);
        let challenges: Vec<_> = response.headers().get_all(WWW_AUTHENTICATE).iter().collect();
        assert_eq!(challenges, ["Basic realm=\"pengx\"", "Bearer realm=\"pengx\""]);
    }

    #[test]
    fn kinds_have_the_statuses_of_the_contract() {
        for (error, status) in [
            (Error::not_found("vm", 1), 404),
            (Error::invalid("name", "is required"), 400),
            (Error::refused("qemu-img", "no"), 400),
            (Error::wrong_state("vm web1", "RUNNING", "shut it down"), 400),
            (Error::unavailable("the database"), 503),
            (Error::new(ErrorKind::Forbidden { what: "stop it".to_owned() }), 403),
        ] {
            assert_eq!(Failure::from(error).status(), status);
        }
    }
}
