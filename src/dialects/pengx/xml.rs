//! XML requests as a tree, with the meaning that Django REST framework's `XMLParser` gave them.
//!
//! The name of the root, attributes, comments and processing instructions mean nothing; an element without text is
//! `None`; one whose first child is `list-item` is a list of all its children, any other with children a mapping in
//! which the last of a repeated tag wins. What is not well-formed is refused, and so is whatever could make a small body
//! large: entities, and a DOCTYPE that says more than a name.

use std::collections::BTreeMap;

use quick_xml::Reader;
use quick_xml::events::{BytesRef, BytesStart, Event};

use crate::model::{forbidden, is_xml_char};

/// Elements within elements.
pub const MAX_DEPTH: usize = 16;
pub const MAX_ELEMENTS: usize = 10_000;
/// Of one element.
pub const MAX_ATTRIBUTES: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    None,
    /// Trimmed, and never empty.
    Text(String),
    List(Vec<Node>),
    Map(BTreeMap<String, Node>),
}

impl Node {
    /// Trims; without text it is `None`.
    pub fn text(text: &str) -> Self {
        match text.trim() {
            "" => Self::None,
            text => Self::Text(text.to_owned()),
        }
    }

    pub fn map<K: Into<String>>(entries: impl IntoIterator<Item = (K, Node)>) -> Self {
        Self::Map(entries.into_iter().map(|(key, node)| (key.into(), node)).collect())
    }
}

/// The content of the root element; the error says why there is none.
pub fn parse(text: &str) -> Result<Node, String> {
    // Told with the name of the field where there is one, so not before it has been reached.
    let outlaw = text.chars().find(|c| !is_xml_char(*c));
    let mut reader = Reader::from_str(text);
    let config = reader.config_mut();
    config.check_comments = true;
    config.expand_empty_elements = true;
    let mut tree = Tree::default();
    loop {
        let at = reader.buffer_position();
        let event = match reader.read_event() {
            Ok(Event::Eof) => match outlaw {
                Some(c) => return Err(format!("it {}", forbidden(c))),
                None => return tree.finish(),
            },
            Ok(event) => event,
            Err(e) => return Err(format!("it is not well-formed: {e} (at byte {})", reader.error_position())),
        };
        tree.take(event, at == 0).map_err(|why| format!("{why} (at byte {at})"))?;
    }
}

#[derive(Default)]
struct Tree {
    open: Vec<Frame>,
    root: Option<Node>,
    elements: usize,
    /// Namespaces in force: the depth that declared them, the prefix, the name.
    scopes: Vec<(usize, String, String)>,
    doctype: bool,
}

struct Frame {
    key: String,
    text: String,
    children: Vec<(String, Node)>,
}

