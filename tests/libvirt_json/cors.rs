//! Web pages of other sites: read what they like where the operator says so in words, and nothing otherwise.

use super::Api;
use crate::harness::http::Answer;

const PAGE: (&str, &str) = ("Origin", "http://panel.example");

fn headers(answer: &Answer) -> Vec<(&str, &str)> {
    let all = answer.headers.iter().filter(|(name, _)| name.starts_with("access-control-") || name == "vary");
    let mut all: Vec<_> = all.map(|(name, value)| (name.as_str(), value.as_str())).collect();
    all.sort_unstable();
    all
}

#[test]
fn where_it_is_on_every_answer_may_be_read() {
    let api = Api::with(|settings| settings.open.cors = true);
    api.four();
    let shared = [
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-origin", "http://panel.example"),
        ("vary", "Origin"),
    ];
    for (method, uri, status) in [
        ("GET", "/", 200),
        ("GET", "/vms?type=all", 200),
        ("GET", "/vm_xmldesc?name=beta", 200),
        ("POST", "/vm_stop?name=alpha", 200),
        ("POST", "/vm_stop?name=nobody", 400),
        ("GET", "/vms?type=x", 404),
        ("GET", "/vms", 422),
        ("GET", "/nope", 404),
        ("GET", "/vms/", 307),
        ("PUT", "/vms", 405),
        ("HEAD", "/vms", 405),
        ("OPTIONS", "/vms", 405),
    ] {
        for site in ["cross-site", "same-site"] {
            let answer = api.http.ask(method, uri, &[PAGE, ("Sec-Fetch-Site", site)], "");
            assert_eq!((answer.status, headers(&answer)), (status, shared.to_vec()), "{method} {uri}");
        }
        let answer = api.http.ask(method, uri, &[], "");
        assert_eq!((answer.status, headers(&answer)), (status, vec![("vary", "Origin")]), "{method} {uri}");
    }
    // A page without an origin of its own.
    let answer = api.http.ask("GET", "/", &[("Origin", "null")], "");
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("null")));
    api.app.assert_at_rest();
}

#[test]
fn where_it_is_on_a_browser_may_ask_beforehand_for_any_path() {
    let api = Api::with(|settings| settings.open.cors = true);
    for uri in ["/vm_start?name=a", "/vms", "/nope", "/vms/"] {
        let asked = [PAGE, ("Access-Control-Request-Method", "POST")];
        let answer = api.http.ask("OPTIONS", uri, &asked, "");
        assert_eq!((answer.status, answer.body.as_str()), (200, "OK"), "{uri}");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        let mut expected = vec![
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-methods", "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"),
            ("access-control-allow-origin", "http://panel.example"),
            ("access-control-max-age", "600"),
            ("vary", "Origin"),
        ];
        assert_eq!(headers(&answer), expected);
        let answer =
            api.http.ask("OPTIONS", uri, &[asked[0], asked[1], ("Access-Control-Request-Headers", "X-A, x-b")], "");
        expected.insert(1, ("access-control-allow-headers", "X-A, x-b"));
        assert_eq!(headers(&answer), expected);
    }
    // Without one of the two it is a method like others.
    let half = api.http.ask("OPTIONS", "/vms", &[("Access-Control-Request-Method", "GET")], "");
    half.details(405, "Method Not Allowed");
}

#[test]
fn where_it_is_off_pages_of_other_sites_get_nothing() {
    let api = Api::new();
    let [alpha, ..] = api.four();
    let before = api.app.site.fake.effects();
    for (method, uri) in [
        ("GET", "/"),
        ("GET", "/vms?type=all"),
        ("POST", "/vm_stop?name=alpha"),
        ("GET", "/nope"),
        ("OPTIONS", "/vm_stop"),
    ] {
        for page in [PAGE, ("Origin", "null"), ("Sec-Fetch-Site", "cross-site")] {
            let answer = api.http.ask(method, uri, &[page, ("Access-Control-Request-Method", "POST")], "");
            assert_eq!((answer.status, headers(&answer)), (403, vec![]), "{method} {uri} {page:?}");
            assert!(answer.body.starts_with("{\"detail\":\"you may not "), "{answer:?}");
        }
    }
    assert_eq!(api.app.site.fake.effects(), before);
    assert!(api.app.site.fake.running(alpha).is_some());
    // Its own pages, and what is no browser.
    let own = format!("http://{}", api.http.address);
    let answer = api.http.ask("GET", "/", &[("Origin", &own), ("Sec-Fetch-Site", "same-origin")], "");
    assert_eq!((answer.status, headers(&answer)), (200, vec![]));
}
