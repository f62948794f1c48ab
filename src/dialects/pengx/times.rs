//! Times in a site's time zone, in the words of a Django date format string.

use std::fmt;

use chrono::{DateTime, Datelike, NaiveDateTime, TimeZone, Timelike};
use chrono_tz::Tz;

/// A compiled Django date format string: `Y-m-d H:i:s`, `N j, Y, P`. A letter without a meaning stands for itself, as
/// does any character after a backslash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DateFormat(Vec<Piece>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Literal(char),
    Letter(char),
}

const LETTERS: &str = "aAbcdDefFgGhHijlLmMnNOPrsStTuUwWyYzZ";
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// The months of the Associated Press, Django's `N`.
const MONTHS_AP: [&str; 12] =
    ["Jan.", "Feb.", "March", "April", "May", "June", "July", "Aug.", "Sept.", "Oct.", "Nov.", "Dec."];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl DateFormat {
    pub fn new(text: &str) -> Self {
        let mut pieces = Vec::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            pieces.push(match c {
                '\\' => Piece::Literal(chars.next().unwrap_or('\\')),
                c if LETTERS.contains(c) => Piece::Letter(c),
                c => Piece::Literal(c),
            });
        }
        Self(pieces)
    }

    /// `utc` as it reads in `zone`.
    pub fn show(&self, utc: NaiveDateTime, zone: Tz) -> Shown<'_> {
        Shown { format: self, time: zone.from_utc_datetime(&utc) }
    }
}

impl Default for DateFormat {
    fn default() -> Self {
        Self::new("Y-m-d H:i:s")
    }
}

/// One time, ready to be written.
pub struct Shown<'a> {
    format: &'a DateFormat,
    time: DateTime<Tz>,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        self.format.0.iter().try_for_each(|piece| match *piece {
            Piece::Literal(c) => f.write_char(c),
            Piece::Letter(c) => letter(f, c, &self.time),
        })
    }
}

fn letter(f: &mut fmt::Formatter<'_>, letter: char, t: &DateTime<Tz>) -> fmt::Result {
    match letter {
        'Y' => write!(f, "{}", t.year()),
        'm' => two(f, t.month()),
        'd' => two(f, t.day()),
        'H' => two(f, t.hour()),
        'i' => two(f, t.minute()),
        's' => two(f, t.second()),
        'y' => write!(f, "{:02}", t.year().rem_euclid(100)),
        'n' => t.month().fmt_plain(f),
        'j' => t.day().fmt_plain(f),
        'G' => t.hour().fmt_plain(f),
        'g' => t.hour12().1.fmt_plain(f),
        'h' => two(f, t.hour12().1),
        'u' => write!(f, "{:06}", t.nanosecond() / 1000 % 1_000_000),
        'N' => f.write_str(name(&MONTHS_AP, t.month0())),
        'F' => f.write_str(name(&MONTHS, t.month0())),
        'M' => f.write_str(short(name(&MONTHS, t.month0()))),
        'b' => f.write_str(&short(name(&MONTHS, t.month0())).to_ascii_lowercase()),
        'l' => f.write_str(name(&DAYS, t.weekday().num_days_from_sunday())),
        'D' => f.write_str(short(name(&DAYS, t.weekday().num_days_from_sunday()))),
        'w' => t.weekday().num_days_from_sunday().fmt_plain(f),
        'W' => t.iso_week().week().fmt_plain(f),
        'z' => t.ordinal().fmt_plain(f),
        't' => u32::from(t.num_days_in_month()).fmt_plain(f),
        'L' => f.write_str(if t.date_naive().leap_year() { "True" } else { "False" }),
        'S' => f.write_str(ordinal_suffix(t.day())),
        'a' => f.write_str(half(t, "a.m.", "p.m.")),
        'A' => f.write_str(half(t, "AM", "PM")),
        'f' => hour_and_minutes(f, t),
        'P' => match (t.hour(), t.minute()) {
            (0, 0) => f.write_str("midnight"),
            (12, 0) => f.write_str("noon"),
            _ => {
                hour_and_minutes(f, t)?;
                write!(f, " {}", half(t, "a.m.", "p.m."))
            }
        },
        'e' | 'T' => write!(f, "{}", t.format("%Z")),
        'O' => write!(f, "{}", t.format("%z")),
        'Z' => write!(f, "{}", chrono::Offset::fix(t.offset()).local_minus_utc()),
        'U' => write!(f, "{}", t.timestamp()),
        'c' => write!(f, "{}", t.format("%Y-%m-%dT%H:%M:%S%.f%:z")),
        'r' => write!(f, "{}", t.format("%a, %d %b %Y %H:%M:%S %z")),
        other => write!(f, "{other}"),
    }
}

