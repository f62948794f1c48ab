//! The laws of the two backend traits, over every implementation.

mod hypervisor;
mod volumes;
