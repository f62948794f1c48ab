//! What a dialect serves, as a list: routes, the labels of metrics, and the tests of who may what come from it.

use percent_encoding::percent_decode_str;

/// A path and its methods. A segment that begins with `:` stands for any one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    pub pattern: &'static str,
    pub methods: &'static [&'static str],
    /// Whether it serves a WebSocket.
    pub upgrades: bool,
}

impl Resource {
    pub const fn new(pattern: &'static str, methods: &'static [&'static str]) -> Self {
        Self { pattern, methods, upgrades: false }
    }

    /// For GET with an upgrade.
    pub const fn web_socket(pattern: &'static str) -> Self {
        Self { pattern, methods: &["GET"], upgrades: true }
    }
}

/// The segments of a path, each percent-decoded once; a slash at its end does not count. `None` if one is not UTF-8.
pub fn segments(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Some(Vec::new());
    }
    path.split('/').map(|part| percent_decode_str(part).decode_utf8().ok().map(std::borrow::Cow::into_owned)).collect()
}

/// The first resource whose pattern fits.
pub fn find<'t>(table: &'t [Resource], segments: &[String]) -> Option<&'t Resource> {
    table.iter().find(|resource| fits(resource.pattern, segments))
}

/// For [`super::Knows`].
pub fn knows(table: &'static [Resource]) -> super::Knows {
    std::sync::Arc::new(move |path, upgrade| {
        let found = segments(path).and_then(|segments| find(table, &segments));
        found.is_some_and(|resource| resource.upgrades || !upgrade)
    })
}

fn fits(pattern: &str, segments: &[String]) -> bool {
    let parts: Vec<_> = pattern.split('/').filter(|part| !part.is_empty()).collect();
    parts.len() == segments.len()
        && parts.iter().zip(segments).all(|(part, segment)| part.starts_with(':') || part == segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Resource] = &[
        Resource::new("/", &["GET"]),
        Resource::new("/vm", &["GET"]),
        Resource::new("/vm/:uuid/action", &["POST"]),
        Resource::web_socket("/vnc/:uuid"),
    ];

    #[test]
    fn paths_find_their_pattern() {
        let pattern = |path: &str| segments(path).and_then(|s| find(TABLE, &s)).map(|r| r.pattern);
        assert_eq!(pattern("/"), Some("/"));
        assert_eq!(pattern(""), Some("/"));
        assert_eq!(pattern("/v%6D/"), Some("/vm"));
        assert_eq!(pattern("/vm/a%2Fb/action"), Some("/vm/:uuid/action"));
        for none in ["/vm/a", "/vms", "/vm//action/x", "/%ff"] {
            assert_eq!(pattern(none), None, "{none}");
        }
    }

    #[test]
    fn a_web_socket_is_known_only_where_there_is_one() {
        let knows = knows(TABLE);
        assert!(knows("/vm", false) && !knows("/vm", true));
        assert!(knows("/vnc/x", true) && knows("/vnc/x", false));
        assert!(!knows("/vnc", true));
    }
}
