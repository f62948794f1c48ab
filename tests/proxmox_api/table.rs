//! Each line of the contract's table of endpoints, with what every answer has in common; and the help.

use std::collections::BTreeSet;

use pengx::dialects::proxmox_api::TABLE;
use serde_json::Value;

use super::{JSON, Panel, Read};

/// Method, path, body, status, what the body begins with.
const ROWS: &[(&str, &str, &str, u16, &str)] = &[
    ("GET", "/", "", 200, "Running"),
    ("GET", "/user", "", 200, r#"[{"username":"bob","password":"secret1","_id":""#),
    ("POST", "/user", r#"{"username":"ann","password":"secret1"}"#, 200, "OK"),
    ("PUT", "/user", r#"{"username":"ann","password":"secret2"}"#, 200, "OK"),
    ("DELETE", "/user", r#"{"username":"ann"}"#, 200, "OK"),
    ("REPORT", "/node", "", 200, r#"{"host1":{"data":{"#),
    (
        "GET",
        "/template",
        "",
        200,
        r#"{"host1":{"data":[{"content":"vztmpl","format":"qcow2","size":4194304,"volid":"store1:vztmpl/"#,
    ),
    (
        "GET",
        "/utils/vnc",
        r#"{"id":999}"#,
        200,
        r#"{"host1":"Configuration file 'nodes/host1/lxc/999.conf' does not exist - "#,
    ),
    ("GET", "/utils/vnc", "", 400, r#"{"Error":""#),
    ("GET", "/utils/graphic", r#"{"id":999}"#, 200, r#"{"host1":"Configuration file"#),
    ("GET", "/utils/graphic", "", 400, r#"{"Error":""#),
    ("GET", "/utils/ticket", "", 200, r#"{"#),
    ("REPORT", "/cluster", "", 200, r#"{"data":[{"#),
    ("GET", "/cluster", "", 200, "[]"),
    ("DELETE", "/cluster", "", 200, "OK"),
    ("GET", "/cluster/nextid", "", 200, r#"{"data":100}"#),
    ("GET", "/container", r#"{"id":999}"#, 200, r#"{"host1":"Configuration file"#),
    ("GET", "/container", r#"{"username":"nobody"}"#, 400, "null"),
    ("GET", "/container", "", 400, r#"{"Error":"You must specify machine ID or username"}"#),
    ("POST", "/container", "", 400, r#"{"Error":"Username must be provided"}"#),
    ("PUT", "/container", r#"{"id":999,"memory":64}"#, 200, r#"{"host1":"Configuration file"#),
    ("PUT", "/container", "", 400, r#"{"Error":"You must specify machine ID"}"#),
    ("DELETE", "/container", r#"{"id":999}"#, 200, r#"{"message":"Machine status changed to destroy"}"#),
    ("POST", "/manage/on", r#"{"id":999}"#, 200, r#"{"host1":"Configuration file"#),
    ("POST", "/manage/off", r#"{"id":999}"#, 200, r#"{"host1":"Configuration file"#),
    ("POST", "/manage/on", "", 400, r#"{"Error":""#),
    ("POST", "/manage/off", "", 400, r#"{"Error":""#),
    ("OPTIONS", "/", "", 200, r#"{"Endpoints":{"#),
    ("OPTIONS", "/cluster", "", 200, r#"{""#),
    ("OPTIONS", "/node", "", 200, r#"{"REPORT":""#),
    ("OPTIONS", "/template", "", 200, r#"{"GET":""#),
    ("OPTIONS", "/utils", "", 200, r#"{"GET":{"#),
    ("OPTIONS", "/user", "", 200, r#"{""#),
    ("OPTIONS", "/container", "", 200, r#"{""#),
    ("OPTIONS", "/utils/vnc", "", 200, "GET"),
    ("OPTIONS", "/utils/graphic", "", 200, "GET"),
    ("OPTIONS", "/utils/ticket", "", 200, "GET"),
    ("OPTIONS", "/cluster/nextid", "", 200, "GET"),
    ("OPTIONS", "/manage/on", "", 200, "POST"),
    ("OPTIONS", "/manage/off", "", 200, "POST"),
];

#[test]
fn every_endpoint_answers_as_the_contract_says() {
    let panel = Panel::new().stocked();
    for (method, path, body, status, begins) in ROWS {
        let answer = panel.http.ask(method, path, &[("Content-Type", JSON)], body);
        assert_eq!(answer.status, *status, "{method} {path} {body}: {answer:?}");
        assert!(answer.body.starts_with(begins), "{method} {path} {body}: {answer:?}");
        let text = ["OK", "Running", "GET", "POST"].contains(&answer.body.as_str());
        let kind = if text { "text/html; charset=utf-8" } else { "application/json; charset=utf-8" };
        assert_eq!(answer.header("content-type"), Some(kind), "{method} {path}");
        for (name, value) in [
            ("access-control-allow-origin", "*"),
            ("access-control-allow-headers", "Origin, X-Requested-With, Content-Type, Accept"),
            ("access-control-allow-methods", "GET, POST, PUT, DELETE, OPTIONS, REPORT"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "SAMEORIGIN"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{method} {path}: {answer:?}");
        }
    }
}

#[test]
fn the_table_of_the_dialect_and_this_one_are_the_same() {
    let here: BTreeSet<_> = ROWS.iter().map(|(method, path, ..)| (*method, *path)).collect();
    let served: BTreeSet<_> = TABLE
        .iter()
        .filter(|resource| !resource.upgrades)
        .flat_map(|resource| resource.methods.iter().map(|method| (*method, resource.pattern)))
        .collect();
    assert_eq!(here, served);
}

#[test]
fn what_is_not_there_is_a_page() {
    let panel = Panel::new();
    for (method, path) in
        [("GET", "/none"), ("PATCH", "/user"), ("GET", "/node"), ("GET", "/manage/on"), ("POST", "/"), ("GET", "/%ff")]
    {
        let answer = panel.http.ask(method, path, &[], "");
        assert_eq!((answer.status, answer.header("content-type")), (404, Some("text/html; charset=utf-8")), "{path}");
        assert!(answer.body.contains(&format!("Cannot {method} {path}")), "{answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    }
    let escaped = panel.get("/a&b'c");
    assert!(escaped.status == 404 && escaped.body.contains("Cannot GET /a&amp;b&#39;c"), "{escaped:?}");
    assert_eq!(panel.get("/user/").status, 200, "a slash at the end does not matter");
    let head = panel.http.ask("HEAD", "/user", &[], "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[test]
fn help_has_the_keys_of_the_contract() {
    let panel = Panel::new();
    for (path, allow, keys) in [
        ("/", "GET,OPTIONS", &["Endpoints"][..]),
        ("/cluster", "GET,REPORT", &["REPORT", "GET"]),
        ("/node", "REPORT", &["REPORT"]),
        ("/template", "GET", &["GET"]),
        ("/utils", "GET,PUT,POST,DELETE", &["GET"]),
        ("/user", "GET,PUT,POST,DELETE", &["GET", "POST", "PUT", "DELETE"]),
        ("/container", "POST,GET,DELETE", &["POST", "GET", "DELETE"]),
    ] {
        let answer = panel.http.ask("OPTIONS", path, &[], "");
        assert_eq!(answer.header("allow"), Some(allow), "{path}");
        let help = answer.value();
        for key in keys {
            assert!(help[key].is_object() || help[key].is_string(), "{path}: {help}");
        }
    }
    let groups = panel.http.ask("OPTIONS", "/", &[], "").value();
    for group in ["container", "node", "template", "user", "cluster", "utils"] {
        assert!(groups["Endpoints"][group].is_string(), "{groups}");
    }
    assert_eq!(panel.http.ask("OPTIONS", "/user", &[], "").value()["GET"]["username"], Value::from("string|optional"));
}

#[test]
fn bodies_are_read_whatever_the_method() {
    let panel = Panel::new().stocked();
    for (media_type, body) in
        [("application/x-www-form-urlencoded", "a[b]=1&c=2"), (JSON, "{\"a\":{\"b\":1}}"), (JSON, "[]")]
    {
        for (method, path) in
            [("REPORT", "/node"), ("REPORT", "/cluster"), ("GET", "/user"), ("OPTIONS", "/user"), ("DELETE", "/user")]
        {
            let answer = panel.http.ask(method, path, &[("Content-Type", media_type)], body);
            assert_eq!(answer.status, 200, "{method} {path} {body}: {answer:?}");
        }
    }
    for (method, path) in
        [("GET", "/user"), ("REPORT", "/node"), ("OPTIONS", "/"), ("DELETE", "/cluster"), ("GET", "/none")]
    {
        for bad in ["{bad", "1", "\"text\""] {
            panel.json(method, path, bad).is(400, "text/html; charset=utf-8", "Error ");
        }
    }
    // The query wins where something is read, the body where something is written.
    let by_query = panel.json("GET", "/user?username=bob", r#"{"username":"nobody"}"#).value();
    assert_eq!(by_query[0]["username"], "bob");
    panel.json("DELETE", "/user?username=bob", r#"{"username":"nobody"}"#).is_ok();
    assert_eq!(panel.get("/user").value().as_array().unwrap().len(), 1);
    panel.json("DELETE", "/user?username=bob", "{}").is_ok();
    assert_eq!(panel.get("/user").body, "[]");
}

#[test]
fn who_is_not_let_in_gets_nothing() {
    let panel = Panel::new().stocked();
    for headers in
        [&[("Origin", "http://evil.example")][..], &[("Sec-Fetch-Site", "cross-site")], &[("Origin", "null")]]
    {
        for (method, path) in
            [("GET", "/user"), ("POST", "/user"), ("OPTIONS", "/user"), ("DELETE", "/cluster"), ("GET", "/none")]
        {
            let answer = panel.http.ask(method, path, headers, "");
            assert_eq!(answer.status, 403, "{method} {path} {headers:?}: {answer:?}");
            assert!(answer.value()["Error"].is_string());
        }
    }
    let mut open = super::settings();
    open.open.cors = true;
    let panel = Panel::with(open);
    assert_eq!(panel.http.ask("GET", "/user", &[("Origin", "http://panel.example")], "").status, 200);
}
