//! From a request to its answer: path and method, who asks, and only then what they name.

use std::future::ready;
use std::sync::Arc;

use warp::Filter;
use warp::http::header::LOCATION;
use warp::http::{HeaderValue, Method, StatusCode};
use warp::path::FullPath;
use warp::reply::Response;

use super::{Failure, console, stats, vms};
use crate::config::VirtDancer;
use crate::dialects::ask::{self, Ask, Bodies};
use crate::dialects::table::{self, Resource};
use crate::dialects::{Mounted, Route, Routes, User, credentials, files, host};
use crate::error::Error;
use crate::model::VmId;
use crate::operations::pm::Vitals;
use crate::operations::{Core, Credentials, Gate, pm};

const READ: &[&str] = &["GET", "HEAD"];

/// Each also below `/api`. The root is a redirect, if there are pages to go to.
pub static TABLE: &[Resource] = &[
    Resource::new("/vm", READ),
    Resource::new("/vm/:uuid", READ),
    Resource::new("/vm/:uuid/action", &["POST"]),
    Resource::new("/vm/:uuid/stats/cpu", READ),
    Resource::new("/stats/cpu", READ),
    Resource::new("/stats/mem", READ),
    Resource::new("/stats/nic", READ),
    Resource::new("/stats/nic/:name", READ),
    Resource::web_socket("/vnc/:uuid"),
];

struct Front {
    gate: Gate,
    public_stats: bool,
    has_pages: bool,
}

pub fn mount(gate: Gate, settings: VirtDancer, bodies: Bodies) -> Mounted {
    let VirtDancer { public_stats, ui, ui_new } = settings;
    let (has_pages, has_new_pages) = (ui.is_some(), ui_new.is_some());
    let front = Arc::new(Front { gate, public_stats, has_pages });
    let api = ask::serve(bodies, move |ask| Arc::clone(&front).answer(ask));
    let is_api = table::knows(TABLE);
    let knows = move |path: &str, upgrade: bool| {
        let pages = has_pages && (is_page(path) || path == "/") || has_new_pages && is_below_ui(path);
        is_api(without_api(path), upgrade) || !upgrade && pages
    };
    let mut routes = api;
    if let Some(dir) = ui {
        routes = unless_api(files::below(dir)).or(routes).unify().boxed();
    }
    if let Some(dir) = ui_new {
        // Its own pages are told apart by the script that it loads, whatever the path.
        let index = files::always(dir.join("index.html"));
        let pages = warp::path("ui").and(files::below(dir).or(index).unify());
        routes = pages.or(routes).unify().boxed();
    }
    Mounted { routes, knows: Arc::new(knows) }
}

/// Of whose files nobody looks whether they are there.
fn is_page(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|name| name.contains('.'))
}

