//! VirtDancer's API over HTTP: the contract's tables row by row, its vectors, and what its two web pages need.

mod actions;
mod browser;
mod pages;
mod screens;
mod table;
mod users;

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use pengx::config::VirtDancer;
use pengx::dialects::ask::Bodies;
use pengx::dialects::virtdancer::mount;
use pengx::model::{NameRules, PowerState, RandomIds, Role, Secret, SystemClock, VmId};
use pengx::operations::{Gate, Login, Registry, vm};
use pengx::store::Store;
use serde_json::Value;

use crate::harness::app::{App, Site};
use crate::harness::http::{Answer, Served, basic};
use crate::harness::screen::Screen;
use crate::harness::wait::wait_until;

/// Has a colon, as passwords may.
const PASSWORD: &str = "a:pass:word";
const NOBODY: &str = "0f6a9c1e-0000-4000-8000-00000000ffff";

/// A host with the VMs `web-1` and `db-2`, both off; `root` sees both, `web` those that begin with `web-`, and `eye` may only
/// look.
struct Scene {
    http: Served,
    app: App,
    web: VmId,
    db: VmId,
}

impl Scene {
    fn new() -> Self {
        Self::with(VirtDancer::default(), "")
    }

    fn with(settings: VirtDancer, prefix: &str) -> Self {
        Self::on(Site::new(), settings, prefix)
    }

    fn on(mut site: Site, settings: VirtDancer, prefix: &str) -> Self {
        let root = site.dir.path().join("host");
        a_host(&root);
        site.root = root;
        let app = site.start();
        let storlink = app.storlink();
        let [web, db] = ["web-1", "db-2"].map(|name| app.run(app.vm_of(storlink, None, name)).unwrap());
        account(&app.store(), "root", Role::Admin, None);
        account(&app.store(), "web", Role::Operator, Some(prefixed("web-")));
        account(&app.store(), "eye", Role::Viewer, None);
        let gate = Gate::new(app.core.clone(), false).unwrap();
        let http = Served::dialect(prefix, mount(gate, settings, Bodies::default()));
        Self { http, app, web, db }
    }

    /// `{web}` and `{db}` in the path are the VMs.
    fn ask(&self, user: &str, method: &str, path: &str, body: &str) -> Said {
        let basic = basic(user, PASSWORD);
        let mut headers = vec![("Content-Type", "application/json;charset=utf-8")];
        if !user.is_empty() {
            headers.push(("Authorization", basic.as_str()));
        }
        self.send(method, path, &headers, body)
    }

    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Said {
        Said(self.http.ask(method, &self.path(path), headers, body))
    }

    fn path(&self, path: &str) -> String {
        path.replace("{web}", &self.web.to_string()).replace("{db}", &self.db.to_string())
    }

    fn get(&self, path: &str) -> Said {
        self.ask("root", "GET", path, "")
    }

    fn act(&self, vm: VmId, action: &str) -> Said {
        self.ask("root", "POST", &format!("/vm/{vm}/action"), &format!("{{\"action\":\"{action}\"}}"))
    }

    fn detail(&self, vm: VmId) -> Value {
        self.get(&format!("/vm/{vm}")).ok()
    }

    fn state(&self, vm: VmId) -> u64 {
        self.detail(vm)["info"]["state"].as_u64().unwrap()
    }

    /// Starts `web-1`, whose screen is the test's.
    fn show(&self, screen: &Screen) {
        self.act(self.web, "start").done();
        assert!(self.app.site.fake.put_screen(self.web, screen.port));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        wait_until("the screen is seen", || {
            let view = runtime.block_on(vm::find(&self.app.core, self.web))?;
            Ok(view.observed.vnc.is_some_and(|at| at.port == screen.port))
        });
    }

    fn wait_state(&self, vm: VmId, state: u64) {
        wait_until(&format!("vm {vm} is in state {state}"), || Ok(self.state(vm) == state));
    }
}

/// An answer, and what it should be.
#[derive(Debug)]
struct Said(Answer);

impl Deref for Said {
    type Target = Answer;

    fn deref(&self) -> &Answer {
        &self.0
    }
}

impl Said {
    fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        let value: Value = serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        assert_eq!(self.body.len(), value.to_string().len(), "not compact: {}", self.body);
        value
    }

    #[track_caller]
    fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }

    #[track_caller]
    fn done(&self) {
        assert_eq!(self.ok(), serde_json::json!({"result": "done"}));
    }

    /// Dancer's object, with a message.
    #[track_caller]
    fn told(&self, status: u16, reason: &str, message: &str) {
        let title = format!("Error {status} - {reason}");
        let told = serde_json::json!({"title": title, "status": status, "message": message});
        assert_eq!((self.status, self.json()), (status, told));
    }

    /// Dancer's object of a 500.
    #[track_caller]
    fn died(&self, exception: &str) {
        let told = serde_json::json!({
            "title": "Error 500 - Internal Server Error",
            "status": 500,
            "message": "",
            "exception": format!("{exception}\n"),
        });
        assert_eq!((self.status, self.json()), (500, told));
    }

    /// libvirt's refusal of what cannot be done now.
    #[track_caller]
    fn invalid(&self, why: &str) {
        self.died(&format!("libvirt error code: 55, message: Requested operation is not valid: {why}"));
    }

    /// The browser asks its user.
    #[track_caller]
    fn login(&self) {
        assert_eq!((self.status, self.body.as_str()), (401, ""));
        for (name, value) in [
            ("www-authenticate", "Basic realm=\"Please login\""),
            ("content-length", "0"),
            ("content-type", "text/html"),
        ] {
            assert_eq!(self.header(name), Some(value), "{self:?}");
        }
    }
}

fn prefixed(prefix: &str) -> NameRules {
    NameRules { prefix: vec![prefix.to_owned()], ..NameRules::default() }
}

fn account(store: &Store, name: &str, role: Role, sees: Option<NameRules>) {
    registry(store).add_seeing(name, Login::Password(&Secret::new(PASSWORD.to_owned())), role, sees).unwrap();
}

fn registry(store: &Store) -> Registry {
    Registry::new(store.clone(), Arc::new(SystemClock), Arc::new(RandomIds))
}

/// The files by which a host says how it does: a NIC and a bridge, and CPUs that stand still.
fn a_host(root: &Path) {
    let meminfo = "MemTotal: 1000 kB\nMemFree: 200 kB\nMemAvailable: 600 kB\nBuffers: 30 kB\n\
                   SwapTotal: 50 kB\nSwapFree: 40 kB\n";
    for (file, text) in [
        ("proc/stat", "cpu  100 20 40 700 60 5 15 60 90 0\ncpu0 1 1 1 1\n"),
        ("proc/meminfo", meminfo),
        ("proc/cpuinfo", "processor : 0\nmodel name : a CPU\n"),
        ("sys/class/net/eth0/statistics/rx_bytes", "1193515\n"),
        ("sys/class/net/eth0/statistics/tx_bytes", "18446744073709551615\n"),
        ("sys/class/net/eth0/device/uevent", ""),
        ("sys/class/net/br0/statistics/rx_bytes", "7\n"),
        ("sys/class/net/br0/statistics/tx_bytes", "0\n"),
    ] {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

fn power(app: &App, vm: VmId) -> PowerState {
    app.site.fake.states().into_iter().find(|(id, _)| *id == vm).unwrap().1
}
