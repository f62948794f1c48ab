//! What tests stand on.

pub mod libvirt;
pub mod postgres;
