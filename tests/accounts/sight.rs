//! Every URI and method, for every role whose account does not see every VM: on what it sees, and on what it does not.

use pengx::dialects::pengx::resources::RESOURCES;
use pengx::error::{Error, ErrorKind};
use pengx::model::*;
use pengx::operations::backup::CreateBackup;
use pengx::operations::vm::{DeleteVm, EditVm, StartVm, SuspendVm};
use pengx::operations::{Gate, Login, task, vm};
use pengx::store::{backups, disks, nics, snapshots, tasks, vms};

use super::{PASSWORD, Scene, secret};
use crate::harness::http::{Answer, Served, ask};
use crate::harness::wait::wait_until;
use crate::harness::world::World;

const CONSOLE: &str = "/vms/:vm/console/";
const ROLES: [Role; 3] = [Role::Viewer, Role::Operator, Role::Admin];

/// A table of routes, and how its dialect is spoken to.
struct Tongue {
    /// How an account of this role that sees `web-` alone asks; where accounts have no credentials, another server acts as it.
    caller: fn(&Scene, Role) -> Caller,
    /// What a hidden VM is answered with.
    refused: u16,
    /// Patterns with their methods.
    table: Vec<(&'static str, Vec<&'static str>)>,
    /// Whether a pattern names a VM or a thing of one.
    is_of_vm: fn(&str) -> bool,
    uri: fn(&str, &Thing) -> String,
    /// A body that the route takes. What it makes has this name.
    body: fn(&str, &str) -> String,
    right: fn(&str, &str) -> Right,
    /// In which state its VM must be.
    state: fn(&str) -> PowerState,
    /// Of these nobody may know who does not see every VM.
    is_of_all: fn(&str) -> bool,
}

