//! The main job: guests that boot, run, shut down, survive their server, and go.

use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use pengx::model::Format;

use super::{add_storlink, add_template, new_vm, press, status, template_image, vm_body};
use crate::harness::guest::{EXTRA, SYSTEM, golden, next_beat};
use crate::harness::libvirt::Libvirtd;
use crate::harness::server::{Place, Program};
use crate::harness::tool::qemu_img;
use crate::harness::wait::PATIENCE;
use crate::harness::whole::Domains;

/// A VM and where its guest's heartbeat is.
struct Guest {
    id: String,
    /// Image, format, offset.
    hearts: Vec<(PathBuf, Format, u64)>,
}

impl Guest {
    /// Each disk's image is told apart by the domain's own words.
    fn new(domains: &impl Domains, id: String, format: Format) -> Self {
        let images = domains.defined(&id).into_values().map(|mut chain| chain.remove(0));
        let hearts = images.enumerate().map(|(n, image)| (image, format, [SYSTEM, EXTRA][n])).collect();
        Self { id, hearts }
    }

    /// The guest lives: each disk gets another heartbeat; how often it has booted.
    fn lives(&self) -> u64 {
        let beats = self.hearts.iter().map(|(image, format, offset)| next_beat(image, *format, *offset).boots);
        let boots: Vec<u64> = beats.collect();
        assert!(!boots.is_empty() && boots.iter().all(|b| *b == boots[0]), "{boots:?}");
        boots[0]
    }

    fn uri(&self) -> String {
        format!("/vms/{}/", self.id)
    }
}

fn assert_pressed(server: &Program, vm: &Guest, button: &str, then: &str) {
    let answer = press(server, &vm.id, button);
    assert_eq!(answer.status, 200, "{button}: {answer:?}");
    assert_eq!(answer.element("result"), "success");
    assert_eq!(status(server, &vm.id), then, "after {button}");
}

fn assert_refused(server: &Program, vm: &Guest, answer: &crate::harness::http::Answer, says: &str) {
    assert_eq!((answer.status, answer.element("result")), (400, "failure"), "{answer:?}");
    assert!(answer.message().contains(says), "{answer:?}");
    assert_eq!(status(server, &vm.id), "RUNNING");
}

/// Somebody who speaks VNC answers at the port that the VM's document names.
fn assert_screen(server: &Program, vm: &Guest) {
    let document = server.get(&vm.uri());
    let port: u16 = document.element("vnc_port").parse().unwrap();
    let mut screen = TcpStream::connect(("127.0.0.1", port)).unwrap();
    screen.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut greeting = [0; 12];
    screen.read_exact(&mut greeting).unwrap();
    assert_eq!(greeting, *b"RFB 003.008\n");
    assert_eq!(document.element("vnc_password").len(), 8);
}

#[test]
fn guests_live_their_lives_through_the_manuals_xml() {
    let libvirtd = Libvirtd::start("guests");
    live_through_xml(&Place::new(&libvirtd.uri, "shutdown_timeout = 110"), &libvirtd);
}

