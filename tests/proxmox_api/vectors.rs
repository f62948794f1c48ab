//! The vectors of the contract, in their order, on one server.

use super::{FORM, JSON, NO_CONTAINER, Panel, Read};
use crate::harness::wait::wait_until;

const HTML: &str = "text/html; charset=utf-8";
const ANSWER: &str = "application/json; charset=utf-8";

#[test]
fn every_vector_holds() {
    let panel = Panel::new();
    panel.get("/user").is(200, ANSWER, "[]");
    panel.form("POST", "/user", "username=bob&password=secret1").is_ok();
    panel.form("PUT", "/user", "username=nobody&password=secret2").is(400, ANSWER, "\"Target was not found.\"");
    panel.form("DELETE", "/user", "username=nobody").is_ok();
    panel.form("POST", "/container", "").is(400, ANSWER, r#"{"Error":"Username must be provided"}"#);
    let unknown = panel.form("POST", "/container", "username=nobody&template=x");
    unknown.is(400, ANSWER, r#"{"Error":"User not found"}"#);

    let storlink = panel.app.storlink();
    panel.app.template(storlink, pengx::model::Format::Qcow2);
    let full = format!(
        "username=bob&template={}&cpu=1&hostname=unitTest&memory=64&ostype=ubuntu&storage=store1&swap=512&disk=1",
        panel.volid()
    );
    panel.form("POST", "/container", &full).is(200, ANSWER, r#"{"id":100}"#);
    assert_eq!(panel.machines("bob"), "100");

    let neither = r#"{"Error":"You must specify machine ID or username"}"#;
    panel.get("/container").is(400, ANSWER, neither);
    for (media_type, body) in [(JSON, r#"{"id":100}"#), (JSON, r#"{"id":"100"}"#), (FORM, "id=100")] {
        let by_body = panel.http.ask("GET", "/container", &[("Content-Type", media_type)], body).value();
        assert_eq!(by_body["host1"]["data"]["name"], "unitTest", "{body}");
    }
    assert_eq!(panel.get("/container?id=100").value()["host1"]["data"]["name"], "unitTest");

    let message = r#"{"message":"Machine status changed to destroy"}"#;
    panel.json("DELETE", "/container", r#"{"id":100}"#).is(200, ANSWER, message);
    let scheduled = panel.get("/cluster").value();
    assert_eq!((scheduled.as_array().unwrap().len(), &scheduled[0]["destroy"]), (1, &"100".into()));
    assert_eq!(panel.machines("bob"), "");
    panel.get("/container?username=bob").is(200, ANSWER, "{}");

    panel.form("DELETE", "/cluster", "").is_ok();
    panel.get("/cluster").is(200, ANSWER, "[]");
    assert_eq!(panel.get("/container?id=100").value(), serde_json::json!({ "host1": NO_CONTAINER }));
    wait_until("the machine is gone", || Ok(panel.app.site.fake.states().is_empty()));
    panel.app.assert_at_rest();
    panel.get("/cluster").is(200, ANSWER, "[]");

    let help = panel.http.ask("OPTIONS", "/node", &[], "");
    assert_eq!((help.status, help.header("allow")), (200, Some("REPORT")));
    panel.json("POST", "/user", "{bad").is(400, HTML, "Error ");
}
