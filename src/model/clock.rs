//! The time of day, as a value that tests can fix.

use chrono::{NaiveDateTime, Utc};

pub trait Clock: Send + Sync {
    /// Now, in UTC, in whole microseconds (what both databases keep).
    fn now(&self) -> NaiveDateTime;
}

#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the owner of the time of day")]
    fn now(&self) -> NaiveDateTime {
        let now = Utc::now();
        chrono::DateTime::from_timestamp_micros(now.timestamp_micros()).unwrap_or(now).naive_utc()
    }
}
