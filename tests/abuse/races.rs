//! Many clients at once, and clients that go away.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;

use pengx::hypervisor::Verb;
use pengx::model::*;
use pengx::store::{disks, nics, tasks as rows, vms};

use super::Scene;
use crate::harness::http::Answer;
use crate::harness::images::images_of;
use crate::harness::wait::{PATIENCE, wait_until};
use crate::harness::world::World;

/// So many calls at once.
pub(super) fn at_once(count: usize, call: impl Fn(usize) -> Answer + Sync) -> Vec<Answer> {
    let barrier = std::sync::Barrier::new(count);
    std::thread::scope(|s| {
        let (call, barrier) = (&call, &barrier);
        let calls: Vec<_> = (0..count)
            .map(|n| {
                s.spawn(move || {
                    barrier.wait();
                    call(n)
                })
            })
            .collect();
        calls.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

pub(super) fn with_status(answers: &[Answer], status: u16) -> usize {
    answers.iter().filter(|a| a.status == status).count()
}

#[test]
fn of_ten_creates_of_one_name_one_wins() {
    let scene = Scene::new();
    let (template, _) = scene.template("debian", Format::Qcow2);
    let files = World::of(&scene.app).files.len();
    let answers = at_once(10, |n| {
        let disk = if n % 2 == 0 {
            format!("<template>{template}</template>")
        } else {
            "<os_disk_size>4</os_disk_size>".to_owned()
        };
        scene.create_vm("web1", &format!("{disk}<network>0</network>"))
    });
    assert_eq!((with_status(&answers, 201), with_status(&answers, 400)), (1, 9), "{answers:?}");
    for lost in answers.iter().filter(|a| a.status == 400) {
        assert_eq!(lost.message(), "a vm named web1 exists already");
    }
    scene.app.assert_at_rest();
    let world = World::of(&scene.app);
    assert_eq!((world.files.len(), world.domains.len()), (files + 1, 2), "one state, one definition: {world:#?}");
    assert_eq!(scene.http.get("/vms/").ids("vm").len(), 1);
}

#[test]
fn ten_creates_from_one_template_all_succeed_and_no_mac_comes_twice() {
    let scene = Scene::new();
    let (template, image) = scene.template("debian", Format::Qcow2);
    let before = std::fs::read(&image).unwrap();
    let networks = "<network><list-item>0</list-item><list-item>1</list-item></network>";
    let answers =
        at_once(10, |n| scene.create_vm(&format!("vm{n}"), &format!("<template>{template}</template>{networks}")));
    assert_eq!(with_status(&answers, 201), 10, "{answers:?}");
    let listings = scene.app.store().read(vms::listing).unwrap();
    let macs: BTreeSet<_> = listings.iter().flat_map(|l| &l.nics).map(|nic| nic.mac.to_string()).collect();
    let passwords: BTreeSet<_> = listings.iter().map(|l| l.vm.vnc_password.reveal().to_owned()).collect();
    assert_eq!((listings.len(), macs.len(), passwords.len()), (10, 20, 10));
    let volumes: BTreeSet<_> = listings
        .iter()
        .flat_map(|l| scene.app.store().read(|c| disks::of_vm(c, l.vm.id)).unwrap())
        .map(|disk| disk.volume.to_string())
        .collect();
    assert_eq!(volumes.len(), 10);
    assert!(volumes.iter().all(|name| scene.path(name).is_file()));
    assert_eq!(std::fs::read(&image).unwrap(), before);
    scene.app.assert_at_rest();
}

#[test]
fn of_ten_starts_of_one_vm_one_wins() {
    let scene = Scene::new();
    let vm = scene.vm("web1");
    let answers = at_once(10, |_| scene.http.post(&format!("/vms/{vm}/start/"), ""));
    assert_eq!((with_status(&answers, 200), with_status(&answers, 400)), (1, 9), "{answers:?}");
    for lost in answers.iter().filter(|a| a.status == 400) {
        assert_eq!(lost.message(), "vm web1 is RUNNING; it is started already");
    }
    assert_eq!(scene.app.site.fake.calls(Verb::Start), 1);
    scene.app.assert_at_rest();
}

/// Whoever is first: either the VM runs and is not deleted, or it is gone and not started.
#[test]
fn a_start_and_a_delete_never_both_succeed() {
    let scene = Scene::new();
    let (mut started, mut deleted) = (0, 0);
    for round in 0..12 {
        let empty = World::of(&scene.app);
        let vm = scene.vm(&format!("vm{round}"));
        let answers = at_once(2, |n| {
            if n == round % 2 {
                scene.http.post(&format!("/vms/{vm}/start/"), "")
            } else {
                scene.http.delete(&format!("/vms/{vm}/"))
            }
        });
        let (start, delete) = (&answers[round % 2], &answers[1 - round % 2]);
        scene.app.assert_at_rest();
        let id: VmId = vm.parse().unwrap();
        match (start.status, delete.status) {
            (200, 400) => {
                started += 1;
                assert_eq!(delete.message(), format!("vm vm{round} is RUNNING; shut it down before deleting it"));
                assert!(scene.app.site.fake.states().contains(&(id, PowerState::Running)));
                assert_eq!(scene.http.post(&format!("/vms/{vm}/poweroff/"), "").status, 200);
                assert_eq!(scene.http.delete(&format!("/vms/{vm}/")).status, 204);
            }
            (404, 204) => {
                deleted += 1;
                assert_eq!(start.message(), format!("there is no vm {vm}"));
            }
            other => panic!("{other:?}: {answers:?}"),
        }
        scene.app.assert_at_rest();
        assert_eq!(World::of(&scene.app), empty);
    }
    println!("abuse: the start was first {started} times, the delete {deleted} times");
}

/// Two calls at once, each of them first to be sent in half of the rounds.
pub(super) fn both(round: usize, a: impl Fn() -> Answer + Sync, b: impl Fn() -> Answer + Sync) -> (Answer, Answer) {
    let mut answers = at_once(2, |n| if n == round % 2 { a() } else { b() });
    let (second, first) = (answers.pop().unwrap(), answers.pop().unwrap());
    if round.is_multiple_of(2) { (first, second) } else { (second, first) }
}

/// Whoever is first: either the VM is on the storlink and it stays, or there is neither.
#[test]
fn a_create_on_a_storlink_and_its_delete_never_both_succeed() {
    let scene = Scene::new();
    let dir = scene.app.site.dir.path().join("second");
    std::fs::create_dir(&dir).unwrap();
    let (mut created, mut deleted) = (0, 0);
    for round in 0..12 {
        let body = format!("<s><name>s2</name><link>{}</link><type>LO</type><level>FL</level></s>", dir.display());
        assert_eq!(scene.http.post("/storlinks/", &body).status, 201);
        let storlink = scene.http.get("/storlinks/").ids("storlink").pop().unwrap();
        let on = format!("<storlink>{storlink}</storlink><os_disk_size>1</os_disk_size>");
        let uri = format!("/storlinks/{storlink}/");
        let (create, delete) = both(round, || scene.create_vm("web1", &on), || scene.http.delete(&uri));
        scene.app.assert_at_rest();
        match (create.status, delete.status) {
            (201, 400) => {
                created += 1;
                assert_eq!(delete.message(), "storlink s2 is in use by a disk of vm web1");
                let vm = scene.http.get("/vms/").ids("vm").pop().unwrap();
                assert_eq!(scene.http.delete(&format!("/vms/{vm}/")).status, 204);
                assert_eq!(scene.http.delete(&uri).status, 204);
            }
            (404, 204) => {
                deleted += 1;
                assert_eq!(create.message(), format!("there is no storlink {storlink}"));
            }
            other => panic!("{other:?}: {create:?} {delete:?}"),
        }
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
        assert_eq!(scene.http.get("/storlinks/").ids("storlink").len(), 1);
    }
    println!("abuse: the create was first {created} times, the delete of its storlink {deleted} times");
}

#[test]
fn a_create_from_a_template_and_its_delete_never_both_succeed() {
    let scene = Scene::new();
    let (mut created, mut deleted) = (0, 0);
    for round in 0..12 {
        let empty = World::of(&scene.app);
        let (template, image) = scene.template("debian", Format::Qcow2);
        let from = format!("<template>{template}</template>");
        let uri = format!("/templates/{template}/");
        let (create, delete) = both(round, || scene.create_vm("web1", &from), || scene.http.delete(&uri));
        scene.app.assert_at_rest();
        match (create.status, delete.status) {
            (201, 400) => {
                created += 1;
                assert_eq!(delete.message(), "template debian is in use by vm web1");
                assert!(image.is_file());
                let vm = scene.http.get("/vms/").ids("vm").pop().unwrap();
                assert_eq!(scene.http.delete(&format!("/vms/{vm}/")).status, 204);
                assert_eq!(scene.http.delete(&uri).status, 204);
            }
            (404, 204) => {
                deleted += 1;
                assert_eq!(create.message(), format!("there is no template {template}"));
            }
            other => panic!("{other:?}: {create:?} {delete:?}"),
        }
        assert_eq!(World::of(&scene.app), empty);
    }
    println!("abuse: the create was first {created} times, the delete of its template {deleted} times");
}

/// Its image has its name before the VM has its rows; taken for a template's, it would go with a failed create.
#[test]
fn the_disk_of_a_vm_that_is_being_made_becomes_no_template() {
    let scene = Scene::new();
    let fake = &scene.app.site.fake;
    fake.hold(Verb::Define);
    std::thread::scope(|scope| {
        let making = scope.spawn(|| scene.create_vm("web1", "<os_disk_size>1</os_disk_size>"));
        assert!(fake.wait_held(Verb::Define, 1, PATIENCE));
        let files = std::fs::read_dir(scene.app.site.store_dir()).unwrap();
        let [file]: [PathBuf; 1] = files.map(|file| file.unwrap().path()).collect::<Vec<_>>().try_into().unwrap();
        let disk = file.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        let added = scene.add_template("mine", disk, "qcow2");
        fake.release(Verb::Define);
        assert!(added.status == 400 && added.message().contains(" is in use by task "), "{added:?}");
        let made = making.join().unwrap();
        assert_eq!(made.status, 201, "{made:?}");
    });
    scene.app.assert_at_rest();
}

#[test]
fn of_two_renames_to_one_name_one_wins() {
    let scene = Scene::new();
    let templates = ["a", "b"].map(|name| scene.template(name, Format::Raw).0);
    let dir = scene.app.site.dir.path().join("second");
    std::fs::create_dir(&dir).unwrap();
    let body = format!("<s><name>s2</name><link>{}</link><type>LO</type><level>FL</level></s>", dir.display());
    assert_eq!(scene.http.post("/storlinks/", &body).status, 201);
    let storlinks = scene.http.get("/storlinks/").ids("storlink");
    for round in 0..6 {
        for (noun, ids) in [("template", &templates[..]), ("storlink", &storlinks[..])] {
            let name = format!("name{round}");
            let answers = at_once(2, |n| {
                scene.http.send("PUT", &format!("/{noun}s/{}/", ids[n]), &format!("<x><name>{name}</name></x>"))
            });
            assert_eq!((with_status(&answers, 204), with_status(&answers, 400)), (1, 1), "{answers:?}");
            let lost = answers.iter().find(|answer| answer.status == 400).unwrap();
            assert_eq!(lost.message(), format!("a {noun} named {name} exists already"));
            let list = scene.http.get(&format!("/{noun}s/")).body;
            assert_eq!(list.matches(&format!("<name>{name}</name>")).count(), 1, "{list}");
        }
    }
    scene.app.assert_at_rest();
}

#[test]
fn a_client_that_hangs_up_in_the_middle_of_its_task_changes_nothing_about_it() {
    let scene = Scene::new();
    scene.app.site.fake.hold(Verb::Define);
    let body = scene.vm_body("web1", "<os_disk_size>4</os_disk_size>");
    let mut client = TcpStream::connect(scene.http.address).unwrap();
    let head = format!("POST /vms/ HTTP/1.1\r\nHost: {}\r\nContent-Type: text/xml\r\n", scene.http.address);
    write!(client, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    assert!(scene.app.site.fake.wait_held(Verb::Define, 1, PATIENCE));
    drop(client);
    scene.app.site.fake.release(Verb::Define);
    scene.app.assert_at_rest();
    let task = scene.app.store().read(|c| rows::recent(c, 1)).unwrap().remove(0);
    assert_eq!((task.state, task.message.as_str()), (TaskState::Success, "vm web1 is created"));
    assert_eq!(scene.http.get("/vms/").ids("vm").len(), 1);
}

#[test]
fn a_client_that_hangs_up_in_the_middle_of_its_request_has_asked_for_nothing() {
    let scene = Scene::new();
    let (before, tasks) = (World::of(&scene.app), scene.tasks());
    let body = scene.vm_body("web1", "<os_disk_size>4</os_disk_size>");
    for sent in [0, 1, 30, body.len() - 1] {
        let mut client = TcpStream::connect(scene.http.address).unwrap();
        let head = format!("POST /vms/ HTTP/1.1\r\nHost: {}\r\nContent-Type: text/xml\r\n", scene.http.address);
        write!(client, "{head}Content-Length: {}\r\n\r\n{}", body.len(), &body[..sent]).unwrap();
        drop(client);
    }
    assert_eq!(scene.http.get("/vms/").status, 200);
    // The server ends every connection before it is gone, and so has seen all of them.
    let Scene { http, app, .. } = scene;
    drop(http);
    app.assert_at_rest();
    assert_eq!(World::of(&app), before);
    assert_eq!(app.store().read(|c| rows::recent(c, 1_000)).unwrap().len(), tasks);
}

/// `Prefer: respond-async`, progress, `?wait`, cancel: the life of a task as its client sees it.
#[test]
fn a_task_is_followed_and_cancelled_through_its_own_uri() {
    let scene = Scene::new();
    let (template, _) = scene.template("debian", Format::Qcow2);
    let before = World::of(&scene.app);
    let headers = [("Content-Type", "text/xml"), ("Prefer", "respond-async")];
    let create = |name: &str| {
        let body = scene.vm_body(name, &format!("<template>{template}</template><extra_disk_size>2</extra_disk_size>"));
        let accepted = scene.http.ask("POST", "/vms/", &headers, &body);
        assert_eq!(accepted.status, 202, "{accepted:?}");
        accepted.header("location").unwrap().to_owned()
    };
    scene.app.site.fake.hold(Verb::Define);
    let uri = create("web1");
    assert!(scene.app.site.fake.wait_held(Verb::Define, 1, PATIENCE));
    let running = scene.http.get(&uri);
    assert_eq!((running.element("state"), running.element("kind")), ("running", "vm.create"));
    assert_eq!((running.element("subject"), running.element("step")), ("vm web1", "making disk 0"));
    assert_eq!((running.element("result"), running.element("percent")), ("", "50"));
    assert_eq!(scene.http.get(&format!("{uri}?wait=0")).element("state"), "running");
    // Cancelled between its steps, it is undone.
    assert_eq!(scene.http.delete(&uri).status, 200);
    scene.app.site.fake.release(Verb::Define);
    let over = scene.http.get(&format!("{uri}?wait"));
    assert_eq!((over.element("state"), over.element("result")), ("failure", "failure"));
    assert!(over.message().ends_with("was cancelled"), "{over:?}");
    scene.app.assert_at_rest();
    assert_eq!(World::of(&scene.app), before);

    let uri = create("web1");
    let over = scene.http.get(&format!("{uri}?wait"));
    assert_eq!((over.element("state"), over.element("percent")), ("success", "100"));
    assert_eq!((over.element("result"), over.message()), ("success", "vm web1 is created"));
    let late = scene.http.delete(&uri);
    assert!(late.status == 400 && late.message().ends_with("is success; there is nothing to cancel"), "{late:?}");
    scene.app.assert_at_rest();
}

/// Somebody waits at `?wait` for a task that is cancelled while it waits for a lock.
#[test]
fn a_task_that_waits_for_a_lock_names_itself_and_is_cancelled_at_once() {
    let scene = Scene::new();
    let vm = scene.vm("web1");
    scene.app.site.fake.hold(Verb::Start);
    let ask = |uri: &str| scene.http.ask("POST", uri, &[("Prefer", "respond-async")], "");
    let first = ask(&format!("/vms/{vm}/start/"));
    assert!(scene.app.site.fake.wait_held(Verb::Start, 1, PATIENCE));
    let second = ask(&format!("/vms/{vm}/poweroff/"));
    let uri = second.header("location").unwrap().to_owned();
    assert_eq!(scene.http.get(&uri).element("state"), "queued");
    assert_eq!(scene.http.delete(&uri).status, 200);
    assert_eq!(scene.http.get(&format!("{uri}?wait")).element("state"), "failure");
    // The first one still runs, and readers do not wait for it.
    assert_eq!(scene.http.get(&format!("/vms/{vm}/")).element("status"), "SHUTDOWN");
    scene.app.site.fake.release(Verb::Start);
    let over = scene.http.get(&format!("{}?wait", first.header("location").unwrap()));
    assert_eq!(over.element("state"), "success");
    wait_until("it runs", || Ok(scene.http.get(&format!("/vms/{vm}/")).element("status") == "RUNNING"));
    scene.app.assert_at_rest();
}

#[test]
fn ten_disks_and_ten_interfaces_at_once_each_have_a_place_of_their_own() {
    let scene = Scene::new();
    let vm = scene.vm("web1");
    assert_eq!(scene.http.post(&format!("/vms/{vm}/start/"), "").status, 200);
    let answers = at_once(20, |n| {
        if n % 2 == 0 {
            let body = format!("<disk><size>1</size><storlink>{}</storlink></disk>", scene.storlink);
            scene.http.post(&format!("/vms/{vm}/disks/"), &body)
        } else {
            scene.http.post(&format!("/vms/{vm}/interfaces/"), "<vms><interface_name>1</interface_name></vms>")
        }
    });
    assert_eq!(with_status(&answers, 201), 20, "{answers:?}");
    scene.app.assert_at_rest();
    let id: VmId = vm.parse().unwrap();
    let (rows, nics) = scene.app.store().read(|c| Ok((disks::of_vm(c, id)?, nics::of_vm(c, id)?))).unwrap();
    assert!(rows.iter().map(|disk| disk.order).eq(0..11), "{rows:?}");
    let names: BTreeSet<_> = nics.iter().map(|nic| nic.name.clone()).collect();
    assert_eq!(names, (0..11).map(|n| format!("eth{n}")).collect());
    let running = scene.app.site.fake.running(id).unwrap();
    let definition = scene.app.site.fake.definitions().remove(0);
    for has in [&running, &definition] {
        assert_eq!(images_of(has), scene.app.images(&rows));
        let macs: BTreeSet<_> = has.nics.iter().map(|nic| nic.mac).collect();
        assert_eq!(macs, nics.iter().map(|nic| nic.mac).collect());
    }
}

/// Whoever is first: the VM goes with all its disks, and nothing of any of them is left.
#[test]
fn a_disk_and_its_vm_are_deleted_at_once() {
    let scene = Scene::new();
    let (mut before, mut after) = (0, 0);
    for round in 0..12 {
        let empty = World::of(&scene.app);
        let vm = scene.vm(&format!("vm{round}"));
        let body = format!("<disk><size>1</size><storlink>{}</storlink></disk>", scene.storlink);
        let disk = scene.http.post(&format!("/vms/{vm}/disks/"), &body).ids("disk")[0].clone();
        let uris = [format!("/vms/{vm}/disks/{disk}/"), format!("/vms/{vm}/")];
        let answers = at_once(2, |n| scene.http.delete(&uris[(n + round) % 2]));
        let (of_disk, of_vm) = (&answers[round % 2], &answers[1 - round % 2]);
        assert_eq!(of_vm.status, 204, "{of_vm:?}");
        match of_disk.status {
            204 => before += 1,
            404 => after += 1,
            _ => panic!("{of_disk:?}"),
        }
        scene.app.assert_at_rest();
        assert_eq!(World::of(&scene.app), empty);
    }
    println!("abuse: the disk went before its VM {before} times, with it {after} times");
}
