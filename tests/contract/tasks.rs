//! Changes as tasks: `Prefer: respond-async`, `?wait`, cancellation, and who waits for whom.

use std::time::Duration;

use pengx::hypervisor::Verb;

use super::{Api, NOBODY, vm};
use crate::harness::app::Site;
use crate::harness::http::Answer;
use crate::harness::wait::PATIENCE;
use crate::harness::world::World;

const ASYNC: &[(&str, &str)] = &[("Prefer", "respond-async"), ("Content-Type", "application/xml")];

/// The task's address.
#[track_caller]
fn accepted(answer: &Answer) -> String {
    let task = answer.header("location").unwrap_or_else(|| panic!("{answer:?}")).to_owned();
    let id = task.strip_prefix("/tasks/").and_then(|id| id.strip_suffix('/')).unwrap();
    answer.done(202, &format!("accepted as task {id}"));
    assert_eq!(answer.header("preference-applied"), Some("respond-async"));
    task
}

/// State, result and message.
fn outcome(task: &Answer) -> (&str, &str, &str) {
    assert_eq!(task.status, 200, "{task:?}");
    (task.element("state"), task.element("result"), task.message())
}

#[test]
fn every_change_can_be_told_to_go_on_behind_the_answer() {
    let (api, stock) = Api::stocked();
    let ended = |method: &str, uri: &str, body: &str, message: &str| {
        let task = accepted(&api.http.ask(method, uri, ASYNC, body));
        let done = api.get(&format!("{task}?wait"));
        assert_eq!(outcome(&done), ("success", "success", message), "{done:?}");
        assert_eq!(done.element("percent"), "100");
        assert_eq!(api.get(&format!("{task}?wait=0")).body, done.body);
    };
    let link = api.app.site.store_dir();
    let body = format!("<s><name>s2</name><link>{}</link><type>LO</type><level>FL</level></s>", link.display());
    ended("POST", "/storlinks/", &body, "storlink s2 is registered");
    let body = vm("web1", &stock, &format!("<template>{}</template>", stock.template));
    ended("POST", "/vms/", &body, "vm web1 is created");
    let id = api.vm_id("web1");
    ended("POST", &format!("/vms/{id}/start/"), "", "vm web1 is started");
    ended("POST", &format!("/vms/{id}/shutdown/"), "", "vm web1 is shut down");
    ended("POST", &format!("/vms/{id}/start/"), "", "vm web1 is started");
    ended("POST", &format!("/vms/{id}/poweroff/"), "", "vm web1 is powered off");
    ended("DELETE", &format!("/vms/{id}/"), "", "vm web1 is deleted");
    // What fails later says so in its task; what is wrong at once is not accepted.
    let task =
        accepted(&api.http.ask("POST", "/vms/", ASYNC, &vm("web1", &stock, &format!("<template>{NOBODY}</template>"))));
    let failed = api.get(&format!("{task}?wait"));
    assert_eq!(outcome(&failed), ("failure", "failure", format!("there is no template {NOBODY}").as_str()));
    assert_eq!(api.http.ask("POST", "/vms/", ASYNC, "<vm/>").status, 400);
    assert_eq!(api.http.ask("POST", &format!("/vms/{NOBODY}/start/"), ASYNC, "").status, 404);
    api.app.assert_at_rest();
}

#[test]
fn a_task_that_is_over_or_unknown_cannot_be_cancelled() {
    let (api, _stock) = Api::stocked();
    let tasks = api.get("/tasks/").ids("task");
    assert_eq!(tasks.len(), 2);
    for task in tasks {
        let message = format!("task {task} is success; there is nothing to cancel");
        api.http.delete(&format!("/tasks/{task}/")).refused(400, &message);
    }
    let message = format!("there is no task {NOBODY}");
    api.get(&format!("/tasks/{NOBODY}/")).refused(404, &message);
    api.get(&format!("/tasks/{NOBODY}/?wait")).refused(404, &message);
    api.http.delete(&format!("/tasks/{NOBODY}/")).refused(404, &message);
    api.get(&format!("/tasks/{NOBODY}/?wait=x")).refused(400, "wait: must be a whole number of seconds");
    api.app.assert_at_rest();
}

