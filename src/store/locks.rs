//! What tasks lock. Rows, so that they outlive the process and other PMs see them.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::Conn;
use super::rows::{hit, parse};
use super::schema::{locks, tasks};
use crate::error::{Error, Result};
use crate::model::{Access, Lock, Resource, TaskId, TaskKind};

/// Who is in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub task: TaskId,
    pub kind: TaskKind,
    /// When that task began, or was queued if it has not begun.
    pub since: NaiveDateTime,
    /// As stored: `vm:<uuid>`.
    pub resource: String,
}

/// One lock as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub resource: String,
    pub task: TaskId,
    pub access: Access,
}

type HeldRow = (String, String, String);

/// Takes all of them, or none and says who holds the first that is not free. `Changes` excludes every other task; `Uses`
/// shares with `Uses`. What the task holds already stays, and becomes `Changes` if that is asked now.
///
/// Only inside [`super::Store::write_tx`] or [`super::Store::note_tx`]: that the writer is alone is what makes
/// looking first and taking then safe.
pub fn acquire(c: &mut Conn, task: TaskId, wanted: &[Lock]) -> Result<Option<Holder>> {
    let wanted = strongest(wanted);
    let me = task.to_string();
    let held: Vec<(HeldRow, String, Option<NaiveDateTime>, NaiveDateTime)> = locks::table
        .inner_join(tasks::table)
        .filter(locks::resource.eq_any(wanted.iter().map(|(resource, _)| resource)))
        .order((locks::resource, locks::task))
        .select((locks::all_columns, tasks::kind, tasks::started_at, tasks::created_at))
        .load(&mut c.0)?;
    for (resource, access) in &wanted {
        for ((held_resource, holder, held_access), kind, started_at, created_at) in &held {
            let excludes = *access == Access::Changes || access_of(held_access)? == Access::Changes;
            if held_resource == resource && *holder != me && excludes {
                return Ok(Some(Holder {
                    task: parse("locks.task", holder)?,
                    kind: parse("tasks.kind", kind)?,
                    since: started_at.unwrap_or(*created_at),
                    resource: resource.clone(),
                }));
            }
        }
    }
    for (resource, access) in &wanted {
        let mine = held.iter().any(|((r, holder, _), ..)| r == resource && *holder == me);
        let stored = locks::access.eq(word(*access));
        if !mine {
            let row = (locks::resource.eq(resource), locks::task.eq(&me), stored);
            diesel::insert_into(locks::table).values(row).execute(&mut c.0)?;
        } else if *access == Access::Changes {
            let rows = diesel::update(locks::table.find((resource, &me))).set(stored).execute(&mut c.0)?;
            hit(rows, "lock", resource)?;
        }
    }
    Ok(None)
}

/// Gives back all that the task holds, if it holds any.
pub fn release(c: &mut Conn, task: TaskId) -> Result<()> {
    diesel::delete(locks::table.filter(locks::task.eq(task.to_string()))).execute(&mut c.0)?;
    Ok(())
}

/// By resource.
pub fn of_task(c: &mut Conn, task: TaskId) -> Result<Vec<Held>> {
    let of_it = locks::table.filter(locks::task.eq(task.to_string()));
    of_it.order(locks::resource).load::<HeldRow>(&mut c.0)?.into_iter().map(held).collect()
}

/// Whether some task holds it exclusively.
pub fn changing(c: &mut Conn, resource: &Resource) -> Result<bool> {
    let exclusive = locks::resource.eq(resource.to_string()).and(locks::access.eq(word(Access::Changes)));
    Ok(diesel::select(diesel::dsl::exists(locks::table.filter(exclusive))).get_result(&mut c.0)?)
}

/// By resource, then task.
pub fn all(c: &mut Conn) -> Result<Vec<Held>> {
    let rows = locks::table.order((locks::resource, locks::task)).load::<HeldRow>(&mut c.0)?;
    rows.into_iter().map(held).collect()
}

/// Each resource once, in the order asked, with the most that is asked of it.
fn strongest(wanted: &[Lock]) -> Vec<(String, Access)> {
    let mut all: Vec<(String, Access)> = Vec::with_capacity(wanted.len());
    for lock in wanted {
        let resource = lock.resource.to_string();
        match all.iter_mut().find(|(r, _)| *r == resource) {
            Some((_, access)) if lock.access == Access::Changes => *access = Access::Changes,
            Some(_) => {}
            None => all.push((resource, lock.access)),
        }
    }
    all
}

fn held((resource, task, access): HeldRow) -> Result<Held> {
    Ok(Held { resource, task: parse("locks.task", &task)?, access: access_of(&access)? })
}

fn word(access: Access) -> &'static str {
    match access {
        Access::Uses => "uses",
        Access::Changes => "changes",
    }
}

fn access_of(word: &str) -> Result<Access> {
    match word {
        "uses" => Ok(Access::Uses),
        "changes" => Ok(Access::Changes),
        _ => Err(Error::internal(format!("locks.access holds {word:?}"))),
    }
}
