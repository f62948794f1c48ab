//! Templates: disks that VMs are made from.

mod add;
mod query;

pub use add::{AddTemplate, check};
pub use query::{TemplateView, list};