fn is_below_ui(path: &str) -> bool {
    path.strip_prefix("/ui").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The root is no page but a way to one.
fn unless_api(pages: Routes) -> Routes {
    let is_api = table::knows(TABLE);
    warp::path::full()
        .and_then(move |path: FullPath| {
            let path = without_api(path.as_str());
            ready(if path == "/" || is_api(path, false) { Err(warp::reject::not_found()) } else { Ok(()) })
        })
        .untuple_one()
        .and(pages)
        .boxed()
}

fn without_api(path: &str) -> &str {
    match path.strip_prefix("/api") {
        Some("") => "/",
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    }
}

impl Front {
    async fn answer(self: Arc<Self>, mut ask: Ask) -> Response {
        let path = without_api(&ask.path).to_owned();
        let segments = table::segments(&path).unwrap_or_default();
        let id = ask.arrival.as_ref().map(|arrival| arrival.id.clone());
        let mut user = None;
        let answered = self.respond(&mut ask, &segments, &mut user).await;
        let mut response = answered.unwrap_or_else(|failure| failure.into_response(&path, id.as_ref()));
        if let Some(user) = user {
            response.extensions_mut().insert(user);
        }
        if let Some(resource) = table::find(TABLE, &segments) {
            response.extensions_mut().insert(Route(resource.pattern));
        }
        response
    }

    /// `user`: who asked, as soon as that is known.
    async fn respond(&self, ask: &mut Ask, segments: &[String], user: &mut Option<User>) -> Result<Response, Failure> {
        let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
        let reads = ask.method == Method::GET || ask.method == Method::HEAD;
        match parts.as_slice() {
            [] if reads && self.has_pages => to_the_pages(ask),
            ["vm"] if reads => vms::list(&self.enter(ask, user).await?).await,
            ["vm", id] if reads => {
                let core = self.enter(ask, user).await?;
                vms::show(&core, vm_id(id)?).await
            }
            ["vm", id, "stats", "cpu"] if reads => {
                let core = self.enter(ask, user).await?;
                vms::cpu(&core, vm_id(id)?).await
            }
            ["vm", id, "action"] if ask.method == Method::POST => {
                refuse_other_sites(ask)?;
                let core = self.enter(ask, user).await?;
                let wish = vms::wish(ask).await?;
                vms::act(&core, vm_id(id)?, &wish).await
            }
            ["stats", "cpu"] if reads => stats::cpu(&self.vitals(ask, user).await?),
            ["stats", "mem"] if reads => stats::memory(&self.vitals(ask, user).await?),
            ["stats", "nic"] if reads => {
                let physical = ask.query("filter").as_deref() == Some("physical");
                stats::nics(&self.vitals(ask, user).await?, physical)
            }
            ["stats", "nic", name] if reads => stats::nic(&self.vitals(ask, user).await?, name),
            ["vnc", id] if ask.method == Method::GET => {
                refuse_other_sites(ask)?;
                let core = self.enter(ask, user).await?;
                let ws = ask.upgrade().ok_or(Failure::NoSuchPath)?;
                console::show(&core, vm_id(id)?, ask, ws).await
            }
            _ => Err(Failure::NoSuchPath),
        }
    }

    /// Lets in who logs in as HTTP's Basic scheme has it; any other is as good as none.
    async fn enter(&self, ask: &mut Ask, user: &mut Option<User>) -> Result<Core, Failure> {
        let credentials = match credentials::take(&mut ask.headers) {
            Credentials::Token(_) => Credentials::Malformed,
            other => other,
        };
        let core = self.gate.enter(credentials, ask.peer()).await?;
        *user = Some(User(core.caller().to_string()));
        // Then so would it for a page in a browser here, under a name that was bound to the loopback.
        if core.caller().is_known_by_place() && !host::names_loopback(&ask.headers) {
            return Err(Failure::CrossSite);
        }
        Ok(core)
    }

    async fn vitals(&self, ask: &mut Ask, user: &mut Option<User>) -> Result<Vitals, Failure> {
        if self.public_stats {
            return Ok(self.gate.vitals().await?);
        }
        Ok(self.enter(ask, user).await?.read(pm::vitals).await?)
    }
}

fn vm_id(text: &str) -> Result<VmId, Failure> {
    text.parse().map_err(|_| Failure::BadUuid(text.to_owned()))
}

/// 302, from wherever the dialect is.
fn to_the_pages(ask: &Ask) -> Result<Response, Failure> {
    let location = HeaderValue::try_from(format!("{}/index.html", ask.prefix()));
    let mut response = Response::default();
    *response.status_mut() = StatusCode::FOUND;
    response.headers_mut().insert(LOCATION, location.map_err(|e| Error::internal("a bad prefix").caused_by(e))?);
    Ok(response)
}

/// A browser sends the password that it was told with whatever a page asks for, so also for another site's page.
fn refuse_other_sites(ask: &Ask) -> Result<(), Failure> {
    if host::is_cross_site(&ask.headers, ask.public_url()) { Err(Failure::CrossSite) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_is_at_both_places() {
        for (path, is) in [
            ("/vm", "/vm"),
            ("/api/vm", "/vm"),
            ("/api", "/"),
            ("/api/", "/"),
            ("/apivm", "/apivm"),
            ("/api/api/vm", "/api/vm"),
            ("/", "/"),
        ] {
            assert_eq!(without_api(path), is, "{path}");
        }
    }

    #[test]
    fn pages_are_known_by_their_names() {
        assert!(is_page("/app.js") && is_page("/noVNC/include/rfb.js"));
        assert!(!is_page("/vm/") && !is_page("/nothing") && !is_page("/a.b/c"));
        assert!(is_below_ui("/ui") && is_below_ui("/ui/dashboard") && !is_below_ui("/uix"));
    }
}
