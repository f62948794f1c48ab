//! What tests stand on.

pub mod app;
pub mod libvirt;
pub mod postgres;
pub mod world;
