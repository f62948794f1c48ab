//! The test bed of "no byte of a guest is lost": a guest counts on its disks, and what it was told is written is there,
//! whatever becomes of its QEMU.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use pengx::model::Format;
use rustix::process::{Pid, Signal, kill_process};

use super::{add_storlink, add_template, new_vm, press, status, template_image, vm_body};
use crate::harness::counters::{Counter, at_one_moment};
use crate::harness::guest::golden;
use crate::harness::libvirt::Libvirtd;
use crate::harness::server::{Place, Program};
use crate::harness::wait::wait_until;

fn assert_pressed(server: &Program, vm: &str, button: &str, then: &str) {
    let answer = press(server, vm, button);
    assert_eq!((answer.status, answer.element("result")), (200, "success"), "{button}: {answer:?}");
    assert_eq!(status(server, vm), then, "after {button}");
}

/// The images of a domain, in the order of its disks; a drive without a disc shows a dash.
fn images(libvirtd: &Libvirtd, vm: &str) -> Vec<PathBuf> {
    let list = libvirtd.virsh(&["domblklist", vm]);
    let images = list.lines().filter_map(|line| line.split_whitespace().nth(1)).filter(|image| *image != "-");
    images.map(PathBuf::from).collect()
}

#[test]
fn a_guests_numbers_outlive_its_qemu() {
    let libvirtd = Libvirtd::start("counters");
    let place = Place::new(&libvirtd.uri, "");
    std::fs::copy(golden(), template_image(&place, "qcow2")).unwrap();
    let server = place.serve();
    add_storlink(&server, &place);
    let template = add_template(&server, "qcow2");
    let made = server.post("/vms/", &vm_body("web1", &template, "", "64", "qcow2"));
    assert_eq!(made.status, 201, "{made:?}");
    let vm = new_vm(&server, &[]);
    let [system, data] = &images(&libvirtd, &vm)[..] else { panic!("two disks were asked for") };
    let mut disks = vec![Counter::system(system, Format::Qcow2), Counter::extra(data, Format::Qcow2)];

    assert_pressed(&server, &vm, "start", "RUNNING");
    for disk in &disks {
        disk.until_past(100);
    }
    kill_process(Pid::from_raw(libvirtd.guest_pid(&format!("pengx-{vm}"))).unwrap(), Signal::KILL).unwrap();
    wait_until("its death is known", || Ok(status(&server, &vm) == "CRASHED"));
    let killed = at_one_moment(&disks).unwrap();
    assert!(killed.iter().all(|count| count.first == 1 && count.last > 99 && count.filled_in() == 0));

    // It might have died right before the last number of the second disk: that one is filled in.
    let last = 4096 + (killed[1].last - 1) * 512;
    let cut = format!("write -q -z {last} 512");
    assert!(Command::new("qemu-io").args(["-f", "qcow2", "-c", &cut]).arg(data).status().unwrap().success());
    let late = usize::from(killed[1].last < killed[0].last) + 1;
    assert_eq!(disks[1].numbers(), killed[1].last - 1);

    assert_pressed(&server, &vm, "start", "RUNNING");
    let before = disks[0].until_past(killed[0].last + 50);
    let uri = format!("/vms/{vm}/disks/");
    let made = server.post(&uri, "<disk><size>16</size><storlink>1</storlink><format>raw</format></disk>");
    assert_eq!(made.status, 201, "{made:?}");
    let plugged = images(&libvirtd, &vm).remove(2);
    disks.push(Counter::extra(&plugged, Format::Raw));
    disks[2].until_past(disks[2].until_past(before) + 50);
    assert_pressed(&server, &vm, "poweroff", "SHUTDOWN");
    let off = at_one_moment(&disks).unwrap();
    assert!(off[0].first == 1 && off[1].first == 1 && off[2].first > before, "{off:?}");
    assert_eq!(off.iter().map(|count| count.filled_in()).collect::<Vec<_>>(), [0, late, 0], "what lagged behind");

    // What is lost stays lost: no guest fills it in before a test has seen it.
    let lost = off[2].first + 20;
    let file = std::fs::File::options().write(true).open(&plugged).unwrap();
    file.write_all_at(&[0; 4096], 4096 + 20 * 512).unwrap();
    let why = disks[2].read().unwrap_err();
    assert!(why.contains(&format!("the numbers {lost} to {} are missing: it goes on with {}", lost + 7, lost + 8)));
    let content = std::fs::read(&plugged).unwrap();
    assert_pressed(&server, &vm, "start", "RUNNING");
    disks[1].until_past(off[1].last + 50);
    assert_pressed(&server, &vm, "poweroff", "SHUTDOWN");
    assert_eq!(disks[2].read().unwrap_err(), why);
    assert!(std::fs::read(&plugged).unwrap()[512..] == content[512..], "all but its heartbeat is as it was");
    assert!(at_one_moment(&disks[..2]).is_ok());
    assert!(disks[0].numbers() > off[0].last + 49);

    assert_eq!(server.delete(&format!("/vms/{vm}/")).status, 204);
    place.assert_at_rest();
    assert_eq!(place.files().len(), 1, "{:?}", place.files());
}
