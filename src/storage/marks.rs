//! The mark that a file gets from the site that makes it: extended attributes, which go where the file goes. One is the name
//! of the site, the other the number of the file, so that a copy that was made with all its attributes is not taken for ours.
//!
//! Law: whatever cannot be marked, or read, is not ours. So a file that lost its mark is left alone, never taken.

use chrono::{DateTime, NaiveDateTime};
use rustix::fd::AsFd;
use rustix::fs::{self, Stat, XattrFlags};
use rustix::io::Errno;
use uuid::Uuid;

use crate::model::Mark;

const SITE: &str = "user.pengx.site";
const FILE: &str = "user.pengx.file";
/// More than either has.
const MOST: usize = 64;

pub(super) fn put(file: impl AsFd, site: Uuid) {
    let marked = fs::fstat(&file).and_then(|stat| {
        fs::fsetxattr(&file, FILE, stat.st_ino.to_string().as_bytes(), XattrFlags::empty())?;
        fs::fsetxattr(&file, SITE, site.as_hyphenated().to_string().as_bytes(), XattrFlags::empty())
    });
    match marked {
        // Not every file system has attributes, and not every one has room for them.
        Ok(()) | Err(Errno::OPNOTSUPP) => {}
        Err(e) => tracing::debug!(error = %e, "a file could not be marked; should nobody own it one day, it stays"),
    }
}

pub(super) fn read(file: impl AsFd, site: Option<Uuid>) -> Mark {
    let made = match attribute(&file, SITE) {
        Ok(text) => text.and_then(|text| Uuid::try_parse(&text).ok()),
        Err(Errno::OPNOTSUPP) => return Mark::Unsupported,
        Err(_) => None,
    };
    let number = attribute(&file, FILE).ok().flatten();
    let is_original = fs::fstat(&file).is_ok_and(|stat| number == Some(stat.st_ino.to_string()));
    match made {
        Some(made) if Some(made) != site => Mark::OtherSite,
        Some(_) if is_original => Mark::ThisSite,
        _ => Mark::None,
    }
}

/// `None`: one that we have not written.
fn attribute(file: impl AsFd, name: &str) -> Result<Option<String>, Errno> {
    let mut value = [0; MOST];
    let length = fs::fgetxattr(file, name, &mut value)?;
    Ok(value.get(..length).and_then(|text| std::str::from_utf8(text).ok()).map(str::to_owned))
}

/// When anything about a file changed last. What no calendar has is the end of ours: nothing was quiet since.
pub(super) fn time(stat: &Stat) -> NaiveDateTime {
    const LAST: i64 = 253_402_300_799;
    let nanos = u32::try_from(stat.st_ctime_nsec).unwrap_or_default();
    DateTime::from_timestamp(stat.st_ctime.clamp(0, LAST), nanos).unwrap_or_default().naive_utc()
}

/// The mark of a storlink on its directory.
#[derive(Debug, Clone)]
pub struct Marker {
    /// What people call the storlink.
    pub(super) storlink: String,
    pub(super) uuid: Uuid,
    /// Nothing is done in a directory without it.
    pub(super) required: bool,
}

impl Marker {
    pub fn new(storlink: &str, uuid: Uuid, required: bool) -> Self {
        Self { storlink: storlink.to_owned(), uuid, required }
    }
}
