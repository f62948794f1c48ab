//! A template that begins empty, is installed from a disc, and is what VMs are then made from.

use std::fs::File;
use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use super::disc::{self, BLOCK, DRIVE, MARK, RUNS};
use super::{add_storlink, new_vm, press, status, vm_body};
use crate::harness::http::Answer;
use crate::harness::libvirt::Libvirtd;
use crate::harness::server::{Place, Program};
use crate::harness::wait::{BOOT, PATIENCE, wait_within};

/// The BIOS's number of the first hard disk; those of CD-ROM drives are higher.
const HARD_DISK: u8 = 0x80;

fn first_block(image: &Path) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    File::open(image).unwrap().read_exact(&mut block).unwrap();
    block
}

/// Waits until the boot program has run so often on this disk; the drive that it came from.
fn until_run(image: &Path, runs: u8) -> u8 {
    let mut block = first_block(image);
    wait_within(BOOT, &format!("run {runs} on {}", image.display()), || {
        block = first_block(image);
        Ok(block[RUNS] >= runs)
    });
    assert_eq!((&block[2..12], block[RUNS]), (&MARK[..], runs));
    block[DRIVE]
}

/// The one volume that is not among these.
fn new_volume(place: &Place, before: &std::collections::BTreeSet<String>) -> PathBuf {
    let new: Vec<String> = place.files().difference(before).cloned().collect();
    assert_eq!(new.len(), 1, "{new:?}");
    place.store_dir().join(&new[0])
}

fn template_state(server: &Program, template: &str) -> Answer {
    let answer = server.get(&format!("/templates/{template}/"));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

fn press_template(server: &Program, template: &str, button: &str, body: &str) {
    let answer = server.post(&format!("/templates/{template}/{button}/"), body);
    assert_eq!((answer.status, answer.element("result")), (200, "success"), "{button}: {answer:?}");
}

#[test]
fn a_template_is_installed_from_a_disc_and_its_vms_boot_what_was_installed() {
    let libvirtd = Libvirtd::start("installs");
    let place = Place::new(&libvirtd.uri, "");
    disc::bootable(&place.store_dir().join("installer.iso"));
    let server = place.serve();
    add_storlink(&server, &place);

    let before = place.files();
    let made = server.post(
        "/templates/add_new/",
        "<template>\n  <name>installed</name>\n  <os>OTHER</os>\n  <os_arch>X64</os_arch>\n  <desc>by hand</desc>\n  \
         <disk>\n    <storlink>1</storlink>\n    <size>1</size>\n    <format>raw</format>\n  </disk>\n</template>\n",
    );
    assert_eq!((made.status, made.element("result")), (201, "success"), "{made:?}");
    let template = server.get("/templates/").ids("template").remove(0);
    let image = new_volume(&place, &before);
    assert_eq!(first_block(&image), [0; BLOCK]);
    assert_eq!(template_state(&server, &template).element("state"), "SHUTDOWN");

    // Its disk is empty, so the disc boots.
    press_template(&server, &template, "start", "<template><iso>1/installer.iso</iso><memory>64</memory></template>");
    let running = template_state(&server, &template);
    assert_eq!(running.element("state"), "RUNNING");
    let port: u16 = running.element("vnc_port").parse().unwrap();
    let mut screen = TcpStream::connect(("127.0.0.1", port)).unwrap();
    screen.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut greeting = [0; 12];
    screen.read_exact(&mut greeting).unwrap();
    assert_eq!(greeting, *b"RFB 003.008\n");
    assert_eq!(running.element("vnc_password").len(), 8);
    let drive = until_run(&image, 1);
    assert!(drive > HARD_DISK, "it came from drive {drive:#x}, which is no CD-ROM drive");

    // Nobody gets a copy of a disk that is being written.
    let early = server.post("/vms/", &vm_body("early", &template, "", "", "raw"));
    assert_eq!((early.status, early.element("result")), (400, "failure"), "{early:?}");
    assert_eq!(server.delete(&format!("/templates/{template}/")).status, 400);

    press_template(&server, &template, "poweroff", "");
    assert_eq!(template_state(&server, &template).element("state"), "SHUTDOWN");
    assert_eq!(libvirtd.virsh(&["list", "--all", "--uuid"]).trim(), "", "its definition went with it");

    // The disc is still in its drive; what was installed boots all the same.
    press_template(&server, &template, "start", "<template><memory>64</memory></template>");
    assert_eq!(until_run(&image, 2), HARD_DISK);
    press_template(&server, &template, "poweroff", "");

    let before = place.files();
    let made = server.post("/vms/", &vm_body("web1", &template, "", "", "raw"));
    assert_eq!((made.status, made.element("result")), (201, "success"), "{made:?}");
    let copy = new_volume(&place, &before);
    assert_eq!(first_block(&copy), first_block(&image));
    let vm = new_vm(&server, &[]);
    assert_eq!(press(&server, &vm, "start").status, 200);
    assert_eq!(until_run(&copy, 3), HARD_DISK);
    assert_eq!(status(&server, &vm), "RUNNING");
    assert_eq!(press(&server, &vm, "poweroff").status, 200);

    assert_eq!(server.delete(&format!("/vms/{vm}/")).status, 204);
    assert_eq!(first_block(&image)[RUNS], 2, "a VM writes to its own disk");
    assert_eq!(server.delete(&format!("/templates/{template}/")).status, 204);
    place.assert_at_rest();
    assert_eq!(libvirtd.virsh(&["list", "--all", "--uuid"]).trim(), "");
    let left: Vec<String> = place.files().into_iter().collect();
    assert_eq!(left, ["installer.iso"]);
}
