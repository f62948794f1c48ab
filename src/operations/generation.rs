//! The store's generation, for async callers. Where it must be asked for, one statement answers all who were waiting when it began.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use crate::error::Result;
use crate::store::Generation;

use super::{Core, while_moving};

#[derive(Default)]
pub(super) struct Asked {
    /// Counts questions and statements, in the order in which they began.
    moments: AtomicU64,
    /// When the last statement began, and its answer. Whoever holds it asks.
    last: Mutex<Option<(u64, Generation)>>,
}

/// After all that was committed before the call. Answers from memory if it can.
pub(super) async fn now(core: &Core, asked: &Asked) -> Result<Generation> {
    if let Some(known) = core.store.generation() {
        return Ok(known);
    }
    let came = asked.moments.fetch_add(1, Ordering::SeqCst);
    let mut last = while_moving(&core.store, asked.last.lock()).await?;
    if let Some((began, generation)) = *last
        && began > came
    {
        return Ok(generation);
    }
    let began = asked.moments.fetch_add(1, Ordering::SeqCst);
    let generation = core.read(|core| core.store.read_generation()).await?;
    *last = Some((began, generation));
    Ok(generation)
}
