//! A storlink's mount that stops answering, for real: who needs it is told so in bounded time, and nobody else notices.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use super::{add_storlink, add_template, empty_vm, ended, new_vm, press, status, task_uri, template_image, vm_body};
use crate::harness::fuse::{Hung, Mount};
use crate::harness::http::Answer;
use crate::harness::libvirt::Libvirtd;
use crate::harness::server::{Place, Program};
use crate::harness::wait::{wait_until, wait_within};

/// Storlink 1 is a directory, storlink 2 a mount.
struct Scene {
    place: Place,
    nfs: Nfs,
}

/// The mount goes before its directory.
struct Nfs {
    mount: Mount,
    dir: tempfile::TempDir,
}

/// For what waits for several deadlines, one after the other.
const MINUTES: Duration = Duration::from_secs(180);

const SILENT: &str = "<!-- it does not answer: size and free are what it said last -->";

impl Scene {
    fn new() -> Self {
        Self { nfs: Nfs::new(), place: Place::new("fake:///", "") }
    }

    fn hang(&self) -> Hung {
        self.nfs.mount.hang()
    }

    fn link(&self) -> PathBuf {
        self.nfs.dir.path().join("nfs")
    }

    /// The files of the mount, also while it hangs.
    fn behind(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.nfs.dir.path().join("behind")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// What a file of the mount takes; 0 when it is gone.
    fn written(&self, name: &str) -> u64 {
        let file = self.nfs.dir.path().join("behind").join(name);
        std::fs::metadata(file).map_or(0, |file| file.blocks() * 512)
    }

    fn serve(&self) -> Program {
        let server = self.place.serve();
        add_storlink(&server, &self.place);
        let link = self.link();
        let body = format!("<s><name>nfs</name><link>{}</link><type>NFS</type><level>FL</level></s>", link.display());
        let made = server.post("/storlinks/create/", &body);
        assert_eq!(made.status, 201, "{made:?}");
        server
    }

    /// That storage, and nothing else, is the reason.
    fn assert_unavailable(&self, what: &str, answer: &Answer) {
        assert_eq!(answer.status, 503, "{what}: {answer:?}");
        let says = format!("the storage at {} does not answer", self.link().display());
        assert!(answer.message().starts_with(&says), "{what}: {answer:?}");
    }
}

impl Nfs {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("px").tempdir().unwrap();
        let [behind, at] = ["behind", "nfs"].map(|name| dir.path().join(name));
        std::fs::create_dir(&behind).unwrap();
        std::fs::create_dir(&at).unwrap();
        Self { mount: Mount::new(&behind, &at), dir }
    }
}

fn on_the_mount(body: &str) -> String {
    body.replace("<storlink>1<", "<storlink>2<")
}

/// A VM whose disk is on the mount.
fn sick_vm(server: &Program, name: &str) -> String {
    let before = server.get("/vms/").ids("vm");
    let made = server.post("/vms/", &on_the_mount(&vm_body(name, "", "1", "", "")));
    assert_eq!(made.status, 201, "{made:?}");
    new_vm(server, &before)
}

/// Everything that needs no more than what is well.
fn assert_the_rest_is_well(server: &Program, vm: &str) {
    for uri in ["/vms/", "/storlinks/", "/storlinks/all/", "/templates/", "/pms/", "/pmpperf/", "/tasks/", "/metrics"] {
        assert_eq!(server.get(uri).status, 200, "{uri}");
    }
    assert_eq!(server.get("/storlinks/1/isos/").status, 200);
    let health = server.get("/health");
    assert!(health.status == 200 && health.body.starts_with("ok\n"), "{health:?}");
    for (button, then) in [("start", "RUNNING"), ("suspend", "PAUSED"), ("resume", "RUNNING"), ("poweroff", "SHUTDOWN")]
    {
        let pressed = press(server, vm, button);
        assert_eq!((pressed.status, status(server, vm).as_str()), (200, then), "{button}: {pressed:?}");
    }
    let more = empty_vm(server, "more");
    let deleted = server.delete(&format!("/vms/{more}/"));
    assert_eq!(deleted.status, 204, "{deleted:?}");
}

/// Threads of the server that are in a call of a storage.
fn in_calls(server: &Program) -> usize {
    let threads = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap().flatten();
    let names = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
    names.filter(|name| name == "storage\n").count()
}

/// What metrics say of a storlink; `None` before the server has looked at its rows.
fn is_up(server: &Program, storlink: &str) -> Option<bool> {
    let page = server.get("/metrics").body;
    let start = format!("pengx_storlink_up{{id=\"{storlink}\"");
    let line = page.lines().find(|line| line.starts_with(&start))?;
    Some(line.ends_with(" 1"))
}

