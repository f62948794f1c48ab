//! pengx manages virtual machines behind the XML API of pengx 3.1.9, and never loses track of them.
//!
//! The map, from the door inwards; each floor knows only those below it (`tests/house.rs`, `docs/architecture.md`):
//!
//! | floor | module | what it is |
//! | --- | --- | --- |
//! | start | [`cli`], [`config`], [`serve`] | what was asked for; the parts put together |
//! | | [`accounts`], [`terminal`] | who may use it, kept from the command line |
//! | | [`backups`] | backups read again from the command line |
//! | | [`check`] | whether records, storage and hypervisor agree |
//! | edge | [`server`] | listener, connections, time-outs, graceful stop |
//! | | [`dialects`] | HTTP to commands and queries, and back; `dialects::pengx::resources` lists every URI |
//! | core | [`operations`] | the use cases: plan, steps, settle |
//! | | [`tasks`] | one durable run of an operation: locks, undo journal, recovery |
//! | neighbours | [`store`] | rows, in SQLite or Postgres |
//! | | [`hypervisor`] | domains: libvirt, or an imaginary one |
//! | | [`storage`] | volumes on storlinks |
//! | | [`host`] | facts of this machine |
//! | ground | [`exec`] | the one place that starts a child process |
//! | | [`patience`] | a deadline for system calls on mounts that may be dead |
//! | | [`model`], [`error`], [`escape`] | ids, units, records, states; what can go wrong; XML text |
//!
//! A first reading: a URI in `dialects/pengx/resources.rs` leads to its handler, `power::start`; that to the operation `StartVm`; that to
//! [`hypervisor::Hypervisor::start`]. Four files, always downwards.

pub mod accounts;
pub mod backups;
pub mod check;
pub mod cli;
pub mod config;
pub mod dialects;
pub mod error;
pub mod escape;
pub mod exec;
pub mod host;
pub mod hypervisor;
pub mod migration;
pub mod model;
pub mod operations;
pub mod patience;
pub mod serve;
pub mod server;
pub mod storage;
pub mod store;
pub mod tasks;
pub mod terminal;
