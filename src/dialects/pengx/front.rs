//! From a request to its handler: one warp filter for each URI pattern, and behind them one `dispatch` that answers
//! everything and never rejects, because warp goes on to the next filter after any rejection.
//!
//! The order of decisions is Django's: path, slash, format, Accept, who asks, whether they may, method, handler; the body
//! is read last and only if the handler asks.

use std::borrow::Cow;
use std::future::ready;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use askama::Template;
use futures_util::FutureExt;
use percent_encoding::percent_decode_str;
use warp::http::header::ALLOW;
use warp::http::{HeaderMap, HeaderValue, Method, StatusCode};
use warp::path::FullPath;
use warp::reply::Response;
use warp::ws::Ws;
use warp::{Filter, Rejection};

use super::kept::Kept;
use super::resources::{Hit, Pattern, RESOURCES, Resource};
use super::{Call, Failure, Reply, Settings, console, guard, negotiate};
use crate::dialects::payload::Payload;
use crate::dialects::{Arrival, Mount, Mounted, Route, Routes, User, credentials, form};
use crate::error::Error;
use crate::model::Secret;
use crate::operations::vm::Edition;
use crate::operations::{Core, Gate};

/// What all requests share.
pub(super) struct Front {
    gate: Gate,
    pub(super) settings: Settings,
    /// Row 22, for all callers alike.
    pub(super) vms: Kept<Edition>,
}

/// A resource with what is made of it once, at the start.
struct Entry {
    front: Arc<Front>,
    resource: &'static Resource,
    pattern: Pattern,
    allow: HeaderValue,
}

/// A request without its path.
struct Parts {
    method: Method,
    headers: HeaderMap,
    query: Option<String>,
    arrival: Option<Arrival>,
    mount: Option<Mount>,
    ws: Option<Ws>,
    payload: Payload,
}

/// The whole native API, for a listener.
pub fn mount(gate: Gate, settings: Settings) -> Mounted {
    let (prefixes, patterns) = (settings.prefixes.clone(), RESOURCES.iter().map(|r| (r, Pattern::new(r.pattern))));
    let patterns: Vec<_> = patterns.collect();
    let knows = move |path: &str, upgrade: bool| {
        let serves = |resource: &Resource| !upgrade || resource.is_console();
        let fits = |path: &str| patterns.iter().any(|(r, p)| serves(r) && p.find(&prefixes, path).is_some());
        decoded(path).is_some_and(|path| fits(&path))
    };
    Mounted { routes: routes(gate, settings), knows: Arc::new(knows) }
}

/// The whole native API.
pub fn routes(gate: Gate, settings: Settings) -> Routes {
    routes_over(RESOURCES, gate, settings)
}

/// The rules of the native API over another table.
pub fn routes_over(table: &'static [Resource], gate: Gate, settings: Settings) -> Routes {
    let front = Arc::new(Front { gate, settings, vms: Kept::default() });
    let last = {
        let front = Arc::clone(&front);
        parts().then(move |parts| unknown(Arc::clone(&front), parts)).boxed()
    };
    // From the last to the first, so that the first resource is the outermost, and cheapest, filter.
    table.iter().rev().fold(last, |rest, resource| {
        let pattern = Pattern::new(resource.pattern);
        let entry = Entry { front: Arc::clone(&front), resource, pattern, allow: resource.allow() };
        at(Arc::new(entry)).or(rest).unify().boxed()
    })
}

/// Rejects only when the path is another resource's.
fn at(entry: Arc<Entry>) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone + Send + Sync + 'static {
    let matching = Arc::clone(&entry);
    warp::path::full()
        .and_then(move |path: FullPath| {
            ready(matching.find(path.as_str()).map(|hit| (hit, path)).ok_or_else(warp::reject::not_found))
        })
        .and(parts())
        .then(move |(hit, path), parts| dispatch(Arc::clone(&entry), hit, path, parts))
}

fn parts() -> impl Filter<Extract = (Parts,), Error = Rejection> + Copy + Send + Sync + 'static {
    let query = warp::query::raw().map(Some).or(warp::any().map(|| None)).unify();
    let ws = warp::ws().map(Some).or(warp::any().map(|| None)).unify();
    warp::method()
        .and(warp::header::headers_cloned())
        .and(query)
        .and(warp::ext::optional::<Arrival>())
        .and(warp::ext::optional::<Mount>())
        .and(ws)
        .and(warp::body::stream())
        .map(|method, headers: HeaderMap, query, arrival, mount, ws, stream| {
            let payload = Payload::new(&headers, stream);
            Parts { method, headers, query, arrival, mount, ws, payload }
        })
}

async fn unknown(front: Arc<Front>, parts: Parts) -> Response {
    let mut response = Failure::UnknownUri.into_response(&front.settings, parts.arrival.as_ref());
    parts.payload.settle(response.headers_mut()).await;
    response
}

async fn dispatch(entry: Arc<Entry>, hit: Hit, path: FullPath, parts: Parts) -> Response {
    let settings = &entry.front.settings;
    let (payload, arrival) = (parts.payload.clone(), parts.arrival.clone());
    let mut user = None;
    let mut response = match entry.answer(hit, path.as_str(), parts, &mut user).await {
        Ok(reply) => reply.into_response(settings),
        Err(failure) => failure.into_response(settings, arrival.as_ref()),
    };
    if let Some(user) = user {
        response.extensions_mut().insert(user);
    }
    if ![StatusCode::MOVED_PERMANENTLY, StatusCode::SWITCHING_PROTOCOLS].contains(&response.status()) {
        response.headers_mut().insert(ALLOW, entry.allow.clone());
    }
    response.extensions_mut().insert(Route(entry.resource.pattern));
    payload.settle(response.headers_mut()).await;
    response
}

