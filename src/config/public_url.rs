//! Where clients find the server, if it is not where it listens: behind a proxy that has another name, TLS or a prefix.

use std::fmt;
use std::str::FromStr;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    /// `https`.
    pub secure: bool,
    /// With its port, if that is not the scheme's own; in lower case.
    pub host: String,
    /// Begins with a slash and ends without; or empty.
    pub path: String,
}

impl FromStr for PublicUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} must be like https://panel.example/pengx");
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let (secure, own_port) = match scheme {
            "https" => (true, ":443"),
            "http" => (false, ":80"),
            _ => return Err(wrong()),
        };
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = host.strip_suffix(own_port).unwrap_or(host).to_ascii_lowercase();
        let path = path.trim_end_matches('/');
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~%".contains(&b);
        if host.is_empty() || !host.bytes().all(|b| plain(b) || b"[]:".contains(&b)) {
            return Err(wrong());
        }
        if !path.bytes().all(|b| plain(b) || b == b'/') || path.starts_with("//") {
            return Err(wrong());
        }
        Ok(Self { secure, host, path: path.to_owned() })
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.secure { "https" } else { "http" }, self.host, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_a_host_and_perhaps_a_path() {
        for (text, read) in [
            ("https://Panel.example", "https://panel.example"),
            ("http://panel.example:8080/", "http://panel.example:8080"),
            ("https://panel.example:443/a/b/", "https://panel.example/a/b"),
            ("http://[::1]:80/x", "http://[::1]/x"),
            ("http://10.0.0.1:443/x", "http://10.0.0.1:443/x"),
        ] {
            assert_eq!(text.parse::<PublicUrl>().unwrap().to_string(), read);
        }
        for bad in [
            "",
            "panel.example",
            "ftp://panel.example",
            "https://",
            "https:///x",
            "https://ann@panel.example",
            "https://panel.example/?a",
            "https://panel.example/#a",
            "https://panel.example/a b",
            "https://panel.example//x",
            "HTTPS://panel.example",
        ] {
            assert!(bad.parse::<PublicUrl>().is_err(), "{bad:?}");
        }
    }
}
