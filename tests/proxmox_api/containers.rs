//! Machines: made, shown, changed, switched.

use pengx::config::ProxmoxApi;
use pengx::model::{MiB, Pm, PmId, StorlinkId};
use serde_json::{Value, json};

use super::{NO_CONTAINER, Panel, Read, settings};

const ANSWER: &str = "application/json; charset=utf-8";

fn post(panel: &Panel, body: &str) -> crate::harness::http::Answer {
    panel.form("POST", "/container", body)
}

#[test]
fn a_machine_is_what_was_wished_for_and_runs() {
    let panel = Panel::new().stocked();
    assert_eq!(panel.container("cpu=2&hostname=www&memory=64&ostype=debian&storage=store1&swap=512&disk=1"), 100);
    let data = panel.data(100);
    for (key, value) in [
        ("maxdisk", json!(1_u64 << 30)),
        ("maxswap", json!(512_u64 << 20)),
        ("maxmem", json!(64_u64 << 20)),
        ("name", json!("www")),
        ("type", json!("lxc")),
        ("lock", json!("")),
        ("template", json!("")),
        ("cpus", json!("2")),
        ("status", json!("running")),
        ("swap", json!(0)),
        ("ha", json!({ "managed": 0 })),
    ] {
        assert_eq!(data[key], value, "{key}: {data}");
    }
    for number in ["mem", "cpu", "disk", "netin", "netout", "diskread", "diskwrite", "uptime"] {
        assert!(data[number].is_number(), "{number}: {data}");
    }
    let share = data["cpu"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&share) && data["mem"].as_u64().unwrap() > 0 && data["pid"].is_string(), "{data}");
    panel.form("POST", "/manage/off", "id=100").value();
    let off = panel.data(100);
    assert_eq!((&off["status"], &off["mem"], &off["uptime"]), (&json!("stopped"), &json!(0), &json!(0)), "{off}");
    assert!(off.get("pid").is_none(), "{off}");
    let row = panel.app.store().read(|c| pengx::store::vms::find_by_name(c, "www")).unwrap().unwrap();
    assert_eq!(row.desc, "www-:%:-bob");
    panel.app.assert_at_rest();
}

#[test]
fn a_template_can_be_named_in_three_ways_and_the_rest_has_defaults() {
    let panel = Panel::new().stocked();
    let template = panel.app.store().read(pengx::store::templates::all).unwrap().remove(0);
    for (n, word) in [(100, panel.volid()), (101, template.id.to_string()), (102, template.name.clone())] {
        let word = word.replace(' ', "+");
        post(&panel, &format!("username=bob&template={word}")).is(200, ANSWER, &format!("{{\"id\":{n}}}"));
    }
    let data = panel.data(100);
    assert_eq!((&data["name"], &data["cpus"], &data["maxmem"]), (&json!("ct100"), &json!("1"), &json!(512_u64 << 20)));
    assert_eq!((&data["maxdisk"], &data["maxswap"]), (&json!(4_u64 << 20), &json!(0)));
    let of_bob = panel.get("/container?username=bob&id=7").value();
    let names: Vec<_> = of_bob.as_array().unwrap().iter().map(|one| one["host1"]["data"]["name"].clone()).collect();
    assert_eq!(names, ["ct100", "ct101", "ct102"], "in the order in which they were made; the username wins");
    assert_eq!(panel.machines("bob"), "100:101:102");
}

#[test]
fn a_number_of_cpus_beyond_64_is_a_weight() {
    let panel = Panel::new().stocked();
    let id = panel.container("cpu=1000&memory=64");
    assert_eq!(panel.data(id)["cpus"], "1");
}

#[test]
fn a_hostname_that_is_taken_gets_the_number_behind_it() {
    let panel = Panel::new().stocked();
    assert_eq!([panel.container("hostname=www"), panel.container("name=www")], [100, 101]);
    assert_eq!((panel.data(100)["name"].clone(), panel.data(101)["name"].clone()), (json!("www"), json!("www-101")));
}

