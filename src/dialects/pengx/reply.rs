//! What a handler answers when all went well, and how any document becomes a response.

use std::sync::Arc;

use askama::Template;
use bytes::Bytes;
use warp::http::header::{CONTENT_TYPE, LOCATION};
use warp::http::{HeaderName, HeaderValue, StatusCode};
use warp::reply::Response;

use super::{Failure, Settings};
use crate::dialects::{Document, Refusal};
use crate::error::Error;
use crate::model::TaskId;

#[derive(Debug)]
pub enum Reply {
    Document {
        status: StatusCode,
        xml: Bytes,
    },
    /// `root`, `result`, `message`.
    Done {
        status: StatusCode,
        message: String,
    },
    NoContent,
    /// 202: the work goes on as this task.
    Accepted {
        task: TaskId,
    },
    /// 301.
    Moved {
        location: HeaderValue,
    },
    /// 101, as it is.
    Upgraded(Response),
}

#[derive(Template)]
#[template(path = "pengx/root.xml")]
struct Root<'a> {
    result: &'a str,
    message: &'a str,
}

impl Reply {
    /// 200 with a document.
    pub fn ok(view: &impl Template) -> Result<Self, Failure> {
        Self::document(StatusCode::OK, view)
    }

    /// 201 with a document.
    pub fn created(view: &impl Template) -> Result<Self, Failure> {
        Self::document(StatusCode::CREATED, view)
    }

    /// 200 with a document that is not a template's.
    pub fn xml(xml: impl Into<Bytes>) -> Self {
        Self::Document { status: StatusCode::OK, xml: xml.into() }
    }

    fn document(status: StatusCode, view: &impl Template) -> Result<Self, Failure> {
        Ok(Self::Document { status, xml: render(view)?.into() })
    }

    /// 200 with the word of success and a sentence.
    pub fn done(message: impl Into<String>) -> Self {
        Self::Done { status: StatusCode::OK, message: message.into() }
    }

    /// 201 with the word of success and a sentence.
    pub fn made(message: impl Into<String>) -> Self {
        Self::Done { status: StatusCode::CREATED, message: message.into() }
    }

    pub(super) fn into_response(self, settings: &Settings) -> Response {
        match self {
            Self::Document { status, xml } => document(settings, status, xml),
            Self::Done { status, message } => document(settings, status, root(&settings.success, &message)),
            // No length either: a 204 that has one makes some clients wait for a body.
            Self::NoContent => document(settings, StatusCode::NO_CONTENT, String::new()),
            Self::Accepted { task } => {
                let message = format!("accepted as task {task}");
                let mut response = document(settings, StatusCode::ACCEPTED, root(&settings.success, &message));
                let headers = response.headers_mut();
                if let Ok(location) = HeaderValue::from_str(&format!("/tasks/{task}/")) {
                    headers.insert(LOCATION, location);
                }
                headers
                    .insert(HeaderName::from_static("preference-applied"), HeaderValue::from_static("respond-async"));
                response
            }
            Self::Moved { location } => {
                let mut response = Response::default();
                *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
                response.headers_mut().insert(LOCATION, location);
                response
            }
            Self::Upgraded(response) => response,
        }
    }
}

/// A template lost its last newline when it was compiled; Django kept it.
pub(super) fn render(view: &impl Template) -> Result<String, Error> {
    let mut xml = view.render().map_err(|e| Error::internal("a template was not rendered").caused_by(e))?;
    xml.push('\n');
    Ok(xml)
}

/// The body of every failure and of most successes.
pub(super) fn root(result: &str, message: &str) -> String {
    // Writing into a String cannot fail, so an empty document is never sent.
    render(&Root { result, message }).unwrap_or_default()
}

/// What the server says where no request of a client's was read.
pub fn refusal(settings: &Settings) -> Refusal {
    let (content_type, failure) = (settings.content_type.clone(), settings.failure.clone());
    Arc::new(move |why| Document { content_type: content_type.clone(), text: root(&failure, why) })
}

pub(super) fn document(settings: &Settings, status: StatusCode, xml: impl Into<Bytes>) -> Response {
    let mut response = Response::new(xml.into().into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, settings.content_type.clone());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_document_is_the_manuals() {
        let text = "<root>\n  <result>failure</result>\n  <message>a &lt; b</message>\n</root>\n";
        assert_eq!(root("failure", "a < b"), text);
    }

    #[test]
    fn an_accepted_task_says_where_it_is() {
        let task: TaskId = "bed05d84-7c44-4720-9588-57cbd8ecef8c".parse().unwrap();
        let response = Reply::Accepted { task }.into_response(&Settings::default());
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        assert_eq!(response.headers()[LOCATION], "/tasks/bed05d84-7c44-4720-9588-57cbd8ecef8c/");
        assert_eq!(response.headers()["preference-applied"], "respond-async");
    }
}
