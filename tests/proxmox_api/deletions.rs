//! Machines that are to be deleted, and when they really are.

use super::{Panel, Read};
use crate::harness::wait::wait_until;

const ANSWER: &str = "application/json; charset=utf-8";
const MESSAGE: &str = r#"{"message":"Machine status changed to destroy"}"#;

fn schedule(panel: &Panel, id: &str) {
    panel.form("DELETE", "/container", &format!("id={id}")).is(200, ANSWER, MESSAGE);
}

#[test]
fn what_is_scheduled_is_off_and_stays_until_it_is_said() {
    let panel = Panel::new().stocked();
    let (www, db) = (panel.container("hostname=www"), panel.container("hostname=db"));
    schedule(&panel, &www.to_string());
    schedule(&panel, &www.to_string());
    panel.json("DELETE", "/container", r#"{"id":100}"#).is(200, ANSWER, MESSAGE);
    for nobody in ["", "999", "x", "-1", "99999999999999"] {
        schedule(&panel, nobody);
    }
    let all = panel.get("/cluster").value();
    let [one] = all.as_array().unwrap().as_slice() else { panic!("{all}") };
    assert_eq!(one["destroy"], "100");
    assert_eq!(one["_id"].as_str().unwrap().len(), 16);
    let date = one["date"].as_str().unwrap();
    assert!(date.len() == 24 && date.ends_with('Z') && &date[10..11] == "T" && &date[19..20] == ".", "{date}");
    panel.wait_status(www, "stopped");
    assert_eq!((panel.machines("bob"), panel.data(db)["status"].clone()), ("101".into(), "running".into()));
    assert_eq!(panel.get("/cluster/nextid").value()["data"], 102, "it has its id until it is gone");

    let panel = panel.restarted();
    assert_eq!(panel.get("/cluster").value(), all, "it outlives the server");
    panel.form("DELETE", "/cluster", "").is_ok();
    assert_eq!(panel.get("/cluster").body, "[]");
    wait_until("one machine is left", || Ok(panel.app.site.fake.states().len() == 1));
    panel.app.assert_at_rest();
    assert!(panel.get("/container?id=100").value()["host1"].is_string());
    assert_eq!(panel.get("/cluster/nextid").value()["data"], 100);
}

#[test]
fn one_that_was_started_again_goes_too() {
    let panel = Panel::new().stocked();
    let id = panel.container("").to_string();
    schedule(&panel, &id);
    panel.wait_status(100, "stopped");
    panel.form("POST", "/manage/on", "id=100").value();
    panel.form("DELETE", "/cluster", "").is_ok();
    wait_until("it is gone", || Ok(panel.app.site.fake.states().is_empty()));
    panel.app.assert_at_rest();
}

#[test]
fn what_could_not_be_deleted_stays_on_the_list() {
    let panel = Panel::new().stocked();
    let id = panel.container("").to_string();
    schedule(&panel, &id);
    panel.wait_status(100, "stopped");
    panel.app.assert_at_rest();
    let before = panel.get("/cluster").value();
    panel.app.site.storage.silence(true);
    panel.form("DELETE", "/cluster", "").is_ok();
    wait_until("it is back on the list", || Ok(panel.get("/cluster").value() == before));
    assert_eq!(panel.data(100)["status"], "stopped");
    panel.app.site.storage.silence(false);
    panel.form("DELETE", "/cluster", "").is_ok();
    wait_until("it is gone", || Ok(panel.app.site.fake.states().is_empty()));
    panel.app.assert_at_rest();
    assert_eq!(panel.get("/cluster").body, "[]");
}

#[test]
fn a_machine_that_goes_through_another_door_is_on_no_list() {
    let panel = Panel::new().stocked();
    let id = panel.container("hostname=www").to_string();
    schedule(&panel, &id);
    panel.wait_status(100, "stopped");
    let vm = panel.app.store().read(|c| pengx::store::vms::find_by_name(c, "www")).unwrap().unwrap().id;
    panel.app.run(pengx::operations::vm::DeleteVm { vm }).unwrap();
    assert_eq!(panel.get("/cluster").body, "[]");
}
