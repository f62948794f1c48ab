//! How values are written: nulls, times and booleans.

use std::fmt::{self, Display};

use chrono::NaiveDateTime;
use chrono_tz::Tz;

use super::times::{DateFormat, Shown};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Style {
    /// What a null prints where the manual's template has no `default_if_none`.
    pub null_text: String,
    pub dates: DateFormat,
    pub zone: Tz,
}

impl Default for Style {
    fn default() -> Self {
        Self { null_text: "None".to_owned(), dates: DateFormat::default(), zone: Tz::UTC }
    }
}

impl Style {
    pub fn time(&self, utc: &NaiveDateTime) -> Shown<'_> {
        self.dates.show(*utc, self.zone)
    }

    pub fn time_or_null(&self, utc: &Option<NaiveDateTime>) -> Or<'_, Shown<'_>> {
        Or(utc.as_ref().map(|utc| self.time(utc)), &self.null_text)
    }

    pub fn or_null<T>(&self, value: Option<T>) -> Or<'_, T> {
        Or(value, &self.null_text)
    }

    pub fn time_or_empty(&self, utc: &Option<NaiveDateTime>) -> Or<'_, Shown<'_>> {
        Or(utc.as_ref().map(|utc| self.time(utc)), "")
    }
}

/// Django's `default_if_none:""`.
pub fn or_empty<T: Display>(value: &Option<T>) -> Or<'static, &T> {
    Or(value.as_ref(), "")
}

/// As Django prints a boolean.
pub fn boolean(value: &bool) -> &'static str {
    if *value { "True" } else { "False" }
}

/// A value, or what stands for its absence.
pub struct Or<'a, T>(Option<T>, &'a str);

impl<T: Display> Display for Or<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str(self.1),
        }
    }
}
