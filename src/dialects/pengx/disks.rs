//! Disks of VMs.

use super::{Call, Failure, Reply};

/// Row 46.
pub async fn index(call: Call) -> Result<Reply, Failure> {
    super::resources::not_yet(call).await
}

/// Row 46.
pub async fn of_snapshot(call: Call) -> Result<Reply, Failure> {
    super::resources::not_yet(call).await
}

/// Row 46.
pub async fn of_backup(call: Call) -> Result<Reply, Failure> {
    super::resources::not_yet(call).await
}

/// Row 44.
pub async fn create(call: Call) -> Result<Reply, Failure> {
    super::resources::not_yet(call).await
}

/// Row 45.
pub async fn delete(call: Call) -> Result<Reply, Failure> {
    super::resources::not_yet(call).await
}
