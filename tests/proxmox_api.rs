//! Proxmox-API over HTTP: each line of its contract's tables, its vectors, and what comes between.

mod console;
mod containers;
mod deletions;
mod numbers;
mod reports;
mod table;
mod users;
mod vectors;

use pengx::config::{Open, ProxmoxApi, PublicUrl};
use pengx::dialects::ask::Bodies;
use pengx::dialects::proxmox_api::mount;
use pengx::model::{Format, RandomIds, Role, Secret, SystemClock};
use pengx::operations::{Gate, Registry};
use serde_json::Value;
use std::sync::Arc;

use crate::harness::app::{App, Site};
use crate::harness::http::{Answer, Served};
use crate::harness::wait::wait_until;

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";
/// What a node says of a container that it has not.
const NO_CONTAINER: &str = "Configuration file 'nodes/host1/lxc/100.conf' does not exist - {\"data\":null}";

/// A site with one server and its front door for panels.
pub struct Panel {
    pub http: Served,
    pub app: App,
}

pub fn settings() -> ProxmoxApi {
    ProxmoxApi {
        open: Open { act_as: "panel".parse().unwrap(), allow: Vec::new(), cors: false, path: String::new() },
        late: false,
        mask_passwords: false,
        networks: vec!["0".to_owned()],
        novnc: "/nowhere".into(),
    }
}

fn add_account(app: &App, name: &str, role: Role) {
    let registry = Registry::new(app.store(), Arc::new(SystemClock), Arc::new(RandomIds));
    registry.add(name, &Secret::new("a password".to_owned()), role).unwrap();
}

impl Panel {
    fn new() -> Self {
        Self::with(settings())
    }

    fn late() -> Self {
        Self::with(ProxmoxApi { late: true, ..settings() })
    }

    fn with(settings: ProxmoxApi) -> Self {
        Self::on(Site::new().start(), settings)
    }

    fn on(app: App, settings: ProxmoxApi) -> Self {
        Self::below("", app, settings)
    }

    fn below(prefix: &str, app: App, settings: ProxmoxApi) -> Self {
        Self::found_at(None, prefix, app, settings)
    }

    /// Where browsers find the server's root at `public_url`.
    pub fn found_at(public_url: Option<PublicUrl>, prefix: &str, app: App, settings: ProxmoxApi) -> Self {
        add_account(&app, "panel", Role::Operator);
        Self { http: serve(public_url, prefix, &app, settings), app }
    }

    /// With a template, and a user who may have machines.
    fn stocked(self) -> Self {
        let storlink = self.app.storlink();
        self.app.template(storlink, Format::Qcow2);
        self.form("POST", "/user", "username=bob&password=secret1").is_ok();
        self
    }

    /// Another run of the server on the same site.
    fn restarted(self) -> Self {
        let Self { http, app } = self;
        drop(http);
        let app = app.restart();
        Self { http: serve(None, "", &app, settings()), app }
    }

    pub fn get(&self, uri: &str) -> Answer {
        self.http.ask("GET", uri, &[], "")
    }

    pub fn form(&self, method: &str, uri: &str, body: &str) -> Answer {
        self.http.ask(method, uri, &[("Content-Type", FORM)], body)
    }

    fn json(&self, method: &str, uri: &str, body: &str) -> Answer {
        self.http.ask(method, uri, &[("Content-Type", JSON)], body)
    }

    /// The id of a new machine of bob's.
    fn container(&self, more: &str) -> i64 {
        let made = self.form("POST", "/container", &format!("username=bob&template={}&{more}", self.volid()));
        made.value()["id"].as_i64().unwrap_or_else(|| panic!("{made:?}"))
    }

    fn volid(&self) -> String {
        let templates = self.get("/template").value();
        let templates = if templates["data"].is_array() { &templates } else { &templates["host1"] };
        templates["data"][0]["volid"].as_str().unwrap().to_owned()
    }

    fn machines(&self, user: &str) -> Value {
        self.get(&format!("/user?username={user}")).value()[0]["machines"].clone()
    }

    /// Of a container.
    fn data(&self, id: i64) -> Value {
        self.get(&format!("/container?id={id}")).value()["host1"]["data"].clone()
    }

    fn wait_status(&self, id: i64, status: &str) {
        wait_until(&format!("container {id} is {status}"), || Ok(self.data(id)["status"] == status));
    }
}

fn serve(public_url: Option<PublicUrl>, prefix: &str, app: &App, settings: ProxmoxApi) -> Served {
    let gate = Gate::new(app.core.clone(), false).unwrap();
    Served::dialect_found_at(public_url, prefix, mount(gate, settings, Bodies::default()))
}

/// What a panel reads of an answer.
pub trait Read {
    fn value(&self) -> Value;
    fn is_ok(&self);
    fn is(&self, status: u16, content_type: &str, body: &str);
}

impl Read for Answer {
    #[track_caller]
    fn value(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json; charset=utf-8"), "{self:?}");
        serde_json::from_str(&self.body).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }

    #[track_caller]
    fn is_ok(&self) {
        self.is(200, "text/html; charset=utf-8", "OK");
    }

    #[track_caller]
    fn is(&self, status: u16, content_type: &str, body: &str) {
        assert_eq!((self.status, self.header("content-type"), self.body.as_str()), (status, Some(content_type), body));
    }
}