/// What needs the mount, each kind once.
fn ask_for_it(scene: &Scene, server: &Program, vm: &str, n: usize) {
    let (what, answer) = match n % 5 {
        0 => ("start", press(server, vm, "start")),
        1 => ("create", server.post("/vms/", &on_the_mount(&vm_body(&format!("late{n}"), "", "1", "", "")))),
        2 => ("delete", server.delete(&format!("/vms/{vm}/"))),
        3 => {
            let body = "<d><size>1</size><storlink>2</storlink></d>";
            ("disk", server.post(&format!("/vms/{vm}/disks/"), body))
        }
        _ => ("isos", server.get("/storlinks/2/isos/")),
    };
    scene.assert_unavailable(what, &answer);
}

#[test]
fn a_mount_that_hangs_costs_only_those_who_need_it() {
    let scene = Scene::new();
    let server = scene.serve();
    let well = empty_vm(&server, "well");
    let sick: Vec<String> = (0..40).map(|n| sick_vm(&server, &format!("sick{n}"))).collect();
    let files = scene.behind();
    assert_eq!(files.len(), sick.len());
    wait_until("both are known to answer", || Ok([is_up(&server, "1"), is_up(&server, "2")] == [Some(true); 2]));

    let hung = scene.hang();
    for burst in 0..2 {
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..40)
                .map(|n| {
                    let (scene, server, vm) = (&scene, &server, &sick[n]);
                    scope.spawn(move || ask_for_it(scene, server, vm, n + burst))
                })
                .collect();
            assert_the_rest_is_well(&server, &well);
            // The first burst waits for a storage of which nobody knows yet.
            assert!(burst > 0 || clients.iter().any(|client| !client.is_finished()));
            clients.into_iter().for_each(|client| client.join().unwrap());
        });
        // One more may be in a call of the other storage just now.
        wait_until("few threads hang", || Ok((1..=8).contains(&in_calls(&server))));
    }

    // It is shown wherever an operator looks.
    wait_until("its silence is known", || Ok(is_up(&server, "2") == Some(false)));
    assert_eq!(is_up(&server, "1"), Some(true));
    let health = server.get("/health");
    assert_eq!((health.status, health.body.as_str()), (200, "ok\nwarning: storlinks that do not answer: 1 of 2\n"));
    for uri in ["/storlinks/", "/storlinks/all/"] {
        let list = server.get(uri).body;
        let (first, second) = list.split_once("<storlink id=\"2\">").unwrap();
        assert!(!first.contains(SILENT) && second.contains(SILENT), "{list}");
        assert!(!second.contains("<size>0</size>"), "{list}");
    }
    assert_eq!(scene.behind(), files, "nothing was begun there");

    drop(hung);
    wait_until("it is up again", || Ok(is_up(&server, "2") == Some(true)));
    assert!(!server.get("/storlinks/").body.contains(SILENT));
    assert_eq!(server.get("/health").body, "ok\n");
    wait_until("no thread is left", || Ok(in_calls(&server) == 0));
    scene.place.assert_at_rest();
    assert_eq!(scene.behind(), files);
    for vm in &sick {
        assert_eq!(press(&server, vm, "start").status, 200);
        assert_eq!(press(&server, vm, "poweroff").status, 200);
        assert_eq!(server.delete(&format!("/vms/{vm}/")).status, 204);
    }
    assert!(scene.behind().is_empty());
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_mount_in_the_place_of_one_that_hangs_is_used() {
    let scene = Scene::new();
    let server = scene.serve();
    let sick = sick_vm(&server, "sick");
    let hung = scene.hang();
    // Until no thread is left that could find out whether it answers.
    wait_within(MINUTES, "all threads hang", || {
        scene.assert_unavailable("start", &press(&server, &sick, "start"));
        Ok(in_calls(&server) >= 8)
    });
    let replaced = scene.nfs.mount.replace(&scene.nfs.dir.path().join("behind"));
    wait_until("the other one is used", || Ok(press(&server, &sick, "start").status == 200));
    assert!(in_calls(&server) >= 8, "the first one hangs on");
    assert_eq!(press(&server, &sick, "poweroff").status, 200);
    assert_eq!(server.delete(&format!("/vms/{sick}/")).status, 204);
    drop(hung);
    wait_until("no thread is left", || Ok(in_calls(&server) == 0));
    scene.place.assert_at_rest();
    assert!(scene.behind().is_empty());
    drop(replaced);
}

/// Copies of a template onto the mount, caught in the middle by its hang.
struct Copies {
    template: String,
    tasks: Vec<String>,
}

impl Copies {
    fn begin(scene: &Scene, server: &Program, count: usize) -> Self {
        let block: Vec<u8> = (0..1 << 20).map(|i: u32| i.wrapping_mul(0x9e37_79b1).to_le_bytes()[3] | 1).collect();
        let mut image = std::fs::File::create(template_image(&scene.place, "raw")).unwrap();
        (0..256).for_each(|_| image.write_all(&block).unwrap());
        let template = add_template(server, "raw");
        let body = |n| on_the_mount(&vm_body(&format!("copy{n}"), &template, "", "", "raw"));
        let tasks = (0..count).map(|n| task_uri(&server.post_async("/vms/", &body(n)))).collect();
        wait_until("all copies are under way", || {
            let files = scene.behind();
            let parts = files.iter().filter(|name| name.ends_with(".part"));
            let written: Vec<u64> = parts.map(|name| scene.written(name)).collect();
            Ok(written.len() == count && written.iter().all(|bytes| *bytes > 1 << 20))
        });
        Self { template, tasks }
    }

