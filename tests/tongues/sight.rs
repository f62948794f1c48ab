//! Every route of the APIs beside the native one, for every role, with a VM that the account sees and one that it does not.
//! (`accounts::sight` does the same for the native API.)

use std::sync::Arc;

use pengx::config::{LibvirtJson, Open, ProxmoxApi, VirtDancer};
use pengx::dialects::ask::Bodies;
use pengx::dialects::table::Resource;
use pengx::dialects::{Mounted, libvirt_json, plain_refusal, proxmox_api, virtdancer};
use pengx::model::{NameRules, RandomIds, Right, Role, Secret, SystemClock, VmId};
use pengx::operations::{Gate, Login, Registry};
use pengx::server::{Limits, Mounts, Traffic};

use crate::harness::app::{App, Site};
use crate::harness::http::{Answer, Served, ask_bytes, basic};
use crate::harness::world::World;

const ROLES: [Role; 3] = [Role::Viewer, Role::Operator, Role::Admin];
const PASSWORD: &str = "correct horse battery";

/// How an API is spoken to.
struct Tongue {
    table: &'static [Resource],
    mount: fn(Gate, Role) -> Mounted,
    /// Path with query and body, for routes that name a VM.
    about: fn(&str, &str, &Named) -> Option<(String, String)>,
    /// `None`: no account opens it, only a ticket does.
    right: fn(&str, &str) -> Option<Right>,
}

/// What a VM is called, by APIs that know uuids, names or numbers.
struct Named {
    vm: VmId,
    name: &'static str,
    number: u32,
}

fn open(role: Role) -> Open {
    Open { act_as: role.word().parse().unwrap(), allow: Vec::new(), cors: false, path: String::new() }
}

fn reads(method: &str) -> bool {
    ["GET", "HEAD", "OPTIONS", "REPORT"].contains(&method)
}

fn virtdancer() -> Tongue {
    Tongue {
        table: virtdancer::TABLE,
        mount: |gate, _| virtdancer::mount(gate, VirtDancer::default(), Bodies::default()),
        about: |_, pattern, named| {
            let body = if pattern.ends_with("/action") { "{\"action\":\"start\"}" } else { "" };
            let uri = pattern.replace(":uuid", &named.vm.to_string());
            pattern.contains(":uuid").then(|| (uri, body.to_owned()))
        },
        right: |pattern, method| {
            Some(if reads(method) && !pattern.starts_with("/vnc") { Right::Look } else { Right::Operate })
        },
    }
}

fn libvirt_json() -> Tongue {
    Tongue {
        table: libvirt_json::TABLE,
        mount: |gate, role| {
            let open = open(role);
            let settings = LibvirtJson { open, allow_power: true, redirect_base: None, disabled: Vec::new() };
            libvirt_json::mount(gate, settings, Bodies::default())
        },
        about: |_, pattern, named| {
            let is_of_vm = pattern.starts_with("/vm_") && pattern != "/vm_status_lookup";
            is_of_vm.then(|| (format!("{pattern}?name={}", named.name), String::new()))
        },
        right: |_, method| Some(if reads(method) { Right::Look } else { Right::Operate }),
    }
}

fn proxmox_api() -> Tongue {
    Tongue {
        table: proxmox_api::TABLE,
        mount: |gate, role| {
            let settings = ProxmoxApi {
                open: open(role),
                late: false,
                mask_passwords: false,
                networks: vec!["0".to_owned()],
                novnc: "/nowhere".into(),
            };
            proxmox_api::mount(gate, settings, Bodies::default())
        },
        about: |method, pattern, named| {
            let of_id = ["/utils/vnc", "/utils/graphic", "/container", "/manage/on", "/manage/off"];
            let uri = pattern.replace(":vm", &named.vm.to_string());
            if uri != pattern {
                return Some((uri, String::new()));
            }
            // A machine is made for somebody, and asked for by its number.
            let user = if method == "POST" { ",\"username\":\"ann\"" } else { "" };
            of_id.contains(&pattern).then(|| (uri, format!("{{\"id\":{},\"memory\":96{user}}}", named.number)))
        },
        right: |pattern, method| {
            let secret = ["/user", "/cluster/nextid", "/utils/vnc"].contains(&pattern) && method != "OPTIONS";
            let right = if reads(method) && !secret { Right::Look } else { Right::Operate };
            (!pattern.starts_with("/console")).then_some(right)
        },
    }
}

struct Scene {
    app: App,
    http: Served,
    own: Named,
    foreign: Named,
    nobody: Named,
}

impl Scene {
    /// Each role's account sees the VMs whose names begin with `web-`, and has a mount of its own.
    fn new(tongue: &Tongue) -> Self {
        let app = Site::new().start();
        let storlink = app.storlink();
        let [foreign, own] = ["db-1", "web-1"].map(|name| app.run(app.vm_of(storlink, None, name)).unwrap());
        let registry = Registry::new(app.store(), Arc::new(SystemClock), Arc::new(RandomIds));
        for role in ROLES {
            let rules = NameRules { prefix: vec!["web-".to_owned()], ..NameRules::default() };
            let password = Secret::new(PASSWORD.to_owned());
            registry.add_seeing(role.word(), Login::Password(&password), role, Some(rules)).unwrap();
        }
        let gate = Gate::new(app.core.clone(), false).unwrap();
        let mounts = ROLES.map(|role| (format!("/{role}"), (tongue.mount)(gate.clone(), role)));
        let http = Served::over(Mounts::new(mounts), plain_refusal(), Limits::default(), None, Traffic::default());
        let nobody = VmId(uuid::Uuid::from_u128(0x0f6a_9c1e_0000_4000_8000_0000_0000_ffff));
        Self {
            app,
            http,
            foreign: Named { vm: foreign, name: "db-1", number: 100 },
            own: Named { vm: own, name: "web-1", number: 101 },
            nobody: Named { vm: nobody, name: "db-9", number: 999 },
        }
    }

