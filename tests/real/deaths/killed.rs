//! The program itself is killed while QEMU moves the data of its guest.

use std::path::{Path, PathBuf};

use pengx::model::*;
use pengx::store::{disks, journal, locks, snapshots, storlinks};

use crate::harness::bed::{Ground, assert_filled, counter, fill, whole_count};
use crate::harness::counters::Counter;
use crate::harness::guest::{SYSTEM, golden, next_beat, until_booted};
use crate::harness::http::ask;
use crate::harness::libvirt::Libvirtd;
use crate::harness::server::{Place, Program};
use crate::harness::wait::{BOOT, wait_until, wait_within};
use crate::harness::whole::{Leaks, assert_whole};
use crate::real::{add_storlink, add_template, new_vm, press, status, task_uri, template_image, vm_body};

/// What the guest's second disk holds behind its numbers: so many MiB that QEMU is busy for a while, of this byte.
const FILLING: (u64, u8) = (384, 0xa5);

/// A program and its guest.
struct Killed<G> {
    ground: G,
    place: Place,
    server: Option<Program>,
    vm: VmId,
}

impl<G: Ground> Killed<G> {
    fn new(ground: G, place: Place) -> Self {
        std::fs::copy(golden(), template_image(&place, "qcow2")).unwrap();
        let server = place.serve();
        add_storlink(&server, &place);
        let second = place.store_dir().with_file_name("store2");
        std::fs::create_dir(&second).unwrap();
        let body = format!(
            "<storlink><name>store2</name><link>{}</link><type>LO</type><level>FL</level></storlink>",
            second.display()
        );
        let made = server.post("/storlinks/create/", &body);
        assert_eq!(made.status, 201, "{made:?}");
        let template = add_template(&server, "qcow2");
        let made = server.post("/vms/", &vm_body("web1", &template, "", "512", "qcow2"));
        assert_eq!(made.status, 201, "{made:?}");
        let vm = new_vm(&server, &[]).parse().unwrap();
        Self { ground, place, server: Some(server), vm }
    }

    fn server(&self) -> &Program {
        self.server.as_ref().unwrap()
    }

    fn images(&self) -> Vec<PathBuf> {
        let image = |disk: &Disk, links: &[Storlink]| {
            Path::new(&links.iter().find(|link| link.id == disk.storlink).unwrap().link).join(disk.volume.as_str())
        };
        let rows = self.place.store().read(|c| Ok((disks::of_vm(c, self.vm)?, storlinks::all(c)?)));
        let (disks, links) = rows.unwrap();
        disks.iter().map(|disk| image(disk, &links)).collect()
    }

    fn disks(&self) -> Vec<Counter> {
        (0..).zip(&self.images()).map(|(order, image)| counter(image, order)).collect()
    }

    /// Kills the program when QEMU has begun to move the data of the second disk for it, and not ended. The next one finds
    /// the guest as it was, and brings everything to an end.
    fn kill_in_the_middle(&mut self, method: &str, uri: &str, body: &str) {
        let before = self.disks()[0].until_past(0);
        let headers = [("Content-Type", "application/xml"), ("Prefer", "respond-async")];
        let task = task_uri(&ask(self.server().address, method, uri, &headers, body));
        wait_within(BOOT, "QEMU moves the data of the second disk", || {
            assert_eq!(self.server().get(&task).element("ended"), "", "it was too fast");
            Ok(self.ground.is_moving(self.vm, 1))
        });
        self.server.take().unwrap().kill();
        let left = self.place.store().read(journal::all).unwrap();
        assert!(!left.is_empty(), "{uri}: it was not in its middle");

        self.server = Some(self.place.serve());
        let store = self.place.store();
        wait_within(BOOT, uri, || store.read(|c| Ok(locks::all(c)?.is_empty() && journal::all(c)?.is_empty())));
        assert_whole(&store, &self.ground, Leaks::None);
        wait_until("the guest is known", || Ok(status(self.server(), &self.vm.to_string()) == "RUNNING"));
        assert_eq!(next_beat(&self.images()[0], Format::Qcow2, SYSTEM).boots, 1, "{uri}");
        for disk in self.disks() {
            disk.until_past(disk.until_past(before));
        }
    }
}

#[test]
fn a_killed_program_leaves_a_counting_guest_whole() {
    let libvirtd = Libvirtd::start("killed");
    let place = Place::new(&libvirtd.uri, "");
    is_killed(libvirtd, place);
}

/// The program on this place and ground, in the middle of two operations.
pub fn is_killed(ground: impl Ground, place: Place) {
    let mut killed = Killed::new(ground, place);
    let uri = format!("/vms/{}", killed.vm);
    let body = "<snapshot><name>first</name><storlink>1</storlink></snapshot>";
    let taken = killed.server().post(&format!("{uri}/snapshots/"), body);
    assert_eq!(taken.status, 201, "{taken:?}");
    let snapshot = taken.ids("snapshot").remove(0);
    fill(&killed.images()[1], Format::Qcow2, FILLING.0, FILLING.1);
    assert_eq!(press(killed.server(), &killed.vm.to_string(), "start").status, 200);
    until_booted(&killed.images()[0], Format::Qcow2, 1);

    killed.kill_in_the_middle("DELETE", &format!("{uri}/snapshots/{snapshot}/"), "");
    let left = killed.place.store().read(|c| snapshots::of_vm(c, killed.vm)).unwrap();
    assert_eq!(left, [], "it was past the point of no return, and is finished");

    let here = killed.images();
    killed.kill_in_the_middle("POST", &format!("{uri}/smigrate/"), "<vm><storlink>2</storlink></vm>");
    assert_eq!(killed.images(), here, "it is undone");
    let moved = killed.server().post(&format!("{uri}/smigrate/"), "<vm><storlink>2</storlink></vm>");
    assert_eq!(moved.status, 201, "{moved:?}");
    let seen = killed.disks()[0].until_past(0);
    assert_eq!(press(killed.server(), &killed.vm.to_string(), "poweroff").status, 200);
    assert_whole(&killed.place.store(), &killed.ground, Leaks::None);
    let counts = whole_count(&killed.disks());
    assert!(counts[0].last >= seen && counts.iter().all(|count| count.filled_in() == 0));
    assert_filled(&killed.images()[1], Format::Qcow2, FILLING.0, FILLING.1);
    println!("the program was killed in the middle of 2 operations on a guest that counts");
}
