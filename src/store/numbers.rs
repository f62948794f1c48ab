//! The numbers of VMs, and those that somebody was promised.

use std::collections::BTreeSet;

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::Conn;
use super::rows::{hit, parse, parse_optional};
use super::schema::{numbers, promised_numbers, tasks, vms};
use crate::error::Result;
use crate::model::{TaskId, TaskState, VmId, VmNumber};

/// A number without a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    pub number: VmNumber,
    pub promised_at: NaiveDateTime,
    /// From here on it is nobody's, unless a task has it.
    pub expires_at: NaiveDateTime,
    /// The task that makes the VM; it has the number for as long as it is not over.
    pub task: Option<TaskId>,
}

/// Number, from when until when, and the task with its state.
type PromiseRow = (i32, NaiveDateTime, NaiveDateTime, Option<String>, Option<String>);

/// By number.
pub fn all(c: &mut Conn) -> Result<Vec<(VmNumber, VmId)>> {
    let rows: Vec<(i32, String)> = numbers::table.order(numbers::number).load(&mut c.0)?;
    rows.into_iter().map(|(number, vm)| Ok((VmNumber(number), parse("numbers.vm", &vm)?))).collect()
}

pub fn find(c: &mut Conn, number: VmNumber) -> Result<Option<VmId>> {
    let vm: Option<String> = numbers::table.find(number.0).select(numbers::vm).first(&mut c.0).optional()?;
    parse_optional("numbers.vm", vm)
}

/// `Exists` if the number or the VM has one already; `InUse` if the VM is not there.
pub fn insert(c: &mut Conn, number: VmNumber, vm: VmId) -> Result<()> {
    let row = (numbers::number.eq(number.0), numbers::vm.eq(vm.to_string()));
    diesel::insert_into(numbers::table).values(row).execute(&mut c.0)?;
    Ok(())
}

/// The VMs that have none, the oldest first.
pub fn unnumbered(c: &mut Conn) -> Result<Vec<VmId>> {
    let numbered = numbers::table.select(numbers::vm);
    let ids: Vec<String> =
        vms::table.filter(vms::id.ne_all(numbered)).order((vms::created_at, vms::id)).select(vms::id).load(&mut c.0)?;
    ids.iter().map(|id| parse("vms.id", id)).collect()
}

/// Those that hold at this moment, the oldest first.
pub fn promises(c: &mut Conn, now: NaiveDateTime) -> Result<Vec<Promise>> {
    let rows: Vec<PromiseRow> = promised_numbers::table
        .left_join(tasks::table)
        .order((promised_numbers::promised_at, promised_numbers::number))
        .select((
            promised_numbers::number,
            promised_numbers::promised_at,
            promised_numbers::expires_at,
            promised_numbers::task,
            tasks::state.nullable(),
        ))
        .load(&mut c.0)?;
    let mut held = Vec::new();
    for (number, promised_at, expires_at, task, state) in rows {
        let holds = match parse_optional::<TaskState>("tasks.state", state)? {
            Some(state) => !state.is_over(),
            None => expires_at > now,
        };
        if holds {
            let task = parse_optional("promised_numbers.task", task)?;
            held.push(Promise { number: VmNumber(number), promised_at, expires_at, task });
        }
    }
    Ok(held)
}

/// Instead of any that there was of this number.
pub fn promise(c: &mut Conn, promise: &Promise) -> Result<()> {
    break_promise(c, promise.number)?;
    let row = (
        promised_numbers::number.eq(promise.number.0),
        promised_numbers::promised_at.eq(promise.promised_at),
        promised_numbers::expires_at.eq(promise.expires_at),
        promised_numbers::task.eq(promise.task.map(|task| task.to_string())),
    );
    diesel::insert_into(promised_numbers::table).values(row).execute(&mut c.0)?;
    Ok(())
}

/// If there is one.
pub fn break_promise(c: &mut Conn, number: VmNumber) -> Result<()> {
    diesel::delete(promised_numbers::table.find(number.0)).execute(&mut c.0)?;
    Ok(())
}

/// A promised number becomes the VM's.
pub fn keep_promise(c: &mut Conn, number: VmNumber, vm: VmId) -> Result<()> {
    hit(diesel::delete(promised_numbers::table.find(number.0)).execute(&mut c.0)?, "promised number", number)?;
    insert(c, number, vm)
}

/// Drops the promises that do not hold any more.
pub fn forget_broken(c: &mut Conn, now: NaiveDateTime) -> Result<()> {
    let held: Vec<i32> = promises(c, now)?.into_iter().map(|promise| promise.number.0).collect();
    diesel::delete(promised_numbers::table.filter(promised_numbers::number.ne_all(held))).execute(&mut c.0)?;
    Ok(())
}

/// Those that a VM has, and those that are promised.
pub fn taken(c: &mut Conn, now: NaiveDateTime) -> Result<BTreeSet<VmNumber>> {
    let mut taken: BTreeSet<VmNumber> = all(c)?.into_iter().map(|(number, _)| number).collect();
    taken.extend(promises(c, now)?.into_iter().map(|promise| promise.number));
    Ok(taken)
}
