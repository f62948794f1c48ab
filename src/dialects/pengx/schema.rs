//! The shapes of requests and answers, as data: the resource table names one of each for every endpoint, and `pengx schema`
//! and GET `/schema/` write them as a grammar that clients can check documents with.

pub mod answers;
mod relax_ng;
pub mod requests;

use super::{Call, Failure, Reply, Settings};
use crate::error::Error;

/// GET `/schema/`: the grammar of all answers; `?start=NAME` makes it the grammar of one request or answer.
pub async fn read(call: Call) -> Result<Reply, Failure> {
    let start = call.query("start");
    match write(call.settings(), start.as_deref()) {
        Some(grammar) => Ok(Reply::xml(grammar)),
        None => Err(Error::not_found("schema", start.unwrap_or_default()).into()),
    }
}

/// The grammar with `start` as its start; without it any answer. `None` for a name that there is not.
pub fn write(settings: &Settings, start: Option<&str>) -> Option<String> {
    relax_ng::grammar(settings, start)
}

/// A body that is read.
#[derive(Debug)]
pub struct Request {
    pub name: &'static str,
    pub fields: &'static [Field],
}

#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    /// Else it may be absent, or empty, which means the same.
    pub needed: bool,
}

/// A document that is sent.
#[derive(Debug)]
pub struct Answer {
    pub name: &'static str,
    /// `None`: no document, or not one of ours.
    pub element: Option<Element>,
}

#[derive(Debug)]
pub struct Element {
    pub name: &'static str,
    pub attributes: &'static [(&'static str, Kind)],
    pub content: Content,
}

#[derive(Debug)]
pub enum Content {
    Text(Kind),
    Parts(&'static [Part]),
}

#[derive(Debug)]
pub struct Part {
    pub element: Element,
    pub times: Times,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    Once,
    Maybe,
    Any,
}

/// What a text can be.
#[derive(Debug)]
pub enum Kind {
    Text,
    /// At least one character, and at most so many.
    Line(usize),
    /// At most so many characters.
    Chars(usize),
    Uuid,
    Mac,
    /// `STORLINK/FILE.iso`.
    Iso,
    Number,
    Positive,
    /// A whole number from the first to the second.
    Bounded(u32, u32),
    Decimal,
    Boolean,
    Words(fn() -> Vec<&'static str>),
    /// The words of `<result>`, which are settings.
    Result,
    OrEmpty(&'static Kind),
    /// Or the text that stands for a null, which is a setting.
    OrNull(&'static Kind),
    Nested(&'static [Field]),
    /// `list-item` children.
    List,
}

const fn one(name: &'static str, kind: Kind) -> Part {
    Part { element: Element { name, attributes: &[], content: Content::Text(kind) }, times: Times::Once }
}

const fn maybe(name: &'static str, kind: Kind) -> Part {
    Part { element: Element { name, attributes: &[], content: Content::Text(kind) }, times: Times::Maybe }
}

const fn element(element: Element) -> Part {
    Part { element, times: Times::Once }
}

const fn any(element: Element) -> Part {
    Part { element, times: Times::Any }
}

const fn list(name: &'static str, attributes: &'static [(&'static str, Kind)], parts: &'static [Part]) -> Element {
    Element { name, attributes, content: Content::Parts(parts) }
}

/// The words of an enum of the model.
macro_rules! words {
    ($kind:ty) => {
        || <$kind>::ALL.iter().map(|word| word.word()).collect()
    };
}
use words;
