//! Tasks that take long, and a hypervisor that hangs: whoever does not need them is not delayed.

use std::time::Duration;

use pengx::hypervisor::Verb;
use pengx::model::TaskState;

use super::populate;
use crate::harness::app::App;
use crate::harness::http::Served;
use crate::harness::wait::{PATIENCE, wait_until};

const TASKS: usize = 50;

/// What needs no hypervisor is answered.
fn assert_served(server: &Served, vm: &str) {
    for uri in ["/vms/", &format!("/vms/{vm}/"), "/storlinks/", "/templates/", "/pms/", "/tasks/"] {
        for _ in 0..5 {
            assert_eq!(server.get(uri).status, 200, "{uri}");
        }
    }
}

#[test]
fn readers_are_answered_while_fifty_tasks_are_under_way() {
    let app = App::new();
    let vms = populate(&app.store(), TASKS as u32);
    let server = Served::new(&app.core);
    app.site.fake.hold(Verb::Start);
    for vm in &vms {
        let answer = server.ask("POST", &format!("/vms/{vm}/start/"), &[("Prefer", "respond-async")], "");
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    assert!(app.site.fake.wait_held(Verb::Start, TASKS, PATIENCE));
    assert_served(&server, &vms[0].to_string());
    app.storlink();
    let running = |state| {
        let tasks = app.store().read(|c| pengx::store::tasks::recent(c, 1000)).unwrap();
        tasks.iter().filter(|task| task.state == state).count()
    };
    assert_eq!(running(TaskState::Running), TASKS);
    assert!(app.site.fake.wait_held(Verb::Start, TASKS, Duration::ZERO), "nothing of this waited for them");
    app.site.fake.release(Verb::Start);
    app.assert_at_rest();
    assert_eq!(running(TaskState::Success), TASKS + 1);
    assert_eq!(server.get("/vms/").body.matches("<status>RUNNING</status>").count(), TASKS);
}

#[test]
fn a_hypervisor_that_hangs_delays_nobody_who_does_not_ask_for_it() {
    let app = App::new();
    let vm = populate(&app.store(), 2)[0].to_string();
    let server = Served::new(&app.core);
    assert_eq!(server.get(&format!("/vms/{vm}/")).element("status"), "SHUTDOWN");
    let fake = &app.site.fake;
    for verb in [Verb::Domains, Verb::Domain, Verb::Start] {
        fake.hold(verb);
    }
    // Somebody asks for it, and the inventory has something to look at.
    let answer = server.ask("POST", &format!("/vms/{vm}/start/"), &[("Prefer", "respond-async")], "");
    assert_eq!(answer.status, 202, "{answer:?}");
    fake.set_reachable(true);
    assert!(fake.wait_held(Verb::Domains, 1, PATIENCE));
    assert_served(&server, &vm);
    app.storlink();
    assert!(fake.wait_held(Verb::Domains, 1, Duration::ZERO), "nothing of this waited for it");
    for verb in [Verb::Domains, Verb::Domain, Verb::Start] {
        fake.release(verb);
    }
    wait_until("the VM is started", || Ok(server.get(&format!("/vms/{vm}/")).element("status") == "RUNNING"));
    app.assert_at_rest();
}