    fn states(&self, server: &Program) -> BTreeSet<String> {
        self.tasks.iter().map(|task| server.get(task).element("state").to_owned()).collect()
    }
}

/// As many as there are threads for copies.
#[test]
fn copies_onto_a_mount_that_hangs_end_and_the_next_one_runs() {
    let scene = Scene::new();
    let server = scene.serve();
    let copies = Copies::begin(&scene, &server, 4);
    let hung = scene.hang();
    assert_eq!(copies.states(&server), ["running".to_owned()].into());
    // Whoever asks for the storlink finds out that it is silent; else the server does, by and by.
    assert_eq!(server.get("/storlinks/").status, 200);
    let next = task_uri(&server.post_async("/vms/", &vm_body("next", &copies.template, "", "", "raw")));
    wait_within(MINUTES, "the copies end", || Ok(copies.states(&server) == ["failure".to_owned()].into()));
    for task in &copies.tasks {
        let record = server.get(task);
        let says = format!("the storage at {} does not answer; cleaning up stopped", scene.link().display());
        assert!(record.message().starts_with(&says), "{record:?}");
    }
    wait_within(MINUTES, "the next one ends", || Ok(!server.get(&next).element("ended").is_empty()));
    assert_eq!(server.get(&next).element("state"), "success");
    let waits = "warning: tasks that wait to be undone or finished: 4; see the log";
    wait_until("that they wait is shown", || Ok(server.get("/health").body.contains(waits)));
    assert_eq!(scene.behind().len(), 4, "nobody could remove them");

    drop(hung);
    scene.place.assert_at_rest();
    assert!(scene.behind().is_empty());
    let again = on_the_mount(&vm_body("copy0", &copies.template, "", "", "raw"));
    assert_eq!(server.post("/vms/", &again).status, 201);
}

#[test]
fn a_server_stops_and_starts_while_a_mount_hangs() {
    let scene = Scene::new();
    let server = scene.serve();
    let well = empty_vm(&server, "well");
    let sick: Vec<String> = (0..12).map(|n| sick_vm(&server, &format!("sick{n}"))).collect();
    let files = scene.behind();
    let copies = Copies::begin(&scene, &server, 1);

    let hung = scene.hang();
    let start = |vm: &String| task_uri(&server.post_async(&format!("/vms/{vm}/start/"), ""));
    let mut tasks: Vec<String> = sick.iter().map(start).collect();
    tasks.extend(copies.tasks);
    wait_until("it is asked for", || Ok(in_calls(&server) > 0));
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));

    let server = scene.place.serve();
    assert_the_rest_is_well(&server, &well);
    for task in &tasks {
        let record = ended(&server, task);
        assert!(["failure", "interrupted"].contains(&record.element("state")), "{record:?}");
    }
    scene.assert_unavailable("start", &press(&server, &sick[0], "start"));
    assert!(in_calls(&server) > 0);
    server.kill();

    let server = scene.place.serve();
    assert_the_rest_is_well(&server, &well);
    drop(hung);
    wait_until("it can be used again", || Ok(press(&server, &sick[0], "start").status == 200));
    scene.place.assert_at_rest();
    assert_eq!(scene.behind(), files);
}

#[test]
fn a_guest_on_a_mount_that_hangs_can_be_ended_and_delays_no_other() {
    // A libvirtd sees what was mounted before its start.
    let nfs = Nfs::new();
    let libvirtd = Libvirtd::start("dead-mount");
    let scene = Scene { nfs, place: Place::new(&libvirtd.uri, "") };
    let server = scene.serve();
    let (well, sick) = (empty_vm(&server, "well"), sick_vm(&server, "sick"));
    assert_eq!(press(&server, &sick, "start").status, 200);

    let hung = scene.hang();
    std::thread::scope(|scope| {
        let ends = scope.spawn(|| press(&server, &sick, "poweroff"));
        assert_the_rest_is_well(&server, &well);
        let ended = ends.join().unwrap();
        assert_eq!(ended.status, 200, "{ended:?}");
    });
    assert_eq!(status(&server, &sick), "SHUTDOWN");
    scene.assert_unavailable("start", &press(&server, &sick, "start"));
    scene.assert_unavailable("delete", &server.delete(&format!("/vms/{sick}/")));
    assert_the_rest_is_well(&server, &well);

    drop(hung);
    wait_until("it can be started again", || Ok(press(&server, &sick, "start").status == 200));
    let ended = press(&server, &sick, "poweroff");
    assert_eq!(ended.status, 200, "{ended:?}");
    assert_eq!(server.delete(&format!("/vms/{sick}/")).status, 204);
    scene.place.assert_at_rest();
    assert!(scene.behind().is_empty());
}
