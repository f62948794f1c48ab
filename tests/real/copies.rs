//! A guest that counts on its disks is copied, made a template of and moved to other storages while it runs: it never
//! notices, and no number is missing anywhere.

use std::path::{Path, PathBuf};

use pengx::model::Format;

use super::{add_storlink, add_template, new_vm, press, status, template_image, vm_body};
use crate::harness::counters::{Counter, at_one_moment};
use crate::harness::guest::{golden, until_booted};
use crate::harness::images::{allocated, text};
use crate::harness::libvirt::Libvirtd;
use crate::harness::server::{Place, Program};
use crate::harness::tool::qemu_img;

/// More than the tables of an image, and less than any disk here.
const NEAR: u64 = 8 << 20;

/// A guest with two qcow2 disks and a raw one, two storlinks, and the program.
struct Counting {
    server: Program,
    place: Place,
    libvirtd: Libvirtd,
    vm: String,
}

impl Counting {
    fn new(name: &str) -> Self {
        let libvirtd = Libvirtd::start(name);
        let place = Place::new(&libvirtd.uri, "");
        std::fs::copy(golden(), template_image(&place, "qcow2")).unwrap();
        let server = place.serve();
        add_storlink(&server, &place);
        let second = second_dir(&place);
        std::fs::create_dir(&second).unwrap();
        let body = format!("<s><name>store2</name><link>{}</link><type>LO</type><level>FL</level></s>", text(&second));
        assert_eq!(server.post("/storlinks/", &body).status, 201);
        let template = add_template(&server, "qcow2");
        let made = server.post("/vms/", &vm_body("web1", &template, "", "64", "qcow2"));
        assert_eq!(made.status, 201, "{made:?}");
        let vm = new_vm(&server, &[]);
        let raw = "<disk><size>32</size><storlink>1</storlink><format>raw</format></disk>";
        assert_eq!(server.post(&format!("/vms/{vm}/disks/"), raw).status, 201);
        let counting = Self { server, place, libvirtd, vm };
        counting.pressed("start", "RUNNING");
        counting
    }

    fn pressed(&self, button: &str, then: &str) {
        pressed(&self.server, &self.vm, button, then);
    }

    /// In the order of its disks; a drive without a disc shows a dash.
    fn images(&self, vm: &str) -> Vec<PathBuf> {
        let list = self.libvirtd.virsh(&["domblklist", vm]);
        let images = list.lines().filter_map(|line| line.split_whitespace().nth(1)).filter(|image| *image != "-");
        images.map(PathBuf::from).collect()
    }

    fn counters(&self, vm: &str) -> Vec<Counter> {
        counters(&self.images(vm))
    }

    /// Every disk has a number after this one; the last of the first disk then.
    fn counts_past(&self, number: u64) -> u64 {
        let lasts: Vec<u64> = self.counters(&self.vm).iter().map(|disk| disk.until_past(number)).collect();
        lasts[0]
    }

    fn post(&self, uri: &str, body: &str) {
        let answer = self.server.post(uri, body);
        assert_eq!(
            (answer.status, answer.ids("template").len() + answer.body.matches(">success<").count()),
            (201, 1),
            "{uri}: {answer:?}"
        );
    }

    /// Off, it holds every number in its time; how far it came.
    fn has_lost_nothing(&self) -> u64 {
        self.pressed("poweroff", "SHUTDOWN");
        let images = self.images(&self.vm);
        let counts = at_one_moment(&counters(&images)).unwrap();
        let late: Vec<usize> = counts.iter().map(|count| count.filled_in()).collect();
        assert_eq!(late, [0, 0, 0], "what its guest had to write again");
        assert!(counts.iter().all(|count| count.first == 1), "{counts:?}");
        images.iter().for_each(|image| is_clean(image));
        counts[0].last
    }
}

fn second_dir(place: &Place) -> PathBuf {
    place.store_dir().with_file_name("store2")
}

fn pressed(server: &Program, vm: &str, button: &str, then: &str) {
    let answer = press(server, vm, button);
    assert_eq!((answer.status, answer.element("result")), (200, "success"), "{button}: {answer:?}");
    assert_eq!(status(server, vm), then, "after {button}");
}

fn format(image: &Path) -> Format {
    image.extension().unwrap().to_str().unwrap().parse().unwrap()
}

fn counters(images: &[PathBuf]) -> Vec<Counter> {
    let counter = |(n, image): (usize, &PathBuf)| match n {
        0 => Counter::system(image, format(image)),
        _ => Counter::extra(image, format(image)),
    };
    images.iter().enumerate().map(counter).collect()
}

fn is_clean(image: &Path) {
    if format(image) == Format::Qcow2 {
        let said = qemu_img(&["check", "-f", "qcow2", text(image)]);
        assert!(said.contains("No errors were found"), "{}: {said}", image.display());
    }
}

fn names(dir: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
}

