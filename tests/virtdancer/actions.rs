//! The four buttons, on VMs in every state; and the vectors that need one that runs.

use pengx::error::ErrorKind;
use pengx::hypervisor::{Answer as Says, Verb};
use pengx::model::{MiB, VmId};
use pengx::operations::vm::{Changes, ResumeVm, ShutdownVm, UpdateVm};
use serde_json::json;

use super::{Scene, power};
use crate::harness::wait::wait_until;

const PAUSED: &str = "domain is paused";
const OFF: &str = "domain is not running";
const RUNNING: &str = "domain is already running";

/// The state afterwards, or why not.
fn expected(state: &str, action: &str) -> Result<u64, &'static str> {
    match (state, action) {
        ("running", "start") => Err(RUNNING),
        (_, "start") => Ok(1),
        ("running", "pause") => Ok(3),
        ("paused", "pause") => Err(PAUSED),
        ("running" | "paused", _) => Ok(5),
        _ => Err(OFF),
    }
}

fn bring(scene: &Scene, vm: VmId, state: &str) {
    if [1, 3].contains(&scene.state(vm)) {
        scene.act(vm, "destroy").done();
    }
    if state == "off" {
        return;
    }
    scene.act(vm, "start").done();
    match state {
        "running" => {}
        "paused" => scene.act(vm, "pause").done(),
        _ => {
            assert!(scene.app.site.fake.crash(vm));
            scene.wait_state(vm, 6);
        }
    }
}

#[test]
fn every_button_in_every_state() {
    let scene = Scene::new();
    let vm = scene.web;
    for state in ["off", "running", "paused", "crashed"] {
        for action in ["start", "pause", "shutdown", "stop", "destroy"] {
            bring(&scene, vm, state);
            let before = scene.state(vm);
            let answer = scene.act(vm, action);
            match expected(state, action) {
                Ok(after) => {
                    answer.done();
                    // A guest that is asked takes its time.
                    scene.wait_state(vm, after);
                }
                Err(why) => {
                    answer.invalid(why);
                    assert_eq!(scene.state(vm), before, "{action} of one that is {state}");
                }
            }
        }
    }
    scene.app.assert_at_rest();
}

#[test]
fn the_vectors_of_a_vm_that_runs() {
    let scene = Scene::new();
    let vm = scene.web;
    let is = |id: bool, active: bool, state: u64| {
        let detail = scene.detail(vm);
        assert_eq!((detail["id"].as_i64().unwrap() >= 0, &detail["active"]), (id, &json!(active)), "{detail}");
        assert_eq!(detail["info"]["state"], json!(state), "{detail}");
    };
    scene.act(vm, "start").done();
    is(true, true, 1);
    scene.act(vm, "pause").done();
    is(true, true, 3);
    let listed = scene.get("/vm").ok();
    assert_eq!(listed[0], json!({"uuid": vm.to_string(), "name": "web-1", "active": true}));
    scene.act(vm, "start").done();
    is(true, true, 1);
    scene.ask("root", "POST", "/api/vm/{web}/action?action=destroy", "").done();
    is(false, false, 5);
    assert_eq!(scene.detail(vm)["id"], json!(-1));
    scene.act(vm, "destroy").invalid(OFF);
    assert_eq!(scene.get("/vm/{web}/stats/cpu").ok(), json!({"cpu_0": 0.0}));
    // What the body says goes before the query, and the query counts where the body says nothing.
    scene.ask("root", "POST", "/vm/{web}/action?action=destroy", "{\"action\":\"start\"}").done();
    is(true, true, 1);
    scene.ask("root", "POST", "/vm/{web}/action?action=destroy", "{}").done();
    is(false, false, 5);
}

#[test]
fn what_a_guest_uses_is_told() {
    let scene = Scene::new();
    let vm = scene.web;
    let changes = Changes { cpu: Some(2), ..Changes::default() };
    scene.app.run(UpdateVm { vm, changes }).unwrap();
    scene.act(vm, "start").done();
    let detail = scene.detail(vm);
    assert_eq!((&detail["info"]["nrVirtCpu"], &detail["info"]["maxMem"]), (&json!(2), &json!(65_536)));
    let worked = || scene.detail(vm)["info"]["cpuTime"].as_u64().unwrap();
    wait_until("the guest works", || Ok(worked() > 0));
    // The guests of this hypervisor work a quarter of the time.
    let shares = scene.get("/vm/{web}/stats/cpu").ok();
    let shares = shares.as_object().unwrap();
    assert_eq!(shares.keys().collect::<Vec<_>>(), ["cpu_0", "cpu_1"]);
    for share in shares.values() {
        let share = share.as_f64().unwrap();
        assert!(share > 0.0 && share <= 100.0, "{share}");
        assert!(((share * 100.0).round() - share * 100.0).abs() < 1e-6, "two decimals: {share}");
    }
}

