//! Power: every verb on a VM in every state, and on one that is not there.

use pengx::model::VmId;

use super::{Api, NOBODY};
use crate::harness::world::World;

const VERBS: [&str; 7] = ["start", "shutdown", "poweroff", "reboot", "reset", "resume", "suspend"];

/// The state afterwards and what is said, or why not.
fn expected(state: &str, verb: &str) -> Result<(&'static str, &'static str), &'static str> {
    match (state, verb) {
        ("RUNNING" | "PAUSED", "start") => Err("it is started already"),
        (_, "start") => Ok(("RUNNING", "is started")),
        ("RUNNING", "shutdown") => Ok(("SHUTDOWN", "is shut down")),
        ("PAUSED", "shutdown" | "reboot") => Err("resume it first"),
        ("RUNNING" | "PAUSED", "poweroff") => Ok(("SHUTDOWN", "is powered off")),
        (_, "poweroff") => Err("it is off already"),
        ("RUNNING", "reboot") => Ok(("RUNNING", "is asked to reboot")),
        ("RUNNING" | "PAUSED", "reset") => Ok(("RUNNING", "is reset")),
        (_, "reset") => Err("it is off; start it instead"),
        ("PAUSED", "resume") => Ok(("RUNNING", "is resumed")),
        (_, "resume") => Err("only a suspended vm can be resumed"),
        ("RUNNING", "suspend") => Ok(("PAUSED", "is suspended")),
        ("PAUSED", "suspend") => Err("it is suspended already"),
        (_, "shutdown" | "reboot" | "suspend") => Err("it is not running"),
        other => panic!("{other:?}"),
    }
}

/// From whatever state it is in.
fn bring(api: &Api, id: &str, state: &str) {
    let of = |verb: &str| assert_eq!(api.post(&format!("/vms/{id}/{verb}/"), "").status, 200, "{verb} for {state}");
    if ["RUNNING", "PAUSED"].contains(&api.status(id).as_str()) {
        of("poweroff");
    }
    of("start");
    match state {
        "RUNNING" => {}
        "PAUSED" => of("suspend"),
        "SHUTDOWN" => of("poweroff"),
        _ => {
            assert!(api.app.site.fake.crash(id.parse::<VmId>().unwrap()));
            api.wait_status(id, "CRASHED");
        }
    }
}

#[test]
fn every_verb_in_every_state() {
    let (api, stock) = Api::stocked();
    let id = api.vm(&stock, "web1");
    let mut allowed = 0;
    for state in ["RUNNING", "PAUSED", "SHUTDOWN", "CRASHED"] {
        for verb in VERBS {
            bring(&api, &id, state);
            let before = World::of(&api.app);
            let answer = api.post(&format!("/vms/{id}/{verb}/"), "");
            match expected(state, verb) {
                Ok((after, says)) => {
                    answer.done(200, &format!("vm web1 {says}"));
                    assert_eq!(api.status(&id), after, "{verb} of a vm that was {state}");
                    allowed += 1;
                }
                Err(needs) => {
                    answer.refused(400, &format!("vm web1 is {state}; {needs}"));
                    assert_eq!(World::of(&api.app), before, "{verb} of a vm that is {state}");
                }
            }
            api.app.assert_at_rest();
        }
    }
    assert_eq!(allowed, 10);
}

#[test]
fn a_vm_that_is_not_there_has_no_power_button() {
    let api = Api::new();
    for verb in VERBS {
        api.post(&format!("/vms/{NOBODY}/{verb}/"), "").refused(404, &format!("there is no vm {NOBODY}"));
    }
    api.app.assert_at_rest();
}

#[test]
fn a_reset_starts_with_what_the_rows_say_and_counts_as_a_boot() {
    let (api, stock) = Api::stocked();
    let id = api.vm(&stock, "web1");
    let vm: VmId = id.parse().unwrap();
    bring(&api, &id, "RUNNING");
    api.http.send("PUT", &format!("/vms/{id}/update/"), "<vm><maxmem>128</maxmem></vm>").empty_204();
    let fake = &api.app.site.fake;
    assert_eq!(fake.running(vm).unwrap().max_memory.0, 64, "for the next start");
    let booted =
        || api.app.store().read(|c| pengx::store::vms::find(c, vm)).unwrap().unwrap().recent_booted_at.unwrap();
    let first = booted();
    api.post(&format!("/vms/{id}/reset/"), "").done(200, "vm web1 is reset");
    assert_eq!(fake.running(vm).unwrap().max_memory.0, 128);
    assert!(booted() > first);
    // A reboot is the guest's own affair.
    let second = booted();
    api.post(&format!("/vms/{id}/reboot/"), "").done(200, "vm web1 is asked to reboot");
    assert_eq!(booted(), second);
    api.app.assert_at_rest();
}

/// The plug is pulled and the start refused: it is tried once more, and a VM that will not start stays off and is not stuck.
#[test]
fn a_reset_whose_start_is_refused_leaves_a_vm_that_is_off_and_free() {
    use pengx::error::ErrorKind;
    use pengx::hypervisor::{Answer, Verb};
    let (api, stock) = Api::stocked();
    let id = api.vm(&stock, "web1");
    bring(&api, &id, "RUNNING");
    let fake = &api.app.site.fake;
    let (by, why) = ("libvirt".to_owned(), "cannot set up guest memory".to_owned());
    let no = Answer::Refuse(ErrorKind::Refused { by, why });
    fake.fail_next(Verb::Start, no.clone());
    let reset = || api.post(&format!("/vms/{id}/reset/"), "");
    reset().refused(400, "libvirt refused: cannot set up guest memory");
    api.app.assert_at_rest();
    assert_eq!(api.status(&id), "RUNNING", "the second start was good");
    fake.fail_every(Verb::Start, no);
    reset().refused(400, "libvirt refused: cannot set up guest memory");
    api.app.assert_at_rest();
    assert_eq!(api.status(&id), "SHUTDOWN");
    fake.heal();
    api.post(&format!("/vms/{id}/start/"), "").done(200, "vm web1 is started");

    // What a start needs is looked for before the plug is pulled.
    for entry in std::fs::read_dir(api.app.site.store_dir()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let gone = reset();
    assert!(gone.status == 400 && gone.message().contains("is not on storlink"), "{gone:?}");
    assert_eq!(api.status(&id), "RUNNING");
    api.app.assert_at_rest();
}

/// A guest that does not listen was asked all the same.
#[test]
fn a_reboot_is_done_when_the_guest_was_asked() {
    use pengx::hypervisor::Verb;
    let (api, stock) = Api::stocked();
    let id = api.vm(&stock, "web1");
    bring(&api, &id, "RUNNING");
    assert!(api.app.site.fake.set_deaf(id.parse().unwrap(), true));
    api.post(&format!("/vms/{id}/reboot/"), "").done(200, "vm web1 is asked to reboot");
    assert_eq!(api.app.site.fake.calls(Verb::RequestReboot), 1);
    api.app.assert_at_rest();
}
