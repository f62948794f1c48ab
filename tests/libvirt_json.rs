//! The libvirt JSON API, line by line of its contract, over HTTP.

mod cors;
mod facts;
mod names;
mod power;
mod table;

use std::sync::Arc;

use pengx::config::{LibvirtJson, Open};
use pengx::dialects::ask::Bodies;
use pengx::dialects::libvirt_json::mount;
use pengx::model::{RandomIds, Role, Secret, StorlinkId, SystemClock, VmId};
use pengx::operations::vm::{PoweroffVm, StartVm, SuspendVm};
use pengx::operations::{Gate, Registry};
use serde_json::Value;

use crate::harness::app::{App, Site};
use crate::harness::http::{Answer, Served};
use crate::harness::wait::wait_until;

/// Whom the API acts as.
const ACCOUNT: &str = "panel";

/// A server that has this API alone.
pub struct Api {
    pub http: Served,
    pub app: App,
    storlink: StorlinkId,
}

pub fn settings() -> LibvirtJson {
    let open = Open { act_as: ACCOUNT.parse().unwrap(), allow: Vec::new(), cors: false, path: String::new() };
    LibvirtJson { open, allow_power: true, redirect_base: None, disabled: Vec::new() }
}

fn registry(app: &App) -> Registry {
    Registry::new(app.store(), Arc::new(SystemClock), Arc::new(RandomIds))
}

fn serve(app: &App, prefix: &str, settings: LibvirtJson) -> Served {
    let gate = Gate::new(app.core.clone(), false).unwrap();
    Served::dialect(prefix, mount(gate, settings, Bodies::default()))
}

impl Api {
    fn new() -> Self {
        Self::on(Site::new(), settings())
    }

    fn with(change: impl FnOnce(&mut LibvirtJson)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        Self::on(Site::new(), settings)
    }

    pub fn on(site: Site, settings: LibvirtJson) -> Self {
        let app = site.start();
        registry(&app).add(ACCOUNT, &Secret::new("correct horse battery".to_owned()), Role::Operator).unwrap();
        let storlink = app.storlink();
        Self { http: serve(&app, "", settings), app, storlink }
    }

    /// Off.
    pub fn vm(&self, name: &str) -> VmId {
        self.app.run(self.app.vm_of(self.storlink, None, name)).unwrap()
    }

    /// `alpha` runs, `beta` is off, `delta` has crashed, `gamma` is paused.
    fn four(&self) -> [VmId; 4] {
        let all = ["alpha", "beta", "delta", "gamma"].map(|name| self.vm(name));
        let [alpha, _, delta, gamma] = all;
        for vm in [alpha, delta, gamma] {
            self.app.run(StartVm { vm }).unwrap();
        }
        self.app.run(SuspendVm { vm: gamma }).unwrap();
        assert!(self.app.site.fake.crash(delta));
        wait_until("delta has crashed", || Ok(self.json("/vm_state?name=delta")["state"] == 6));
        all
    }

    pub fn get(&self, uri: &str) -> Answer {
        self.http.get(uri)
    }

    /// Of a 200.
    #[track_caller]
    pub fn json(&self, uri: &str) -> Value {
        let answer = self.get(uri);
        answer.json_200()
    }

    #[track_caller]
    pub fn post(&self, uri: &str) -> Answer {
        self.http.ask("POST", uri, &[], "")
    }

    /// In the order of the answer.
    #[track_caller]
    fn listed(&self, kind: &str) -> Vec<String> {
        let all = self.json(&format!("/vms?type={kind}"));
        all["vms"].as_array().unwrap().iter().map(|vm| vm["name"].as_str().unwrap().to_owned()).collect()
    }
}

impl Answer {
    #[track_caller]
    fn json_200(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        serde_json::from_str(&self.body).unwrap()
    }

    /// This body to the letter.
    #[track_caller]
    pub fn says(&self, status: u16, body: &str) {
        assert_eq!((self.status, self.body.as_str()), (status, body));
        assert_eq!(self.header("content-type"), Some("application/json"));
    }

    #[track_caller]
    pub fn details(&self, status: u16, sentence: &str) {
        self.says(status, &format!("{{\"detail\":\"{sentence}\"}}"));
    }
}

#[track_caller]
fn power_off(api: &Api, vm: VmId) {
    api.app.run(PoweroffVm { vm }).unwrap();
}
