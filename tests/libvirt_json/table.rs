//! Every line of the contract's tables: what is asked, and what is answered to the letter.

use std::collections::{BTreeMap, BTreeSet};

use pengx::dialects::libvirt_json::TABLE;

use super::Api;

const MISSING: &str = r#"{"detail":[{"type":"missing","loc":["query","NAME"],"msg":"Field required","input":null}]}"#;
const NO_INTEGER: &str = r#"{"detail":[{"type":"int_parsing","loc":["query","state"],"msg":"Input should be a valid integer, unable to parse string as an integer","input":"TEXT"}]}"#;

/// Method, URI, status, body. `alpha` runs, `beta` is off, `delta` has crashed, `gamma` is paused.
fn rows() -> Vec<(&'static str, &'static str, u16, String)> {
    let missing = |name: &str| MISSING.replace("NAME", name);
    let no_integer = |text: &str| NO_INTEGER.replace("TEXT", text);
    let said = |text: &str| text.to_owned();
    let detail = |text: &str| format!("{{\"detail\":\"{text}\"}}");
    let (not_found, not_allowed) = (detail("Not Found"), detail("Method Not Allowed"));
    let list = |items: &[&str]| format!("{{\"vms\":[{}]}}", items.join(","));
    // Numbers of runs are the fake's.
    let [alpha, beta, delta, gamma] = [
        r#"{"name":"alpha","state":"running","id":1}"#,
        r#"{"name":"beta","state":"shutoff","id":-1}"#,
        r#"{"name":"delta","state":"crashed","id":-1}"#,
        r#"{"name":"gamma","state":"paused","id":3}"#,
    ];
    let all = list(&[alpha, beta, delta, gamma]);
    let mut rows = vec![
        // The host.
        ("GET", "/", 200, said(r#"{"host":"host1"}"#)),
        ("GET", "/?x=1", 200, said(r#"{"host":"host1"}"#)),
        // Lists.
        ("GET", "/vms", 422, missing("type")),
        ("GET", "/vms?type=all", 200, all.clone()),
        ("GET", "/vms?type=-1", 200, all.clone()),
        ("GET", "/vms?type=0", 200, all.clone()),
        ("GET", "/vms?type=3", 200, all.clone()),
        ("GET", "/vms?type=65535", 200, all.clone()),
        ("GET", "/vms?type=active", 200, list(&[alpha, gamma])),
        ("GET", "/vms?type=1", 200, list(&[alpha, gamma])),
        ("GET", "/vms?type=inactive", 200, list(&[beta, delta])),
        ("GET", "/vms?type=2", 200, list(&[beta, delta])),
        ("GET", "/vms?type=16", 200, list(&[alpha])),
        ("GET", "/vms?type=32", 200, list(&[gamma])),
        ("GET", "/vms?type=64", 200, list(&[beta])),
        ("GET", "/vms?type=128", 200, list(&[delta])),
        ("GET", "/vms?type=80", 200, list(&[alpha, beta])),
        ("GET", "/vms?type=65", 200, list(&[])),
        ("GET", "/vms?type=4", 200, all.clone()),
        ("GET", "/vms?type=8", 200, list(&[])),
        ("GET", "/vms?type=256", 200, list(&[])),
        ("GET", "/vms?type=512", 200, all.clone()),
        ("GET", "/vms?type=1024", 200, list(&[])),
        ("GET", "/vms?type=2048", 200, all.clone()),
        ("GET", "/vms?type=4096", 200, list(&[])),
        ("GET", "/vms?type=8192", 200, all.clone()),
        ("GET", "/vms?type=16384", 200, list(&[])),
        ("GET", "/vms?type=32768", 200, all.clone()),
        ("GET", "/vms?type=active&type=2", 200, list(&[beta, delta])),
        ("GET", "/vms?type=99999", 404, detail("No such type 99999")),
        ("GET", "/vms?type=65536", 404, detail("No such type 65536")),
        ("GET", "/vms?type=-2", 404, detail("No such type -2")),
        ("GET", "/vms?type=", 404, detail("No such type ")),
        ("GET", "/vms?type", 404, detail("No such type ")),
        ("GET", "/vms?type=Active", 404, detail("No such type Active")),
        ("GET", "/vms?type=a+b%22%C3%A9", 404, detail("No such type a b\\\"é")),
        // States.
        ("GET", "/vm_state?name=alpha", 200, said(r#"{"state":1}"#)),
        ("GET", "/vm_state?name=beta", 200, said(r#"{"state":5}"#)),
        ("GET", "/vm_state?name=delta", 200, said(r#"{"state":6}"#)),
        ("GET", "/vm_state?name=gamma", 200, said(r#"{"state":3}"#)),
        ("GET", "/vm_state?name=beta&name=alpha", 200, said(r#"{"state":1}"#)),
        ("GET", "/vm_status?name=alpha", 200, said(r#"{"state":"running"}"#)),
        ("GET", "/vm_status?name=beta", 200, said(r#"{"state":"shutoff"}"#)),
        ("GET", "/vm_status?name=delta", 200, said(r#"{"state":"crashed"}"#)),
        ("GET", "/vm_status?name=gamma", 200, said(r#"{"state":"paused"}"#)),
        ("GET", "/vm_status?name=gamma&state=5", 200, said(r#"{"state":"paused"}"#)),
        ("GET", "/vm_status?name=nobody&state=5", 400, detail("No VM named nobody")),
        ("GET", "/vm_status?name=gamma&state=x", 422, no_integer("x")),
        ("GET", "/vm_status", 422, missing("name")),
        ("GET", "/vm_status?state=9", 200, said(r#"{"state":"other"}"#)),
        ("GET", "/vm_status?state=-1", 200, said(r#"{"state":"other"}"#)),
        ("GET", "/vm_status?state=99999999999999999999", 200, said(r#"{"state":"other"}"#)),
        ("GET", "/vm_status?state=%201.0", 200, said(r#"{"state":"running"}"#)),
        ("GET", "/vm_status?state=%2B1", 200, said(r#"{"state":"running"}"#)),
        ("GET", "/vm_status?state=1.5", 422, no_integer("1.5")),
        ("GET", "/vm_status?state=0x1", 422, no_integer("0x1")),
        ("GET", "/vm_status?state=1e1", 422, no_integer("1e1")),
        ("GET", "/vm_status?state=%EF%BC%91", 422, no_integer("１")),
        ("GET", "/vm_status?state=", 422, no_integer("")),
        ("GET", "/vm_status_lookup", 422, missing("state")),
        ("GET", "/vm_status_lookup?state=x", 422, no_integer("x")),
        ("GET", "/vm_status_lookup?state=1", 200, said(r#"{"vm_status":"running","is_running":true}"#)),
        ("GET", "/vm_status_lookup?state=3", 200, said(r#"{"vm_status":"paused","is_running":false}"#)),
        ("GET", "/vm_status_lookup?state=9", 200, said(r#"{"vm_status":"other","is_running":false}"#)),
        // What is off.
        ("GET", "/vm_info?name=beta", 200, said(r#"{"state":5,"max_mem":65536,"cur_mem":65536,"vcpu":1,"cputime":0}"#)),
        ("GET", "/vm_ip?name=beta", 200, said(r#"{"ips":[]}"#)),
        ("GET", "/vm_ip?name=alpha", 200, said(r#"{"ips":[]}"#)),
        ("GET", "/vm_viewer?name=beta", 200, said(r#"{"ip":null,"port":null}"#)),
        ("GET", "/vm_screenshot?name=beta", 400, detail("No VM named beta")),
        ("POST", "/vm_start?name=alpha", 200, said(r#"{"status":true}"#)),
        ("POST", "/vm_start?name=gamma", 200, said(r#"{"status":true}"#)),
        ("GET", "/vm_state?name=gamma", 200, said(r#"{"state":3}"#)),
        ("POST", "/vm_stop?name=beta", 200, said(r#"{"status":true}"#)),
        ("POST", "/vm_stop?name=delta", 200, said(r#"{"status":true}"#)),
        // Paths and methods.
        ("GET", "/nope", 404, not_found.clone()),
        ("POST", "/nope/vms", 404, not_found.clone()),
        ("GET", "//", 404, not_found.clone()),
        ("GET", "/docs", 404, not_found.clone()),
        ("GET", "/redoc", 404, not_found.clone()),
        ("GET", "/vm_data?name=alpha", 404, not_found.clone()),
        ("GET", "/%76m%5Fstatus?state=5", 200, said(r#"{"state":"shutoff"}"#)),
        ("GET", "/%ff", 404, not_found.clone()),
        ("BREW", "/vms?type=1", 405, not_allowed.clone()),
    ];
    for (n, word) in
        ["no state", "running", "blocked", "paused", "shutdown", "shutoff", "crashed", "guest suspended", "other"]
            .into_iter()
            .enumerate()
    {
        let uri: &str = format!("/vm_status?state={n}").leak();
        rows.push(("GET", uri, 200, format!("{{\"state\":\"{word}\"}}")));
    }
    for resource in TABLE {
        let takes_name =
            !["/", "/host", "/vms", "/vm_status", "/vm_status_lookup", "/openapi.json"].contains(&resource.pattern);
        let method = resource.methods[0];
        if takes_name {
            rows.push((method, resource.pattern, 422, missing("name")));
            let uri = |name: &str| -> &'static str { format!("{}?{name}", resource.pattern).leak() };
            rows.push((method, uri("name=x%20y"), 400, detail("No VM named x y")));
            rows.push((method, uri("name=x+y%2B"), 400, detail("No VM named x y+")));
            rows.push((method, uri("name="), 400, detail("No VM named ")));
            rows.push((method, uri("NAME=alpha"), 422, missing("name")));
        }
        for other in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            if other != method {
                // No body answers a HEAD.
                let body = if other == "HEAD" { String::new() } else { not_allowed.clone() };
                rows.push((other, resource.pattern, 405, body));
            }
        }
    }
    rows
}

#[test]
fn every_line_of_the_contract() {
    let api = Api::new();
    api.four();
    let mut seen: BTreeMap<&str, BTreeSet<u16>> = BTreeMap::new();
    for (method, uri, status, body) in rows() {
        let answer = api.http.ask(method, uri, &[], "");
        assert_eq!((answer.status, answer.body.as_str()), (status, body.as_str()), "{method} {uri}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{method} {uri}");
        let path = uri.split('?').next().unwrap();
        let method = TABLE.iter().find(|resource| resource.pattern == path).map(|resource| resource.methods[0]);
        let allow = answer.header("allow");
        assert_eq!(allow, if status == 405 { method } else { None }, "{uri}");
        assert_eq!((answer.header("vary"), answer.header("access-control-allow-origin")), (None, None));
        seen.entry(path).or_default().insert(status);
    }
    for resource in TABLE {
        // The last two of them stand in tests of their own: their answers are not known to the letter.
        assert!(seen.get(resource.pattern).is_some_and(|all| all.contains(&405)), "no row for {}", resource.pattern);
    }
    api.app.assert_at_rest();
}

#[test]
fn a_slash_at_the_end_is_redirected_for_every_method() {
    let api = Api::new();
    let host = api.http.address;
    for (method, uri, location) in [
        ("GET", "/vms/", "/vms"),
        ("GET", "/vms/?type=a%20b&x", "/vms?type=a%20b&x"),
        ("GET", "/vms//", "/vms"),
        ("POST", "/vms/", "/vms"),
        ("POST", "/vm_start/?name=a", "/vm_start?name=a"),
        ("GET", "/v%6Ds/", "/vms"),
    ] {
        let answer = api.http.ask(method, uri, &[], "");
        assert_eq!((answer.status, answer.body.as_str()), (307, ""), "{method} {uri}");
        assert_eq!(answer.header("location"), Some(format!("http://{host}{location}").as_str()));
    }
    api.get("/nope/").details(404, "Not Found");
    api.get("//vms").details(404, "Not Found");
}

/// Only the query says which VM.
#[test]
fn bodies_are_not_read() {
    let api = Api::new();
    let body = "name=a";
    for kind in ["application/x-www-form-urlencoded", "application/json"] {
        let answer = api.http.ask("POST", "/vm_start", &[("Content-Type", kind)], body);
        answer.says(422, &MISSING.replace("NAME", "name"));
        let answer = api.http.ask("POST", "/vm_start?name=b", &[("Content-Type", kind)], body);
        answer.details(400, "No VM named b");
    }
}

#[test]
fn the_openapi_document_lists_what_is_served() {
    let api = Api::new();
    let document = api.json("/openapi.json");
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document.get("servers"), None);
    let paths = document["paths"].as_object().unwrap();
    let told: BTreeSet<_> = paths
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().keys().map(move |method| (path.clone(), method.to_uppercase()))
        })
        .collect();
    let served: BTreeSet<_> =
        TABLE.iter().map(|resource| (resource.pattern.to_owned(), resource.methods[0].to_owned())).collect();
    assert_eq!(told, served);
    // Each name of a schema leads somewhere.
    let text = document.to_string();
    for part in text.split("#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
}

#[test]
fn below_a_prefix_all_is_the_same() {
    let api = Api::new();
    let http = super::serve(&api.app, "/lj", super::settings());
    for root in ["/lj", "/lj/"] {
        http.get(root).says(200, r#"{"host":"host1"}"#);
    }
    http.get("/lj/vms?type=all").says(200, r#"{"vms":[]}"#);
    let moved = http.get("/lj/vms/?type=1");
    let location = format!("http://{}/lj/vms?type=1", http.address);
    assert_eq!((moved.status, moved.header("location")), (307, Some(location.as_str())));
    assert_eq!(http.get("/lj/openapi.json").json_200()["servers"][0]["url"], "/lj");
    http.get("/lj/nope").details(404, "Not Found");
}

#[test]
fn what_the_operator_took_out_is_not_there() {
    let api = Api::with(|settings| {
        settings.disabled = vec![("/vm_stop".to_owned(), 404), ("/vm_xmldesc".to_owned(), 418), ("/".to_owned(), 503)];
    });
    for method in ["GET", "POST"] {
        api.http.ask(method, "/vm_stop?name=a", &[], "").details(404, "Not Found");
        api.http.ask(method, "/vm_xmldesc?name=a", &[], "").details(418, "I'm a teapot");
    }
    api.get("/").details(503, "Service Unavailable");
    api.get("/vm_stop/").details(404, "Not Found");
    api.post("/vm_start?name=a").details(400, "No VM named a");
}
