//! What nodes and the cluster say of themselves, and what machines used.

use serde_json::{Value, json};

use super::{Panel, Read};

fn keys(value: &Value) -> Vec<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn a_node_says_all_that_the_contract_names() {
    let panel = Panel::new();
    let report = panel.form("REPORT", "/node", "a=b").value();
    let data = &report["host1"]["data"];
    let all = [
        "cpu",
        "cpuinfo",
        "idle",
        "ksm",
        "kversion",
        "loadavg",
        "memory",
        "pveversion",
        "rootfs",
        "swap",
        "uptime",
        "wait",
    ];
    assert_eq!(keys(data), all);
    for share in ["wait", "cpu"] {
        assert!((0.0..=1.0).contains(&data[share].as_f64().unwrap()), "{share}: {data}");
    }
    let loads = data["loadavg"].as_array().unwrap();
    assert!(loads.len() == 3 && loads.iter().all(|load| load.as_str().unwrap().parse::<f64>().is_ok()), "{data}");
    for (of, parts) in [("swap", &["free", "total", "used"][..]), ("memory", &["free", "total", "used"])] {
        assert_eq!(keys(&data[of]), parts);
        let [free, total, used] = ["free", "total", "used"].map(|part| data[of][part].as_u64().unwrap());
        assert_eq!(free + used, total, "{of}");
    }
    assert_eq!(keys(&data["rootfs"]), ["avail", "free", "total", "used"]);
    assert_eq!(keys(&data["cpuinfo"]), ["cpus", "hvm", "mhz", "model", "sockets", "user_hz"]);
    let cpu = &data["cpuinfo"];
    assert!(cpu["mhz"].is_string() && cpu["user_hz"] == 100 && cpu["cpus"].as_u64().unwrap() > 0, "{cpu}");
    assert!([0, 1].contains(&cpu["hvm"].as_i64().unwrap()), "{cpu}");
    assert!(data["ksm"]["shared"].is_u64() && data["uptime"].as_u64().unwrap() > 0 && data["idle"] == 0, "{data}");
    assert!(data["pveversion"].as_str().unwrap().starts_with("pengx/"));
    assert!(data["kversion"].as_str().unwrap().starts_with("Linux "), "{data}");
}

#[test]
fn the_cluster_has_eleven_keys_for_each_host() {
    let panel = Panel::new();
    let report = panel.json("REPORT", "/cluster", "{}").value();
    let [one] = report["data"].as_array().unwrap().as_slice() else { panic!("{report}") };
    let all = ["cpu", "disk", "id", "level", "maxcpu", "maxdisk", "maxmem", "mem", "node", "type", "uptime"];
    assert_eq!(keys(one), all);
    assert_eq!((&one["type"], &one["id"], &one["node"]), (&json!("node"), &json!("node/host1"), &json!("host1")));
    assert_eq!(one["level"], "");
    for number in ["cpu", "disk", "maxcpu", "maxdisk", "maxmem", "mem", "uptime"] {
        assert!(one[number].is_number(), "{number}: {one}");
    }
}

#[test]
fn the_last_hour_of_a_machine_is_the_nodes_to_tell() {
    let panel = Panel::new().stocked();
    let id = panel.container("memory=64");
    let graph = panel.json("GET", "/utils/graphic", &format!("{{\"id\":{id}}}")).value();
    let points = graph["host1"]["data"].as_array().unwrap_or_else(|| panic!("{graph}"));
    for point in points {
        for key in
            ["time", "cpu", "maxcpu", "mem", "maxmem", "disk", "maxdisk", "netin", "netout", "diskread", "diskwrite"]
        {
            assert!(point[key].is_number(), "{key}: {point}");
        }
    }
}

#[test]
fn a_ticket_is_two_texts() {
    let ticket = Panel::new().get("/utils/ticket").value();
    assert!(ticket["ticket"].is_string() && ticket["CSRF"].is_string() && keys(&ticket).len() == 2, "{ticket}");
}