trait Plain {
    fn fmt_plain(self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

impl Plain for u32 {
    fn fmt_plain(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

fn two(f: &mut fmt::Formatter<'_>, n: u32) -> fmt::Result {
    write!(f, "{n:02}")
}

fn name<const N: usize>(names: &[&'static str; N], at: u32) -> &'static str {
    usize::try_from(at).ok().and_then(|at| names.get(at)).copied().unwrap_or_default()
}

fn short(name: &'static str) -> &'static str {
    name.get(..3).unwrap_or(name)
}

fn half(t: &DateTime<Tz>, am: &'static str, pm: &'static str) -> &'static str {
    if t.hour12().0 { pm } else { am }
}

/// Django's `f`: no minutes when they are zero.
fn hour_and_minutes(f: &mut fmt::Formatter<'_>, t: &DateTime<Tz>) -> fmt::Result {
    match (t.hour12().1, t.minute()) {
        (hour, 0) => write!(f, "{hour}"),
        (hour, minute) => write!(f, "{hour}:{minute:02}"),
    }
}

fn ordinal_suffix(day: u32) -> &'static str {
    match day {
        11..=13 => "th",
        day => match day % 10 {
            1 => "st",
            2 => "nd",
            3 => "rd",
            _ => "th",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> NaiveDateTime {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").unwrap()
    }

    fn shown(format: &str, zone: Tz, time: &str) -> String {
        DateFormat::new(format).show(at(time), zone).to_string()
    }

    #[test]
    fn the_default_is_iso_like() {
        let time = at("2017-07-26 05:04:09");
        assert_eq!(DateFormat::default().show(time, Tz::UTC).to_string(), "2017-07-26 05:04:09");
        assert_eq!(DateFormat::default().show(time, Tz::Asia__Seoul).to_string(), "2017-07-26 14:04:09");
    }

    #[test]
    fn djangos_own_format() {
        for (time, text) in [
            ("2017-07-26 15:04:05", "July 26, 2017, 3:04 p.m."),
            ("2017-01-02 09:00:30", "Jan. 2, 2017, 9 a.m."),
            ("2017-09-30 00:00:59", "Sept. 30, 2017, midnight"),
            ("2017-03-01 12:00:00", "March 1, 2017, noon"),
            ("2017-12-01 00:30:00", "Dec. 1, 2017, 12:30 a.m."),
        ] {
            assert_eq!(shown("N j, Y, P", Tz::UTC, time), text);
        }
    }

    #[test]
    fn every_letter_has_its_meaning() {
        let time = "2016-02-03 04:05:06";
        for (letter, text) in [
            ("a", "a.m."),
            ("A", "AM"),
            ("b", "feb"),
            ("c", "2016-02-03T04:05:06+00:00"),
            ("d", "03"),
            ("D", "Wed"),
            ("e", "UTC"),
            ("f", "4:05"),
            ("F", "February"),
            ("g", "4"),
            ("G", "4"),
            ("h", "04"),
            ("H", "04"),
            ("i", "05"),
            ("j", "3"),
            ("l", "Wednesday"),
            ("L", "True"),
            ("m", "02"),
            ("M", "Feb"),
            ("n", "2"),
            ("N", "Feb."),
            ("O", "+0000"),
            ("P", "4:05 a.m."),
            ("r", "Wed, 03 Feb 2016 04:05:06 +0000"),
            ("s", "06"),
            ("S", "rd"),
            ("t", "29"),
            ("T", "UTC"),
            ("u", "000000"),
            ("U", "1454472306"),
            ("w", "3"),
            ("W", "5"),
            ("y", "16"),
            ("Y", "2016"),
            ("z", "34"),
            ("Z", "0"),
            ("k", "k"),
            (r"\Y\\", r"Y\"),
            ("년", "년"),
        ] {
            assert_eq!(shown(letter, Tz::UTC, time), text, "{letter}");
        }
    }
}