struct Caller {
    role: Role,
    /// One that is its own is kept for as long as it is asked.
    served: Option<Served>,
    /// With its credentials.
    headers: Vec<(&'static str, String)>,
}

impl Caller {
    fn ask(&self, scene: &Scene, method: &str, uri: &str, body: &str) -> Answer {
        let mut headers: Vec<_> = self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        if method == "GET" && uri.ends_with("/console/") {
            headers.extend([("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]);
            headers.push(("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="));
        }
        ask(self.served.as_ref().unwrap_or(&scene.http).address, method, uri, &headers, body)
    }
}

fn native() -> Tongue {
    let words = |r: &pengx::dialects::pengx::resources::Resource| {
        let mut words: Vec<_> = r.endpoints.iter().map(|e| e.method.word()).collect();
        // A HEAD asks for no upgrade, and is told so whatever VM it names.
        if words.contains(&"GET") && r.pattern != CONSOLE {
            words.push("HEAD");
        }
        words
    };
    Tongue {
        caller: |scene, role| {
            let headers = vec![
                ("Authorization", restricted(scene, role, "web-")),
                ("Content-Type", "application/xml".to_owned()),
            ];
            Caller { role, served: None, headers }
        },
        refused: 403,
        table: RESOURCES.iter().map(|r| (r.pattern, words(r))).collect(),
        is_of_vm: |pattern| pattern.contains(":vm") || pattern.contains(":task"),
        uri: |pattern, thing| {
            let mut uri = pattern.to_owned();
            for (name, value) in [
                (":vm", thing.vm.to_string()),
                (":snap", thing.snapshot.to_string()),
                (":bak", thing.backup.to_string()),
                (":disk", thing.disk.to_string()),
                (":nic", thing.nic.to_string()),
                (":task", thing.task.to_string()),
                (":gvm", thing.template.to_string()),
                (":pm", PmId(uuid::Uuid::from_u128(0xB105_F00D)).to_string()),
                (":id", "1".to_owned()),
                (":name", format!("{}.qcow2", thing.disk)),
            ] {
                uri = uri.replace(name, &value);
            }
            uri
        },
        body: |pattern, name| match pattern {
            "/vms/" => {
                let rest =
                    "<storlink>1</storlink><cpu_core>1</cpu_core><memory>64</memory><os_disk_size>1</os_disk_size>";
                format!("<vm><name>{name}</name>{rest}</vm>")
            }
            "/vms/:vm/update/" | "/vms/:vm/resize/" => "<vm><maxmem>128</maxmem></vm>".to_owned(),
            "/vms/:vm/edit/" => format!("<vm><name>{name}</name></vm>"),
            "/vms/:vm/copy/" => format!("<vm><name>{name}</name><storlink>1</storlink></vm>"),
            "/vms/:vm/smigrate/" => "<vm><storlink>2</storlink></vm>".to_owned(),
            "/vms/:vm/snapshots/" => "<snapshot><name>s</name><storlink>1</storlink></snapshot>".to_owned(),
            "/vms/:vm/backups/" => "<vm><backup_name>b</backup_name><storlink>1</storlink></vm>".to_owned(),
            "/vms/:vm/disks/" => "<disk><size>1</size><storlink>1</storlink></disk>".to_owned(),
            "/vms/:vm/interfaces/" => "<vms><interface_name>0</interface_name></vms>".to_owned(),
            "/vms/:vm/interface/:nic/update/" | "/vms/:vm/interfaces/:nic/update/" => {
                "<vms><ipaddress>192.168.0.1</ipaddress></vms>".to_owned()
            }
            "/templates/create/vms/:vm/" => {
                format!("<template><name>{name}</name><storlink>1</storlink></template>")
            }
            _ => String::new(),
        },
        right: |pattern, method| match method {
            "GET" if pattern == CONSOLE => Right::Operate,
            "GET" | "HEAD" => Right::Look,
            _ if pattern.starts_with("/storlinks/") || pattern.starts_with("/pms") => Right::Administer,
            _ => Right::Operate,
        },
        state: |pattern| match pattern {
            "/vms/:vm/resume/" => PowerState::Paused,
            CONSOLE => PowerState::Running,
            "/vms/:vm/shutdown/" | "/vms/:vm/poweroff/" | "/vms/:vm/reboot/" | "/vms/:vm/reset/"
            | "/vms/:vm/suspend/" => PowerState::Running,
            _ => PowerState::Shutdown,
        },
        is_of_all: |pattern| pattern == "/storlinks/:id/volumes/",
    }
}

/// A VM with one of each that a VM can have.
struct Thing {
    name: String,
    vm: VmId,
    snapshot: SnapshotId,
    backup: BackupId,
    disk: DiskId,
    nic: NicId,
    /// A task that nobody's account started.
    task: TaskId,
    template: TemplateId,
    /// What tells of it wherever it stands.
    marks: Vec<String>,
}

impl Thing {
    fn new(scene: &Scene, template: TemplateId, name: &str) -> Self {
        let app = &scene.app;
        let vm = app.run(app.vm_of(StorlinkId(1), Some(template), name)).unwrap();
        let snapshot = app.freeze(vm, &format!("snapshot of {name}"));
        let (label, desc) = (format!("backup of {name}").parse().unwrap(), format!("what was {name}"));
        let backup = app.run(CreateBackup { vm, name: label, storlink: StorlinkId(1), desc }).unwrap();
        let read = |c: &mut pengx::store::Conn| {
            let mut all = disks::of_vm(c, vm)?;
            let disk = all[1].id;
            all.extend(disks::of_snapshot(c, snapshot)?);
            all.extend(disks::of_backup(c, backup)?);
            Ok((disk, all, nics::of_vm(c, vm)?, tasks::recent(c, 1)?.remove(0).id))
        };
        let (disk, disks, nics, task) = app.store().read(read).unwrap();
        let mut marks = vec![name.to_owned(), vm.to_string(), snapshot.to_string(), backup.to_string()];
        marks.push(task.to_string());
        marks.extend(disks.iter().map(|disk| disk.id.to_string()));
        marks.extend(nics.iter().map(|nic| nic.mac.to_string()));
        Self { name: name.to_owned(), vm, snapshot, backup, disk, nic: nics[0].id, task, template, marks }
    }

    /// Nothing in the answer tells of it.
    #[track_caller]
    fn is_hidden_in(&self, answer: &Answer, what: &str) {
        for mark in &self.marks {
            let said = answer.headers.iter().any(|(_, value)| value.contains(mark)) || answer.body.contains(mark);
            assert!(!said, "{what} tells of {}: {mark} in {answer:?}", self.name);
        }
    }
}

/// Of this role, and seeing the VMs whose names begin so.
fn restricted(scene: &Scene, role: Role, prefix: &str) -> String {
    let (name, rules) = (format!("{role} of {prefix}"), prefixed(prefix));
    scene.registry.add_seeing(&name, Login::Password(&secret(PASSWORD)), role, Some(rules)).unwrap();
    let bearer = format!("Bearer {}", scene.token(&name));
    scene.wait(&bearer, 200);
    bearer
}

fn prefixed(prefix: &str) -> NameRules {
    NameRules { prefix: vec![prefix.to_owned()], ..NameRules::default() }
}

fn send(scene: &Scene, authorization: &str, method: &str, uri: &str, body: &str) -> Answer {
    let headers = [("Authorization", authorization), ("Content-Type", "application/xml")];
    ask(scene.http.address, method, uri, &headers, body)
}

/// A VM that is off.
fn put(scene: &Scene, vm: VmId, state: PowerState) {
    if state != PowerState::Shutdown {
        scene.app.run(StartVm { vm }).unwrap();
    }
    if state == PowerState::Paused {
        scene.app.run(SuspendVm { vm }).unwrap();
    }
}

fn counted(scene: &Scene) -> usize {
    scene.app.store().read(|c| tasks::recent(c, 10_000)).unwrap().len()
}

#[test]
fn what_an_account_does_not_see_it_sees_in_no_answer_of_the_native_api() {
    judge(&native());
}

fn judge(tongue: &Tongue) {
    let scene = Scene::sqlite();
    let storlink = scene.app.storlink();
    scene.app.second_storlink();
    let template = scene.app.template(storlink, Format::Qcow2);
    let foreign = Thing::new(&scene, template, "db-foreign");
    let callers = ROLES.map(|role| (tongue.caller)(&scene, role));
    let seen = foreign_ones(tongue, &scene, &callers, &foreign)
        + own_ones(tongue, &scene, &callers, &foreign)
        + common_ones(tongue, &scene, &callers, &foreign);
    let all: usize = tongue.table.iter().map(|(_, methods)| methods.len()).sum();
    assert!(seen >= all * ROLES.len(), "{seen} of {all}");
    scene.app.assert_at_rest();
}

/// Each is refused before anything is written.
fn foreign_ones(tongue: &Tongue, scene: &Scene, callers: &[Caller], foreign: &Thing) -> usize {
    let (world, count, mut seen) = (World::of(&scene.app), counted(scene), 0);
    for (pattern, methods) in tongue.table.iter().filter(|(pattern, _)| (tongue.is_of_vm)(pattern)) {
        for method in methods {
            let (uri, body) = ((tongue.uri)(pattern, foreign), (tongue.body)(pattern, "web-taken"));
            for caller in callers {
                let role = caller.role;
                let answer = caller.ask(scene, method, &uri, &body);
                let what = format!("{method} {pattern} as {role}");
                // What is not built is not there for anybody.
                let none = pattern.ends_with("/migrate/") && role.may((tongue.right)(pattern, method));
                assert_eq!(answer.status, if none { 501 } else { tongue.refused }, "{what}: {answer:?}");
                foreign.is_hidden_in(&answer, &what);
                seen += 1;
            }
        }
    }
    assert_eq!((World::of(&scene.app), counted(scene)), (world, count));
    seen
}

/// Each is served where the role may.
fn own_ones(tongue: &Tongue, scene: &Scene, callers: &[Caller], foreign: &Thing) -> usize {
    let (mut made, mut seen) = (0, 0);
    let mut make = || {
        made += 1;
        Thing::new(scene, foreign.template, &format!("web-{made}"))
    };
    let standing = make();
    for (pattern, methods) in tongue.table.iter().filter(|(pattern, _)| (tongue.is_of_vm)(pattern)) {
        for method in methods {
            for caller in callers {
                let role = caller.role;
                let right = (tongue.right)(pattern, method);
                seen += 1;
                // Behind the address of a fake guest's screen is nothing, or another test's guest.
                if *pattern == CONSOLE && *method == "GET" && role.may(right) {
                    continue;
                }
                let fresh = (right != Right::Look && role.may(right)).then(&mut make);
                let own = fresh.as_ref().unwrap_or(&standing);
                if fresh.is_some() {
                    put(scene, own.vm, (tongue.state)(pattern));
                }
                let body = (tongue.body)(pattern, &format!("{}-new", own.name));
                let answer = caller.ask(scene, method, &(tongue.uri)(pattern, own), &body);
                let what = format!("{method} {pattern} as {role}");
                let is_task = pattern.contains(":task");
                match answer.status {
                    // Nobody's account started it.
                    403 => assert!(!role.may(right) || is_task, "{what}: {answer:?}"),
                    200 | 201 | 204 => assert!(role.may(right) && !is_task, "{what}: {answer:?}"),
                    501 => assert!(pattern.ends_with("/migrate/"), "{what}: {answer:?}"),
                    _ => panic!("{what}: {answer:?}"),
                }
                foreign.is_hidden_in(&answer, &what);
            }
        }
    }
    seen
}

/// Lists, and what is no VM's.
fn common_ones(tongue: &Tongue, scene: &Scene, callers: &[Caller], foreign: &Thing) -> usize {
    let mut seen = 0;
    for (pattern, methods) in tongue.table.iter().filter(|(pattern, _)| !(tongue.is_of_vm)(pattern)) {
        for method in methods {
            let uri = (tongue.uri)(pattern, foreign);
            for caller in callers {
                let role = caller.role;
                let body = (tongue.body)(pattern, &format!("web-by-{role}"));
                let answer = caller.ask(scene, method, &uri, &body);
                let what = format!("{method} {pattern} as {role}");
                let right = (tongue.right)(pattern, method);
                // Who does not see every VM administers nothing.
                let may = role.may(right) && right != Right::Administer && !(tongue.is_of_all)(pattern);
                assert_eq!(answer.status == 403, !may, "{what}: {answer:?}");
                assert!(answer.status < 500, "{what}: {answer:?}");
                foreign.is_hidden_in(&answer, &what);
                let shows = ["/vms/", "/backups/"].contains(pattern) && *method == "GET";
                assert!(!shows || answer.body.contains("web-1<"), "{what}: {answer:?}");
                seen += 1;
            }
        }
    }
    seen
}

#[test]
fn lists_are_each_callers_own_whoever_asked_before() {
    super::on_both(|scene| {
        let (storlink, root) = (scene.app.storlink(), format!("Bearer {}", scene.add("root", Role::Admin)));
        for name in ["web-1", "db-1"] {
            scene.app.run(scene.app.vm_of(storlink, None, name)).unwrap();
        }
        let web = restricted(scene, Role::Viewer, "web-");
        let db = restricted(scene, Role::Viewer, "db-");
        scene
            .registry
            .add_seeing("eve", Login::Password(&secret(PASSWORD)), Role::Viewer, Some(NameRules::default()))
            .unwrap();
        let eve = format!("Bearer {}", scene.token("eve"));
        scene.wait(&eve, 200);
        let names = |caller: &str| {
            let body = scene.with(caller, "GET", "/vms/").body;
            ["web-1", "db-1"].map(|name| body.contains(&format!("<name>{name}</name>")))
        };
        for _ in 0..2 {
            for (caller, sees) in
                [(&root, [true, true]), (&web, [true, false]), (&db, [false, true]), (&eve, [false; 2])]
            {
                assert_eq!(names(caller), sees);
            }
        }
        assert_eq!(scene.with(&eve, "GET", "/vms/").body, "<vms>\n</vms>\n");
        // In a crowd, where one rendering serves all who wait for it.
        let (names, crowd) = (&names, [&root, &web, &db, &root, &web, &db, &root, &web]);
        std::thread::scope(|s| {
            for (n, caller) in crowd.into_iter().enumerate() {
                s.spawn(move || {
                    let sees = [[true, true], [true, false], [false, true]][n % 3];
                    (0..20).for_each(|_| assert_eq!(names(caller), sees));
                });
            }
        });
        // From now on, without a new token.
        scene.registry.set_sees("eve", Some(&prefixed("db-"))).unwrap();
        wait_until("eve sees more", || Ok(names(&eve) == [false, true]));
        scene.registry.set_sees("eve", None).unwrap();
        wait_until("eve sees all", || Ok(names(&eve) == [true, true]));
    });
}

#[test]
fn nobody_makes_a_vm_that_they_would_not_see() {
    super::on_both(|scene| {
        let storlink = scene.app.storlink();
        let template = scene.app.template(storlink, Format::Qcow2);
        let (foreign, own) = (Thing::new(scene, template, "db-1"), Thing::new(scene, template, "web-1"));
        let ann = restricted(scene, Role::Operator, "web-");
        let (world, count) = (World::of(&scene.app), counted(scene));
        let tongue = native();
        let to = |pattern: &str, name: &str| {
            send(
                scene,
                &ann,
                if pattern.ends_with("/edit/") { "PUT" } else { "POST" },
                &(tongue.uri)(pattern, &own),
                &(tongue.body)(pattern, name),
            )
        };
        for pattern in ["/vms/", "/vms/:vm/edit/", "/vms/:vm/copy/"] {
            // There, and not there: the answers are the same.
            let there = to(pattern, "db-1");
            assert_eq!(there.message(), "you may not see or use a vm that the rules of your account do not show");
            for name in ["db-2", "my web-", "Web-2"] {
                let answer = to(pattern, name);
                assert_eq!((answer.status, &answer.body), (403, &there.body), "{pattern} {name}");
            }
        }
        // Across VMs: what is of the other one is not there.
        for (method, uri) in [
            ("POST", format!("/vms/{}/snapshots/{}/", own.vm, foreign.snapshot)),
            ("DELETE", format!("/vms/{}/snapshots/{}/", own.vm, foreign.snapshot)),
            ("POST", format!("/vms/{}/start/snapshots/{}/", own.vm, foreign.snapshot)),
            ("GET", format!("/vms/{}/disks/snapshots/{}/", own.vm, foreign.snapshot)),
            ("POST", format!("/vms/{}/backups/{}/", own.vm, foreign.backup)),
            ("DELETE", format!("/vms/{}/backups/{}/", own.vm, foreign.backup)),
            ("POST", format!("/vms/{}/backups/{}/verify/", own.vm, foreign.backup)),
            ("GET", format!("/vms/{}/disks/backups/{}/", own.vm, foreign.backup)),
            ("DELETE", format!("/vms/{}/disks/{}/", own.vm, foreign.disk)),
            ("DELETE", format!("/vms/{}/interfaces/{}/", own.vm, foreign.nic)),
        ] {
            let answer = send(scene, &ann, method, &uri, "");
            assert!([403, 404].contains(&answer.status), "{method} {uri}: {answer:?}");
            assert!(!answer.body.contains("db-1") && !answer.body.contains(&foreign.vm.to_string()), "{answer:?}");
        }
        assert_eq!(World::of(&scene.app), world);
        // Those that were about a VM of hers were tried.
        let tried = scene.app.store().read(|c| tasks::recent(c, 100)).unwrap();
        assert!(tried[..tried.len() - count].iter().all(|task| task.subject.contains("web-1")), "{tried:?}");
        for (pattern, name) in [("/vms/", "web-2"), ("/vms/:vm/copy/", "web-3"), ("/vms/:vm/edit/", "web-4")] {
            let answer = to(pattern, name);
            assert!(answer.status < 300, "{pattern}: {answer:?}");
        }
    });
}

#[test]
fn backups_of_deleted_and_of_renamed_vms_are_seen_by_the_names_that_they_had() {
    super::on_both(|scene| {
        let storlink = scene.app.storlink();
        let template = scene.app.template(storlink, Format::Qcow2);
        let [gone, own, renamed, taken] =
            ["db-gone", "web-gone", "db-then", "web-then"].map(|name| Thing::new(scene, template, name));
        for vm in [gone.vm, own.vm] {
            scene.app.run(DeleteVm { vm }).unwrap();
        }
        for (thing, name) in [(&renamed, "web-now"), (&taken, "db-now")] {
            let edit = EditVm { vm: thing.vm, name: Some(name.parse().unwrap()), desc: None };
            scene.app.run(edit).unwrap();
        }
        let ann = restricted(scene, Role::Operator, "web-");
        let get = |uri: &str| scene.with(&ann, "GET", uri);
        assert_eq!(get("/backups/").ids("vmbackup"), [own.backup.to_string()], "{:?}", get("/backups/"));
        for (thing, status, shown) in [(&gone, 403, 0), (&own, 200, 1), (&renamed, 200, 0), (&taken, 403, 0)] {
            let answer = get(&format!("/vms/{}/backups/", thing.vm));
            assert_eq!(answer.status, status, "{}: {answer:?}", thing.name);
            assert_eq!(answer.body.matches(&thing.backup.to_string()).count(), shown, "{}: {answer:?}", thing.name);
            let status = if shown == 1 { 200 } else { 403 };
            assert_eq!(get(&format!("/vms/{}/disks/backups/{}/", thing.vm, thing.backup)).status, status);
        }
        let count = counted(scene);
        for thing in [&gone, &renamed, &taken] {
            // With the name that it had the VM would be lost to her, or is another's already.
            for uri in ["", "verify/", "prove/"] {
                let answer = scene.with(&ann, "POST", &format!("/vms/{}/backups/{}/{uri}", thing.vm, thing.backup));
                assert_eq!(answer.status, 403, "{uri} of {}: {answer:?}", thing.name);
                gone.is_hidden_in(&answer, uri);
            }
            let answer = scene.with(&ann, "DELETE", &format!("/vms/{}/backups/{}/", thing.vm, thing.backup));
            assert_eq!(answer.status, 403, "{answer:?}");
        }
        assert_eq!(counted(scene), count);
        let restored = scene.with(&ann, "POST", &format!("/vms/{}/backups/{}/", own.vm, own.backup));
        assert_eq!(restored.status, 201, "{restored:?}");
        assert_eq!(scene.app.store().read(|c| vms::find(c, own.vm)).unwrap().unwrap().name, "web-gone");
        let rows = scene.app.store().read(|c| Ok((backups::all(c)?.len(), snapshots::of_vm(c, own.vm)?))).unwrap();
        assert_eq!(rows, (4, vec![]));
    });
}

#[test]
fn an_account_that_does_not_see_every_vm_sees_the_tasks_that_it_started() {
    super::on_both(|scene| {
        let storlink = scene.app.storlink();
        let own = scene.app.run(scene.app.vm_of(storlink, None, "web-1")).unwrap();
        let root = format!("Bearer {}", scene.add("root", Role::Admin));
        let (ann, bob) = (restricted(scene, Role::Operator, "web-"), restricted(scene, Role::Operator, "web-1"));
        let start = |caller: &str| {
            let headers = [("Authorization", caller), ("Prefer", "respond-async")];
            let answer = ask(scene.http.address, "POST", &format!("/vms/{own}/start/"), &headers, "");
            assert_eq!(answer.status, 202, "{answer:?}");
            answer.header("location").unwrap().to_owned()
        };
        let of_ann = start(&ann);
        assert_eq!(scene.with(&ann, "GET", &format!("{of_ann}?wait")).element("state"), "success");
        let of_root = start(&root);
        let status = |caller: &str, uri: &str| scene.with(caller, "GET", uri).status;
        assert_eq!([&ann, &bob, &root].map(|caller| status(caller, &of_ann)), [200, 403, 200]);
        assert_eq!([&ann, &bob, &root].map(|caller| status(caller, &of_root)), [403, 403, 200]);
        for (method, caller) in [("DELETE", &ann), ("DELETE", &bob)] {
            assert_eq!(scene.with(caller, method, &of_root).status, 403);
        }
        let listed = |caller: &str| scene.with(caller, "GET", "/tasks/").ids("task").len();
        assert_eq!((listed(&ann), listed(&bob)), (1, 0));
        assert!(listed(&root) >= 4, "with those that no account started");
    });
}

#[test]
fn a_thing_that_a_hidden_vm_needs_is_in_use_by_something() {
    super::on_both(|scene| {
        let storlink = scene.app.storlink();
        let template = scene.app.template(storlink, Format::Qcow2);
        let foreign = Thing::new(scene, template, "db-1");
        let (ann, root) =
            (restricted(scene, Role::Operator, "web-"), format!("Bearer {}", scene.add("root", Role::Admin)));
        scene.wait(&root, 200);
        let add = format!(
            "<template><name>t</name><os>DEBIAN</os><os_arch>X64</os_arch><desc/><disk><uuid>{}</uuid>\
             <storlink>1</storlink><format>qcow2</format></disk></template>",
            foreign.disk
        );
        for (method, uri, body, by) in [
            ("DELETE", format!("/templates/{template}/"), "", "vm db-1".to_owned()),
            ("POST", "/templates/add/".to_owned(), add.as_str(), format!("vm {}", foreign.vm)),
        ] {
            let (told, whole) = (send(scene, &ann, method, &uri, body), send(scene, &root, method, &uri, body));
            assert_eq!((told.status, whole.status), (400, 400), "{told:?} {whole:?}");
            assert!(told.message().ends_with(" is in use by something else"), "{told:?}");
            assert!(whole.message().ends_with(&format!(" is in use by {by}")), "{whole:?}");
        }
        let records = scene.with(&ann, "GET", "/tasks/");
        assert_eq!(records.body.matches("is in use by something else").count(), 2, "{records:?}");
        assert!(!records.body.contains("db-1"), "{records:?}");
    });
}

#[test]
fn a_dialect_without_logins_acts_as_an_account_that_is_there() {
    let (scene, runtime) = (Scene::sqlite(), tokio::runtime::Runtime::new().unwrap());
    let peer = Some([192, 0, 2, 1].into());
    let act_as = |gate: &Gate, name: &str| runtime.block_on(gate.act_as(name, peer));
    let refused = |why: Error| assert!(matches!(why.kind(), ErrorKind::Forbidden { .. }), "{why:?}");
    // Also where everybody is admin, because there is no account.
    refused(act_as(&Gate::new(scene.app.core.clone(), true).unwrap(), "panel").map(drop).unwrap_err());
    let storlink = scene.app.storlink();
    let [own, foreign] = ["web-1", "db-1"].map(|name| scene.app.run(scene.app.vm_of(storlink, None, name)).unwrap());
    let login = secret(PASSWORD);
    scene.registry.add_seeing("panel", Login::Password(&login), Role::Viewer, Some(prefixed("web-"))).unwrap();
    let gate = Gate::new(scene.app.core.clone(), false).unwrap();
    wait_until("the account is known", || Ok(act_as(&gate, "panel").is_ok()));
    for name in ["Panel", "panel ", ""] {
        refused(act_as(&gate, name).map(drop).unwrap_err());
    }
    let core = act_as(&gate, "panel").unwrap();
    let caller = core.caller();
    assert_eq!(caller.to_string(), "panel");
    let rights = [Right::Look, Right::Operate, Right::Administer];
    assert_eq!(rights.map(|right| caller.may(right)), [true, false, false]);
    assert_eq!([caller.sees("web-2"), caller.sees("db-1")], [true, false]);
    assert_eq!(runtime.block_on(vm::list(&core)).unwrap().views(&core).len(), 1);
    assert_eq!(runtime.block_on(vm::find(&core, own)).unwrap().listing.vm.name, "web-1");
    refused(runtime.block_on(vm::find(&core, foreign)).map(drop).unwrap_err());
    let why = core.submit_blocking(vm::StartVm { vm: own }).map(drop).unwrap_err();
    assert_eq!(why.to_string(), "you may not run vm.start as viewer; it takes the role operator");
    assert_eq!(task::list(&core).unwrap(), []);
    // The rules hold from the next request on.
    scene.registry.set_sees("panel", None).unwrap();
    scene.registry.set_role("panel", Role::Admin).unwrap();
    wait_until("it may do everything", || {
        let core = act_as(&gate, "panel")?;
        Ok(core.caller().sees("db-1") && core.caller().may(Right::Administer))
    });
    scene.registry.remove("panel").unwrap();
    wait_until("it is gone", || Ok(act_as(&gate, "panel").is_err()));
}