impl Entry {
    fn find(&self, raw: &str) -> Option<Hit> {
        self.pattern.find(&self.front.settings.prefixes, &decoded(raw)?)
    }

    /// `user`: who asked, as soon as that is known.
    async fn answer(&self, hit: Hit, path: &str, parts: Parts, user: &mut Option<User>) -> Result<Reply, Failure> {
        let front = &self.front;
        let Parts { method, mut headers, query, arrival, mount, ws, payload } = parts;
        guard::origin(&front.settings, &method, &headers)?;
        if ws.is_some() {
            guard::page(&front.settings, &headers)?;
        }
        if !hit.canonical && (method == Method::GET || method == Method::HEAD) {
            return slashed(mount.as_ref().map_or("", Mount::prefix), path, query.as_deref());
        }
        let format = query.as_deref().and_then(|query| form::last(query, "format"));
        if !matches!(format.as_deref(), None | Some("" | "xml")) {
            return Err(Failure::UnknownUri);
        }
        if !negotiate::accepts_xml(&headers) {
            return Err(Failure::NotAcceptable);
        }
        let ticket = query.as_deref().and_then(|query| form::last(query, console::TICKET));
        let core = match ticket.filter(|_| ws.is_some() && self.resource.is_console()) {
            // It speaks for itself, wherever it comes from.
            Some(ticket) => self.redeem(&hit, ticket.into_owned(), user).await?,
            None => self.enter(&method, &mut headers, arrival.as_ref(), user).await?,
        };
        if method == Method::OPTIONS {
            return Reply::ok(&OptionsView { uri: self.resource.pattern });
        }
        let Some(handler) = self.resource.handler(&method) else {
            return Err(Failure::MethodNotAllowed { method, allow: self.allow.clone() });
        };
        let call = Call {
            core,
            shape: hit.shape,
            headers,
            arrival,
            front: Arc::clone(front),
            resource: self.resource,
            params: hit.params,
            name: decoded(path).and_then(|path| self.pattern.name(&path)),
            method,
            path: format!("{}{path}", mount.as_ref().map_or("", Mount::prefix)),
            query,
            ws,
            payload,
        };
        // A defect in a handler costs its own request, not the answers of a whole connection.
        match AssertUnwindSafe(handler(call)).catch_unwind().await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::internal("a handler panicked").context(self.resource.pattern).into()),
        }
    }

    /// Lets the caller in, unless it may not use this method here. What it may do in the end, the core decides; this comes
    /// before the method and the body are looked at.
    async fn enter(
        &self,
        method: &Method,
        headers: &mut HeaderMap,
        arrival: Option<&Arrival>,
        user: &mut Option<User>,
    ) -> Result<Core, Failure> {
        let credentials = credentials::take(headers);
        let core = self.front.gate.enter(credentials, arrival.map(|a| a.peer.ip())).await?;
        *user = Some(User(core.caller().to_string()));
        if core.caller().is_known_by_place() {
            guard::place(headers)?;
        }
        core.caller().require(self.resource.right(method), format_args!("{method} here"))?;
        Ok(core)
    }

    /// The same, for whoever has a ticket.
    async fn redeem(&self, hit: &Hit, ticket: String, user: &mut Option<User>) -> Result<Core, Failure> {
        let vm = hit.vm().ok_or_else(|| Error::internal("a ticket where no vm is"))?;
        let core = self.front.gate.redeem(Secret::new(ticket), vm).await?;
        *user = Some(User(core.caller().to_string()));
        Ok(core)
    }
}

/// Once: what is escaped twice is a name with a percent sign.
fn decoded(raw: &str) -> Option<Cow<'_, str>> {
    if raw.contains('%') { percent_decode_str(raw).decode_utf8().ok() } else { Some(Cow::Borrowed(raw)) }
}

/// 301 to the same path with a slash at its end; the query is kept as it is.
fn slashed(mount: &str, path: &str, query: Option<&str>) -> Result<Reply, Failure> {
    // One slash in front: `//vms/` would name another host.
    let path = path.trim_start_matches('/');
    let location = match query {
        Some(query) => format!("{mount}/{path}/?{query}"),
        None => format!("{mount}/{path}/"),
    };
    match HeaderValue::try_from(location) {
        Ok(location) => Ok(Reply::Moved { location }),
        Err(_) => Err(Failure::UnknownUri),
    }
}

#[derive(Template)]
#[template(path = "pengx/options.xml")]
struct OptionsView {
    uri: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_redirect_stays_on_this_host() {
        for (path, query, location) in
            [("/vms", None, "/vms/"), ("//vms", Some("a=%20&b"), "/vms/?a=%20&b"), ("/vm%73", Some(""), "/vm%73/?")]
        {
            let location = HeaderValue::from_static(location);
            assert!(matches!(slashed("", path, query), Ok(Reply::Moved { location: to }) if to == location), "{path}");
        }
    }
}
