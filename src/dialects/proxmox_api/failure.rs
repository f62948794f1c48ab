//! What a request can fail with, in the shapes that clients of this API know: an object with `Error`, a bare string, or a
//! sentence of Proxmox VE with its body behind it.

use std::fmt;

use serde_json::{Map, Value, json};
use warp::http::{Method, StatusCode};
use warp::reply::Response;

use super::reply::Reply;
use crate::dialects::payload::Unread;
use crate::dialects::{Arrival, RequestId};
use crate::error::{Error, ErrorKind};
use crate::escape::Xml;

#[derive(Debug)]
pub(super) enum Failure {
    Core(Error),
    /// `{"Error": …}`
    Said(&'static str),
    /// The sentence itself, as a JSON string.
    Word(&'static str),
    /// `null`
    Null,
    /// Fields that cannot be used, by the names that Proxmox VE has for them.
    Fields(Vec<(&'static str, String)>),
    /// The body is not what its media type says.
    BadBody,
    Unread(Unread),
    UnknownRoute {
        method: Method,
        path: String,
    },
}

/// What Proxmox VE says of a field that must be there.
pub(super) const MISSING: &str = "property is missing and it is not optional";

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Invalid { problems } => {
                Self::Fields(problems.iter().map(|problem| (upstream(&problem.field), problem.why.clone())).collect())
            }
            _ => Self::Core(error),
        }
    }
}

/// For the log.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Core(error) => f.write_str(&error.story()),
            Self::Said(what) | Self::Word(what) => f.write_str(what),
            Self::Null => f.write_str("null"),
            Self::Fields(fields) => fields.iter().try_for_each(|(field, why)| write!(f, "{field}: {why}; ")),
            Self::BadBody => f.write_str("the body is not what its media type says"),
            Self::Unread(why) => write!(f, "the body was not read: {why:?}"),
            Self::UnknownRoute { method, path } => write!(f, "no {method} {path}"),
        }
    }
}

impl Failure {
    fn status(&self) -> StatusCode {
        match self {
            Self::Core(error) => core_status(error.kind()),
            Self::Said(_) | Self::Word(_) | Self::Null | Self::Fields(_) | Self::BadBody => StatusCode::BAD_REQUEST,
            Self::Unread(Unread::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unread(Unread::Slow { .. }) => StatusCode::REQUEST_TIMEOUT,
            Self::Unread(Unread::BrokeOff) => StatusCode::BAD_REQUEST,
            Self::UnknownRoute { .. } => StatusCode::NOT_FOUND,
        }
    }

    /// The response; and the only log line of the failure.
    pub(super) fn into_response(self, arrival: Option<&Arrival>) -> Response {
        let status = self.status();
        let request = arrival.map_or("", |arrival| RequestId::as_str(&arrival.id));
        if status.is_server_error() {
            tracing::error!(request, status = status.as_u16(), error = %self, "request failed");
        } else {
            tracing::debug!(request, status = status.as_u16(), error = %self, "request refused");
        }
        self.reply(status).with_status(status)
    }

    fn reply(self, status: StatusCode) -> Reply {
        match self {
            // As Express ends a request of which nothing more is told.
            Self::BadBody | Self::Unread(_) => Reply::text("Error "),
            _ if status.is_server_error() => Reply::text("Error "),
            Self::UnknownRoute { method, path } => Reply::text(no_route(&method, &path)),
            Self::Core(error) if matches!(error.kind(), ErrorKind::Unauthenticated | ErrorKind::Forbidden { .. }) => {
                Reply::value(&json!({ "Error": error.to_string() }))
            }
            Self::Core(error) => Reply::value(&Value::String(refused(&error))),
            Self::Said(what) => Reply::value(&json!({ "Error": what })),
            Self::Word(what) => Reply::value(&Value::String(what.to_owned())),
            Self::Null => Reply::value(&Value::Null),
            Self::Fields(fields) => {
                let errors: Map<String, Value> =
                    fields.into_iter().map(|(field, why)| (field.to_owned(), Value::String(why))).collect();
                // To the letter: clients know this sentence.
                let body = format!("{{\"errors\":{},\"data\":null}}", Value::Object(errors));
                Reply::value(&Value::String(with_body("Parameter verification failed.", body)))
            }
        }
    }
}

/// As Proxmox VE says that it does not do something: `<sentence> - {"data":null}`.
pub(super) fn refused(why: impl fmt::Display) -> String {
    with_body(why, json!({ "data": null }))
}

fn with_body(sentence: impl fmt::Display, body: impl fmt::Display) -> String {
    format!("{sentence} - {body}")
}

fn no_route(method: &Method, path: &str) -> String {
    let (method, path) = (Xml::text(method.as_str()), Xml::text(path));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>Error</title>\n</head>\n<body>\n\
         <pre>Cannot {method} {path}</pre>\n</body>\n</html>\n"
    )
}

/// What Proxmox VE calls a field of ours.
fn upstream(field: &str) -> &'static str {
    match field {
        "cpu_core" => "cpuunits",
        "memory" | "maxmem" => "memory",
        "os_disk_size" | "extra_disk_size" => "rootfs",
        "disk_format" | "template" => "ostemplate",
        "network" => "net0",
        "number" => "vmid",
        "storlink" => "storage",
        _ => "hostname",
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