    fn send(&self, role: Role, resource: &Resource, method: &str, uri: &str, body: &str) -> Answer {
        let basic = basic(role.word(), PASSWORD);
        let mut headers = vec![("Authorization", basic.as_str())];
        if !body.is_empty() {
            headers.push(("Content-Type", "application/json"));
        }
        if resource.upgrades {
            headers.extend([("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]);
            headers.push(("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="));
        }
        let (mut answer, body) = ask_bytes(self.http.address, method, &format!("/{role}{uri}"), &headers, body);
        answer.body = String::from_utf8_lossy(&body).into_owned();
        answer
    }

    /// Nothing in the answer tells of the VM; what the client sent itself may come back.
    #[track_caller]
    fn hides(&self, answer: &Answer, sent: &str, what: &str) {
        let foreign = &self.foreign;
        let nics = self.app.store().read(|c| pengx::store::nics::of_vm(c, foreign.vm)).unwrap();
        let marks = nics.iter().map(|nic| nic.mac.to_string()).chain([foreign.vm.to_string(), foreign.name.to_owned()]);
        for mark in marks.filter(|mark| !sent.contains(mark)) {
            let said = answer.headers.iter().any(|(_, value)| value.contains(&mark)) || answer.body.contains(&mark);
            assert!(!said, "{what} tells of {mark}: {answer:?}");
        }
    }
}

fn routes(tongue: &Tongue) -> impl Iterator<Item = (&'static Resource, &'static str)> {
    tongue.table.iter().flat_map(|resource| resource.methods.iter().map(move |method| (resource, *method)))
}

/// Whether the caller is told that it may not; Proxmox-API says of a machine what its node said, under 200.
fn forbidden(answer: &Answer) -> bool {
    answer.status == 403 || answer.body.contains("you may not ")
}

fn judge(tongue: &Tongue) {
    let scene = Scene::new(tongue);
    // The numbers are given when somebody asks for one, and before the world is looked at.
    if let Some((resource, method)) = routes(tongue).find(|(resource, _)| resource.pattern == "/container") {
        scene.send(Role::Admin, resource, method, "/container?id=100", "");
    }
    let world = World::of(&scene.app);
    let mut seen = 0;
    for (resource, method) in routes(tongue) {
        let pattern = resource.pattern;
        let Some((uri, body)) = (tongue.about)(method, pattern, &scene.foreign) else { continue };
        let (none, empty) = (tongue.about)(method, pattern, &scene.nobody).unwrap();
        for role in ROLES {
            let what = format!("{method} {pattern} as {role}");
            let answer = scene.send(role, resource, method, &uri, &body);
            scene.hides(&answer, &format!("{uri} {body}"), &what);
            let as_unknown = scene.send(role, resource, method, &none, &empty);
            let renamed = as_unknown.body.replace(scene.nobody.name, scene.foreign.name);
            let renamed = renamed.replace(&scene.nobody.number.to_string(), &scene.foreign.number.to_string());
            let same = answer.status == as_unknown.status && answer.body == renamed;
            // VirtDancer's clients are told that it is there, and no more; so is whoever asks for a screen by its uuid.
            assert!(same || forbidden(&answer), "{what}: {answer:?}, but {as_unknown:?} of one that is not there");
            seen += 1;
        }
    }
    assert_eq!(World::of(&scene.app), world, "what was asked of a VM that nobody saw has done something");
    for (resource, method) in routes(tongue) {
        let pattern = resource.pattern;
        let own = (tongue.about)(method, pattern, &scene.own);
        let is_list = own.is_none();
        // What a route that is no VM's wants to hear, if it wants to hear something.
        let user = if pattern == "/user" { "{\"username\":\"bob\",\"password\":\"secret1\"}" } else { "" };
        let (uri, body) = own.unwrap_or_else(|| (pattern.replace(":name", "lo"), user.to_owned()));
        let uri = if uri == "/vms" { "/vms?type=all".to_owned() } else { uri };
        for role in ROLES {
            let what = format!("{method} {pattern} as {role}");
            let answer = scene.send(role, resource, method, &uri, &body);
            scene.hides(&answer, "", &what);
            match (tongue.right)(pattern, method) {
                Some(right) => assert_eq!(forbidden(&answer), !role.may(right), "{what}: {answer:?}"),
                None => assert_eq!(answer.status, 401, "{what}: {answer:?}"),
            }
            if is_list {
                seen += 1;
            }
        }
    }
    let all: usize = tongue.table.iter().map(|resource| resource.methods.len()).sum();
    assert_eq!(seen, all * ROLES.len());
}

#[test]
fn what_an_account_does_not_see_virtdancer_does_not_tell() {
    judge(&virtdancer());
}

#[test]
fn what_an_account_does_not_see_the_libvirt_json_api_does_not_tell() {
    judge(&libvirt_json());
}

#[test]
fn what_an_account_does_not_see_proxmox_api_does_not_tell() {
    judge(&proxmox_api());
}
