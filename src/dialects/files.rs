//! Web pages that the operator brings, as the files that they are.
//!
//! Law: nothing outside the directory is served, unless a link in it leads there; nor what has a name that begins with a dot.

use std::future::ready;
use std::path::PathBuf;

use warp::filters::BoxedFilter;
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Filter, Reply};

use super::table;

/// Rejects what is not there, and every method but GET and HEAD. A directory shows its `index.html`.
pub(super) fn below(dir: PathBuf) -> BoxedFilter<(Response,)> {
    plain().and(warp::fs::dir(dir)).map(Reply::into_response).boxed()
}

/// The same for one file, whatever the path.
pub(super) fn always(file: PathBuf) -> BoxedFilter<(Response,)> {
    let read = warp::get().or(warp::head()).unify();
    plain().and(read).and(warp::fs::file(file)).map(Reply::into_response).boxed()
}

/// Rejects paths with a name that begins with a dot.
fn plain() -> BoxedFilter<()> {
    warp::path::full()
        .and_then(|path: FullPath| ready(if is_plain(path.as_str()) { Ok(()) } else { Err(warp::reject::not_found()) }))
        .untuple_one()
        .boxed()
}

fn is_plain(path: &str) -> bool {
    // A slash may come out of a segment, and parts what is opened.
    let plain = |segment: &String| !segment.split('/').any(|name| name.starts_with('.'));
    table::segments(path).is_some_and(|segments| segments.iter().all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_a_dot_in_front_are_not_files() {
        for good in ["/", "/a.js", "/a/b.c/", "/a%20b", "//a"] {
            assert!(is_plain(good), "{good}");
        }
        for bad in ["/..", "/a/../b", "/%2e%2e/a", "/a%2f..%2fb", "/.git/config", "/a/%2Eb", "/%ff"] {
            assert!(!is_plain(bad), "{bad}");
        }
    }
}
