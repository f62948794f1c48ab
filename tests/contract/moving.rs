//! A copy or a move as its client follows it: how far it is, and until when it can be cancelled.

use pengx::hypervisor::{Hypervisor, Verb};
use pengx::model::{DiskId, StorlinkId, VmId};
use pengx::store::{Conn, locks, reservations};

use super::{Api, Stock};
use crate::harness::http::Answer;
use crate::harness::wait::{PATIENCE, wait_until};
use crate::harness::world::World;

const ASYNC: &[(&str, &str)] = &[("Prefer", "respond-async"), ("Content-Type", "application/xml")];

/// A VM with disks of 4 and 2 MiB on one of two storlinks.
struct Scene {
    api: Api,
    vm: String,
    before: World,
}

impl Scene {
    fn new(runs: bool) -> Self {
        let api = Api::new();
        let storlink = api.app.storlink().to_string();
        api.app.second_storlink();
        let stock = Stock { storlink, template: String::new() };
        let body = super::vm("web1", &stock, "<os_disk_size>4</os_disk_size><extra_disk_size>2</extra_disk_size>");
        assert_eq!(api.post("/vms/", &body).status, 201);
        let vm = api.vm_id("web1");
        if runs {
            assert_eq!(api.post(&format!("/vms/{vm}/start/"), "").status, 200);
        }
        let before = World::of(&api.app);
        Self { api, vm, before }
    }

    fn id(&self) -> VmId {
        self.vm.parse().unwrap()
    }

    fn disks(&self) -> Vec<DiskId> {
        self.api.app.disks(self.id()).iter().map(|disk| disk.id).collect()
    }

    /// Begun behind its answer; the task's address.
    fn begin(&self, verb: &str) -> String {
        let uri = match verb {
            "template" => format!("/templates/create/vms/{}/", self.vm),
            _ => format!("/vms/{}/{verb}/", self.vm),
        };
        let accepted = self.api.http.ask("POST", &uri, ASYNC, "<x><name>other</name><storlink>2</storlink></x>");
        assert_eq!(accepted.status, 202, "{accepted:?}");
        accepted.header("location").unwrap().to_owned()
    }

    fn told(&self, task: &str, percent: &str, step: &str) {
        let shows = |task: &Answer| (task.element("percent") == percent) && task.element("step") == step;
        wait_until(&format!("{percent} % and {step}"), || Ok(shows(&self.api.get(task))));
    }

    fn ended(&self, task: &str) -> (String, String) {
        let task = self.api.get(&format!("{task}?wait"));
        (task.element("state").to_owned(), task.message().to_owned())
    }

    /// Asked to stop now, it does, and all is as it was once `go_on` lets it see that.
    fn cancelled(&self, task: &str, go_on: impl FnOnce()) {
        let id = task.trim_start_matches("/tasks/").trim_end_matches('/');
        let asked = format!("task {id} was asked to stop; what it did is undone");
        self.api.http.delete(task).done(200, &asked);
        go_on();
        let (state, message) = self.ended(task);
        assert!(state == "failure" && message.ends_with("was cancelled"), "{state}: {message}");
        self.api.app.assert_at_rest();
        assert_eq!(World::of(&self.api.app), self.before);
    }

    /// Nobody counts on room that nobody has taken any more.
    fn nothing_is_reserved(&self) {
        let all = self.api.app.store().read(reservations::all).unwrap();
        assert_eq!(all, []);
    }
}

#[test]
fn a_move_of_a_running_vm_tells_how_far_it_is_and_is_cancelled_while_it_copies() {
    let scene = Scene::new(true);
    let fake = &scene.api.app.site.fake;
    fake.hold_jobs(true);
    let task = scene.begin("smigrate");
    scene.told(&task, "0", "copying disk 0: 0 of 4 MiB");
    let held = scene.api.app.store().read(reservations::all).unwrap();
    assert!(matches!(held[..], [(StorlinkId(2), _)]), "{held:?}");
    scene.cancelled(&task, || ());
    assert!([0, 1].iter().all(|order| fake.block_job(scene.id(), *order).unwrap().is_none()));
    assert_eq!(fake.calls(Verb::Pause), 0, "the guest was never paused");
    scene.nothing_is_reserved();
    // Another try comes to its end.
    let task = scene.begin("smigrate");
    scene.told(&task, "0", "copying disk 0: 0 of 4 MiB");
    fake.hold_jobs(false);
    assert_eq!(scene.ended(&task), ("success".to_owned(), "vm web1 is moved to storlink store2".to_owned()));
    scene.api.app.assert_at_rest();
    scene.nothing_is_reserved();
}

#[test]
fn past_the_first_pivot_a_move_says_that_it_will_finish() {
    let scene = Scene::new(true);
    let fake = &scene.api.app.site.fake;
    let disks = scene.disks();
    fake.hold(Verb::Pivot);
    let task = scene.begin("smigrate");
    assert!(fake.wait_held(Verb::Pivot, 1, PATIENCE));
    scene.told(&task, "100", "copying disk 1: 2 of 2 MiB");
    assert_eq!(scene.api.status(&scene.vm), "PAUSED");
    let id = task.trim_start_matches("/tasks/").trim_end_matches('/');
    scene.api.http.delete(&task).refused(400, &format!("task {id} is past its point of no return; it will finish"));
    fake.release(Verb::Pivot);
    assert_eq!(scene.ended(&task).0, "success");
    assert_eq!(scene.api.status(&scene.vm), "RUNNING");
    assert!(scene.disks().iter().all(|disk| !disks.contains(disk)));
    scene.api.app.assert_at_rest();
}