impl Tree {
    fn take(&mut self, event: Event<'_>, first: bool) -> Result<(), String> {
        match event {
            Event::Start(start) => self.start(&start),
            Event::End(_) => self.end(),
            Event::Text(text) if text.contains("]]>") => Err("]]> is not allowed in text".to_owned()),
            Event::Text(text) => self.text(&text.xml10_content()),
            Event::CData(_) if self.open.is_empty() => Err("there is text outside the root element".to_owned()),
            Event::CData(text) => self.text(&text.xml10_content()),
            Event::GeneralRef(_) if self.open.is_empty() => Err("there is text outside the root element".to_owned()),
            Event::GeneralRef(entity) => {
                let c = character(&entity)?;
                self.text(c.encode_utf8(&mut [0; 4]))
            }
            Event::Decl(declaration) if first => {
                declaration.version().map(|_| ()).map_err(|e| format!("its XML declaration is wrong: {e}"))
            }
            Event::Decl(_) => Err("the XML declaration does not stand first".to_owned()),
            Event::DocType(content) => self.doctype(content.trim()),
            Event::PI(pi) if pi.target().eq_ignore_ascii_case("xml") || !is_name(pi.target()) => {
                Err("the name of a processing instruction is wrong".to_owned())
            }
            Event::PI(_) | Event::Comment(_) | Event::Eof => Ok(()),
            // Expanded by the reader's configuration.
            Event::Empty(start) => self.start(&start).and_then(|()| self.end()),
        }
    }

    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), String> {
        if self.open.is_empty() && self.root.is_some() {
            return Err("there is a second root element".to_owned());
        }
        if self.open.len() == MAX_DEPTH {
            return Err(format!("elements are nested more than {MAX_DEPTH} deep"));
        }
        self.elements += 1;
        if self.elements > MAX_ELEMENTS {
            return Err(format!("there are more than {MAX_ELEMENTS} elements"));
        }
        let attributes = attributes(start.attributes_raw())?;
        self.declare(&attributes)?;
        for (name, _) in &attributes {
            if name.contains(':') && !name.starts_with("xmlns:") {
                self.resolve(name)?;
            }
        }
        let name = start.name();
        let key = self.resolve(name.as_ref())?;
        self.open.push(Frame { key, text: String::new(), children: Vec::new() });
        Ok(())
    }

    fn declare(&mut self, attributes: &[(&str, String)]) -> Result<(), String> {
        let depth = self.open.len();
        for (name, value) in attributes {
            let prefix = match name.strip_prefix("xmlns") {
                Some("") => "",
                Some(prefixed) => match prefixed.strip_prefix(':') {
                    Some("") | Some("xmlns") => return Err(format!("{name} is no name for a namespace")),
                    Some(_) if value.is_empty() => return Err(format!("{name} is empty")),
                    Some(prefix) => prefix,
                    None => continue,
                },
                None => continue,
            };
            self.scopes.push((depth, prefix.to_owned(), value.clone()));
        }
        Ok(())
    }

    /// The key of a name: the name itself, or with its namespace in front, as Python writes it; so it is no known field.
    fn resolve(&self, name: &str) -> Result<String, String> {
        if !is_name(name) {
            return Err(format!("{name} is not a name"));
        }
        let (prefix, local) = name.split_once(':').unwrap_or(("", name));
        if local.is_empty() || local.contains(':') || (prefix.is_empty() && local.len() != name.len()) {
            return Err(format!("{name} is not a name"));
        }
        let bound = self.scopes.iter().rev().find(|(_, p, _)| p == prefix).map(|(.., uri)| uri.as_str());
        match (prefix, bound) {
            ("", None | Some("")) => Ok(local.to_owned()),
            ("xml", None) => Ok(name.to_owned()),
            (_, None) => Err(format!("the prefix of {name} is not bound")),
            (_, Some(uri)) => Ok(format!("{{{uri}}}{local}")),
        }
    }

    fn text(&mut self, text: &str) -> Result<(), String> {
        if let Some(c) = text.chars().find(|c| !is_xml_char(*c)) {
            let field: Vec<&str> = self.open.iter().skip(1).map(|frame| frame.key.as_str()).collect();
            return Err(format!("{}: {}", field.join("."), forbidden(c)));
        }
        match self.open.last_mut() {
            Some(frame) => frame.text.push_str(text),
            None if text.trim_ascii().is_empty() => {}
            None => return Err("there is text outside the root element".to_owned()),
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        let Some(frame) = self.open.pop() else { return Err("an element ends that never began".to_owned()) };
        let depth = self.open.len();
        while self.scopes.last().is_some_and(|(declared, ..)| *declared >= depth) {
            self.scopes.pop();
        }
        let node = match frame.children.first() {
            None => Node::text(&frame.text),
            Some((key, _)) if key == "list-item" => Node::List(frame.children.into_iter().map(|(_, n)| n).collect()),
            Some(_) => Node::Map(frame.children.into_iter().collect()),
        };
        match self.open.last_mut() {
            Some(parent) => parent.children.push((frame.key, node)),
            None => self.root = Some(node),
        }
        Ok(())
    }

    fn doctype(&mut self, content: &str) -> Result<(), String> {
        if self.doctype || self.root.is_some() || !self.open.is_empty() {
            return Err("the DOCTYPE stands in the wrong place".to_owned());
        }
        self.doctype = true;
        if is_name(content) { Ok(()) } else { Err("a DOCTYPE may only name the root element".to_owned()) }
    }

    fn finish(self) -> Result<Node, String> {
        match (self.root, self.open.last()) {
            (Some(root), None) => Ok(root),
            (_, Some(frame)) => Err(format!("it ends within the element {}", frame.key)),
            (None, None) => Err("it has no element".to_owned()),
        }
    }
}

