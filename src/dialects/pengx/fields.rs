//! The fields of a body: text that becomes a value, or a problem that names the field.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::error::{Error, Problems, Result};
use crate::model::{MiB, Name, forbidden, is_xml_char};

/// One scalar of a body, not yet judged, so that all that is wrong with a body can be told at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Field {
    #[default]
    Absent,
    Text(String),
    /// Elements where text belongs.
    Nested,
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(FieldVisitor)
    }
}

/// A text field for which an empty element is not the same as none: empty text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent(Option<Field>);

impl<'de> Deserialize<'de> for Sent {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Field::deserialize(from).map(|field| Self(Some(field)))
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_unit<E>(self) -> Result<Field, E> {
        Ok(Field::Absent)
    }

    fn visit_str<E>(self, text: &str) -> Result<Field, E> {
        Ok(Field::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Field, E> {
        Ok(Field::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Field, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Nested)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Field, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Nested)
    }
}

/// The most characters of a description.
pub const MAX_DESC_CHARS: usize = 4096;

/// Judges the fields of one body and collects every problem.
#[derive(Debug, Default)]
pub struct Judge {
    problems: Problems,
}

impl Judge {
    pub fn problem(&mut self, field: &str, why: impl Into<String>) {
        self.problems.add(field, why);
    }

    /// The text of a field that may be absent.
    pub fn text(&mut self, name: &str, field: Field) -> Option<String> {
        match field {
            Field::Absent => None,
            Field::Text(text) => match text.chars().find(|c| !is_xml_char(*c)) {
                None => Some(text),
                Some(c) => {
                    self.problem(name, forbidden(c));
                    None
                }
            },
            Field::Nested => {
                self.problem(name, "must be text, not elements");
                None
            }
        }
    }

    /// The text of a field that was sent, be it empty.
    pub fn sent(&mut self, name: &str, field: Sent) -> Option<String> {
        match field.0? {
            Field::Absent => Some(String::new()),
            field => self.text(name, field),
        }
    }

    /// A value that may be absent; it is absent too when it is a problem.
    pub fn optional<T: FromStr<Err = String>>(&mut self, name: &str, field: Field) -> Option<T> {
        let text = self.text(name, field)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(why) => {
                self.problem(name, why);
                None
            }
        }
    }

    pub fn needed_text(&mut self, name: &str, field: Field) -> Option<String> {
        self.required(name, &field);
        self.text(name, field)
    }

    pub fn needed<T: FromStr<Err = String>>(&mut self, name: &str, field: Field) -> Option<T> {
        self.required(name, &field);
        self.optional(name, field)
    }

    /// A whole number within bounds.
    pub fn number(&mut self, name: &str, field: Field, bounds: RangeInclusive<u64>) -> Option<u64> {
        let WholeNumber(number) = self.optional(name, field)?;
        let within = number.and_then(|n| u64::try_from(n).ok()).filter(|n| bounds.contains(n));
        if within.is_none() {
            self.problem(name, format!("must be from {} to {}", bounds.start(), bounds.end()));
        }
        within
    }

    pub fn needed_number(&mut self, name: &str, field: Field, bounds: RangeInclusive<u64>) -> Option<u64> {
        self.required(name, &field);
        self.number(name, field, bounds)
    }

    /// A size in MiB, from 1 to `most`.
    pub fn size(&mut self, name: &str, field: Field, most: MiB) -> Option<MiB> {
        self.number(name, field, 1..=most.0).map(MiB)
    }

    /// `False` when it is absent.
    pub fn flag(&mut self, name: &str, field: Field) -> bool {
        matches!(self.optional(name, field), Some(Flag(true)))
    }

    pub fn optional_flag(&mut self, name: &str, field: Field) -> Option<bool> {
        self.optional(name, field).map(|Flag(value)| value)
    }

    /// Empty when it is absent.
    pub fn desc(&mut self, name: &str, field: Field) -> String {
        let text = self.text(name, field).unwrap_or_default();
        self.check_desc(name, &text);
        text
    }

    pub fn check_desc(&mut self, name: &str, text: &str) {
        if text.chars().count() > MAX_DESC_CHARS {
            self.problem(name, format!("must have at most {MAX_DESC_CHARS} characters"));
        }
    }

