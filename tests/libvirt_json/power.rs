//! Start and stop: what is answered, and what has happened then.

use std::thread;
use std::time::Duration;

use pengx::error::ErrorKind;
use pengx::hypervisor::{Answer, Verb};
use pengx::model::Role;

use super::{Api, registry, settings};
use crate::harness::app::Site;
use crate::harness::wait::{PATIENCE, wait_until};

const DONE: &str = r#"{"status":true}"#;

#[test]
fn start_and_stop_answer_when_it_is_so() {
    let api = Api::new();
    let vm = api.vm("web1");
    let fake = &api.app.site.fake;
    for _ in 0..2 {
        api.post("/vm_start?name=web1").says(200, DONE);
        assert!(fake.running(vm).is_some());
        api.get("/vm_state?name=web1").says(200, r#"{"state":1}"#);
    }
    // One that does not listen to its power button, too.
    assert!(fake.set_deaf(vm, true));
    for _ in 0..2 {
        api.post("/vm_stop?name=web1").says(200, DONE);
        assert!(fake.running(vm).is_none());
        api.get("/vm_state?name=web1").says(200, r#"{"state":5}"#);
    }
    assert_eq!((fake.calls(Verb::Start), fake.calls(Verb::Destroy)), (1, 1));
    api.app.assert_at_rest();
}

#[test]
fn a_paused_vm_is_active_and_a_crashed_one_is_not() {
    let api = Api::new();
    let [_, _, delta, gamma] = api.four();
    let fake = &api.app.site.fake;
    let started = fake.calls(Verb::Start);
    api.post("/vm_start?name=gamma").says(200, DONE);
    api.get("/vm_state?name=gamma").says(200, r#"{"state":3}"#);
    api.post("/vm_stop?name=delta").says(200, DONE);
    assert_eq!((fake.calls(Verb::Start), fake.calls(Verb::Destroy)), (started, 0));
    api.post("/vm_stop?name=gamma").says(200, DONE);
    api.post("/vm_start?name=delta").says(200, DONE);
    assert!(fake.running(gamma).is_none() && fake.running(delta).is_some());
    api.app.assert_at_rest();
}

#[test]
fn what_the_hypervisor_refuses_is_a_500_that_tells_nothing() {
    let api = Api::new();
    let vm = api.vm("web1");
    let fake = &api.app.site.fake;
    let refusals = [
        ErrorKind::Refused { by: "libvirt".to_owned(), why: "cannot set up guest memory".to_owned() },
        ErrorKind::Timeout { action: "it did not start".to_owned(), after: Duration::from_secs(1) },
    ];
    for no in refusals {
        fake.fail_next(Verb::Start, Answer::Refuse(no));
        api.post("/vm_start?name=web1").details(500, "Internal Server Error");
        api.app.assert_at_rest();
        api.get("/vm_state?name=web1").says(200, r#"{"state":5}"#);
    }
    // A disk that is gone.
    let disk = api.app.store().read(|c| pengx::store::disks::of_vm(c, vm)).unwrap().remove(0);
    let image = api.app.site.store_dir().join(disk.volume.as_str());
    std::fs::rename(&image, image.with_extension("away")).unwrap();
    api.post("/vm_start?name=web1").details(500, "Internal Server Error");
    std::fs::rename(image.with_extension("away"), &image).unwrap();

    // It is not known to be off then.
    fake.set_reachable(false);
    wait_until("its state is not known", || Ok(api.json("/vm_state?name=web1")["state"] == 0));
    api.get("/vms?type=all").says(200, r#"{"vms":[{"name":"web1","state":"no state","id":-1}]}"#);
    for path in ["/vm_start", "/vm_stop"] {
        api.post(&format!("{path}?name=web1")).details(500, "Internal Server Error");
    }
    fake.heal();
    wait_until("its state is known", || Ok(api.json("/vm_state?name=web1")["state"] == 5));
    api.post("/vm_start?name=web1").says(200, DONE);
    api.app.assert_at_rest();
}

#[test]
fn who_asks_while_a_vm_is_busy_is_told_so() {
    let mut site = Site::new();
    site.settings.tasks.lock_timeout = Duration::from_millis(200);
    let api = Api::on(site, settings());
    api.vm("web1");
    let fake = &api.app.site.fake;
    fake.hold(Verb::Start);
    thread::scope(|scope| {
        let first = scope.spawn(|| api.post("/vm_start?name=web1"));
        assert!(fake.wait_held(Verb::Start, 1, PATIENCE));
        let second = api.post("/vm_start?name=web1");
        assert_eq!(second.status, 400, "{second:?}");
        assert!(second.body.starts_with("{\"detail\":\"vm web1 is busy: "), "{second:?}");
        fake.release(Verb::Start);
        first.join().unwrap().says(200, DONE);
    });
    api.app.assert_at_rest();
}

#[test]
fn two_who_want_the_same_both_have_it() {
    let api = Api::new();
    let vm = api.vm("web1");
    let fake = &api.app.site.fake;
    for (path, verb) in [("/vm_start", Verb::Start), ("/vm_stop", Verb::Destroy)] {
        let before = tasks(&api);
        fake.hold(verb);
        thread::scope(|scope| {
            let two = [(); 2].map(|()| scope.spawn(|| api.post(&format!("{path}?name=web1"))));
            assert!(fake.wait_held(verb, 1, PATIENCE));
            wait_until("both have a task", || Ok(tasks(&api) == before + 2));
            fake.release(verb);
            for one in two {
                one.join().unwrap().says(200, DONE);
            }
        });
        assert_eq!(fake.calls(verb), 1);
    }
    assert!(fake.running(vm).is_none());
    api.app.assert_at_rest();
}

fn tasks(api: &Api) -> usize {
    api.app.store().read(|c| pengx::store::tasks::recent(c, 1000)).unwrap().len()
}

/// Ten seconds; it goes on all the same.
#[test]
fn a_start_that_takes_long_is_answered_before_it_is_done() {
    let api = Api::new();
    let vm = api.vm("web1");
    let fake = &api.app.site.fake;
    fake.hold(Verb::Start);
    api.post("/vm_start?name=web1").says(200, r#"{"status":false}"#);
    assert!(fake.running(vm).is_none());
    fake.release(Verb::Start);
    wait_until("it runs", || Ok(api.json("/vm_state?name=web1")["state"] == 1));
    api.app.assert_at_rest();
}

#[test]
fn where_power_is_not_allowed_nothing_is_started_or_stopped() {
    let api = Api::with(|settings| settings.allow_power = false);
    let [alpha, beta, ..] = api.four();
    let fake = &api.app.site.fake;
    let effects = fake.effects();
    let no = "this server starts and stops no VM through this API; see allow_power";
    for uri in
        ["/vm_stop?name=alpha", "/vm_start?name=beta", "/vm_start?name=alpha", "/vm_stop?name=nobody", "/vm_stop"]
    {
        api.post(uri).details(403, no);
    }
    assert_eq!(fake.effects(), effects);
    assert!(fake.running(alpha).is_some() && fake.running(beta).is_none());
    assert_eq!(api.listed("active"), ["alpha", "gamma"]);
}

#[test]
fn an_account_that_only_looks_starts_and_stops_nothing() {
    let api = Api::new();
    let [alpha, ..] = api.four();
    // Another one is admin, for there must be one before a role is taken.
    registry(&api.app).set_role(super::ACCOUNT, Role::Viewer).unwrap();
    let no = "you may not start or stop a vm as viewer; it takes the role operator";
    wait_until("the role counts", || Ok(api.post("/vm_stop?name=beta").status == 403));
    for uri in
        ["/vm_stop?name=alpha", "/vm_start?name=beta", "/vm_start?name=alpha", "/vm_stop?name=nobody", "/vm_stop"]
    {
        api.post(uri).details(403, no);
    }
    assert!(api.app.site.fake.running(alpha).is_some());
    assert_eq!(api.listed("all").len(), 4);
    api.app.assert_at_rest();
}

#[test]
fn a_browser_is_sent_to_the_front_end_where_there_is_one() {
    let api = Api::with(|settings| settings.redirect_base = Some("https://panel.example/ui/".to_owned()));
    let vm = api.vm("web 1&ü");
    let uri = "/vm_start?name=web%201%26%C3%BC";
    let browser = ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");
    let page = "https://panel.example/ui/vm.html?name=web%201%26%C3%BC";
    for (path, runs) in [("/vm_start", true), ("/vm_start", true), ("/vm_stop", false)] {
        let answer = api.http.ask("POST", &uri.replace("/vm_start", path), &[browser], "");
        assert_eq!((answer.status, answer.body.as_str(), answer.header("location")), (301, "", Some(page)));
        assert_eq!(api.app.site.fake.running(vm).is_some(), runs);
    }
    for accept in ["*/*", "application/json", "application/json, text/html;q=0.5"] {
        api.http.ask("POST", uri, &[("Accept", accept)], "").says(200, DONE);
    }
    api.http.ask("POST", "/vm_start?name=x", &[browser], "").details(400, "No VM named x");
    // And nowhere without it.
    let plain = super::serve(&api.app, "", settings());
    plain.ask("POST", uri, &[browser], "").says(200, DONE);
}
