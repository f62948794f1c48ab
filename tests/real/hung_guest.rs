//! Guests whose QEMU stops answering: who asks for them is told so in bounded time, and no other VM notices.

use rustix::process::{Pid, Signal, kill_process};

use super::{add_storlink, empty_vm, press, status};
use crate::harness::http::Answer;
use crate::harness::libvirt::Libvirtd;
use crate::harness::server::{Place, Program};
use crate::harness::wait::wait_until;

/// A QEMU that is stopped; it goes on when this is dropped.
struct Hung(Pid);

impl Hung {
    fn new(libvirtd: &Libvirtd, vm: &str) -> Self {
        let name = libvirtd.virsh(&["domname", vm]);
        let pid = Pid::from_raw(libvirtd.guest_pid(name.trim())).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        Self(pid)
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        // It may have been powered off.
        if kill_process(self.0, Signal::CONT).is_err() {
            println!("{:?} is gone", self.0);
        }
    }
}

fn assert_unavailable(what: &str, answer: &Answer) {
    assert_eq!(answer.status, 503, "{what}: {answer:?}");
    assert!(answer.message().contains("does not answer"), "{what}: {answer:?}");
}

/// Everything that needs no guest that hangs.
fn assert_the_rest_is_well(server: &Program, vm: &str) {
    for uri in ["/vms/", "/storlinks/", "/templates/", "/pms/", "/pmpperf/", "/tasks/", "/metrics"] {
        assert_eq!(server.get(uri).status, 200, "{uri}");
    }
    let health = server.get("/health");
    assert_eq!((health.status, health.body.as_str()), (200, "ok\n"));
    for (button, then) in [("start", "RUNNING"), ("suspend", "PAUSED"), ("resume", "RUNNING"), ("poweroff", "SHUTDOWN")]
    {
        let pressed = press(server, vm, button);
        assert_eq!(pressed.status, 200, "{button}: {pressed:?}");
        assert_eq!(status(server, vm), then);
    }
    let more = empty_vm(server, "more");
    let deleted = server.delete(&format!("/vms/{more}/"));
    assert_eq!(deleted.status, 204, "{deleted:?}");
}

/// More of them than calls that libvirtd serves for one connection, and each is asked again and again.
#[test]
fn guests_that_hang_delay_no_other() {
    let libvirtd = Libvirtd::start("hung-guests");
    let place = Place::new(&libvirtd.uri, "");
    let server = place.serve();
    add_storlink(&server, &place);
    let well = empty_vm(&server, "well");
    let sick: Vec<String> = (0..6).map(|n| empty_vm(&server, &format!("sick{n}"))).collect();
    for vm in &sick {
        assert_eq!(press(&server, vm, "start").status, 200);
    }

    let hung: Vec<Hung> = sick.iter().map(|vm| Hung::new(&libvirtd, vm)).collect();
    std::thread::scope(|scope| {
        let clients: Vec<_> = sick
            .iter()
            .map(|vm| {
                let server = &server;
                scope.spawn(move || {
                    for button in ["suspend", "reboot", "suspend", "suspend"] {
                        assert_unavailable(button, &press(server, vm, button));
                    }
                })
            })
            .collect();
        assert_the_rest_is_well(&server, &well);
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
    // Nobody gave up on them, and what they were asked is still under way; so is everything else.
    assert_the_rest_is_well(&server, &well);
    for vm in &sick {
        assert!(["RUNNING", "UNKNOWN"].contains(&status(&server, vm).as_str()));
    }
    // One that hangs can be ended.
    assert_eq!(press(&server, &sick[0], "poweroff").status, 200);
    assert_eq!(status(&server, &sick[0]), "SHUTDOWN");
    assert_eq!(server.delete(&format!("/vms/{}/", sick[0])).status, 204);

    drop(hung);
    for vm in &sick[1..] {
        wait_until("it can be asked again", || Ok(press(&server, vm, "poweroff").status != 503));
        wait_until("it is off", || Ok(status(&server, vm) == "SHUTDOWN"));
        assert_eq!(server.delete(&format!("/vms/{vm}/")).status, 204);
    }
    assert_the_rest_is_well(&server, &well);
    place.assert_at_rest();
    assert_eq!(place.files().len(), 1);
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
}
