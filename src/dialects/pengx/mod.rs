//! The native API: pengx 3.1.9, in XML.
//!
//! `resources` is the one list of what there is; `front` finds the resource and decides what can be decided without a
//! handler; a handler takes a [`Call`] and gives a [`Reply`] or a [`Failure`].

pub mod backups;
pub mod call;
mod charset;
pub mod console;
pub mod de;
pub mod disks;
pub mod failure;
pub mod fields;
mod form;
mod front;
mod guard;
pub mod interfaces;
mod kept;
mod negotiate;
pub mod perf;
pub mod pms;
pub mod power;
pub mod reply;
pub mod resources;
pub mod schema;
pub mod settings;
pub mod snapshots;
pub mod storlinks;
pub mod style;
pub mod tasks;
pub mod templates;
pub mod times;
pub mod vms;
pub mod volumes;
pub mod xml;

pub use call::Call;
pub use failure::Failure;
pub use front::{mount, routes, routes_over};
pub use reply::{Reply, refusal};
pub use resources::listing;
pub use settings::{Prefix, Settings, Shape};
