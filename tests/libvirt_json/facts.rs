//! What is told of the host, and of a guest that runs.

use std::time::Duration;

use pengx::model::{GuestAddress, Name};
use pengx::operations::snapshot::TakeSnapshot;
use pengx::operations::vm::SuspendVm;
use serde_json::json;

use super::Api;
use crate::harness::http::ask_bytes;
use crate::harness::wait::wait_until;

#[test]
fn the_host_in_eight_items() {
    let api = Api::new();
    let answer = api.json("/host");
    let items = answer["host_data"].as_array().unwrap();
    assert_eq!(items.len(), 8, "{answer}");
    let vitals = pengx::operations::pm::vitals(&api.app.core).unwrap();
    assert_eq!(items[0], json!(vitals.machine));
    assert_eq!(items[1], json!(vitals.memory_total / 1024 / 1024), "MiB");
    assert_eq!(items[2], json!(vitals.cpus));
    assert!(items[3].is_u64(), "MHz: {answer}");
    assert_eq!(items[4], json!(vitals.numa_nodes));
    assert_eq!(items[5], json!((vitals.sockets / vitals.numa_nodes).max(1)));
    assert_eq!((&items[6], &items[7]), (&json!(vitals.cores_per_socket), &json!(vitals.threads_per_core)));
}

#[test]
fn a_running_guest_is_counted() {
    let api = Api::new();
    let [.., gamma] = api.four();
    api.app.site.fake.let_pass(Duration::from_secs(40));
    let first = api.json("/vm_info?name=alpha");
    assert_eq!(first["state"], 1);
    assert_eq!((&first["max_mem"], &first["cur_mem"], &first["vcpu"]), (&json!(65_536), &json!(65_536), &json!(1)));
    assert!(first["cputime"].as_u64().unwrap() >= 10_000_000_000, "ns: {first}");
    api.app.site.fake.let_pass(Duration::from_secs(40));
    wait_until("it is looked at again", || {
        let second = api.json("/vm_info?name=alpha");
        Ok(second["cputime"].as_u64().unwrap() >= first["cputime"].as_u64().unwrap() + 10_000_000_000)
    });
    assert_eq!(api.json("/vm_info?name=gamma")["state"], 3);
    super::power_off(&api, gamma);
    let off = json!({ "state": 5, "max_mem": 65_536, "cur_mem": 65_536, "vcpu": 1, "cputime": 0 });
    assert_eq!(api.json("/vm_info?name=gamma"), off);
}

#[test]
fn addresses_of_every_interface() {
    let api = Api::new();
    let [alpha, ..] = api.four();
    let all =
        [("lo", "127.0.0.1", 8), ("lo", "::1", 128), ("ens3", "192.0.2.7", 24), ("ens3", "2001:db8:0:0:0:0:0:7", 64)];
    let address = |(interface, ip, prefix): (&str, &str, u8)| GuestAddress {
        interface: interface.to_owned(),
        mac: None,
        ip: ip.parse().unwrap(),
        prefix,
    };
    api.app.site.fake.set_addresses(alpha, all.map(address).to_vec());
    let said = r#"{"ips":["127.0.0.1/8","::1/128","192.0.2.7/24","2001:db8::7/64"]}"#;
    api.get("/vm_ip?name=alpha").says(200, said);
    super::power_off(&api, alpha);
    api.get("/vm_ip?name=alpha").says(200, r#"{"ips":[]}"#);
}

#[test]
fn the_description_is_xml_unless_json_is_asked_for_by_name() {
    let api = Api::new();
    let [alpha, ..] = api.four();
    let uri = "/vm_xmldesc?name=alpha";
    for accept in [None, Some("*/*"), Some("application/xml"), Some("application/json;q=0")] {
        let headers: Vec<_> = accept.map(|accept| ("Accept", accept)).into_iter().collect();
        let answer = api.http.ask("GET", uri, &headers, "");
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/xml")));
        assert!(answer.body.starts_with("<domain type="), "{}", answer.body);
        assert!(answer.body.contains(&format!("<uuid>{alpha}</uuid>")), "{}", answer.body);
        assert!(!answer.body.contains("passwd"), "{}", answer.body);
    }
    let plain = api.get(uri).body;
    let answer = api.http.ask("GET", uri, &[("Accept", "application/json, text/plain, */*")], "");
    assert_eq!(answer.json_200(), json!({ "xml": plain }));
}

#[test]
fn where_the_screen_is() {
    let api = Api::new();
    let [alpha, ..] = api.four();
    let seen = || api.json("/vm_viewer?name=alpha");
    assert_eq!(seen()["ip"], "127.0.0.1");
    assert!(seen()["port"].as_u64().is_some_and(|port| port >= 5900), "{}", seen());
    assert!(api.json("/vm_viewer?name=gamma")["port"].is_u64(), "paused, so it is there");
    super::power_off(&api, alpha);
    api.get("/vm_viewer?name=alpha").says(200, r#"{"ip":null,"port":null}"#);
}

#[test]
fn the_picture_of_a_screen() {
    use pengx::error::ErrorKind;
    use pengx::hypervisor::{Answer, Verb};
    let api = Api::new();
    api.four();
    for name in ["alpha", "gamma"] {
        let uri = format!("/vm_screenshot?name={name}");
        let (answer, body) = ask_bytes(api.http.address, "GET", &uri, &[], "");
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/png")));
        assert!(body.starts_with(b"\x89PNG\r\n\x1a\n"), "{body:?}");
    }
    for name in ["beta", "delta"] {
        api.get(&format!("/vm_screenshot?name={name}")).details(400, &format!("No VM named {name}"));
    }
    let (what, by) = ("show the screen".to_owned(), "the fake".to_owned());
    api.app.site.fake.fail_next(Verb::Screenshot, Answer::Refuse(ErrorKind::Unsupported { what, by }));
    api.get("/vm_screenshot?name=alpha").details(400, "No VM named alpha");
}

#[test]
fn snapshots_are_a_flag_of_the_list() {
    let api = Api::new();
    let [alpha, ..] = api.four();
    let name: Name = "before".parse().unwrap();
    api.app.run(TakeSnapshot { vm: alpha, name, storlink: api.storlink, desc: String::new() }).unwrap();
    assert_eq!(api.listed("4096"), ["alpha"]);
    assert_eq!(api.listed("8192"), ["beta", "delta", "gamma"]);
    assert_eq!(api.listed("12288").len(), 4);
    assert_eq!(api.listed("4097"), ["alpha"], "active, too");
    assert_eq!(api.listed("4098"), Vec::<String>::new());
    assert_eq!(api.listed("8193"), ["gamma"]);
    api.app.assert_at_rest();
}

/// A number for each run.
#[test]
fn the_number_of_a_domain_is_of_its_run() {
    let api = Api::new();
    let vm = api.vm("web1");
    let number = || api.json("/vms?type=all")["vms"][0]["id"].as_i64().unwrap();
    assert_eq!(number(), -1);
    api.post("/vm_start?name=web1");
    let first = number();
    api.app.run(SuspendVm { vm }).unwrap();
    assert_eq!((first > 0, number()), (true, first));
    api.post("/vm_stop?name=web1");
    api.post("/vm_start?name=web1");
    let second = number();
    assert!(second > 0 && second != first, "{second}");
    api.app.site.fake.set_reachable(false);
    wait_until("nobody knows", || Ok(number() == -1));
}
