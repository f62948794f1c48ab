//! the libvirt JSON API.

use warp::Reply;
use warp::http::StatusCode;

use super::Mounted;
use super::ask::{self, Ask, Bodies};
use super::table::{self, Resource};
use crate::config;
use crate::operations::Gate;

pub static TABLE: &[Resource] = &[];

pub fn mount(_gate: Gate, _settings: config::LibvirtJson, bodies: Bodies) -> Mounted {
    let routes = ask::serve(bodies, |_: Ask| async { StatusCode::NOT_FOUND.into_response() });
    Mounted { routes, knows: table::knows(TABLE) }
}
