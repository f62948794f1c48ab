//! The mark that a file gets from the site that makes it: an extended attribute, which goes where the file goes.
//!
//! Law: whatever cannot be marked, or read, is not ours. So a file that lost its mark is left alone, never taken.

use chrono::{DateTime, NaiveDateTime};
use rustix::fd::AsFd;
use rustix::fs::{self, Stat, XattrFlags};
use rustix::io::Errno;
use uuid::Uuid;

use crate::model::Mark;

const NAME: &str = "user.pengx.site";
/// A uuid with its hyphens.
const LENGTH: usize = 36;

pub(super) fn put(file: impl AsFd, site: Uuid) {
    match fs::fsetxattr(file, NAME, site.as_hyphenated().to_string().as_bytes(), XattrFlags::empty()) {
        // Not every file system has attributes, and not every one has room for them.
        Ok(()) | Err(Errno::OPNOTSUPP) => {}
        Err(e) => tracing::debug!(error = %e, "a file could not be marked; should nobody own it one day, it stays"),
    }
}

pub(super) fn read(file: impl AsFd, site: Option<Uuid>) -> Mark {
    let mut value = [0; LENGTH + 1];
    match fs::fgetxattr(file, NAME, &mut value) {
        Ok(LENGTH) => {
            let text = value.get(..LENGTH).and_then(|text| std::str::from_utf8(text).ok());
            match text.and_then(|text| Uuid::try_parse(text).ok()) {
                Some(made) if Some(made) == site => Mark::ThisSite,
                Some(_) => Mark::OtherSite,
                None => Mark::None,
            }
        }
        Err(Errno::OPNOTSUPP) => Mark::Unsupported,
        Ok(_) | Err(_) => Mark::None,
    }
}

/// When anything about a file changed last. What no calendar has is the end of ours: nothing was quiet since.
pub(super) fn time(stat: &Stat) -> NaiveDateTime {
    const LAST: i64 = 253_402_300_799;
    let nanos = u32::try_from(stat.st_ctime_nsec).unwrap_or_default();
    DateTime::from_timestamp(stat.st_ctime.clamp(0, LAST), nanos).unwrap_or_default().naive_utc()
}
