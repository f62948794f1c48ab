//! Integers as pydantic reads them from a query, measured with its release 2.14.

/// `None` for what is not an integer. One beyond the range is the nearest end of it: no parameter goes that far.
pub(super) fn parse(text: &str) -> Option<i64> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let whole = match digits.split_once('.') {
        Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|b| b == b'0') => whole,
        Some(_) => return None,
        None => digits,
    };
    // Single underscores, between digits.
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !whole.split('_').all(is_number) {
        return None;
    }
    let sign = if negative { "-" } else { "" };
    // Only its size can be wrong with it by now.
    let number = format!("{sign}{}", whole.replace('_', "")).parse();
    Some(number.unwrap_or(if negative { i64::MIN } else { i64::MAX }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_an_integer() {
        for (text, number) in [
            ("1", 1),
            (" 1 ", 1),
            ("\u{a0}1\n", 1),
            ("+1", 1),
            ("-1", -1),
            ("-0", 0),
            ("-0.0", 0),
            ("1_0", 10),
            ("0_1", 1),
            ("1.0", 1),
            ("1.00", 1),
            ("1_0.0", 10),
            ("+1.0", 1),
            ("007", 7),
            ("-007", -7),
            ("99999999999999999999", i64::MAX),
            ("-99999999999999999999", i64::MIN),
        ] {
            assert_eq!(parse(text), Some(number), "{text:?}");
        }
    }

    #[test]
    fn what_is_none() {
        for text in [
            "",
            " ",
            "+",
            "-",
            "1.5",
            "1.",
            ".0",
            "1.0.0",
            "1.0_0",
            "1_.0",
            "1 .0",
            "1. 0",
            "0x1",
            "1e1",
            "_1",
            "1_",
            "1__0",
            "+_1",
            "-_1",
            "+-1",
            "--1",
            "- 1",
            "1,0",
            "１",
            "١",
            "True",
            "1\0",
            "\u{1c}1",
            "\u{feff}1",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
