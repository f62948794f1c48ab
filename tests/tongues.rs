//! One truth, four tongues: what one API did, the others say in their own words and units, and all obey the same locks.

mod sight;

use std::sync::Arc;
use std::time::Duration;

use pengx::config::{LibvirtJson, Open, ProxmoxApi, VirtDancer};
use pengx::dialects::ask::Bodies;
use pengx::dialects::{Mounted, libvirt_json, pengx as native, plain_refusal, proxmox_api, virtdancer};
use pengx::hypervisor::Verb;
use pengx::model::{Format, RandomIds, Role, Secret, SystemClock};
use pengx::operations::{Gate, Registry};
use pengx::server::{Limits, Mounts, Traffic};
use serde_json::{Value, json};

use crate::harness::app::{App, Site};
use crate::harness::http::{Answer, Served, basic};
use crate::harness::wait::{PATIENCE, wait_until};

const ACCOUNT: &str = "ann";
const PASSWORD: &str = "correct horse battery";

/// All four on one listener, each below a prefix but for the native one.
struct Scene {
    http: Served,
    app: App,
    template: String,
}

impl Scene {
    fn new() -> Self {
        let mut site = Site::new();
        site.settings.tasks.lock_timeout = Duration::from_millis(300);
        let app = site.start();
        let storlink = app.storlink();
        let template = app.template(storlink, Format::Qcow2).to_string();
        let registry = Registry::new(app.store(), Arc::new(SystemClock), Arc::new(RandomIds));
        registry.add(ACCOUNT, &Secret::new(PASSWORD.to_owned()), Role::Admin).unwrap();
        let gate = Gate::new(app.core.clone(), false).unwrap();
        let open = || Open { act_as: ACCOUNT.parse().unwrap(), allow: Vec::new(), cors: false, path: String::new() };
        let bodies = Bodies::default();
        let proxmox = ProxmoxApi {
            open: open(),
            late: false,
            mask_passwords: false,
            networks: vec!["0".to_owned()],
            novnc: "/nowhere".into(),
        };
        let json = LibvirtJson { open: open(), allow_power: true, redirect_base: None, disabled: Vec::new() };
        let mounted: [(&str, Mounted); 4] = [
            ("", native::mount(gate.clone(), native::Settings::default())),
            ("/vd", virtdancer::mount(gate.clone(), VirtDancer::default(), bodies)),
            ("/px", proxmox_api::mount(gate.clone(), proxmox, bodies)),
            ("/lj", libvirt_json::mount(gate, json, bodies)),
        ];
        let mounts = Mounts::new(mounted.map(|(prefix, dialect)| (prefix.to_owned(), dialect)));
        let http = Served::over(mounts, plain_refusal(), Limits::default(), None, Traffic::default());
        Self { http, app, template }
    }

    fn ask(&self, method: &str, uri: &str, kind: &str, body: &str) -> Answer {
        let basic = basic(ACCOUNT, PASSWORD);
        let mut headers = vec![("Content-Type", kind)];
        // Those that know no login get none.
        if !uri.starts_with("/px") && !uri.starts_with("/lj") {
            headers.push(("Authorization", &basic));
        }
        self.http.ask(method, uri, &headers, body)
    }

    fn xml(&self, method: &str, uri: &str, body: &str) -> Answer {
        self.ask(method, uri, "application/xml", body)
    }

    fn json(&self, method: &str, uri: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.ask(method, uri, "application/json", &body)
    }

    #[track_caller]
    fn get(&self, uri: &str) -> Value {
        value(&self.json("GET", uri, &Value::Null))
    }

    /// Made by Proxmox-API, running; its number and uuid.
    fn made(&self) -> (u64, String) {
        let user = self.json("POST", "/px/user", &json!({"username": "bob", "password": "secret1"}));
        assert_eq!(user.body, "OK", "{user:?}");
        let wish = json!({"username": "bob", "template": self.template, "cpu": 2, "hostname": "web-1", "memory": 96, "disk": 1, "ostype": "debian"});
        let made = value(&self.json("POST", "/px/container", &wish));
        let id = made["id"].as_u64().unwrap();
        let uuid = self.xml("GET", "/vms/", "").ids("vm").remove(0);
        wait_until("it starts by itself", || Ok(self.get(&format!("/vd/vm/{uuid}"))["active"] == true));
        (id, uuid)
    }

    fn container(&self, id: u64) -> Value {
        self.get(&format!("/px/container?id={id}"))["host1"]["data"].clone()
    }
}

#[track_caller]
fn value(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap_or_else(|why| panic!("{why}: {answer:?}"))
}

