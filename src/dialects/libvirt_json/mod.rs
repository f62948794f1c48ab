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

use warp::http::HeaderValue;

use super::table::Resource;
use crate::config::LibvirtJson;
use crate::error::Problems;

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

/// What only who knows the endpoints can say of the settings.
pub fn check(settings: &LibvirtJson, bad: &mut Problems) {
    for (endpoint, _) in &settings.disabled {
        if TABLE.iter().all(|resource| resource.pattern != endpoint) {
            bad.add(format!("{}disabled.{endpoint}", settings.open.path), "is no endpoint, as /vm_stop is");
        }
    }
    let is_url = |base: &str| {
        (base.starts_with("http://") || base.starts_with("https://")) && HeaderValue::from_str(base).is_ok()
    };
    if settings.redirect_base.as_deref().is_some_and(|base| !is_url(base)) {
        bad.add(format!("{}redirect_base", settings.open.path), "must be a URL, as https://panel.example");
    }
}