    /// The description that was sent, be it empty.
    pub fn sent_desc(&mut self, name: &str, field: Sent) -> Option<String> {
        let text = self.sent(name, field)?;
        self.check_desc(name, &text);
        Some(text)
    }

    /// The name that was sent; an empty one is a problem.
    pub fn sent_name(&mut self, name: &str, field: Sent) -> Option<Name> {
        let text = self.sent(name, field)?;
        self.optional(name, Field::Text(text))
    }

    /// The value that was sent; `Some(None)` for an empty one.
    pub fn sent_or_emptied<T: FromStr<Err = String>>(&mut self, name: &str, field: Sent) -> Option<Option<T>> {
        match self.sent(name, field)? {
            empty if empty.is_empty() => Some(None),
            text => self.optional(name, Field::Text(text)).map(Some),
        }
    }

    fn required(&mut self, name: &str, field: &Field) {
        if *field == Field::Absent {
            self.problem(name, "is required");
        }
    }

    /// What `make` makes, unless there was a problem. `make` has every value then.
    pub fn done<T>(self, make: impl FnOnce() -> Option<T>) -> Result<T> {
        self.problems.done()?;
        make().ok_or_else(|| Error::internal("a field is missing and no problem tells of it"))
    }
}

/// As Python and Django read an integer: a sign, leading zeros, and a fraction of zeros are all right. `None` is a
/// number beyond all bounds.
struct WholeNumber(Option<i128>);

impl FromStr for WholeNumber {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let whole = match text.split_once('.') {
            Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|b| b == b'0') => whole,
            _ => text,
        };
        let digits = whole.strip_prefix(['+', '-']).unwrap_or(whole);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err("must be a whole number".to_owned());
        }
        Ok(Self(whole.parse().ok()))
    }
}

struct Flag(bool);

impl FromStr for Flag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" => Ok(Self(true)),
            "false" | "0" | "no" => Ok(Self(false)),
            _ => Err("must be one of True, False".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(text: &str) -> Field {
        Field::Text(text.to_owned())
    }

    #[test]
    fn numbers() {
        for (text, number) in [("7", 7), ("007", 7), ("+1", 1), ("1.0", 1), ("64", 64)] {
            let mut judge = Judge::default();
            assert_eq!(judge.number("n", field(text), 1..=64), Some(number), "{text}");
            assert!(judge.done(|| Some(())).is_ok());
        }
        for (text, why) in [
            ("x", "must be a whole number"),
            ("1.5", "must be a whole number"),
            ("1.", "must be a whole number"),
            ("", "must be a whole number"),
            ("-", "must be a whole number"),
            ("1e3", "must be a whole number"),
            ("٣", "must be a whole number"),
            ("0", "must be from 1 to 64"),
            ("65", "must be from 1 to 64"),
            ("-5", "must be from 1 to 64"),
            (&"9".repeat(60), "must be from 1 to 64"),
        ] {
            let mut judge = Judge::default();
            assert_eq!(judge.number("n", field(text), 1..=64), None);
            assert_eq!(judge.done(|| Some(())).unwrap_err().to_string(), format!("n: {why}"), "{text}");
        }
    }

    #[test]
    fn flags() {
        for (text, value) in [
            ("True", true),
            ("true", true),
            ("1", true),
            ("yes", true),
            ("TRUE", true),
            ("False", false),
            ("false", false),
            ("0", false),
            ("no", false),
        ] {
            let mut judge = Judge::default();
            assert_eq!(judge.flag("f", field(text)), value, "{text}");
            assert!(judge.done(|| Some(())).is_ok());
        }
        let mut judge = Judge::default();
        assert!(!judge.flag("absent", Field::Absent));
        assert!(!judge.flag("f", field("maybe")));
        assert_eq!(judge.done(|| Some(())).unwrap_err().to_string(), "f: must be one of True, False");
    }

    #[test]
    fn every_problem_is_told() {
        let mut judge = Judge::default();
        judge.needed::<crate::model::Name>("name", Field::Absent);
        judge.needed::<crate::model::Format>("format", field("vdi"));
        judge.desc("desc", Field::Nested);
        judge.size("size", field("0"), MiB(9));
        assert_eq!(
            judge.done(|| Some(())).unwrap_err().to_string(),
            "name: is required; format: must be one of qcow2, raw; desc: must be text, not elements; size: must be from 1 to 9"
        );
    }
}