#[test]
fn bad_fields_are_told_as_proxmox_does() {
    let panel = Panel::new().stocked();
    let errors = |body: &str| -> Value {
        let answer = post(&panel, &format!("username=bob&{body}"));
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        let said = answer.value().as_str().unwrap().to_owned();
        let body = said.strip_prefix("Parameter verification failed. - ").unwrap_or_else(|| panic!("{said}"));
        let value: Value = serde_json::from_str(body).unwrap();
        assert!(value["data"].is_null());
        value["errors"].clone()
    };
    assert_eq!(errors("cpu=1"), json!({ "ostemplate": "property is missing and it is not optional" }));
    let volid = panel.volid();
    let fields = |more: &str| {
        let errors = errors(&format!("template={volid}&{more}"));
        errors.as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(fields("cpu=x"), ["cpuunits"]);
    assert_eq!(fields("cpu=0"), ["cpuunits"]);
    assert_eq!(fields("memory=-1"), ["memory"]);
    assert_eq!(fields("ostype=windows"), ["ostype"]);
    assert_eq!(fields("storage=none"), ["storage"]);
    assert_eq!(fields("swap=some"), ["swap"]);
    assert_eq!(fields("disk=0"), ["rootfs"]);
    assert_eq!(fields("vmid=x"), ["vmid"]);
    let all = errors("template=none&cpu=x&memory=x&ostype=x&storage=x&swap=x&disk=x&hostname=%01&id=x");
    let all: Vec<_> = all.as_object().unwrap().keys().cloned().collect();
    let every = ["cpuunits", "hostname", "memory", "ostemplate", "ostype", "rootfs", "storage", "swap", "vmid"];
    assert_eq!(all, every, "every bad field at once");
    assert_eq!(panel.get("/user?username=bob").value()[0].get("machines"), None);
    let storlink = panel.app.store().read(|c| pengx::store::storlinks::find(c, StorlinkId(1))).unwrap().unwrap();
    post(&panel, &format!("username=bob&template={volid}&storage={}", storlink.id)).is(200, ANSWER, "{\"id\":100}");
    panel.app.assert_at_rest();
}

#[test]
fn a_machine_is_changed_and_what_is_not_given_stays() {
    let panel = Panel::new().stocked();
    let id = panel.container("hostname=www&memory=64&swap=1");
    panel.form("POST", "/manage/off", &format!("id={id}")).value();
    let changed = panel.json("PUT", "/container", r#"{"id":"100","cpu":2,"memory":128,"name":"web","swap":"7"}"#);
    changed.is(200, ANSWER, r#"{"host1":{"data":null}}"#);
    let data = panel.data(id);
    let said = ["cpus", "maxmem", "name", "maxswap"].map(|key| data[key].clone());
    assert_eq!(said, [json!("2"), json!(128_u64 << 20), json!("web"), json!(7_u64 << 20)]);
    panel.json("PUT", "/container", r#"{"id":100,"cpu":null}"#).is(200, ANSWER, r#"{"host1":{"data":null}}"#);
    assert_eq!(panel.data(id)["cpus"], "2");
    for bad in [r#"{"id":100,"disk":7}"#, r#"{"id":100,"cpu":"x"}"#] {
        let answer = panel.json("PUT", "/container", bad);
        assert!(answer.status == 400 && answer.value().as_str().unwrap().starts_with("Parameter"), "{answer:?}");
    }
}

#[test]
fn machines_are_switched_and_what_cannot_be_is_the_nodes_to_say() {
    let panel = Panel::new().stocked();
    let id = panel.container("hostname=www");
    let again = panel.form("POST", "/manage/on", &format!("id={id}")).value();
    assert_eq!(again["host1"], "vm www is RUNNING; it is started already - {\"data\":null}");
    let off = panel.json("POST", "/manage/off", r#"{"id":100}"#).value();
    assert!(off["host1"]["data"].is_string(), "{off}");
    panel.wait_status(id, "stopped");
    let on = panel.form("POST", "/manage/on", &format!("id={id}")).value();
    assert!(on["host1"]["data"].is_string(), "{on}");
    panel.wait_status(id, "running");
    panel.form("POST", "/manage/on", "id=101").value()["host1"].as_str().unwrap();
    panel.app.assert_at_rest();
}

#[test]
fn a_user_that_goes_leaves_its_machines() {
    let panel = Panel::new().stocked();
    let id = panel.container("hostname=www");
    panel.form("DELETE", "/user", "username=bob").is_ok();
    assert_eq!(panel.data(id)["status"], "running");
    panel.form("POST", "/user", "username=bob&password=secret1").is_ok();
    assert!(panel.get("/user?username=bob").value()[0].get("machines").is_none(), "another bob");
}

#[test]
fn each_host_has_a_key_and_only_this_one_answers() {
    let panel = Panel::new().stocked();
    let id = panel.container("hostname=www");
    let other = Pm { id: PmId(uuid::Uuid::from_u128(2)), name: "host2".to_owned(), ..panel.app.site.pm() };
    let far = panel.app.store().write_tx(|c| {
        pengx::store::pms::save(c, &other)?;
        let mut vm = pengx::store::vms::find_by_name(c, "www")?.unwrap();
        vm.id = pengx::model::VmId(uuid::Uuid::from_u128(7));
        (vm.pm, vm.name, vm.memory) = (other.id, "far".to_owned(), MiB(1));
        pengx::store::vms::insert(c, &vm)?;
        Ok(vm)
    });
    assert_eq!(far.unwrap().name, "far");
    let near = panel.get(&format!("/container?id={id}")).value();
    assert_eq!(near["host1"]["data"]["name"], "www");
    assert_eq!(near["host2"], NO_CONTAINER.replace("host1", "host2"));
    let far = panel.get("/container?id=101").value();
    assert_eq!(far["host1"], NO_CONTAINER.replace("100", "101"));
    assert_eq!(far["host2"], "ask pengx on host2 - {\"data\":null}");
    let nodes = panel.http.ask("REPORT", "/node", &[], "").value();
    assert!(nodes["host1"]["data"].is_object() && nodes["host2"] == "ask pengx on host2 - {\"data\":null}", "{nodes}");
    let cluster = panel.http.ask("REPORT", "/cluster", &[], "").value();
    assert_eq!((cluster["data"].as_array().unwrap().len(), &cluster["data"][1]["id"]), (2, &json!("node/host2")));
    let refused = panel.json("DELETE", "/container", r#"{"id":101}"#);
    assert_eq!(refused.status, 400, "{refused:?}");
    assert_eq!(panel.get("/cluster").body, "[]");
}

#[test]
fn late_clients_get_texts_and_what_is_inside() {
    let panel = Panel::late().stocked();
    panel.get("/cluster/nextid").is(200, ANSWER, r#"{"data":"100"}"#);
    let templates = panel.get("/template").value();
    assert_eq!(templates["data"][0]["content"], "vztmpl", "{templates}");
    let body = format!("username=bob&template={}&hostname=www", panel.volid());
    post(&panel, &body).is(200, ANSWER, r#"{"id":"100"}"#);
    let by_id = panel.get("/container?id=100").value();
    assert_eq!((by_id.as_array().unwrap().len(), &by_id[0]["data"]["name"]), (1, &json!("www")));
    let by_user = panel.get("/container?username=bob").value();
    assert_eq!((by_user.as_array().unwrap().len(), &by_user[0]["data"]["name"]), (1, &json!("www")));
    let unknown = panel.get("/container?id=101").value();
    assert_eq!(unknown, json!([{ "host1": NO_CONTAINER.replace("100", "101") }]));
    assert_eq!(panel.get("/user").value()[0]["machines"], "100");
}

#[test]
fn a_network_that_is_not_there_is_told() {
    let panel = Panel::with(ProxmoxApi { networks: vec!["none".to_owned()], ..settings() }).stocked();
    let answer = post(&panel, &format!("username=bob&template={}", panel.volid()));
    assert!(answer.status == 400 && answer.value().as_str().unwrap().contains("\"net0\":"), "{answer:?}");
}