/// A server that is told to stop cancels what can be cancelled, and no more.
#[test]
fn a_server_that_stops_leaves_a_move_undone_or_done() {
    for (held, moved) in [(None, false), (Some(Verb::Pivot), true)] {
        let Scene { api: Api { http, app }, vm, before } = Scene::new(true);
        let fake = app.site.fake.clone();
        match held {
            None => fake.hold_jobs(true),
            Some(verb) => fake.hold(verb),
        }
        let uri = format!("/vms/{vm}/smigrate/");
        assert_eq!(http.ask("POST", &uri, ASYNC, "<vm><storlink>2</storlink></vm>").status, 202);
        match held {
            None => wait_until("it copies", || Ok(fake.calls(Verb::BlockJob) > 0)),
            Some(verb) => assert!(fake.wait_held(verb, 1, PATIENCE)),
        }
        drop(http);
        let stopping = std::thread::spawn(move || app.restart());
        fake.heal();
        let app = stopping.join().unwrap();
        app.assert_at_rest();
        let id: VmId = vm.parse().unwrap();
        let there = app.disks(id).iter().all(|disk| disk.storlink == StorlinkId(2));
        assert_eq!((there, World::of(&app) == before), (moved, !moved));
        assert_eq!(fake.states(), [(id, pengx::model::PowerState::Running)]);
    }
}

#[test]
fn a_copy_tells_how_far_it_is_and_is_cancelled_at_any_time() {
    for runs in [false, true] {
        let scene = Scene::new(runs);
        let fake = &scene.api.app.site.fake;
        fake.hold(Verb::Define);
        let task = scene.begin("copy");
        assert!(fake.wait_held(Verb::Define, 1, PATIENCE));
        scene.told(&task, "100", "copying disk 1: 2 of 2 MiB");
        scene.cancelled(&task, || fake.release(Verb::Define));
        scene.nothing_is_reserved();
    }
    // While the guest is brought back from its overlays it is too early to be sure and too late to stop in the middle.
    for verb in ["copy", "template"] {
        let scene = Scene::new(true);
        let fake = &scene.api.app.site.fake;
        fake.hold(Verb::StartBlockJob);
        let task = scene.begin(verb);
        assert!(fake.wait_held(Verb::StartBlockJob, 1, PATIENCE));
        scene.told(&task, "100", "copying disk 1: 2 of 2 MiB");
        scene.cancelled(&task, || fake.release(Verb::StartBlockJob));
    }
}

#[test]
fn a_move_of_a_vm_that_is_off_is_cancelled_before_its_rows_change() {
    let scene = Scene::new(false);
    let fake = &scene.api.app.site.fake;
    fake.hold(Verb::Define);
    let task = scene.begin("smigrate");
    assert!(fake.wait_held(Verb::Define, 1, PATIENCE));
    scene.told(&task, "100", "copying disk 1: 2 of 2 MiB");
    scene.cancelled(&task, || fake.release(Verb::Define));
}

/// Whatever the moment, its disks are whole on one side or the other.
#[test]
fn a_guest_that_powers_off_during_its_move_has_whole_disks() {
    for (verb, fate) in [
        (Verb::BlockJob, "vm web1 is SHUTDOWN; it went off while its disks were copied; they are where they were"),
        (Verb::Pause, "vm web1 is SHUTDOWN; it went off while its disks were copied; they are where they were"),
        (Verb::Pivot, "vm web1 is SHUTDOWN; it went off while its disks were copied; they are where they were"),
        (Verb::Unpause, "vm web1 is moved to storlink store2"),
    ] {
        let scene = Scene::new(true);
        let fake = &scene.api.app.site.fake;
        fake.hold(verb);
        let task = scene.begin("smigrate");
        assert!(fake.wait_held(verb, 1, PATIENCE), "{verb:?}");
        assert!(fake.power_off_inside(scene.id()));
        fake.release(verb);
        let (state, message) = scene.ended(&task);
        assert!(message.contains(fate), "{verb:?}: {message}");
        scene.api.app.assert_at_rest();
        let after = World::of(&scene.api.app);
        if verb == Verb::Unpause {
            assert_eq!(state, "success");
            assert!(scene.api.app.disks(scene.id()).iter().all(|disk| disk.storlink == StorlinkId(2)));
        } else {
            assert_eq!(
                (state.as_str(), after.files, after.rows),
                ("failure", scene.before.files.clone(), scene.before.rows.clone())
            );
        }
        assert_eq!(scene.api.post(&format!("/vms/{}/start/", scene.vm), "").status, 200);
    }
}

/// A guest that had been paused by its owner stays paused, and one that its owner resumes in the middle runs on.
#[test]
fn a_guest_is_left_as_its_owner_wants_it() {
    let scene = Scene::new(true);
    let fake = &scene.api.app.site.fake;
    fake.hold(Verb::Unpause);
    let task = scene.begin("smigrate");
    assert!(fake.wait_held(Verb::Unpause, 1, PATIENCE));
    // As virsh would; the gate is before the effect, so both calls come through one after the other.
    let fake = fake.clone();
    let id = scene.id();
    std::thread::scope(|scope| {
        let resumed = scope.spawn(move || fake.unpause(id));
        scene.api.app.site.fake.release(Verb::Unpause);
        drop(resumed.join().unwrap());
    });
    assert_eq!(scene.ended(&task).0, "success");
    assert_eq!(scene.api.status(&scene.vm), "RUNNING");
    scene.api.app.assert_at_rest();
    assert!(scene.api.app.store().read(|c: &mut Conn| locks::all(c)).unwrap().is_empty());
}
