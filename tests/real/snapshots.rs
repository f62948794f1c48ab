//! A guest counts on its disks while snapshots of it are taken and deleted, and goes back and forth between them: each
//! snapshot holds exactly the numbers up to its moment, on both disks, and no number is ever missing.

use std::path::PathBuf;

use pengx::model::Format;

use super::{add_storlink, add_template, new_vm, press, status, template_image, vm_body};
use crate::harness::counters::{Count, Counter, at_one_moment};
use crate::harness::guest::golden;
use crate::harness::libvirt::Libvirtd;
use crate::harness::server::{Place, Program};
use crate::harness::tool::qemu_img;

struct Guest<'a> {
    server: &'a Program,
    place: &'a Place,
    vm: String,
}

impl Guest<'_> {
    /// Of what the VM writes to, or of a snapshot, by order.
    fn counters(&self, snapshot: Option<&str>) -> [Counter; 2] {
        let below = snapshot.map(|id| format!("snapshots/{id}/")).unwrap_or_default();
        let list = self.server.get(&format!("/vms/{}/disks/{below}", self.vm));
        assert_eq!(list.status, 200, "{list:?}");
        let image = |id: &String| -> PathBuf { self.place.store_dir().join(format!("{id}.qcow2")) };
        let images: Vec<PathBuf> = list.ids("disk").iter().map(image).collect();
        let [system, data] = &images[..] else { panic!("two disks were asked for") };
        [Counter::system(system, Format::Qcow2), Counter::extra(data, Format::Qcow2)]
    }

    /// The last numbers of a snapshot, which are of one moment.
    fn frozen(&self, snapshot: &str) -> Vec<u64> {
        lasts(&at_one_moment(&self.counters(Some(snapshot))).unwrap())
    }

    /// It counts on, on both disks.
    fn counts_past(&self, number: u64) -> u64 {
        let past = self.counters(None).map(|disk| disk.until_past(number));
        past[0].max(past[1])
    }

    fn take(&self, name: &str) -> String {
        let uri = format!("/vms/{}/snapshots/", self.vm);
        let body = format!("<snapshot><name>{name}</name><storlink>1</storlink></snapshot>");
        let made = self.server.post(&uri, &body);
        assert_eq!(made.status, 201, "{made:?}");
        made.ids("snapshot").remove(0)
    }

    fn delete(&self, snapshot: &str) {
        let gone = self.server.delete(&format!("/vms/{}/snapshots/{snapshot}/", self.vm));
        assert_eq!(gone.status, 204, "{gone:?}");
        assert_eq!(status(self.server, &self.vm), "RUNNING");
    }

    fn all(&self) -> Vec<String> {
        self.server.get(&format!("/vms/{}/snapshots/", self.vm)).ids("snapshot")
    }

    fn press(&self, button: &str) {
        let answer = press(self.server, &self.vm, button);
        assert_eq!(answer.status, 200, "{button}: {answer:?}");
    }

    /// Off, what it wrote to is sound, from the first number on.
    fn last(&self) -> Vec<u64> {
        let counts = at_one_moment(&self.counters(None)).unwrap();
        assert!(counts.iter().all(|count| count.first == 1), "{counts:?}");
        lasts(&counts)
    }
}

fn lasts(counts: &[Count]) -> Vec<u64> {
    counts.iter().map(|count| count.last).collect()
}

#[test]
fn a_guest_counts_on_while_it_is_frozen_merged_and_put_back() {
    let libvirtd = Libvirtd::start("snapshots");
    let place = Place::new(&libvirtd.uri, "");
    std::fs::copy(golden(), template_image(&place, "qcow2")).unwrap();
    let server = place.serve();
    add_storlink(&server, &place);
    let template = add_template(&server, "qcow2");
    let made = server.post("/vms/", &vm_body("web1", &template, "", "64", "qcow2"));
    assert_eq!(made.status, 201, "{made:?}");
    let guest = Guest { server: &server, place: &place, vm: new_vm(&server, &[]) };
    let original = guest.counters(None);

    guest.press("start");
    let before = guest.counts_past(100);
    let first = guest.take("first");
    let at_first = guest.frozen(&first);
    assert!(at_first[0] >= before, "{at_first:?}");
    let on = guest.counts_past(at_first[0] + 50);
    let second = guest.take("second");
    let at_second = guest.frozen(&second);
    assert!(at_second[0] >= on, "{at_second:?}");
    // What is frozen stays.
    let on = guest.counts_past(at_second[0] + 50);
    assert_eq!((guest.frozen(&first), guest.frozen(&second)), (at_first.clone(), at_second.clone()));
    // Under the running guest, from the overlay that it writes to.
    guest.delete(&second);
    assert_eq!(guest.frozen(&first), at_first);
    let on = guest.counts_past(on + 50);
    let third = guest.take("third");
    let at_third = guest.frozen(&third);
    assert!(at_third[0] >= on, "{at_third:?}");
    let on = guest.counts_past(at_third[0] + 50);
    guest.press("poweroff");
    let off = guest.last();
    assert!(off[0] >= on);

    // Back, and what it was is kept.
    let back = server.post(&format!("/vms/{}/snapshots/{first}/", guest.vm), "");
    assert_eq!((back.status, back.element("result")), (201, "success"), "{back:?}");
    assert_eq!(guest.last(), at_first);
    let [_, _, kept] = &guest.all()[..] else { panic!("three are there") };
    assert_eq!(guest.frozen(kept), off);
    // Forth: it goes on from what was kept.
    let started = server.post(&format!("/vms/{}/start/snapshots/{kept}/", guest.vm), "");
    assert_eq!((started.status, started.element("result")), (200, "success"), "{started:?}");
    assert_eq!(guest.all().len(), 3, "nothing was written to what it was before");
    let on = guest.counts_past(off[0] + 50);
    // In the middle of what it runs on, twice, and then right below it.
    guest.delete(&third);
    assert_eq!((guest.frozen(&first), guest.frozen(kept)), (at_first, off.clone()));
    let on = guest.counts_past(on + 20);
    guest.delete(&first);
    assert_eq!(guest.frozen(kept), off);
    let on = guest.counts_past(on + 20);
    guest.delete(kept);
    let on = guest.counts_past(on + 50);
    guest.press("poweroff");

    // On the very images that it was made with, and on no other.
    assert!(guest.all().is_empty());
    assert_eq!(guest.counters(None), original);
    assert!(guest.last()[0] >= on);
    let files = place.files();
    assert_eq!(files.len(), 3, "{files:?}");
    let of_it = server.get(&format!("/vms/{}/disks/", guest.vm));
    for id in of_it.ids("disk") {
        qemu_img(&["check", "-q", "-f", "qcow2", place.store_dir().join(format!("{id}.qcow2")).to_str().unwrap()]);
    }
    assert_eq!(server.delete(&format!("/vms/{}/", guest.vm)).status, 204);
    place.assert_at_rest();
    assert_eq!(place.files().len(), 1);
}
