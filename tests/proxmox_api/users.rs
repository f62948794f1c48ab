//! The panel's customers.

use pengx::config::ProxmoxApi;
use pengx::model::Role;

use super::{Panel, Read, add_account, serve, settings};
use crate::harness::app::Site;

const ANSWER: &str = "application/json; charset=utf-8";

#[test]
fn users_are_kept_as_they_were_sent() {
    let panel = Panel::new();
    panel.form("POST", "/user", "username=bob&password=secret1").is_ok();
    panel.json("POST", "/user", r#"{"username":"김","password":"비밀번호여섯"}"#).is_ok();
    let all = panel.get("/user").value();
    assert_eq!((&all[0]["username"], &all[0]["password"]), (&"bob".into(), &"secret1".into()));
    assert_eq!((&all[1]["username"], &all[1]["password"]), (&"김".into(), &"비밀번호여섯".into()));
    let id = all[0]["_id"].as_str().unwrap().to_owned();
    assert!(id.len() == 16 && id.bytes().all(|b| b.is_ascii_alphanumeric()), "{id}");
    assert!(all[0].get("machines").is_none(), "until the first machine was created");
    for one in ["/user?username=bob", "/user?username=bob&x=1"] {
        assert_eq!(panel.get(one).value().as_array().unwrap().len(), 1);
    }
    for every in ["/user", "/user?username="] {
        assert_eq!(panel.get(every).value().as_array().unwrap().len(), 2, "{every}");
    }
    assert_eq!(panel.get("/user?username=nobody").body, "[]");
    panel.form("PUT", "/user", "username=bob&password=secret2").is_ok();
    let panel = panel.restarted();
    let bob = panel.get("/user?username=bob").value();
    assert_eq!((&bob[0]["password"], &bob[0]["_id"]), (&"secret2".into(), &id.into()), "the id is for life");
    panel.form("DELETE", "/user", "username=bob").is_ok();
    assert_eq!(panel.get("/user?username=bob").body, "[]");
}

#[test]
fn what_cannot_be_a_user_is_told() {
    let panel = Panel::new();
    panel.form("POST", "/user", "username=bob&password=secret1").is_ok();
    panel.form("POST", "/user", "username=bob&password=secret1").is_ok();
    let exists = r#"{"Error":"The user already exists, please use PUT method to update it."}"#;
    panel.form("POST", "/user", "username=bob&password=another").is(400, ANSWER, exists);
    assert_eq!(panel.get("/user").value().as_array().unwrap().len(), 1);
    let short = r#"{"Error":"Password must have at least 6 characters."}"#;
    panel.form("POST", "/user", "username=ann&password=12345").is(400, ANSWER, short);
    panel.form("PUT", "/user", "username=bob&password=12345").is(400, ANSWER, short);
    panel.form("PUT", "/user", "username=ann&password=12345").is(400, ANSWER, "\"Target was not found.\"");
    let long = "x".repeat(256);
    for bad in [
        "password=secret1".to_owned(),
        "username=&password=secret1".to_owned(),
        "username=ann".to_owned(),
        "username=ann&password=".to_owned(),
        format!("username={long}&password=secret1"),
        format!("username=ann&password={long}"),
        "username=a%00n&password=secret1".to_owned(),
    ] {
        let answer = panel.form("POST", "/user", &bad);
        assert_eq!(answer.status, 400, "{bad}: {answer:?}");
        assert!(answer.value()["Error"].is_string(), "{bad}: {answer:?}");
    }
    assert_eq!(panel.get("/user").value()[0]["password"], "secret1");
}

#[test]
fn passwords_can_be_masked_and_are_no_login() {
    let panel = Panel::with(ProxmoxApi { mask_passwords: true, ..settings() });
    panel.form("POST", "/user", "username=bob&password=secret1").is_ok();
    panel.form("POST", "/user", "username=bob&password=secret1").is_ok();
    let shown = panel.get("/user");
    assert!(!shown.body.contains("secret1"), "{shown:?}");
    assert_eq!(shown.value()[0]["password"], "********");
    let accounts = panel.app.store().read(pengx::store::accounts::users).unwrap();
    assert_eq!(accounts.iter().map(|user| user.name.as_str()).collect::<Vec<_>>(), ["panel"]);
}

#[test]
fn a_viewer_sees_no_passwords_and_changes_nothing() {
    let app = Site::new().start();
    add_account(&app, "panel", Role::Viewer);
    let http = serve(None, "", &app, settings());
    for (method, path) in
        [("GET", "/user"), ("POST", "/user?username=bob&password=secret1"), ("GET", "/cluster/nextid")]
    {
        assert_eq!(http.ask(method, path, &[], "").status, 403, "{method} {path}");
    }
    assert_eq!(http.ask("REPORT", "/node", &[], "").status, 200);
}