/// Two guests, all through the program's HTTP port.
pub fn live_through_xml(place: &Place, domains: &(impl Domains + Sync)) {
    let image = template_image(place, "qcow2");
    std::fs::copy(golden(), &image).unwrap();
    let server = place.serve();
    add_storlink(&server, place);
    let template = add_template(&server, "qcow2");

    let create = |name: &str, extra: &str, format: &str| {
        let before = server.get("/vms/").ids("vm");
        let made = server.post("/vms/", &vm_body(name, &template, "", extra, format));
        assert_eq!((made.status, made.element("result")), (201, "success"), "{made:?}");
        new_vm(&server, &before)
    };
    let cow = Guest::new(domains, create("cow", "", "qcow2"), Format::Qcow2);
    let raw = Guest::new(domains, create("raw", "2", "raw"), Format::Raw);
    assert_eq!((cow.hearts.len(), raw.hearts.len(), place.files().len()), (1, 2, 4));
    for vm in [&cow, &raw] {
        assert_eq!(status(&server, &vm.id), "SHUTDOWN");
        assert_eq!(server.get(&vm.uri()).element("last_boot_time"), "None");
    }

    let boots = std::thread::scope(|scope| {
        scope.spawn(|| first_life_of_cow(&server, &cow));
        first_life_of_raw(&server, domains, &raw)
    });

    // Guests do not belong to the server: a killed server does not take them along, and the next one knows them.
    server.kill();
    let server = place.serve();
    for vm in [&cow, &raw] {
        assert_running_soon(&server, vm);
        assert_screen(&server, vm);
    }
    assert_eq!((cow.lives(), raw.lives()), (1, boots), "they were not booted again");

    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_pressed(&server, &cow, "shutdown", "SHUTDOWN");
            domains.assert_ended(&cow.id, true);
            assert_pressed(&server, &cow, "start", "RUNNING");
            assert_eq!(cow.lives(), 2, "its disk is the one that it left");
            assert_pressed(&server, &cow, "poweroff", "SHUTDOWN");
        });
        scope.spawn(|| {
            assert_pressed(&server, &raw, "poweroff", "SHUTDOWN");
            domains.assert_ended(&raw.id, false);
        });
    });
    let again = press(&server, &raw.id, "poweroff");
    assert_eq!(again.status, 400, "{again:?}");

    let checked = qemu_img(&["check", "-f", "qcow2", cow.hearts[0].0.to_str().unwrap()]);
    assert!(checked.contains("No errors were found"), "{checked}");
    for vm in [&cow, &raw] {
        assert_eq!(server.delete(&vm.uri()).status, 204);
        assert_eq!(server.get(&vm.uri()).status, 404);
    }
    assert_eq!(server.get("/vms/").ids("vm"), [""; 0]);
    assert!(domains.all().is_empty());
    place.assert_at_rest();
    assert_eq!(place.files().len(), 1, "{:?}", place.files());
    assert!(same(&image, golden()), "the template's image is as it was");
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
}

/// Asked to shut down at once, long before it has booted, it does when it has, or as soon as its kernel can; then it boots to
/// stay. How often it has booted.
fn first_life_of_raw(server: &Program, domains: &impl Domains, vm: &Guest) -> u64 {
    assert_pressed(server, vm, "start", "RUNNING");
    assert_pressed(server, vm, "shutdown", "SHUTDOWN");
    domains.assert_ended(&vm.id, true);
    let off = press(server, &vm.id, "shutdown");
    assert_eq!(off.status, 400, "{off:?}");
    assert_pressed(server, vm, "start", "RUNNING");
    let boots = vm.lives();
    assert!((1..=2).contains(&boots), "{boots}");
    boots
}

/// What a guest that runs answers with no.
fn first_life_of_cow(server: &Program, vm: &Guest) {
    assert_pressed(server, vm, "start", "RUNNING");
    assert_ne!(server.get(&vm.uri()).element("last_boot_time"), "None");
    assert_refused(server, vm, &press(server, &vm.id, "start"), "it is started already");
    assert_refused(server, vm, &server.delete(&vm.uri()), "shut it down before deleting it");
    assert_screen(server, vm);
    assert_eq!(vm.lives(), 1);
}

/// A server that has just begun may not have asked the hypervisor yet; it never says that a running guest is off.
fn assert_running_soon(server: &Program, vm: &Guest) {
    let (told, said) = mpsc::channel();
    crate::harness::wait::wait_until("the server knows its guest", || {
        let now = status(server, &vm.id);
        told.send(now.clone()).unwrap();
        Ok(now == "RUNNING")
    });
    assert!(said.try_iter().all(|state| ["UNKNOWN", "RUNNING"].contains(&state.as_str())));
}

fn same(a: &Path, b: &Path) -> bool {
    std::fs::read(a).unwrap() == std::fs::read(b).unwrap()
}
