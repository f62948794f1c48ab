//! What tests can do to the fake hypervisor.

use std::thread;

use pengx::hypervisor::{Answer, Verb};

use super::*;

fn gone() -> ErrorKind {
    ErrorKind::Unavailable { what: "the test".to_owned() }
}

#[test]
fn a_world_outlives_its_handles() {
    let fake = FakeHypervisor::new();
    let spec = spec(&[]);
    fake.clone().define(&spec).unwrap();
    fake.clone().start(spec.id, Start::Running).unwrap();
    assert_eq!(fake.definitions(), std::slice::from_ref(&spec));
    assert_eq!(fake.states(), [(spec.id, PowerState::Running)]);
}

#[test]
fn a_guest_obeys_unless_it_is_deaf() {
    let fake = FakeHypervisor::new();
    let spec = spec(&[]);
    fake.define(&spec).unwrap();
    fake.start(spec.id, Start::Running).unwrap();
    assert!(fake.set_deaf(spec.id, true));
    fake.request_shutdown(spec.id).unwrap();
    assert_eq!(fake.states(), [(spec.id, PowerState::Running)]);
    assert!(fake.set_deaf(spec.id, false));
    fake.request_shutdown(spec.id).unwrap();
    assert_eq!(fake.states(), [(spec.id, PowerState::Shutdown)]);
}

#[test]
fn guests_end_by_themselves_and_listeners_hear_of_it() {
    let fake = FakeHypervisor::new();
    let spec = spec(&[]);
    fake.define(&spec).unwrap();
    assert!(!fake.crash(spec.id), "it is off");
    let bell = Bell::on(&fake);
    for (end, state) in [
        (FakeHypervisor::crash as fn(&FakeHypervisor, VmId) -> bool, PowerState::Crashed),
        (FakeHypervisor::power_off_inside, PowerState::Shutdown),
    ] {
        fake.start(spec.id, Start::Running).unwrap();
        let other = fake.clone();
        thread::scope(|scope| {
            scope.spawn(|| assert!(end(&other, spec.id)));
            bell.until("the guest ended", || fake.states() == [(spec.id, state)]);
        });
    }
}

#[test]
fn faults_come_when_asked_for() {
    let fake = FakeHypervisor::new();
    let spec = spec(&[]);
    fake.fail_next(Verb::Define, Answer::Refuse(gone()));
    assert_eq!(*fake.define(&spec).unwrap_err().kind(), gone());
    assert!(fake.definitions().is_empty());
    fake.fail_next(Verb::Define, Answer::Lose(gone()));
    assert_eq!(*fake.define(&spec).unwrap_err().kind(), gone());
    assert_eq!(fake.definitions(), std::slice::from_ref(&spec), "it was done, and its answer lost");

    fake.fail_effect(2, Answer::Refuse(gone()));
    fake.start(spec.id, Start::Running).unwrap();
    assert_eq!(fake.domains().unwrap().len(), 1, "reading is no effect");
    assert_eq!(*fake.destroy(spec.id).unwrap_err().kind(), gone());
    fake.destroy(spec.id).unwrap();

    fake.fail_every(Verb::Start, Answer::Refuse(gone()));
    for _ in 0..3 {
        assert_eq!(*fake.start(spec.id, Start::Running).unwrap_err().kind(), gone());
    }
    fake.heal();
    fake.start(spec.id, Start::Running).unwrap();
    assert_eq!((fake.calls(Verb::Start), fake.calls(Verb::Destroy), fake.calls(Verb::Domains)), (5, 2, 1));
    assert_eq!((fake.effects(), fake.all_calls()), (9, 10));
}

#[test]
fn it_goes_away_and_comes_back() {
    let fake = FakeHypervisor::new();
    let bell = Bell::on(&fake);
    for reachable in [false, true] {
        let other = fake.clone();
        thread::scope(|scope| {
            scope.spawn(move || other.set_reachable(reachable));
            bell.until("it went or came", || fake.info().is_ok() == reachable);
        });
    }
    fake.set_reachable(false);
    assert!(matches!(fake.domains().unwrap_err().kind(), ErrorKind::Unavailable { .. }));
    assert!(matches!(fake.define(&spec(&[])).unwrap_err().kind(), ErrorKind::Unavailable { .. }));
}

#[test]
fn a_verb_is_held_until_released() {
    let fake = FakeHypervisor::new();
    let spec = spec(&[]);
    fake.define(&spec).unwrap();
    fake.hold(Verb::Start);
    thread::scope(|scope| {
        let start = scope.spawn(|| fake.start(spec.id, Start::Running));
        assert!(fake.wait_held(Verb::Start, 1, NEVER));
        assert_eq!(fake.states(), [(spec.id, PowerState::Shutdown)], "others go on");
        fake.release(Verb::Start);
        start.join().unwrap().unwrap();
    });
    assert_eq!(fake.states(), [(spec.id, PowerState::Running)]);
}
