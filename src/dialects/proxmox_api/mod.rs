//! Proxmox-API: a thin wrapper around Proxmox VE, as hosting panels know it. A container is a VM that is made from a template,
//! a node is a host, and its numeric ids are an alias of ours.
//!
//! It knows no login: who is let in acts as one account. Its users are the panel's customers, and no accounts.

mod cluster;
mod console;
mod container;
mod create;
mod failure;
mod fields;
mod front;
mod help;
mod manage;
mod nodes;
mod reply;
mod templates;
mod users;
mod utils;

use std::sync::Arc;

use warp::Filter;

use super::Mounted;
use super::ask::{self, Bodies};
use super::files;
use super::open_door::OpenDoor;
use super::table::{self, Resource};
use crate::config;
use crate::operations::Gate;
use front::Front;

pub static TABLE: &[Resource] = &[
    Resource::new("/", &["GET", "OPTIONS"]),
    Resource::new("/user", &["GET", "POST", "PUT", "DELETE", "OPTIONS"]),
    Resource::new("/node", &["REPORT", "OPTIONS"]),
    Resource::new("/template", &["GET", "OPTIONS"]),
    Resource::new("/utils", &["OPTIONS"]),
    Resource::new("/utils/vnc", &["GET", "OPTIONS"]),
    Resource::new("/utils/graphic", &["GET", "OPTIONS"]),
    Resource::new("/utils/ticket", &["GET", "OPTIONS"]),
    Resource::new("/cluster", &["REPORT", "GET", "DELETE", "OPTIONS"]),
    Resource::new("/cluster/nextid", &["GET", "OPTIONS"]),
    Resource::new("/container", &["GET", "POST", "PUT", "DELETE", "OPTIONS"]),
    Resource::new("/manage/on", &["POST", "OPTIONS"]),
    Resource::new("/manage/off", &["POST", "OPTIONS"]),
    // And the files of its page beside it.
    Resource::web_socket(console::PATTERN),
];

pub fn mount(gate: Gate, settings: config::ProxmoxApi, bodies: Bodies) -> Mounted {
    let pages = settings.novnc.clone();
    if !pages.join(console::PAGE).is_file() {
        tracing::warn!(dir = %pages.display(), "noVNC is not there, so the Proxmox-API has no page that shows a console");
    }
    let door = OpenDoor::new(gate.clone(), settings.open.clone());
    let front = Arc::new(Front { gate, door, settings });
    let asked = ask::serve(bodies, move |ask| {
        let front = Arc::clone(&front);
        async move { front.answer(ask).await }
    });
    let routes = warp::path(console::FOLDER).and(files::below(pages)).or(asked).unify().boxed();
    let listed = table::knows(TABLE);
    let knows = move |path: &str, upgrade: bool| listed(path, upgrade) || (!upgrade && console::is_page(path));
    Mounted { routes, knows: Arc::new(knows) }
}
