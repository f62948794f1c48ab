//! Who asks, whether that is true, and what it lets them do. [`Gate`] is the one place that decides it: without passing it
//! nobody above holds a core.

mod caller;
mod gate;
mod known;
mod password;
mod registry;
mod sha_crypt;
mod tickets;

pub use caller::Caller;
pub(super) use caller::hidden;
pub use gate::{Credentials, Gate};
pub(super) use known::Known;
pub use registry::{Listed, Login, Registry};
pub(super) use tickets::Tickets;