#[test]
fn a_definition_that_its_guest_was_not_started_with_is_updated() {
    let scene = Scene::new();
    let vm = scene.web;
    let change = |maxmem: u64| {
        let changes = Changes { maxmem: Some(MiB(maxmem)), ..Changes::default() };
        scene.app.run(UpdateVm { vm, changes }).unwrap();
    };
    let updated = || scene.detail(vm)["updated"].as_bool().unwrap();
    scene.act(vm, "start").done();
    assert!(!updated());
    change(128);
    assert!(updated());
    assert_eq!(scene.detail(vm)["info"]["maxMem"], json!(65_536), "what it was started with");
    scene.act(vm, "destroy").done();
    assert!(!updated(), "nothing runs that could differ");
    assert_eq!(scene.detail(vm)["info"]["maxMem"], json!(131_072));
    scene.act(vm, "start").done();
    // What guests use is a second old at most, so it may be the last run's.
    wait_until("it runs as it is defined", || Ok(!updated()));
}

/// The original's page has `destroy` for guests that do not listen, and so it must not wait for them.
#[test]
fn a_guest_that_does_not_listen_can_have_its_plug_pulled_at_once() {
    let scene = Scene::new();
    let (vm, fake) = (scene.web, &scene.app.site.fake);
    scene.act(vm, "start").done();
    assert!(fake.set_deaf(vm, true));
    let asked = fake.calls(Verb::RequestShutdown);
    scene.act(vm, "shutdown").done();
    scene.act(vm, "stop").done();
    assert_eq!(fake.calls(Verb::RequestShutdown), asked + 2, "once each");
    assert_eq!(scene.state(vm), 1);
    scene.app.assert_at_rest();
    scene.act(vm, "destroy").done();
    assert_eq!(scene.state(vm), 5);
}

/// One that stands still cannot hear the request, so it goes on first.
#[test]
fn a_paused_guest_that_is_shut_down_is_resumed() {
    let scene = Scene::new();
    let (vm, fake) = (scene.web, &scene.app.site.fake);
    scene.act(vm, "start").done();
    assert!(fake.set_deaf(vm, true));
    scene.act(vm, "pause").done();
    scene.act(vm, "shutdown").done();
    assert_eq!(scene.state(vm), 1);
    scene.app.run(ResumeVm { vm }).unwrap_err();
}

#[test]
fn a_refusal_of_the_hypervisor_is_told_in_its_words() {
    let scene = Scene::new();
    let (vm, fake) = (scene.web, &scene.app.site.fake);
    let why = "cannot set up guest memory";
    fake.fail_next(Verb::Start, Says::Refuse(ErrorKind::Refused { by: "it".to_owned(), why: why.to_owned() }));
    scene.act(vm, "start").died(&format!("libvirt error code: 9, message: operation failed: it refused: {why}"));
    assert_eq!(scene.state(vm), 5);
    fake.set_reachable(false);
    let answer = scene.act(vm, "start");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.json()["title"], "Error 503 - Service Unavailable");
    fake.set_reachable(true);
    scene.app.assert_at_rest();
}

/// Another one has the VM for longer than anybody waits.
#[test]
fn a_vm_that_somebody_is_busy_with_is_told_so() {
    let mut site = crate::harness::app::Site::new();
    site.settings.tasks.lock_timeout = std::time::Duration::from_millis(100);
    site.settings.shutdown_timeout = crate::harness::wait::PATIENCE;
    let scene = Scene::on(site, Default::default(), "");
    let (vm, fake) = (scene.web, &scene.app.site.fake);
    scene.act(vm, "start").done();
    assert!(fake.set_deaf(vm, true));
    let busy = scene.app.core.submit_blocking(ShutdownVm { vm }).unwrap();
    wait_until("the guest was asked", || Ok(fake.calls(Verb::RequestShutdown) > 0));
    let answer = scene.act(vm, "pause");
    let exception = answer.json()["exception"].as_str().unwrap().to_owned();
    let start = "libvirt error code: 68, message: Timed out during operation: vm web-1 is busy: vm.shutdown since ";
    assert!(answer.status == 500 && exception.starts_with(start), "{answer:?}");
    assert_eq!(power(&scene.app, vm), pengx::model::PowerState::Running);
    assert!(fake.set_deaf(vm, false));
    busy.wait_blocking().unwrap();
    scene.act(vm, "start").done();
    scene.app.assert_at_rest();
}
