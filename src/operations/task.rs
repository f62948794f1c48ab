//! Task records, for those who ask after them.

use crate::error::{Error, Result};
use crate::model::{Right, Task, TaskId};

use super::Core;

/// So many records a list shows; the newest first.
const LISTED: i64 = 500;

pub fn list(core: &Core) -> Result<Vec<Task>> {
    core.tasks()?.recent(LISTED)
}

pub fn find(core: &Core, id: TaskId) -> Result<Task> {
    core.tasks()?.find(id)?.ok_or_else(|| Error::not_found("task", id))
}

/// Returns when the task is over; at once when it is not one of this process.
pub async fn ended(core: &Core, id: TaskId) {
    if let Ok(tasks) = core.tasks() {
        tasks.ended(id).await;
    }
}

/// Asks a task to stop; it is undone at its next checkpoint. Takes [`Right::Operate`].
pub fn cancel(core: &Core, id: TaskId) -> Result<()> {
    core.caller().require(Right::Operate, "cancel a task")?;
    core.tasks()?.cancel(id)?;
    tracing::info!(task = %id, user = %core.caller(), "task asked to stop");
    Ok(())
}
