//! Records of tasks. Their locks and their journal have tables of their own.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::Conn;
use super::rows::{hit, number, parse, uuid};
use super::schema::tasks;
use crate::error::Result;
use crate::model::{PmId, Task, TaskId, TaskState};

#[derive(Queryable, Insertable)]
#[diesel(table_name = tasks, treat_none_as_default_value = false)]
struct TaskRow {
    id: String,
    kind: String,
    subject: String,
    state: String,
    percent: i32,
    step: String,
    error: Option<String>,
    message: String,
    pm: String,
    process: String,
    created_at: NaiveDateTime,
    started_at: Option<NaiveDateTime>,
    ended_at: Option<NaiveDateTime>,
    account: Option<String>,
}

impl TaskRow {
    fn of(task: &Task) -> Result<Self> {
        Ok(Self {
            id: task.id.to_string(),
            kind: task.kind.to_string(),
            subject: task.subject.clone(),
            state: task.state.to_string(),
            percent: number("tasks.percent", task.percent)?,
            step: task.step.clone(),
            error: task.error.clone(),
            message: task.message.clone(),
            pm: task.pm.to_string(),
            process: task.process.to_string(),
            created_at: task.created_at,
            started_at: task.started_at,
            ended_at: task.ended_at,
            account: task.account.clone(),
        })
    }

    fn model(self) -> Result<Task> {
        Ok(Task {
            id: parse("tasks.id", &self.id)?,
            kind: parse("tasks.kind", &self.kind)?,
            subject: self.subject,
            state: parse("tasks.state", &self.state)?,
            percent: number("tasks.percent", self.percent)?,
            step: self.step,
            error: self.error,
            message: self.message,
            pm: parse("tasks.pm", &self.pm)?,
            process: uuid("tasks.process", &self.process)?,
            created_at: self.created_at,
            started_at: self.started_at,
            ended_at: self.ended_at,
            account: self.account,
        })
    }
}

pub fn insert(c: &mut Conn, task: &Task) -> Result<()> {
    diesel::insert_into(tasks::table).values(&TaskRow::of(task)?).execute(&mut c.0)?;
    Ok(())
}

pub fn find(c: &mut Conn, id: TaskId) -> Result<Option<Task>> {
    tasks::table.find(id.to_string()).first::<TaskRow>(&mut c.0).optional()?.map(TaskRow::model).transpose()
}

/// The newest first, at most `limit`.
pub fn recent(c: &mut Conn, limit: i64) -> Result<Vec<Task>> {
    let newest = tasks::table.order((tasks::created_at.desc(), tasks::id.desc())).limit(limit.max(0));
    newest.load::<TaskRow>(&mut c.0)?.into_iter().map(TaskRow::model).collect()
}

/// As [`recent`], those that this account started.
pub fn recent_of(c: &mut Conn, account: &str, limit: i64) -> Result<Vec<Task>> {
    let of_it = tasks::table.filter(tasks::account.eq(account));
    let newest = of_it.order((tasks::created_at.desc(), tasks::id.desc())).limit(limit.max(0));
    newest.load::<TaskRow>(&mut c.0)?.into_iter().map(TaskRow::model).collect()
}

/// From queued to running.
pub fn start(c: &mut Conn, id: TaskId, at: NaiveDateTime) -> Result<()> {
    let rows = diesel::update(tasks::table.find(id.to_string()))
        .set((tasks::state.eq(TaskState::Running.word()), tasks::started_at.eq(at)))
        .execute(&mut c.0)?;
    hit(rows, "task", id)
}

/// How far it is. Of a task that is over, nothing changes: a late word of progress is no news.
pub fn note(c: &mut Conn, id: TaskId, percent: u32, step: &str) -> Result<()> {
    let percent: i32 = number("tasks.percent", percent)?;
    diesel::update(tasks::table.filter(tasks::id.eq(id.to_string()).and(tasks::ended_at.is_null())))
        .set((tasks::percent.eq(percent), tasks::step.eq(step)))
        .execute(&mut c.0)?;
    Ok(())
}

/// What is still to be done for a task, over or not; empty when nothing is.
pub fn set_step(c: &mut Conn, id: TaskId, step: &str) -> Result<()> {
    diesel::update(tasks::table.find(id.to_string())).set(tasks::step.eq(step)).execute(&mut c.0)?;
    Ok(())
}

/// The point of no return: the outcome that the task will have, whatever happens to the process.
pub fn settle(c: &mut Conn, id: TaskId, outcome: &str) -> Result<()> {
    let rows = diesel::update(tasks::table.find(id.to_string())).set(tasks::message.eq(outcome)).execute(&mut c.0)?;
    hit(rows, "task", id)
}

/// The outcome; success is 100 percent. Without a message the one that [`settle`] wrote stays.
pub fn finish(
    c: &mut Conn,
    id: TaskId,
    state: TaskState,
    error: Option<&str>,
    message: Option<&str>,
    at: NaiveDateTime,
) -> Result<()> {
    let rows = diesel::update(tasks::table.find(id.to_string()))
        .set((
            tasks::state.eq(state.word()),
            tasks::error.eq(error),
            message.map(|message| tasks::message.eq(message)),
            tasks::ended_at.eq(at),
            (state == TaskState::Success).then_some(tasks::percent.eq(100)),
        ))
        .execute(&mut c.0)?;
    hit(rows, "task", id)
}

/// Tasks of this PM that are queued or running, or were left so by another run of the server; the oldest first.
pub fn unfinished(c: &mut Conn, pm: PmId) -> Result<Vec<Task>> {
    let open = TaskState::ALL.iter().filter(|s| !s.is_over()).map(|s| s.word());
    let rows = tasks::table
        .filter(tasks::state.eq_any(open))
        .filter(tasks::pm.eq(pm.to_string()))
        .order((tasks::created_at, tasks::id))
        .load::<TaskRow>(&mut c.0)?;
    rows.into_iter().map(TaskRow::model).collect()
}
