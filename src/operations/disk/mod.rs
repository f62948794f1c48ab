//! Disks of VMs: made and plugged in, pulled out and deleted, looked at.

mod create;
mod delete;
mod query;

pub use create::CreateDisk;
pub use delete::DeleteDisk;
pub use query::{DiskView, of_backup, of_snapshot, of_template, of_vm};