#[test]
fn a_running_task_can_be_cancelled_and_leaves_nothing() {
    let (api, stock) = Api::stocked();
    let before = World::of(&api.app);
    let fake = &api.app.site.fake;
    fake.hold(Verb::Define);
    let body = vm("web1", &stock, &format!("<template>{}</template>", stock.template));
    let task = accepted(&api.http.ask("POST", "/vms/", ASYNC, &body));
    assert!(fake.wait_held(Verb::Define, 1, PATIENCE));
    let running = api.get(&format!("{task}?wait=0"));
    assert_eq!(outcome(&running), ("running", "", ""));
    let id = task.trim_start_matches("/tasks/").trim_end_matches('/');
    let asked = format!("task {id} was asked to stop; what it did is undone");
    api.http.delete(&task).done(200, &asked);
    // Asking twice is no mistake.
    api.http.delete(&task).done(200, &asked);
    fake.release(Verb::Define);
    let ended = api.get(&format!("{task}?wait"));
    assert_eq!(outcome(&ended), ("failure", "failure", format!("task {id} was cancelled").as_str()));
    api.http.delete(&task).refused(400, &format!("task {id} is failure; there is nothing to cancel"));
    api.app.assert_at_rest();
    assert_eq!(World::of(&api.app), before);
}

#[test]
fn a_task_that_waits_for_another_can_be_cancelled_and_reads_never_wait() {
    let (api, stock) = Api::stocked();
    let id = api.vm(&stock, "web1");
    let fake = &api.app.site.fake;
    fake.hold(Verb::Start);
    let start = accepted(&api.http.ask("POST", &format!("/vms/{id}/start/"), ASYNC, ""));
    assert!(fake.wait_held(Verb::Start, 1, PATIENCE));
    let delete = accepted(&api.http.ask("DELETE", &format!("/vms/{id}/"), ASYNC, ""));
    assert_eq!(outcome(&api.get(&delete)), ("queued", "", ""));
    assert_eq!(api.status(&id), "SHUTDOWN");
    assert_eq!(api.get("/vms/").ids("vm").len(), 1);
    let waiting = delete.trim_start_matches("/tasks/").trim_end_matches('/');
    assert_eq!(api.http.delete(&delete).status, 200);
    let ended = api.get(&format!("{delete}?wait"));
    assert_eq!(outcome(&ended), ("failure", "failure", format!("task {waiting} was cancelled").as_str()));
    fake.release(Verb::Start);
    assert_eq!(outcome(&api.get(&format!("{start}?wait"))).0, "success");
    assert_eq!(api.status(&id), "RUNNING");
    api.app.assert_at_rest();
}

#[test]
fn a_second_writer_waits_its_turn_and_then_says_who_is_in_the_way() {
    let mut site = Site::new();
    site.settings.tasks.lock_timeout = Duration::from_millis(200);
    let api = Api::on(site);
    let stock = super::Stock { storlink: api.app.storlink().to_string(), template: String::new() };
    let id = api.vm(&stock, "web1");
    let fake = &api.app.site.fake;
    fake.hold(Verb::Start);
    let start = accepted(&api.http.ask("POST", &format!("/vms/{id}/start/"), ASYNC, ""));
    assert!(fake.wait_held(Verb::Start, 1, PATIENCE));
    let busy = api.post(&format!("/vms/{id}/poweroff/"), "");
    assert_eq!(busy.status, 400, "{busy:?}");
    let message = busy.message();
    assert!(message.starts_with("vm web1 is busy: vm.start since ") && message.ends_with(" UTC"), "{message}");
    fake.release(Verb::Start);
    assert_eq!(outcome(&api.get(&format!("{start}?wait"))).0, "success");
    assert_eq!(api.status(&id), "RUNNING");
    api.app.assert_at_rest();
}

#[test]
fn a_client_that_hangs_up_does_not_stop_the_work() {
    use std::io::Write;
    let (api, stock) = Api::stocked();
    let id = api.vm(&stock, "web1");
    let fake = &api.app.site.fake;
    fake.hold(Verb::Start);
    let mut client = std::net::TcpStream::connect(api.http.address).unwrap();
    write!(client, "POST /vms/{id}/start/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert!(fake.wait_held(Verb::Start, 1, PATIENCE));
    drop(client);
    fake.release(Verb::Start);
    api.wait_status(&id, "RUNNING");
    api.app.assert_at_rest();
    let task = api.get("/tasks/");
    assert_eq!((task.element("kind"), task.element("state")), ("vm.start", "success"));
}
