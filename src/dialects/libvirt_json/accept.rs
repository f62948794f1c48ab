//! What of the `Accept` header matters here.

use warp::http::HeaderMap;
use warp::http::header::ACCEPT;

/// Whether the client names JSON, and not only everything.
pub(super) fn names_json(headers: &HeaderMap) -> bool {
    weight(headers, "application/json") > 0.0
}

/// Whether it is a browser that goes to a page, and not one of its scripts.
pub(super) fn prefers_html(headers: &HeaderMap) -> bool {
    let html = weight(headers, "text/html");
    html > 0.0 && html >= weight(headers, "application/json")
}

/// What a media type is worth to the client, by its own name; 0 where it is not named.
fn weight(headers: &HeaderMap, media: &str) -> f32 {
    let ranges =
        headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(','));
    let mut weight = 0.0_f32;
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        if parts.next().is_some_and(|name| name.eq_ignore_ascii_case(media)) {
            let q = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            weight = weight.max(q.map_or(1.0, |q| q.parse().unwrap_or(1.0)));
        }
    }
    weight
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_send() {
        for (accept, json, html) in [
            ("*/*", false, false),
            ("", false, false),
            ("application/json", true, false),
            ("application/json, text/plain, */*", true, false),
            ("Application/JSON;q=0.5", true, false),
            ("application/json;q=0", false, false),
            ("application/xml", false, false),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", false, true),
            ("text/html, application/json", true, true),
            ("text/html;q=0.5, application/json", true, false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]);
            assert_eq!((names_json(&headers), prefers_html(&headers)), (json, html), "{accept:?}");
        }
        assert!(!names_json(&HeaderMap::new()) && !prefers_html(&HeaderMap::new()));
    }
}
