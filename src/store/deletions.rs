//! VMs that are to be deleted when somebody says so. A row goes with its VM.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::Conn;
use super::numbers;
use super::rows::{parse, parse_optional};
use super::schema::{deletions, tasks};
use crate::error::{Error, Result};
use crate::model::{Deletion, ShortId, TaskId, TaskState, VmId};

/// Id, VM, when, and the task with its state.
type DeletionRow = (String, String, NaiveDateTime, Option<String>, Option<String>);

/// Those of VMs that have a number, the oldest first. One whose task is over is nobody's work any more.
pub fn all(c: &mut Conn) -> Result<Vec<Deletion>> {
    let rows: Vec<DeletionRow> = deletions::table
        .left_join(tasks::table)
        .order((deletions::asked_at, deletions::id))
        .select((deletions::id, deletions::vm, deletions::asked_at, deletions::task, tasks::state.nullable()))
        .load(&mut c.0)?;
    let of_vms = numbers::all(c)?;
    let mut all = Vec::with_capacity(rows.len());
    for (id, vm, asked_at, task, state) in rows {
        let vm = parse("deletions.vm", &vm)?;
        let found = of_vms.iter().find(|(_, numbered)| *numbered == vm);
        let (number, _) = *found.ok_or_else(|| Error::internal(format!("deletion of vm {vm}, which has no number")))?;
        let live = parse_optional::<TaskState>("tasks.state", state)?.is_some_and(|state| !state.is_over());
        let task = parse_optional("deletions.task", task.filter(|_| live))?;
        all.push(Deletion { id: parse("deletions.id", &id)?, vm, number, asked_at, task });
    }
    Ok(all)
}

/// Unless it is asked for already.
pub fn ask(c: &mut Conn, vm: VmId, id: &ShortId, at: NaiveDateTime) -> Result<()> {
    if is_asked(c, vm)? {
        return Ok(());
    }
    let row = (deletions::vm.eq(vm.to_string()), deletions::id.eq(id.as_str()), deletions::asked_at.eq(at));
    diesel::insert_into(deletions::table).values(row).execute(&mut c.0)?;
    Ok(())
}

pub fn is_asked(c: &mut Conn, vm: VmId) -> Result<bool> {
    let rows: i64 = deletions::table.filter(deletions::vm.eq(vm.to_string())).count().get_result(&mut c.0)?;
    Ok(rows > 0)
}

/// That task does it now. It may have done so already.
pub fn set_task(c: &mut Conn, vm: VmId, task: TaskId) -> Result<()> {
    let change = deletions::task.eq(task.to_string());
    diesel::update(deletions::table.find(vm.to_string())).set(change).execute(&mut c.0)?;
    Ok(())
}
