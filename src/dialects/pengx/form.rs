//! Forms: the same fields as in XML. A repeated field makes a list, `disk.storlink` a mapping within one.

use std::collections::BTreeMap;

use super::negotiate::parameter;
use super::xml::{MAX_DEPTH, MAX_ELEMENTS, Node};
use crate::dialects::form::pairs;

pub(super) fn urlencoded(bytes: &[u8]) -> Result<Node, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the form is not UTF-8".to_owned())?;
    let mut form = Form::default();
    for (key, value) in pairs(text) {
        form.add(&key, &value)?;
    }
    Ok(Node::Map(form.fields))
}

/// `multipart/form-data` (RFC 7578), text fields only: a file is read as the text that it holds.
pub(super) fn multipart(bytes: &[u8], boundary: &str) -> Result<Node, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the form is not UTF-8".to_owned())?;
    if boundary.is_empty() {
        return Err("the form's media type has no boundary".to_owned());
    }
    let wrong = || "the form's parts are wrong".to_owned();
    let delimiter = format!("\r\n--{boundary}");
    // The first delimiter has no line break before it unless there is a preamble.
    let first = delimiter.trim_start();
    let mut rest = match text.strip_prefix(first) {
        Some(rest) => rest,
        None => text.split_once(&delimiter).ok_or_else(wrong)?.1,
    };
    let mut form = Form::default();
    while !rest.starts_with("--") {
        let part = rest.trim_start_matches([' ', '\t']).strip_prefix("\r\n").ok_or_else(wrong)?;
        let (part, after) = part.split_once(&delimiter).ok_or_else(wrong)?;
        let (headers, value) = part.split_once("\r\n\r\n").ok_or_else(wrong)?;
        let disposition = headers.split("\r\n").find_map(|header| {
            let (name, value) = header.split_once(':')?;
            name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
        });
        let name = disposition.and_then(|d| parameter(d, "name")).ok_or_else(wrong)?;
        form.add(&name, value)?;
        rest = after;
    }
    Ok(Node::Map(form.fields))
}

#[derive(Default)]
struct Form {
    fields: BTreeMap<String, Node>,
    count: usize,
}

impl Form {
    fn add(&mut self, key: &str, value: &str) -> Result<(), String> {
        self.count += 1;
        if self.count > MAX_ELEMENTS || key.matches('.').count() >= MAX_DEPTH {
            return Err(format!("the form has more than {MAX_ELEMENTS} fields, or one within {MAX_DEPTH} others"));
        }
        put(&mut self.fields, key, Node::text(value))
    }
}

fn put(fields: &mut BTreeMap<String, Node>, key: &str, value: Node) -> Result<(), String> {
    if let Some((outer, inner)) = key.split_once('.') {
        return match fields.entry(outer.to_owned()).or_insert_with(|| Node::Map(BTreeMap::new())) {
            Node::Map(fields) => put(fields, inner, value),
            _ => Err(format!("the form has both {outer} and {key}")),
        };
    }
    match fields.remove(key) {
        None => fields.insert(key.to_owned(), value),
        Some(Node::Map(_)) => return Err(format!("the form has both {key} and fields within it")),
        Some(Node::List(mut items)) => {
            items.push(value);
            fields.insert(key.to_owned(), Node::List(items))
        }
        Some(first) => fields.insert(key.to_owned(), Node::List(vec![first, value])),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Node {
        Node::map([
            ("name", Node::text("a b&c")),
            ("desc", Node::None),
            ("network", Node::List(vec![Node::text("0"), Node::text("1")])),
            ("disk", Node::map([("storlink", Node::text("2"))])),
        ])
    }

    #[test]
    fn forms() {
        assert_eq!(urlencoded(b"name=+a+b%26c&network=0&desc=&network=1&disk.storlink=2"), Ok(tree()));
        assert_eq!(urlencoded(b"&&"), Ok(Node::Map(BTreeMap::new())));
        for bad in [&b"\xff=1"[..], b"a=1&a.b=2", b"a.b=2&a=1"] {
            assert!(urlencoded(bad).is_err(), "{bad:?}");
        }
        assert!(urlencoded("a.".repeat(20).as_bytes()).is_err());
    }

    #[test]
    fn multipart_forms() {
        let part = |name: &str, value: &str| {
            format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let fields = [("name", "a b&c"), ("network", "0"), ("desc", ""), ("network", "1"), ("disk.storlink", "2")];
        let body = fields.map(|(name, value)| part(name, value)).concat() + "--XX--\r\n";
        assert_eq!(multipart(body.as_bytes(), "XX"), Ok(tree()));
        assert_eq!(multipart(format!("preamble\r\n{body}").as_bytes(), "XX"), Ok(tree()));
        assert_eq!(multipart(b"--XX--", "XX"), Ok(Node::Map(BTreeMap::new())));
        for bad in
            [b"".as_slice(), b"--XX", b"--XX\r\n", b"--XX\r\nA: b\r\n\r\nx\r\n--XX--", b"--XX\r\n\r\nx\r\n--XX--"]
        {
            assert!(multipart(bad, "XX").is_err(), "{bad:?}");
        }
        assert!(multipart(body.as_bytes(), "").is_err());
        assert!(multipart(&body.as_bytes()[..body.len() - 4], "XX").is_err());
    }
}
