//! Every integration test is a module of this one binary, so that it links once.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::type_complexity,
    clippy::needless_pass_by_value,
    clippy::explicit_counter_loop,
    reason = "a test that cannot go on has failed"
)]

mod abuse;
mod accounts;
mod backends;
mod backups;
mod check;
mod console;
mod contract;
mod faults;
mod fresh;
mod front;
mod harness;
mod hosts;
mod house;
mod libvirt_json;
mod listeners;
mod live;
mod load;
mod monitor;
mod proxmox_api;
mod real;
mod snapshots;
mod space;
mod store;
mod tasks;
mod text;
mod tls;
mod tongues;
mod virtdancer;
mod xen;
