//! The parameters of a request: of its query and of its body, which is JSON or a form, whatever the method. What is a number to
//! one client is text to the next.

use std::collections::HashMap;

use serde_json::Value;
use warp::http::header::CONTENT_TYPE;

use super::failure::Failure;
use crate::dialects::ask::Ask;
use crate::dialects::form;
use crate::model::VmNumber;

#[derive(Debug, Default)]
pub(super) struct Fields(HashMap<String, String>);

impl Fields {
    /// Where both have a key the query wins in a request that reads, and the body in one that writes.
    pub(super) async fn read(ask: &Ask, reading: bool) -> Result<Self, Failure> {
        let media_type = ask.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let bytes = ask.body().await.map_err(Failure::Unread)?;
        let mut body = in_body(media_type, &bytes).ok_or(Failure::BadBody)?;
        let mut query = in_form(ask.query.as_deref().unwrap_or_default());
        let all = if reading {
            body.extend(query);
            body
        } else {
            query.extend(body);
            query
        };
        Ok(Self(all))
    }

    /// Also if it is empty.
    pub(super) fn sent(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// What is empty was not given.
    pub(super) fn given(&self, key: &str) -> Option<&str> {
        self.sent(key).filter(|text| !text.is_empty())
    }

    /// What is no number is nobody's.
    pub(super) fn number(&self, key: &str) -> Option<VmNumber> {
        self.given(key)?.trim().parse().ok()
    }
}

/// `None`: it cannot be read.
fn in_body(media_type: &str, bytes: &[u8]) -> Option<HashMap<String, String>> {
    let kind = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if bytes.is_empty() {
        return Some(HashMap::new());
    }
    // Scripts that forget to say what they send mean JSON if it looks like it.
    let looks_so = kind.is_empty() && bytes.trim_ascii_start().starts_with(b"{");
    if kind == "application/json" || looks_so {
        in_json(bytes)
    } else if kind == "application/x-www-form-urlencoded" || kind.is_empty() {
        std::str::from_utf8(bytes).ok().map(in_form)
    } else {
        Some(HashMap::new())
    }
}

/// An object or, as body-parser has it, a list, in which nothing has a name.
fn in_json(bytes: &[u8]) -> Option<HashMap<String, String>> {
    match serde_json::from_slice(bytes).ok()? {
        Value::Object(map) => Some(map.into_iter().filter_map(|(key, value)| Some((key, text(value)?))).collect()),
        Value::Array(_) => Some(HashMap::new()),
        _ => None,
    }
}

/// No parameter is a list or an object.
fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn in_form(text: &str) -> HashMap<String, String> {
    form::pairs(text).map(|(key, value)| (key.into_owned(), value.into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(media_type: &str, body: &str) -> Option<Vec<(String, String)>> {
        let mut all: Vec<_> = in_body(media_type, body.as_bytes())?.into_iter().collect();
        all.sort();
        Some(all)
    }

    #[test]
    fn json_and_forms_are_the_same() {
        let all = Some(vec![("id".to_owned(), "100".to_owned()), ("username".to_owned(), "b ob".to_owned())]);
        for (media_type, body) in [
            ("application/json", r#"{"id":100,"username":"b ob","a":{"b":1},"c":[1],"d":null}"#),
            ("Application/JSON; charset=utf-8", r#"{"id":"100","username":"b ob"}"#),
            ("", r#" {"id":"100","username":"b ob"}"#),
            ("application/x-www-form-urlencoded; charset=UTF-8", "id=100&username=b+ob"),
            ("", "id=100&username=b%20ob"),
        ] {
            assert_eq!(read(media_type, body), all, "{media_type}: {body}");
        }
    }

    #[test]
    fn what_is_no_json_is_told() {
        for bad in ["{bad", "1", "\"a\"", "{\"a\":1}x"] {
            assert_eq!(read("application/json", bad), None, "{bad}");
        }
        for empty in ["[]", "[1]", "{}", ""] {
            assert_eq!(read("application/json", empty), Some(Vec::new()), "{empty}");
        }
        assert_eq!(read("text/plain", "{bad"), Some(Vec::new()), "of another type nothing is read");
    }
}
