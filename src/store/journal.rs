//! The journal: what has to be done if a task does not come to its end. An entry is written before the step that it is for.

use std::collections::HashMap;

use diesel::prelude::*;
use uuid::Uuid;

use super::Conn;
use super::rows::parse;
use super::schema::{journal, tasks};
use crate::error::{Error, Result};
use crate::model::{Compensation, PmId, TaskId, VolumeName, words};

words! {
    /// Stored: append-only.
    Direction {
        /// Takes a step back.
        Undo = "undo",
        /// Finishes what can no longer be taken back.
        Forward = "forward",
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub seq: i32,
    pub direction: Direction,
    pub compensation: Compensation,
}

type EntryRow = (String, i32, String, String);

/// # Errors
/// `Exists` if the task has an entry with this `seq`.
pub fn push(c: &mut Conn, task: TaskId, seq: i32, direction: Direction, what: &Compensation) -> Result<()> {
    let json = serde_json::to_string(what)
        .map_err(|e| Error::internal("a compensation cannot be written as JSON").caused_by(e))?;
    diesel::insert_into(journal::table)
        .values((
            journal::task.eq(task.to_string()),
            journal::seq.eq(seq),
            journal::direction.eq(direction.word()),
            journal::compensation.eq(json),
        ))
        .execute(&mut c.0)?;
    Ok(())
}

/// Of an entry that is not there, nothing.
pub fn remove(c: &mut Conn, task: TaskId, seq: i32) -> Result<()> {
    diesel::delete(journal::table.find((task.to_string(), seq))).execute(&mut c.0)?;
    Ok(())
}

/// By `seq`.
pub fn of_task(c: &mut Conn, task: TaskId) -> Result<Vec<Entry>> {
    let of_it = journal::table.filter(journal::task.eq(task.to_string())).order(journal::seq);
    of_it.load::<EntryRow>(&mut c.0)?.into_iter().map(|row| entry(row).map(|(_, entry)| entry)).collect()
}

/// The point of no return: drops what would take the task's steps back, and keeps what finishes them.
pub fn clear_undo(c: &mut Conn, task: TaskId) -> Result<()> {
    let undo = journal::task.eq(task.to_string()).and(journal::direction.eq(Direction::Undo.word()));
    diesel::delete(journal::table.filter(undo)).execute(&mut c.0)?;
    Ok(())
}

/// Tasks of this PM, over or not, that still have entries; the oldest first.
pub fn pending(c: &mut Conn, pm: PmId) -> Result<Vec<TaskId>> {
    let with_entries = journal::table.select(journal::task);
    let ids: Vec<String> = tasks::table
        .filter(tasks::pm.eq(pm.to_string()).and(tasks::id.eq_any(with_entries)))
        .order((tasks::created_at, tasks::id))
        .select(tasks::id)
        .load(&mut c.0)?;
    ids.iter().map(|id| parse("tasks.id", id)).collect()
}

/// By task, then `seq`.
pub fn all(c: &mut Conn) -> Result<Vec<(TaskId, Entry)>> {
    let rows = journal::table.order((journal::task, journal::seq)).load::<EntryRow>(&mut c.0)?;
    rows.into_iter().map(entry).collect()
}

/// A task that may still remove this volume, or bring it back, wherever it is.
pub fn claimant(c: &mut Conn, volume: &VolumeName) -> Result<Option<TaskId>> {
    let all = all(c)?.into_iter();
    let mut claims = all.filter(|(_, entry)| entry.compensation.volume().is_some_and(|(_, claimed)| claimed == volume));
    Ok(claims.next().map(|(task, _)| task))
}

/// Every uuid that an entry has in it, whatever it stands for there, with the task of the first entry that has it: what is
/// called so must not be taken from under that task.
pub fn mentions(c: &mut Conn) -> Result<HashMap<Uuid, TaskId>> {
    let rows: Vec<(String, String)> = journal::table
        .order((journal::task, journal::seq))
        .select((journal::task, journal::compensation))
        .load(&mut c.0)?;
    let mut mentions = HashMap::new();
    for (task, compensation) in rows {
        let task = parse("journal.task", &task)?;
        for uuid in uuids(&compensation) {
            mentions.entry(uuid).or_insert(task);
        }
    }
    Ok(mentions)
}

/// Hyphenated ones, wherever they stand in a text.
fn uuids(text: &str) -> Vec<Uuid> {
    const LENGTH: usize = 36;
    let parse = |window: &[u8]| std::str::from_utf8(window).ok().and_then(|text| Uuid::try_parse(text).ok());
    text.as_bytes().windows(LENGTH).filter(|window| window.get(8) == Some(&b'-')).filter_map(parse).collect()
}

fn entry((task, seq, direction, compensation): EntryRow) -> Result<(TaskId, Entry)> {
    let compensation = serde_json::from_str(&compensation)
        .map_err(|e| Error::internal(format!("journal entry {seq} of task {task} cannot be read")).caused_by(e))?;
    let direction = parse("journal.direction", &direction)?;
    Ok((parse("journal.task", &task)?, Entry { seq, direction, compensation }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_found_wherever_an_entry_has_them() {
        let (a, b) = (Uuid::from_u128(0xa), Uuid::from_u128(0xb));
        let entry = format!(r#"{{"x":{{"vm":"{a}","files":["{b}.qcow2","pre-{a}.json"]}},"no":"{}"}}"#, a.simple());
        assert_eq!(uuids(&entry), [a, b, a]);
        assert!(uuids("가상-머신").is_empty());
    }
}
