//! What running tasks may still write to storlinks, so that two do not count on the same free space.

use diesel::prelude::*;

use super::Conn;
use super::rows::{from_mib, mib, parse};
use super::schema::reservations;
use crate::error::Result;
use crate::model::{MiB, StorlinkId, TaskId};

/// Of all tasks but this one.
pub fn of_others(c: &mut Conn, storlink: StorlinkId, task: TaskId) -> Result<MiB> {
    let others = reservations::storlink.eq(storlink.0).and(reservations::task.ne(task.to_string()));
    let sizes: Vec<i64> = reservations::table.filter(others).select(reservations::size).load(&mut c.0)?;
    sizes.into_iter().map(|size| mib("reservations.size", size)).sum()
}

/// Instead of what the task had reserved there before.
pub fn set(c: &mut Conn, task: TaskId, storlink: StorlinkId, size: MiB) -> Result<()> {
    diesel::delete(reservations::table.find((task.to_string(), storlink.0))).execute(&mut c.0)?;
    let row = (
        reservations::task.eq(task.to_string()),
        reservations::storlink.eq(storlink.0),
        reservations::size.eq(from_mib("reservations.size", size)?),
    );
    diesel::insert_into(reservations::table).values(row).execute(&mut c.0)?;
    Ok(())
}

/// Gives back all that the task reserved, if it reserved any.
pub fn release(c: &mut Conn, task: TaskId) -> Result<()> {
    diesel::delete(reservations::table.filter(reservations::task.eq(task.to_string()))).execute(&mut c.0)?;
    Ok(())
}

/// The tasks that have reserved any.
pub fn holders(c: &mut Conn) -> Result<Vec<TaskId>> {
    let ids: Vec<String> = reservations::table.select(reservations::task).distinct().load(&mut c.0)?;
    ids.iter().map(|id| parse("reservations.task", id)).collect()
}

/// Of every task together, by storlink and task.
pub fn all(c: &mut Conn) -> Result<Vec<(StorlinkId, MiB)>> {
    let rows: Vec<(i32, i64)> = reservations::table
        .order((reservations::storlink, reservations::task))
        .select((reservations::storlink, reservations::size))
        .load(&mut c.0)?;
    rows.into_iter().map(|(id, size)| Ok((StorlinkId(id), mib("reservations.size", size)?))).collect()
}
