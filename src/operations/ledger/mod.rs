//! The ledger: every byte on a storlink has an owner, or nobody owns it and it is told so.
//!
//! Law: a file is removed here only if this site has certainly made it, nobody owns it, nothing reads from it, and it was
//! left alone for as long as the settings say. What is foreign is listed and never touched.

mod delete;
mod list;
mod owners;

pub use delete::DeleteVolume;
pub(super) use delete::{locks, remove};
pub(super) use list::assign;
use list::free_at;
pub use list::{Entry, Ledger, Total, list};
pub use owners::{Owner, OwnerKind};
pub(super) use owners::{Owners, manifest};
