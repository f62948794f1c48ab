//! Which dialect of a listener a request goes to.
//!
//! Of those below whose prefix the path lies, the one with the longest prefix that knows the path; else the one with the
//! longest prefix, which then says in its own words that there is nothing. A request for a WebSocket goes to the first that
//! serves one there.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use warp::http::uri::{PathAndQuery, Uri};
use warp::reply::Response;

use crate::config::PublicUrl;
use crate::dialects::{Knows, Mount, Mounted, Routes, ask};

type Answering = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

/// The dialects of a listener. Cheap to clone.
#[derive(Clone)]
pub struct Mounts(Arc<[Entry]>);

struct Entry {
    mount: Mount,
    knows: Knows,
    call: Box<dyn Fn(Request<Incoming>) -> Answering + Send + Sync>,
}

impl Mounts {
    /// Each with its prefix: `/vd`, or empty for the root. Among those of one prefix the first goes first.
    pub fn new(dialects: impl IntoIterator<Item = (String, Mounted)>) -> Self {
        Self::found_at(None, dialects)
    }

    /// The same, where clients find the root at `public_url`.
    pub fn found_at(public_url: Option<PublicUrl>, dialects: impl IntoIterator<Item = (String, Mounted)>) -> Self {
        let public_url = public_url.map(Arc::new);
        let entry = |(prefix, dialect): (String, _)| Entry::new(Mount::at(&prefix, public_url.clone()), dialect);
        let mut entries: Vec<_> = dialects.into_iter().map(entry).collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.mount.prefix().len()));
        Self(entries.into())
    }

    fn pick(&self, path: &str, upgrade: bool) -> Option<(&Entry, String)> {
        let below = || self.0.iter().filter_map(|entry| Some((entry, entry.rest(path)?)));
        let knowing = |upgrade: bool| below().find(|(entry, rest)| (entry.knows)(rest, upgrade));
        let first = if upgrade { knowing(true) } else { None };
        let (entry, rest) = first.or_else(|| knowing(false)).or_else(|| below().next())?;
        Some((entry, rest.to_owned()))
    }
}

/// Everything at the root.
impl From<Routes> for Mounts {
    fn from(routes: Routes) -> Self {
        Self::new([(String::new(), Mounted { routes, knows: Arc::new(|_, _| true) })])
    }
}

impl Entry {
    fn new(mount: Mount, dialect: Mounted) -> Self {
        let service = TowerToHyperService::new(warp::service(dialect.routes));
        let call = move |request| -> Answering { Box::pin(service.call(request)) };
        Self { mount, knows: dialect.knows, call: Box::new(call) }
    }

    /// The path below the prefix; it begins with a slash.
    fn rest<'p>(&self, path: &'p str) -> Option<&'p str> {
        let prefix = self.mount.prefix();
        let rest = path.strip_prefix(prefix)?;
        match rest {
            "" if !prefix.is_empty() => Some("/"),
            _ if rest.starts_with('/') || prefix.is_empty() => Some(rest),
            _ => None,
        }
    }
}

impl Service<Request<Incoming>> for Mounts {
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, mut request: Request<Incoming>) -> Answering {
        let upgrade = ask::wants_web_socket(request.headers());
        let Some((entry, rest)) = self.pick(request.uri().path(), upgrade) else {
            let mut response = Response::default();
            *response.status_mut() = warp::http::StatusCode::NOT_FOUND;
            return Box::pin(std::future::ready(Ok(response)));
        };
        if !entry.mount.prefix().is_empty() {
            strip(request.uri_mut(), rest);
        }
        request.extensions_mut().insert(entry.mount.clone());
        (entry.call)(request)
    }
}

fn strip(uri: &mut Uri, mut path: String) {
    if let Some(query) = uri.query() {
        path.push('?');
        path.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    // A part of what was a path is one.
    parts.path_and_query = PathAndQuery::try_from(path).ok();
    if let Ok(stripped) = Uri::from_parts(parts) {
        *uri = stripped;
    }
}

#[cfg(test)]
mod tests {
    use warp::Filter;

    use super::*;

    fn mounts(all: &[(&str, &'static [&'static str], &'static [&'static str])]) -> Mounts {
        let routes = || warp::any().map(Response::default).boxed();
        Mounts::new(all.iter().map(|&(prefix, paths, sockets)| {
            let knows = move |path: &str, upgrade: bool| if upgrade { sockets } else { paths }.contains(&path);
            (prefix.to_owned(), Mounted { routes: routes(), knows: Arc::new(knows) })
        }))
    }

    #[test]
    fn a_path_goes_to_who_knows_it() {
        let all = mounts(&[
            ("", &["/vms/", "/both", "/a/x"], &["/both"]),
            ("", &["/vm", "/both"], &["/both", "/vnc"]),
            ("/a", &["/", "/y"], &[]),
        ]);
        let picked = |path: &str, upgrade| {
            let (entry, rest) = all.pick(path, upgrade).unwrap();
            let place = all.0.iter().position(|other| std::ptr::eq(other, entry)).unwrap();
            (place, rest)
        };
        let at = |place: usize, rest: &str| (place, rest.to_owned());
        // The longest prefix stands first, so the others are 1 and 2.
        assert_eq!(picked("/vms/", false), at(1, "/vms/"));
        assert_eq!(picked("/vm", false), at(2, "/vm"));
        assert_eq!(picked("/both", false), at(1, "/both"));
        assert_eq!(picked("/both", true), at(1, "/both"));
        assert_eq!(picked("/vnc", true), at(2, "/vnc"));
        assert_eq!(picked("/vm", true), at(2, "/vm"), "where nobody serves a WebSocket it is a request like others");
        assert_eq!(picked("/a", false), at(0, "/"));
        assert_eq!(picked("/a/y", false), at(0, "/y"));
        assert_eq!(picked("/a/x", false), at(1, "/a/x"), "known below another prefix");
        assert_eq!(picked("/a/none", false), at(0, "/none"));
        assert_eq!(picked("/ab", false), at(1, "/ab"), "no prefix of it");
        assert_eq!(picked("/none", false), at(1, "/none"));
    }

    #[test]
    fn the_query_stays() {
        let mut uri: Uri = "http://host:1/a/b%20c?d=e%26".parse().unwrap();
        strip(&mut uri, "/b%20c".to_owned());
        assert_eq!(uri.to_string(), "http://host:1/b%20c?d=e%26");
    }
}
