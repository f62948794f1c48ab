//! The real thing: the program itself on a private libvirtd with real QEMU (emulated, so that it works everywhere), real
//! storage, real signals.

mod backups;
mod changes;
mod checks;
mod consoles;
mod copies;
mod counters;
pub mod counting;
mod creates;
mod dead_mount;
pub mod deaths;
mod disc;
pub mod guests;
mod helpers;
mod hung_guest;
mod installs;
mod libvirt_json;
mod libvirtd;
mod living;
mod moves;
mod paused;
mod snapshots;
mod start;
mod sweep;

use std::path::PathBuf;

use crate::harness::http::Answer;
use crate::harness::server::{Place, Program};
use crate::harness::wait::wait_until;

/// The uuid of the manual's example template disk.
const TEMPLATE_DISK: &str = "bed05d84-7c44-4720-9588-57cbd8ecef8c";

fn add_storlink(server: &Program, place: &Place) {
    let link = place.store_dir();
    let made = server.post(
        "/storlinks/create/",
        &format!(
            "<storlink>\n  <name>store1</name>\n  <link>{}</link>\n  <desc>VM store1</desc>\n  <type>IO</type>\n  \
             <level>FL</level>\n  <shared>True</shared>\n</storlink>\n",
            link.display()
        ),
    );
    assert_eq!(made.status, 201, "{made:?}");
}

/// Where the template's image must lie.
fn template_image(place: &Place, format: &str) -> PathBuf {
    place.store_dir().join(format!("{TEMPLATE_DISK}.{format}"))
}

/// The id of the template of an image that lies there already.
fn add_template(server: &Program, format: &str) -> String {
    let made = server.post(
        "/templates/add/",
        &format!(
            "<template>\n  <name>debian 8 64bit template</name>\n  <os>DEBIAN</os>\n  <os_arch>X64</os_arch>\n  \
             <desc>Debian 8 jessie 64bit template</desc>\n  <disk>\n    <storlink>1</storlink>\n    \
             <uuid>{TEMPLATE_DISK}</uuid>\n    <format>{format}</format>\n  </disk>\n</template>\n"
        ),
    );
    assert_eq!(made.status, 201, "{made:?}");
    server.get("/templates/").ids("template").remove(0)
}

/// The manual's body of a VM. What is empty is not given.
fn vm_body(name: &str, template: &str, os_disk: &str, extra_disk: &str, format: &str) -> String {
    format!(
        "<vm>\n  <name>{name}</name>\n  <template>{template}</template>\n  <storlink>1</storlink>\n  \
         <cpu_core>1</cpu_core>\n  <memory>128</memory>\n  <maxmem>128</maxmem>\n  \
         <os_disk_size>{os_disk}</os_disk_size>\n  <extra_disk_size>{extra_disk}</extra_disk_size>\n  \
         <disk_format>{format}</disk_format>\n  <network>\n    <list-item>0</list-item>\n    \
         <list-item>1</list-item>\n  </network>\n  <desc>VM for something</desc>\n</vm>\n"
    )
}

/// A VM whose disk is empty: its firmware finds nothing to boot and does not listen to the power button.
fn empty_vm(server: &Program, name: &str) -> String {
    let before = server.get("/vms/").ids("vm");
    let made = server.post("/vms/", &vm_body(name, "", "1", "", ""));
    assert_eq!(made.status, 201, "{made:?}");
    new_vm(server, &before)
}

/// The one that was not there before.
fn new_vm(server: &Program, before: &[String]) -> String {
    let mut new: Vec<String> = server.get("/vms/").ids("vm").into_iter().filter(|id| !before.contains(id)).collect();
    assert_eq!(new.len(), 1, "{new:?}");
    new.remove(0)
}

/// What the single read and the list say, which is the same.
fn status(server: &Program, vm: &str) -> String {
    let single = server.get(&format!("/vms/{vm}/"));
    assert_eq!(single.status, 200, "{single:?}");
    single.element("status").to_owned()
}

fn press(server: &Program, vm: &str, button: &str) -> Answer {
    server.post(&format!("/vms/{vm}/{button}/"), "")
}

fn task_uri(accepted: &Answer) -> String {
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let location = accepted.header("location").unwrap();
    location.to_owned()
}

/// The record of a task that is over.
fn ended(server: &Program, task: &str) -> Answer {
    let mut record = None;
    wait_until("the task is over", || {
        let answer = server.get(task);
        assert_eq!(answer.status, 200, "{answer:?}");
        let over = !answer.element("ended").is_empty();
        record = Some(answer);
        Ok(over)
    });
    record.unwrap()
}
