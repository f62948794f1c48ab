//! The bytes of a body as text.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// A byte order mark wins, then UTF-16 that is named or plain to see, then UTF-8 if the bytes are valid UTF-8, whatever
/// is said about them; then the `charset` parameter, and last the XML declaration.
pub(super) fn decode<'a>(bytes: &'a [u8], charset: Option<&str>) -> Result<Cow<'a, str>, String> {
    if let Some((encoding, length)) = Encoding::for_bom(bytes) {
        return decode_as(encoding, bytes.get(length..).unwrap_or_default());
    }
    let named = charset.and_then(|label| Encoding::for_label(label.as_bytes()));
    if let Some(encoding) = named.filter(|e| [UTF_16LE, UTF_16BE].contains(e)) {
        return decode_as(encoding, bytes);
    }
    match bytes {
        [b'<', 0, ..] => return decode_as(UTF_16LE, bytes),
        [0, b'<', ..] => return decode_as(UTF_16BE, bytes),
        _ => {}
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Ok(Cow::Borrowed(text));
    }
    decode_as(named.or_else(|| declared(bytes)).unwrap_or(UTF_8), bytes)
}

fn decode_as<'a>(encoding: &'static Encoding, bytes: &'a [u8]) -> Result<Cow<'a, str>, String> {
    encoding
        .decode_without_bom_handling_and_without_replacement(bytes)
        .ok_or_else(|| format!("its bytes are not valid {}", encoding.name()))
}

/// The encoding that the XML declaration names.
fn declared(bytes: &[u8]) -> Option<&'static Encoding> {
    let end = bytes.windows(2).take(256).position(|pair| pair == b"?>")?;
    let declaration = std::str::from_utf8(bytes.get(..end)?).ok()?.strip_prefix("<?xml")?;
    let (_, rest) = declaration.split_once("encoding")?;
    let rest = rest.trim_start().strip_prefix('=')?.trim_start();
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let label = rest.get(1..)?.split(quote).next()?;
    Encoding::for_label(label.as_bytes())
}

/// Whether a body without a media type may be XML.
pub(super) fn begins_like_xml(bytes: &[u8]) -> bool {
    Encoding::for_bom(bytes).is_some() || matches!(bytes.trim_ascii_start(), [b'<', ..] | [0, b'<', ..])
}

#[cfg(test)]
mod tests {
    use encoding_rs::EUC_KR;

    use super::*;

    fn utf16(text: &str, little: bool) -> Vec<u8> {
        text.encode_utf16().flat_map(|unit| if little { unit.to_le_bytes() } else { unit.to_be_bytes() }).collect()
    }

    #[test]
    fn utf8_first() {
        assert_eq!(decode("\u{feff}<a>가</a>".as_bytes(), None).unwrap(), "<a>가</a>");
        // Declared or named otherwise, but really UTF-8.
        let text = "<?xml version='1.0' encoding='euc-kr'?><a>가</a>";
        for charset in [None, Some("euc-kr"), Some("no-such-charset")] {
            assert_eq!(decode(text.as_bytes(), charset).unwrap(), text);
        }
        assert_eq!(decode(b"<a>\xff</a>", None).unwrap_err(), "its bytes are not valid UTF-8");
        assert!(decode(b"<a>\xff</a>", Some("no-such-charset")).is_err());
    }

    #[test]
    fn korean_by_parameter_or_declaration() {
        let (bytes, ..) = EUC_KR.encode("<a>한글</a>");
        assert_eq!(decode(&bytes, Some("EUC-KR")).unwrap(), "<a>한글</a>");
        let text = "<?xml version=\"1.0\" encoding = \"euc-kr\" ?><a>한글</a>";
        let (bytes, ..) = EUC_KR.encode(text);
        assert_eq!(decode(&bytes, None).unwrap(), text);
    }

    #[test]
    fn latin_by_parameter() {
        assert_eq!(decode(b"<a>\xe9</a>", Some("iso-8859-1")).unwrap(), "<a>é</a>");
    }

    #[test]
    fn utf16_with_and_without_a_mark() {
        for little in [true, false] {
            assert_eq!(decode(&utf16("\u{feff}<a>가</a>", little), None).unwrap(), "<a>가</a>");
            assert_eq!(decode(&utf16("<a>가</a>", little), None).unwrap(), "<a>가</a>");
        }
        assert_eq!(decode(&utf16(" <a/>", true), Some("utf-16le")).unwrap(), " <a/>");
        assert!(decode(&utf16("<a/>", true)[..7], None).is_err());
    }

    #[test]
    fn what_looks_like_xml() {
        for good in [&b"<a/>"[..], b" \n<a/>", b"\xff\xfe<\0", b"<\0a\0", b"\0<\0a"] {
            assert!(begins_like_xml(good), "{good:?}");
        }
        for bad in [&b""[..], b"name=a", b"{}"] {
            assert!(!begins_like_xml(bad), "{bad:?}");
        }
    }
}
