//! Network interfaces of VMs.

use super::{Call, Failure, Reply};

/// Row 49.
pub async fn index(call: Call) -> Result<Reply, Failure> {
    super::resources::not_yet(call).await
}

/// Row 47.
pub async fn create(call: Call) -> Result<Reply, Failure> {
    super::resources::not_yet(call).await
}

/// Row 48.
pub async fn delete(call: Call) -> Result<Reply, Failure> {
    super::resources::not_yet(call).await
}

/// Row 50.
pub async fn update(call: Call) -> Result<Reply, Failure> {
    super::resources::not_yet(call).await
}
