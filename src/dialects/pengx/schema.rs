//! The shapes of requests and answers.

use super::{Call, Failure, Reply};

/// Row choice.
pub async fn read(call: Call) -> Result<Reply, Failure> {
    super::resources::not_yet(call).await
}
