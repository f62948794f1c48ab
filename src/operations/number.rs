//! Numbers of VMs, for clients that know no uuids: small, from 100 on, and given in the order in which the VMs were made.
//!
//! Law: a number is one VM's, or promised to one client, or free; it is found and given away in one transaction, so two never
//! get the same. It is free again when its VM is gone, when its promise runs out, or when the task that wanted it is over.

use std::collections::BTreeSet;

use chrono::{NaiveDateTime, TimeDelta};

use crate::error::{Error, Result};
use crate::model::{Right, TaskId, VmId, VmNumber};
use crate::store::numbers::{self, Promise};
use crate::store::{Conn, deletions};

use super::{Core, guard};

const FIRST: i32 = 100;
const LAST: i32 = 999_999_999;

/// So long a number is kept for whoever asked for it.
const PROMISED: TimeDelta = TimeDelta::seconds(60);

/// Promises the smallest free number to the caller, for a minute.
pub fn reserve(core: &Core) -> Result<VmNumber> {
    core.caller().require(Right::Operate, "reserve a number")?;
    let now = core.clock.now();
    core.store.note_tx(|tx| {
        number_all(tx, now)?;
        numbers::forget_broken(tx, now)?;
        let number = smallest(&numbers::taken(tx, now)?, FIRST)?;
        numbers::promise(tx, &Promise { number, promised_at: now, expires_at: now + PROMISED, task: None })?;
        Ok(number)
    })
}

/// Every VM of the site that the caller sees, by number. VMs that have none get one.
pub fn all(core: &Core) -> Result<Vec<(VmNumber, VmId)>> {
    number_those_without(core)?;
    core.store.read(|c| {
        let seen = guard::Sight::of(c, core)?;
        Ok(numbers::all(c)?.into_iter().filter(|(_, vm)| seen.shows(*vm)).collect())
    })
}

/// The VM that has this number, if the caller sees it; one that is just being deleted has none any more.
pub fn find(core: &Core, number: VmNumber) -> Result<Option<VmId>> {
    number_those_without(core)?;
    core.store.read(|c| {
        let going: BTreeSet<VmId> =
            deletions::all(c)?.into_iter().filter(|it| it.task.is_some()).map(|it| it.vm).collect();
        let seen = guard::Sight::of(c, core)?;
        Ok(numbers::find(c, number)?.filter(|vm| seen.shows(*vm) && !going.contains(vm)))
    })
}

fn number_those_without(core: &Core) -> Result<()> {
    if core.store.read(numbers::unnumbered)?.is_empty() {
        return Ok(());
    }
    let now = core.clock.now();
    core.store.note_tx(|tx| number_all(tx, now))
}

pub(super) fn number_all(tx: &mut Conn, now: NaiveDateTime) -> Result<()> {
    let without = numbers::unnumbered(tx)?;
    if without.is_empty() {
        return Ok(());
    }
    let taken = numbers::taken(tx, now)?;
    let mut next = FIRST;
    for vm in without {
        let number = smallest(&taken, next)?;
        numbers::insert(tx, number, vm)?;
        next = number.0 + 1;
    }
    Ok(())
}

/// The number of the VM that a task makes: the one that is wished for, if it is free or promised; else the one that was
/// promised first; else the smallest that is free. The task has it until it is over.
pub(super) fn claim(core: &Core, task: TaskId, wish: Option<VmNumber>) -> Result<VmNumber> {
    let now = core.clock.now();
    core.store.note_tx(|tx| {
        number_all(tx, now)?;
        numbers::forget_broken(tx, now)?;
        let number = match wish {
            Some(wish) => granted(tx, wish, now)?,
            None => {
                let promised = numbers::promises(tx, now)?.into_iter().find(|promise| promise.task.is_none());
                match promised {
                    Some(promise) => promise.number,
                    None => smallest(&numbers::taken(tx, now)?, FIRST)?,
                }
            }
        };
        numbers::promise(tx, &Promise { number, promised_at: now, expires_at: now, task: Some(task) })?;
        Ok(number)
    })
}

fn granted(tx: &mut Conn, wish: VmNumber, now: NaiveDateTime) -> Result<VmNumber> {
    if !(FIRST..=LAST).contains(&wish.0) {
        return Err(Error::invalid("number", format!("must be from {FIRST} to {LAST}")));
    }
    let has_vm = numbers::find(tx, wish)?.is_some();
    let being_made = numbers::promises(tx, now)?.iter().any(|it| it.number == wish && it.task.is_some());
    if has_vm || being_made {
        return Err(Error::invalid("number", format!("{wish} is another vm's")));
    }
    Ok(wish)
}

/// From `from` on.
fn smallest(taken: &BTreeSet<VmNumber>, from: i32) -> Result<VmNumber> {
    let free = (from..=LAST).map(VmNumber).find(|number| !taken.contains(number));
    free.ok_or_else(|| Error::refused("pengx", "no number is left"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled() {
        let taken = BTreeSet::from([100, 101, 103].map(VmNumber));
        assert_eq!(smallest(&taken, FIRST).unwrap(), VmNumber(102));
        assert_eq!(smallest(&taken, 103).unwrap(), VmNumber(104));
        assert_eq!(smallest(&BTreeSet::new(), FIRST).unwrap(), VmNumber(100));
        assert!(smallest(&BTreeSet::from([VmNumber(LAST)]), LAST).is_err());
    }
}
