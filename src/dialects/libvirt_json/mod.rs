//! The libvirt JSON API: one host, its VMs by name, looked at, started and stopped; as a small server of FastAPI and
//! libvirt-python answered it. It knows no login and takes no bodies.
//!
//! Law: an answer is what that server would have said, to the letter of its errors (`docs/compatibility.md`).

mod accept;
mod cors;
mod failure;
mod filter;
mod front;
mod integer;
mod machine;
mod power;
mod reply;
mod state;
mod vms;

use failure::Failure;
pub use front::mount;

use super::table::Resource;

/// Every endpoint, each with its one method.
pub static TABLE: &[Resource] = &[
    Resource::new("/", &["GET"]),
    Resource::new("/host", &["GET"]),
    Resource::new("/vms", &["GET"]),
    Resource::new("/vm_info", &["GET"]),
    Resource::new("/vm_ip", &["GET"]),
    Resource::new("/vm_xmldesc", &["GET"]),
    Resource::new("/vm_viewer", &["GET"]),
    Resource::new("/vm_state", &["GET"]),
    Resource::new("/vm_status", &["GET"]),
    Resource::new("/vm_start", &["POST"]),
    Resource::new("/vm_stop", &["POST"]),
    Resource::new("/vm_status_lookup", &["GET"]),
    Resource::new("/vm_screenshot", &["GET"]),
    Resource::new("/openapi.json", &["GET"]),
];
