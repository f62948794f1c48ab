//! Storlinks: the pools that volumes are on.

mod create;
mod query;
mod usage;

pub use create::{CreateStorlink, check};
pub use query::{isos, list};
pub use usage::Usages;
pub(super) use usage::keep_asking;
