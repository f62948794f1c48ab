//! Tickets for those who cannot send credentials, as a web page that opens a WebSocket: each lets one caller in, once and
//! soon, to one VM. They are kept in memory alone: a server that starts knows none.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use chrono::{NaiveDateTime, TimeDelta};

use super::Caller;
use super::password;
use crate::error::Result;
use crate::model::{Secret, TokenDigest, VmId};

const LIFE: TimeDelta = TimeDelta::seconds(30);

/// One more, and the oldest goes.
const MOST: usize = 4096;

#[derive(Default)]
pub(in crate::operations) struct Tickets(Mutex<HashMap<TokenDigest, Ticket>>);

struct Ticket {
    vm: VmId,
    caller: Caller,
    /// Not valid from here on.
    ends: NaiveDateTime,
}

impl Tickets {
    /// A new one, and when it ends.
    pub(in crate::operations) fn make(
        &self,
        vm: VmId,
        caller: &Caller,
        now: NaiveDateTime,
    ) -> Result<(Secret, NaiveDateTime)> {
        let (text, digest) = password::new_ticket()?;
        let ends = now + LIFE;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, ticket| now < ticket.ends);
        if all.len() >= MOST
            && let Some(oldest) = all.iter().min_by_key(|(_, ticket)| ticket.ends).map(|(digest, _)| *digest)
        {
            all.remove(&oldest);
        }
        all.insert(digest, Ticket { vm, caller: caller.clone(), ends });
        Ok((text, ends))
    }

    /// Whose it is, if it is good for this VM. Looked up by its digest, which nobody can choose: how long that takes tells
    /// nothing of a ticket.
    pub(super) fn take(&self, text: &Secret, vm: VmId, now: NaiveDateTime) -> Option<Caller> {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&password::digest(text));
        taken.filter(|ticket| ticket.vm == vm && now < ticket.ends).map(|ticket| ticket.caller)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const VM: VmId = VmId(Uuid::from_u128(1));

    fn at(secs: i64) -> NaiveDateTime {
        chrono::DateTime::UNIX_EPOCH.naive_utc() + TimeDelta::seconds(secs)
    }

    #[test]
    fn one_is_good_once_for_its_vm_and_for_half_a_minute() {
        let tickets = Tickets::default();
        let ann = Caller::anybody();
        let make = || tickets.make(VM, &ann, at(0)).unwrap();
        let (text, ends) = make();
        assert_eq!((ends, text.reveal().len()), (at(30), 43));
        assert_eq!(tickets.take(&text, VM, at(29)), Some(ann.clone()));
        assert_eq!(tickets.take(&text, VM, at(29)), None, "it was used");
        assert_eq!(tickets.take(&make().0, VM, at(30)), None, "it has ended");
        let other = make().0;
        assert_eq!(tickets.take(&other, VmId(Uuid::from_u128(2)), at(1)), None, "it is another VM's");
        assert_eq!(tickets.take(&other, VM, at(1)), None, "and is used all the same");
        assert_eq!(tickets.take(&Secret::new(String::new()), VM, at(1)), None);
        assert_ne!(make().0, make().0);
    }

    #[test]
    fn no_more_than_so_many_are_kept() {
        let tickets = Tickets::default();
        let held = || tickets.0.lock().unwrap().len();
        let caller = Caller::host();
        let first = tickets.make(VM, &caller, at(0)).unwrap().0;
        let second = tickets.make(VM, &caller, at(1)).unwrap().0;
        for _ in 2..=MOST {
            tickets.make(VM, &caller, at(2)).unwrap();
        }
        assert_eq!(held(), MOST);
        assert_eq!(tickets.take(&first, VM, at(2)), None, "the oldest has gone");
        assert!(tickets.take(&second, VM, at(2)).is_some());
        tickets.make(VM, &caller, at(40)).unwrap();
        assert_eq!(held(), 1, "those that have ended are forgotten");
    }
}
