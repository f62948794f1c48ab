//! Queries, and forms of the same kind.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The last value of a key of a query.
pub(super) fn last<'a>(query: &'a str, key: &str) -> Option<Cow<'a, str>> {
    pairs(query).filter(|(k, _)| k == key).last().map(|(_, value)| value)
}

/// Keys and values in their order, decoded: a plus is a blank.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key), decoded(value))
    })
}

fn decoded(text: &str) -> Cow<'_, str> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned());
    }
    percent_decode_str(text).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        assert_eq!(last("format=json&x&format=x%6Dl", "format").unwrap(), "xml");
        assert_eq!(last("a&b=1", "a").unwrap(), "");
        assert_eq!(last("a=1", "b"), None);
        assert_eq!(last("a=+b%26", "a").unwrap(), " b&");
    }
}
