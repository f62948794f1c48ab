//! Escaping as Django did it, and no character that XML 1.0 forbids.

use std::fmt::{self, Write};

use crate::model::is_xml_char;

/// The escaper of every `.xml` template; named in `askama.toml`.
#[derive(Debug, Clone, Copy)]
pub struct Xml;

impl askama::filters::Escaper for Xml {
    fn write_escaped_str<W: Write>(&self, mut out: W, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((plain, special, after)) = next_special(rest) {
            out.write_str(plain)?;
            out.write_str(special)?;
            rest = after;
        }
        out.write_str(rest)
    }
}

impl Xml {
    /// For documents that no template makes.
    pub fn text(text: &str) -> String {
        let mut escaped = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((plain, special, after)) = next_special(rest) {
            escaped.push_str(plain);
            escaped.push_str(special);
            rest = after;
        }
        escaped.push_str(rest);
        escaped
    }
}

/// The text before the first character that needs care, what is written for that character, and the text after it.
fn next_special(text: &str) -> Option<(&str, &'static str, &str)> {
    // Every character that needs care begins with one of these bytes; most text has none of them.
    let candidate = |b: u8| b < 0x20 || matches!(b, b'&' | b'<' | b'>' | b'"' | b'\'' | 0xEF);
    if !text.bytes().any(candidate) {
        return None;
    }
    text.char_indices().find_map(|(at, c)| {
        let written = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            '"' => "&quot;",
            '\'' => "&#39;",
            c if !is_xml_char(c) => "",
            _ => return None,
        };
        let (plain, rest) = text.split_at_checked(at)?;
        Some((plain, written, rest.get(c.len_utf8()..)?))
    })
}

#[cfg(test)]
mod tests {
    use askama::filters::Escaper;

    use super::*;

    fn escaped(text: &str) -> String {
        let mut out = String::new();
        Xml.write_escaped_str(&mut out, text).unwrap();
        out
    }

    #[test]
    fn escapes_like_django() {
        assert_eq!(escaped(r#"a & b < c > d " e ' f"#), "a &amp; b &lt; c &gt; d &quot; e &#39; f");
        assert_eq!(escaped("/`= 가 \u{7f}"), "/`= 가 \u{7f}");
        assert_eq!(escaped(""), "");
        assert_eq!(escaped("&&"), "&amp;&amp;");
    }

    #[test]
    fn drops_what_xml_forbids() {
        assert_eq!(
            escaped("a\u{0}b\u{1b}c\u{fffe}d\u{ffff}e\tf\ng\u{10000}\u{fffd}\u{ff01}"),
            "abcde\tf\ng\u{10000}\u{fffd}\u{ff01}"
        );
    }
}