#[test]
fn a_counting_guest_is_copied_while_it_counts() {
    let guest = Counting::new("copies");
    let (server, place, second) = (&guest.server, &guest.place, second_dir(&guest.place));
    let (files, images) = (place.files(), guest.images(&guest.vm));
    let before = guest.counts_past(100);
    let known = server.get("/vms/").ids("vm");
    guest.post(&format!("/vms/{}/copy/", guest.vm), "<vm><name>copied_vm</name><storlink>2</storlink></vm>");
    let copy = new_vm(server, &known);
    let after = guest.counts_past(before);
    assert_eq!(
        (guest.images(&guest.vm), place.files()),
        (images.clone(), files.clone()),
        "it is on its own disks again"
    );

    // The disks of the copy are of one moment, and that is one between the two.
    let copies = guest.images(&copy);
    let held = at_one_moment(&counters(&copies)).unwrap();
    assert!(held.iter().all(|count| count.first == 1 && count.last + 1 >= before && count.last <= after), "{held:?}");
    copies.iter().for_each(|image| is_clean(image));
    assert_eq!(names(&second).len(), 3);

    // So are those of a template.
    let body = "<t><name>t</name><storlink>2</storlink></t>";
    let made = server.post(&format!("/templates/create/vms/{}/", guest.vm), body);
    assert_eq!(made.status, 201, "{made:?}");
    let template = made.ids("template")[0].clone();
    let disks = server.get(&format!("/templates/{template}/disks/")).ids("disk");
    let image = |disk: &String| names(&second).into_iter().find(|image| text(image).contains(disk.as_str())).unwrap();
    let kept = at_one_moment(&counters(&disks.iter().map(image).collect::<Vec<_>>())).unwrap();
    assert!(kept[0].last > held[0].last, "{kept:?}");

    // The copy boots beside it, and counts on from where it was.
    pressed(server, &copy, "start", "RUNNING");
    until_booted(&copies[0], Format::Qcow2, 2);
    for disk in counters(&copies) {
        disk.until_past(held[0].last + 20);
    }
    pressed(server, &copy, "poweroff", "SHUTDOWN");
    at_one_moment(&counters(&copies)).unwrap();

    guest.counts_past(guest.counts_past(after) + 20);
    until_booted(&images[0], Format::Qcow2, 1);
    let last = guest.has_lost_nothing();
    println!("a guest was copied twice while it counted to {last}");
    for uri in [format!("/vms/{copy}/"), format!("/vms/{}/", guest.vm), format!("/templates/{template}/")] {
        assert_eq!(server.delete(&uri).status, 204, "{uri}");
    }
    place.assert_at_rest();
    assert_eq!((place.files().len(), names(&second).len()), (1, 0));
}

#[test]
fn a_counting_guest_moves_while_it_counts() {
    let guest = Counting::new("moves");
    let (server, place, second) = (&guest.server, &guest.place, second_dir(&guest.place));
    guest.counts_past(100);
    let body = "<snapshot><name>s1</name><storlink>1</storlink></snapshot>";
    assert_eq!(server.post(&format!("/vms/{}/snapshots/", guest.vm), body).status, 201);
    let frozen = place.files().len() - 3;
    let before = guest.counts_past(200);
    // What each chain occupies is the most that its copy may.
    let used: u64 = place.files().iter().map(|name| allocated(&place.store_dir().join(name))).sum();

    let smigrate = |storlink: u32| {
        let body = format!("<vm><storlink>{storlink}</storlink></vm>");
        guest.post(&format!("/vms/{}/smigrate/", guest.vm), &body);
    };
    smigrate(2);
    assert_eq!(status(server, &guest.vm), "RUNNING");
    let there = guest.images(&guest.vm);
    assert_eq!(names(&second), {
        let mut sorted = there.clone();
        sorted.sort();
        sorted
    });
    assert_eq!(place.files().len(), frozen, "what the snapshot has frozen stays, and no leaf");
    let is = there.iter().map(|image| allocated(image)).sum::<u64>();
    assert!(is < used + NEAR, "{is} bytes where {used} were");
    let moved = guest.counts_past(guest.counts_past(before) + 50);
    until_booted(&there[0], Format::Qcow2, 1);

    // Back while it is paused, and away again while it runs.
    guest.pressed("suspend", "PAUSED");
    smigrate(1);
    assert_eq!(status(server, &guest.vm), "PAUSED");
    guest.pressed("resume", "RUNNING");
    assert_eq!(names(&second).len(), 0);
    let back = guest.counts_past(moved + 50);
    smigrate(2);
    guest.counts_past(back + 50);

    let images = guest.images(&guest.vm);
    let gap = |count: &crate::harness::counters::Count| count.longest_gap(before..back);
    let last = guest.has_lost_nothing();
    let counts = at_one_moment(&counters(&images)).unwrap();
    let gaps: Vec<u64> = counts.iter().map(gap).collect();
    println!(
        "a guest was moved three times while it counted to {last}; the longest gaps, in ms of its clock: {gaps:?}"
    );

    // Off, it moves too; and what it moved to boots.
    smigrate(1);
    guest.pressed("start", "RUNNING");
    until_booted(&guest.images(&guest.vm)[0], Format::Qcow2, 2);
    guest.counts_past(last + 20);
    guest.pressed("poweroff", "SHUTDOWN");
    at_one_moment(&guest.counters(&guest.vm)).unwrap();
    assert_eq!(server.delete(&format!("/vms/{}/", guest.vm)).status, 204);
    place.assert_at_rest();
    assert_eq!((place.files().len(), names(&second).len()), (1, 0));
}
