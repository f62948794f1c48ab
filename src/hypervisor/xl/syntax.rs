//! The syntax of `xl`'s configuration files: settings that are a text, a number or a list of texts. Pure.

use crate::error::{Error, Result};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(u64),
    List(Vec<String>),
}

/// In the order of the file.
pub(super) type Settings = Vec<(String, Value)>;

/// One setting a line. `Invalid` for a text that the syntax cannot say: it has no way to write a line break or another
/// control character that every version reads alike.
pub(super) fn write(settings: &[(String, Value)]) -> Result<String> {
    let mut file = String::new();
    for (key, value) in settings {
        let value = match value {
            Value::Text(text) => quote(key, text)?,
            Value::Number(number) => number.to_string(),
            Value::List(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| quote(key, text)).collect::<Result<_>>()?;
                format!("[{}]", texts.join(", "))
            }
        };
        file.push_str(&format!("{key} = {value}\n"));
    }
    Ok(file)
}

fn quote(key: &str, text: &str) -> Result<String> {
    if text.chars().any(char::is_control) {
        return Err(Error::invalid(key, "must not have control characters"));
    }
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// Reads what [`write`] writes, blank lines and comments aside. `None` for anything else.
pub(super) fn parse(file: &str) -> Option<Settings> {
    let lines = file.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    lines.map(setting).collect()
}

fn setting(line: &str) -> Option<(String, Value)> {
    let (key, rest) = line.split_once(" = ")?;
    let value = match rest.strip_prefix('[') {
        Some(list) => Value::List(texts(list.strip_suffix(']')?)?),
        None if rest.starts_with('"') => {
            let (text, rest) = text(rest)?;
            rest.is_empty().then_some(Value::Text(text))?
        }
        None => Value::Number(rest.parse().ok()?),
    };
    Some((key.to_owned(), value))
}

fn texts(mut list: &str) -> Option<Vec<String>> {
    let mut found = Vec::new();
    while !list.is_empty() {
        let (one, rest) = text(list)?;
        found.push(one);
        list = match rest.strip_prefix(", ") {
            Some("") => return None,
            Some(rest) => rest,
            None if rest.is_empty() => rest,
            None => return None,
        };
    }
    Some(found)
}

/// A quoted text, and what stands behind it.
fn text(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut chars = quoted.strip_prefix('"')?.chars();
    loop {
        match chars.next()? {
            '"' => return Some((text, chars.as_str())),
            '\\' => text.push(chars.next().filter(|c| matches!(c, '"' | '\\'))?),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let text = "[^\\p{Cc}]{0,20}";
        prop_oneof![
            text.prop_map(Value::Text),
            any::<u64>().prop_map(Value::Number),
            proptest::collection::vec(text, 0..4).prop_map(Value::List),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(settings in proptest::collection::vec(("[a-z_]{1,9}", value()), 0..6)) {
            let file = write(&settings).unwrap();
            prop_assert_eq!(parse(&file), Some(settings), "{}", file);
        }

        #[test]
        fn nothing_makes_it_panic(file in "[\\[\\]\"\\\\, =\n#a1é]{0,40}") {
            drop(parse(&file));
        }
    }

    #[test]
    fn texts_stay_in_their_quotes() {
        let settings = [
            ("name".to_owned(), Value::Text("a\"\nkernel=\"/x".to_owned())),
            ("disk".to_owned(), Value::List(vec!["a\0".to_owned()])),
        ];
        for bad in &settings {
            let said = write(std::slice::from_ref(bad)).unwrap_err().to_string();
            assert_eq!(said, format!("{}: must not have control characters", bad.0));
        }
        let quoted = [("disk".to_owned(), Value::List(vec!["it's \"1\" \\ 설치".to_owned(), String::new()]))];
        assert_eq!(write(&quoted).unwrap(), "disk = [\"it's \\\"1\\\" \\\\ 설치\", \"\"]\n");
    }

    #[test]
    fn what_nobody_here_writes_is_not_read() {
        for strange in [
            "name",
            "name = a",
            "a = [\"b\" \"c\"]",
            "a = [\"b\", ]",
            "a = \"b\" c",
            "a = \"b",
            "a = \"\\n\"",
            "a = -1",
        ] {
            assert_eq!(parse(strange), None, "{strange}");
        }
        assert_eq!(parse("# by hand\n\na = 1\n"), Some(vec![("a".to_owned(), Value::Number(1))]));
    }
}
