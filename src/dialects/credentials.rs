//! Credentials in the `Authorization` header: `Bearer T`, `Token T` as Django REST framework writes it, and `Basic`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use encoding_rs::mem::decode_latin1;
use warp::http::HeaderMap;
use warp::http::header::AUTHORIZATION;

use crate::model::Secret;
use crate::operations::Credentials;

/// Takes the credentials out of the headers, so that nobody further on sees them. A scheme that is not known counts as
/// none given.
pub(super) fn take(headers: &mut HeaderMap) -> Credentials {
    let credentials = read(headers);
    headers.remove(AUTHORIZATION);
    credentials
}

fn read(headers: &HeaderMap) -> Credentials {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let Some(first) = all.next() else { return Credentials::None };
    let (Ok(text), None) = (first.to_str(), all.next()) else { return Credentials::Malformed };
    let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    let is = |name: &str| scheme.eq_ignore_ascii_case(name);
    // One word.
    let word = Some(rest.trim()).filter(|word| !word.is_empty() && !word.contains(char::is_whitespace));
    if is("basic") {
        word.and_then(basic).unwrap_or(Credentials::Malformed)
    } else if is("bearer") || is("token") {
        word.map_or(Credentials::Malformed, |word| Credentials::Token(Secret::new(word.to_owned())))
    } else {
        Credentials::None
    }
}

fn basic(word: &str) -> Option<Credentials> {
    let bytes = STANDARD.decode(word).ok()?;
    // Old clients send ISO 8859-1, whatever the server says.
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(other) => decode_latin1(other.as_bytes()).into_owned(),
    };
    let (name, password) = text.split_once(':')?;
    Some(Credentials::Basic { name: name.to_owned(), password: Secret::new(password.to_owned()) })
}

#[cfg(test)]
mod tests {
    use warp::http::HeaderValue;

    use super::*;

    fn of(values: &[&[u8]]) -> String {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        let said = match take(&mut headers) {
            Credentials::None => "none".to_owned(),
            Credentials::Malformed => "malformed".to_owned(),
            Credentials::Token(token) => format!("token {}", token.reveal()),
            Credentials::Basic { name, password } => format!("basic {name} {}", password.reveal()),
        };
        assert!(headers.is_empty());
        said
    }

    #[test]
    fn every_scheme_is_read_in_any_case() {
        for (header, said) in [
            ("Bearer abc", "token abc"),
            ("bearer   abc ", "token abc"),
            ("TOKEN abc", "token abc"),
            ("Basic YW5uOnM6ZWNyZXQ=", "basic ann s:ecret"),
            ("bASIC YW5uOg==", "basic ann "),
            ("Digest username=ann", "none"),
            ("Negotiate", "none"),
            ("", "none"),
            ("Bearer", "malformed"),
            ("Token a b", "malformed"),
            ("Basic", "malformed"),
            ("Basic YW5u", "malformed"),
            ("Basic !!!!", "malformed"),
            ("Basic YW5uOg", "malformed"),
            ("Basic YW5uOg== x", "malformed"),
        ] {
            assert_eq!(of(&[header.as_bytes()]), said, "{header}");
        }
        assert_eq!(of(&[]), "none");
        assert_eq!(of(&[b"Bearer a", b"Bearer a"]), "malformed");
        assert_eq!(of(&[b"Bearer \xff"]), "malformed");
    }

    #[test]
    fn passwords_are_utf_8_or_else_latin_1() {
        let header = |bytes: &[u8]| format!("Basic {}", STANDARD.encode(bytes));
        assert_eq!(of(&[header("안:녕".as_bytes()).as_bytes()]), "basic 안 녕");
        assert_eq!(of(&[header(b"ann:caf\xe9").as_bytes()]), "basic ann café");
    }

    #[test]
    fn credentials_do_not_show_when_printed() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Basic YW5uOnM6ZWNyZXQ="));
        let printed = format!("{:?}", take(&mut headers));
        assert!(printed.contains("ann") && !printed.contains("s:ecret"), "{printed}");
    }
}
