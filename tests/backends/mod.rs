//! The laws of the two backend traits, over every implementation.

pub mod hypervisor;
mod volumes;