/// The character that `&…;` stands for.
fn character(entity: &BytesRef<'_>) -> Result<char, String> {
    let wrong = || format!("&{}; stands for nothing", &**entity);
    match entity.strip_prefix('#') {
        // What XML cannot say is refused with the text that it is in.
        Some(number) => numbered(number).ok_or_else(wrong),
        None => predefined(entity).ok_or_else(wrong),
    }
}

/// `65` or `x41`.
fn numbered(number: &str) -> Option<char> {
    let (digits, radix) = number.strip_prefix('x').map_or((number, 10), |hex| (hex, 16));
    let plain = digits.chars().all(|c| c.is_digit(radix));
    u32::from_str_radix(digits, radix).ok().filter(|_| plain).and_then(char::from_u32)
}

fn predefined(name: &str) -> Option<char> {
    Some(match name {
        "lt" => '<',
        "gt" => '>',
        "amp" => '&',
        "quot" => '"',
        "apos" => '\'',
        _ => return None,
    })
}

/// The attributes of a start tag, checked and unescaped: quick-xml leaves the checks that a parser owes to its user.
fn attributes(text: &str) -> Result<Vec<(&str, String)>, String> {
    let mut found: Vec<(&str, String)> = Vec::new();
    let mut rest = text;
    loop {
        let trimmed = rest.trim_ascii_start();
        if trimmed.is_empty() {
            return Ok(found);
        }
        let wrong = || format!("its attributes are wrong at {:?}", trimmed.chars().take(20).collect::<String>());
        let spaced = trimmed.len() < rest.len();
        let (name, after) = trimmed.split_once('=').ok_or_else(wrong)?;
        let (name, after) = (name.trim_ascii_end(), after.trim_ascii_start());
        let quote = after.chars().next().filter(|c| matches!(c, '"' | '\'')).ok_or_else(wrong)?;
        let (value, after) = after.strip_prefix(quote).and_then(|a| a.split_once(quote)).ok_or_else(wrong)?;
        if !spaced || !is_name(name) || value.contains('<') {
            return Err(wrong());
        }
        if found.iter().any(|(other, _)| *other == name) {
            return Err(format!("the attribute {name} stands twice"));
        }
        if found.len() == MAX_ATTRIBUTES {
            return Err(format!("an element has more than {MAX_ATTRIBUTES} attributes"));
        }
        found.push((name, unescaped(value)?));
        rest = after;
    }
}

fn unescaped(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('&') {
        let (name, after) = after.split_once(';').ok_or("an & in an attribute begins no entity")?;
        out.push_str(before);
        out.push(character(&BytesRef::new(name))?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// `Name` in XML 1.0, fifth edition.
fn is_name(text: &str) -> bool {
    let starts = |c: char| {
        matches!(c,
            ':' | '_' | 'A'..='Z' | 'a'..='z' | '\u{C0}'..='\u{D6}' | '\u{D8}'..='\u{F6}' | '\u{F8}'..='\u{2FF}'
            | '\u{370}'..='\u{37D}' | '\u{37F}'..='\u{1FFF}' | '\u{200C}'..='\u{200D}' | '\u{2070}'..='\u{218F}'
            | '\u{2C00}'..='\u{2FEF}' | '\u{3001}'..='\u{D7FF}' | '\u{F900}'..='\u{FDCF}' | '\u{FDF0}'..='\u{FFFD}'
            | '\u{10000}'..='\u{EFFFF}')
    };
    let goes_on = |c: char| {
        starts(c) || matches!(c, '-' | '.' | '0'..='9' | '\u{B7}' | '\u{300}'..='\u{36F}' | '\u{203F}'..='\u{2040}')
    };
    let mut chars = text.chars();
    chars.next().is_some_and(starts) && chars.all(goes_on)
}

#[cfg(test)]
mod tests;