#[test]
fn what_one_api_does_the_others_tell() {
    let scene = Scene::new();
    let (id, uuid) = scene.made();

    // Made in one, it is seen in the others: a MiB is 1024 KiB is 1048576 bytes.
    let xml = scene.xml("GET", &format!("/vms/{uuid}/"), "");
    assert_eq!((xml.element("name"), xml.element("memory"), xml.element("cpu_core")), ("web-1", "96", "2"));
    assert_eq!(xml.element("status"), "RUNNING");
    let detail = scene.get(&format!("/vd/vm/{uuid}"));
    assert_eq!(
        (&detail["name"], &detail["info"]["maxMem"], &detail["info"]["state"]),
        (&json!("web-1"), &json!(98304), &json!(1))
    );
    let info = scene.get("/lj/vm_info?name=web-1");
    assert_eq!((&info["max_mem"], &info["vcpu"], &info["state"]), (&json!(98304), &json!(2), &json!(1)));
    let container = scene.container(id);
    assert_eq!(
        (&container["maxmem"], &container["cpus"], &container["status"]),
        (&json!(100_663_296), &json!("2"), &json!("running"))
    );

    // Stopped in another, and suspended and resumed in a third.
    let stopped = value(&scene.json("POST", "/lj/vm_stop?name=web-1", &Value::Null));
    assert_eq!(stopped, json!({"status": true}));
    assert_eq!(scene.xml("GET", &format!("/vms/{uuid}/"), "").element("status"), "SHUTDOWN");
    assert_eq!(scene.container(id)["status"], "stopped");
    assert_eq!(scene.get(&format!("/vd/vm/{uuid}"))["id"], -1);
    let act = |action: &str| value(&scene.json("POST", &format!("/vd/vm/{uuid}/action"), &json!({"action": action})));
    assert_eq!(act("start"), json!({"result": "done"}));
    assert_eq!(scene.get("/lj/vm_status?name=web-1"), json!({"state": "running"}));
    assert_eq!(act("pause"), json!({"result": "done"}));
    assert_eq!(scene.xml("GET", &format!("/vms/{uuid}/"), "").element("status"), "PAUSED");
    assert_eq!(scene.get("/lj/vm_state?name=web-1"), json!({"state": 3}));
    assert_eq!(scene.container(id)["status"], "running", "paused counts as running there");

    // A snapshot is taken in one, and another filters by it: 4096 is "has snapshots".
    assert_eq!(scene.get("/lj/vms?type=4096"), json!({"vms": []}));
    let body = "<snapshot><name>before</name><storlink>1</storlink></snapshot>";
    let taken = scene.xml("POST", &format!("/vms/{uuid}/snapshots/"), body);
    assert_eq!(taken.status, 201, "{taken:?}");
    assert_eq!(scene.get("/lj/vms?type=4096")["vms"][0]["name"], "web-1");

    // Deleted in the fourth: asked for, and then done.
    let asked = scene.json("DELETE", "/px/container", &json!({"id": id}));
    assert_eq!(value(&asked), json!({"message": "Machine status changed to destroy"}));
    wait_until("its plug is pulled", || {
        Ok(scene.xml("GET", &format!("/vms/{uuid}/"), "").element("status") == "SHUTDOWN")
    });
    assert_eq!(scene.json("DELETE", "/px/cluster", &Value::Null).body, "OK");
    wait_until("it is gone", || Ok(scene.xml("GET", &format!("/vms/{uuid}/"), "").status == 404));
    assert_eq!(scene.get("/vd/vm"), json!([]));
    assert_eq!(scene.get("/lj/vms?type=all"), json!({"vms": []}));
    assert_eq!(scene.json("GET", "/lj/vm_info?name=web-1", &Value::Null).status, 400);
    wait_until("nothing is left to delete", || Ok(scene.get("/px/cluster") == json!([])));
    scene.app.assert_at_rest();
    assert_eq!(std::fs::read_dir(scene.app.site.store_dir()).unwrap().count(), 1, "the template alone is left");
}

#[test]
fn one_lock_is_obeyed_by_all_and_each_says_busy_in_its_own_way() {
    let scene = Scene::new();
    let (id, uuid) = scene.made();
    let fake = &scene.app.site.fake;
    fake.hold(Verb::Pause);
    std::thread::scope(|threads| {
        let pausing = threads.spawn(|| scene.xml("POST", &format!("/vms/{uuid}/suspend/"), ""));
        assert!(fake.wait_held(Verb::Pause, 1, PATIENCE));
        let native = scene.xml("POST", &format!("/vms/{uuid}/poweroff/"), "");
        assert_eq!(native.status, 400, "{native:?}");
        assert!(native.message().contains("is busy: vm.suspend since"), "{native:?}");
        let dancer = scene.json("POST", &format!("/vd/vm/{uuid}/action"), &json!({"action": "destroy"}));
        assert_eq!(dancer.status, 500, "{dancer:?}");
        let dancer: Value = serde_json::from_str(&dancer.body).unwrap();
        assert!(dancer["exception"].as_str().unwrap().contains("busy"), "{dancer}");
        let json = scene.json("POST", "/lj/vm_stop?name=web-1", &Value::Null);
        assert_eq!(json.status, 400, "{json:?}");
        let json: Value = serde_json::from_str(&json.body).unwrap();
        assert!(json["detail"].as_str().unwrap().contains("is busy"), "{json}");
        let proxmox = scene.json("POST", "/px/manage/off", &json!({"id": id}));
        assert!(proxmox.body.contains("busy"), "{proxmox:?}");
        fake.release(Verb::Pause);
        assert_eq!(pausing.join().unwrap().status, 200);
    });
    assert_eq!(scene.get("/lj/vm_status?name=web-1"), json!({"state": "paused"}));
    scene.app.assert_at_rest();
}
