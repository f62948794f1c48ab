//! What the client can read, what it sent, and how it wants to be answered.

use warp::http::HeaderMap;
use warp::http::header::{ACCEPT, HeaderValue};

use super::xml::{self, Node};
use super::{Failure, charset, form};

/// Whether an answer in XML is acceptable.
pub(super) fn accepts_xml(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(ACCEPT).iter().peekable();
    values.peek().is_none() || values.any(|value| value.to_str().is_ok_and(|list| list.split(',').any(is_xml_range)))
}

fn is_xml_range(range: &str) -> bool {
    let (media, parameters) = range.split_once(';').unwrap_or((range, ""));
    let media = media.trim();
    let known = ["application/xml", "text/xml", "*/*", "application/*", "text/*"];
    let refused = parameters.split(';').any(|p| {
        let (key, value) = p.split_once('=').unwrap_or((p, ""));
        key.trim().eq_ignore_ascii_case("q") && value.trim().parse() == Ok(0.0)
    });
    known.iter().any(|k| media.eq_ignore_ascii_case(k)) && !refused
}

/// `Prefer: respond-async` (RFC 7240).
pub(super) fn prefers_async(headers: &HeaderMap) -> bool {
    let wanted = |p: &str| p.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("respond-async");
    headers.get_all("prefer").iter().any(|value| value.to_str().is_ok_and(|list| list.split(',').any(wanted)))
}

/// The body as a tree, by its media type. An empty body of any type is an empty mapping.
pub(super) fn body(content_type: Option<&HeaderValue>, bytes: &[u8]) -> Result<Node, Failure> {
    if bytes.is_empty() {
        return Ok(Node::None);
    }
    let bad = |why| Failure::BadBody { why };
    let text = match content_type {
        Some(value) => match value.to_str() {
            Ok(text) => text,
            Err(_) => return Err(Failure::UnsupportedMediaType { got: "unreadable".to_owned() }),
        },
        None => "",
    };
    let media = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_form = media == "application/x-www-form-urlencoded";
    match media.as_str() {
        "application/xml" | "text/xml" | "application/*" | "*/*" => {}
        media if media.ends_with("+xml") => {}
        // `curl -d` calls everything a form, and no form of ours begins so.
        "" | "application/x-www-form-urlencoded" if charset::begins_like_xml(bytes) => {}
        _ if is_form => return form::urlencoded(bytes).map_err(bad),
        "multipart/form-data" => {
            return form::multipart(bytes, parameter(text, "boundary").as_deref().unwrap_or_default()).map_err(bad);
        }
        _ => return Err(Failure::UnsupportedMediaType { got: media }),
    }
    let text = charset::decode(bytes, parameter(text, "charset").as_deref()).map_err(bad)?;
    xml::parse(&text).map_err(bad)
}

/// A parameter of a media type or of a content disposition, without its quotes.
pub(super) fn parameter(text: &str, name: &str) -> Option<String> {
    text.split(';').skip(1).find_map(|p| {
        let (key, value) = p.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn accept() {
        for good in [
            "*/*",
            "application/xml",
            "text/xml",
            "application/*",
            "text/*",
            "Application/XML; charset=euc-kr",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        ] {
            assert!(accepts_xml(&headers("accept", &[good])), "{good}");
        }
        for bad in ["", "application/json", "garbage", "application/xml;q=0", "application/xml; q=0.000, text/html"] {
            assert!(!accepts_xml(&headers("accept", &[bad])), "{bad}");
        }
        assert!(accepts_xml(&HeaderMap::new()));
    }

    #[test]
    fn prefer() {
        for (value, wanted) in [
            ("respond-async", true),
            ("wait=10, Respond-Async", true),
            ("respond-async; x=1", true),
            ("wait=10", false),
            ("respond-asynchronously", false),
        ] {
            assert_eq!(prefers_async(&headers("prefer", &[value])), wanted, "{value}");
        }
    }

    fn read(content_type: &str, bytes: &[u8]) -> Result<Node, u16> {
        let value = HeaderValue::from_str(content_type).unwrap();
        let value = if content_type == "-" { None } else { Some(&value) };
        body(value, bytes).map_err(|failure| failure.status().as_u16())
    }

    #[test]
    fn media_types() {
        let tree = Node::map([("name", Node::text("a"))]);
        let xml = b"<vm><name>a</name></vm>";
        for media in [
            "application/xml",
            "Application/XML; charset=utf-8; x=y",
            "text/xml",
            "application/atom+xml",
            "*/*",
            "application/*",
            "-",
            "",
            "application/x-www-form-urlencoded",
        ] {
            assert_eq!(read(media, xml), Ok(tree.clone()), "{media}");
        }
        assert_eq!(read("application/x-www-form-urlencoded", b"name=a"), Ok(tree));
        for media in ["application/json", "text/plain", "garbage"] {
            assert_eq!(read(media, xml), Err(415), "{media}");
            assert_eq!(read(media, b""), Ok(Node::None), "{media}");
        }
        assert_eq!(read("-", b"name=a"), Err(415));
        assert_eq!(read("application/xml", b"   "), Err(400));
    }

    #[test]
    fn parameters() {
        assert_eq!(parameter("a/b; Charset=\"EUC-KR\"", "charset").as_deref(), Some("EUC-KR"));
        assert_eq!(parameter("a/b", "charset"), None);
    }
}
