//! The performance of this host.

use super::{Call, Failure, Reply};

/// Row 5.
pub async fn read(call: Call) -> Result<Reply, Failure> {
    super::resources::not_yet(call).await
}
