//! Task records, for those who ask after them.

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Right, Task, TaskId};

use super::Core;

/// So many records a list shows; the newest first.
const LISTED: i64 = 500;

/// Where the caller does not see every VM, those that its account started.
pub fn list(core: &Core) -> Result<Vec<Task>> {
    match core.caller.account() {
        Some(account) if !core.caller.sees_all() => core.tasks()?.recent_of(account, LISTED),
        _ => core.tasks()?.recent(LISTED),
    }
}

/// `Forbidden` where [`list`] leaves it out.
pub fn find(core: &Core, id: TaskId) -> Result<Task> {
    let task = core.tasks()?.find(id)?.ok_or_else(|| Error::not_found("task", id))?;
    if core.caller.sees_all() || core.caller.account() == task.account.as_deref() {
        return Ok(task);
    }
    Err(Error::new(ErrorKind::Forbidden { what: "see or use a task that your account did not start".to_owned() }))
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
    find(core, id)?;
    core.tasks()?.cancel(id)?;
    tracing::info!(task = %id, user = %core.caller(), "task asked to stop");
    Ok(())
}
