//! What monitoring and load balancers ask: `/metrics`, `/health`; at the root alone.
//!
//! Law: an answer is made of what is in memory, so it comes however the database, the hypervisor and the storages are.

use std::net::IpAddr;
use std::sync::Arc;

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use warp::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use warp::http::{HeaderMap, HeaderValue, Method, StatusCode};
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Filter, Reply};

use super::{Arrival, Mounted, Route, credentials, host};
use crate::error::{Error, ErrorKind};
use crate::operations::{Core, Gate, health};

const PLAIN: &str = "text/plain; charset=utf-8";
/// What Prometheus calls the format that the encoder writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Copy)]
enum Page {
    Metrics,
    Health,
}

impl Page {
    fn at(path: &str) -> Option<Self> {
        match path {
            "/metrics" => Some(Self::Metrics),
            "/health" => Some(Self::Health),
            _ => None,
        }
    }

    fn route(self) -> Route {
        Route(match self {
            Self::Metrics => "/metrics",
            Self::Health => "/health",
        })
    }
}

/// Both pages.
pub fn mount(core: Core, gate: Gate, registry: Arc<Registry>) -> Mounted {
    let door = Arc::new(Door { core, gate, registry });
    let page = warp::path::full().map(|path: FullPath| Page::at(path.as_str()));
    let asked = page.and(warp::method()).and(warp::header::headers_cloned()).and(warp::ext::optional::<Arrival>());
    let answered = asked.then(move |page: Option<Page>, method: Method, headers, arrival: Option<Arrival>| {
        let door = Arc::clone(&door);
        async move {
            let Some(page) = page else { return StatusCode::NOT_FOUND.into_response() };
            let mut response = door.answer(page, &method, headers, arrival.map(|a| a.peer.ip())).await;
            response.extensions_mut().insert(page.route());
            response
        }
    });
    Mounted { routes: answered.boxed(), knows: Arc::new(|path, upgrade| !upgrade && Page::at(path).is_some()) }
}

struct Door {
    core: Core,
    gate: Gate,
    registry: Arc<Registry>,
}

impl Door {
    async fn answer(&self, page: Page, method: &Method, mut headers: HeaderMap, peer: Option<IpAddr>) -> Response {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut refusal = reply(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "GET or HEAD\n".to_owned());
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match page {
            // It names no object, and is for everybody.
            Page::Health => {
                let (status, text) = health(health::report(&self.core));
                reply(status, PLAIN, text)
            }
            Page::Metrics => match self.gate.enter(credentials::take(&mut headers), peer).await {
                Ok(core) if core.caller().is_known_by_place() && !host::names_loopback(&headers) => reply(
                    StatusCode::FORBIDDEN,
                    PLAIN,
                    "while there are no accounts, the Host header must be a loopback name\n".to_owned(),
                ),
                Ok(_) => self.metrics(),
                // Nobody can say who may; the numbers are wanted most just then, on this host.
                Err(away)
                    if matches!(away.kind(), ErrorKind::Unavailable { .. })
                        && peer.is_some_and(|ip| ip.to_canonical().is_loopback())
                        && host::names_loopback(&headers) =>
                {
                    self.metrics()
                }
                Err(why) => refused(&why),
            },
        }
    }

    fn metrics(&self) -> Response {
        let mut text = String::new();
        match text::encode(&mut text, &self.registry) {
            Ok(()) => reply(StatusCode::OK, OPEN_METRICS, text),
            Err(_) => reply(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, "the metrics cannot be written\n".to_owned()),
        }
    }
}

fn refused(why: &Error) -> Response {
    let status = match why.kind() {
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden { .. } => StatusCode::FORBIDDEN,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut refusal = reply(status, PLAIN, format!("{why}\n"));
    if status == StatusCode::UNAUTHORIZED {
        refusal.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"pengx\""));
    }
    refusal
}

/// Only what stops all work takes a host out of service; the rest is for those who read.
fn health(report: health::Report) -> (StatusCode, String) {
    let (status, mut lines) = match report.down.is_empty() {
        true => (StatusCode::OK, vec!["ok".to_owned()]),
        false => (StatusCode::SERVICE_UNAVAILABLE, report.down),
    };
    lines.extend(report.warnings.iter().map(|warning| format!("warning: {warning}")));
    (status, lines.join("\n") + "\n")
}

/// hyper drops the body of an answer to HEAD and keeps its length.
fn reply(status: StatusCode, kind: &'static str, text: String) -> Response {
    let mut response = warp::reply::with_status(text, status).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stops_all_work_is_503() {
        let (down, warnings) = (vec!["the database is away".to_owned()], vec!["a storlink is".to_owned()]);
        let said = |down: &[String], warnings: &[String]| {
            health(health::Report { down: down.to_vec(), warnings: warnings.to_vec() })
        };
        assert_eq!(said(&[], &[]), (StatusCode::OK, "ok\n".to_owned()));
        assert_eq!(said(&[], &warnings), (StatusCode::OK, "ok\nwarning: a storlink is\n".to_owned()));
        let both = "the database is away\nwarning: a storlink is\n".to_owned();
        assert_eq!(said(&down, &warnings), (StatusCode::SERVICE_UNAVAILABLE, both));
    }
}
