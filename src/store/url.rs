//! Where the database is. No message made here repeats a password.

use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(super) enum Place {
    /// Absolute.
    Sqlite(PathBuf),
    Postgres {
        /// With our defaults for what it leaves open.
        url: String,
        /// Blotted out of libpq's messages, which like to repeat what they could not read.
        password: Option<String>,
    },
}

impl Place {
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix("sqlite://") {
            sqlite(path)
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            postgres(url)
        } else {
            Err("must begin with sqlite:// or postgres://".to_owned())
        }
    }

    /// `text` without the password.
    pub(super) fn redact(&self, text: &str) -> String {
        match self {
            Self::Postgres { url, password } => {
                let text = text.replace(url.as_str(), "(the database's url)");
                password.as_deref().map_or(text.clone(), |p| text.replace(p, "***"))
            }
            Self::Sqlite(_) => text.to_owned(),
        }
    }
}

fn sqlite(path: &str) -> Result<Place, String> {
    if path.is_empty() || path.ends_with('/') || path.contains(['\0', '?', '#']) || path.starts_with(':') {
        return Err("must name a file after sqlite://, without ? and #".to_owned());
    }
    // Absolute, so that a later change of directory cannot move the database, and SQLite never takes it for a `file:` URI.
    let path = std::path::absolute(path).map_err(|e| format!("{path} cannot be made absolute: {e}"))?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    if !directory.is_dir() {
        return Err(format!("there is no directory {}; create it first", directory.display()));
    }
    if path.is_dir() {
        return Err(format!("{} is a directory; name a file in it", path.display()));
    }
    Ok(Place::Sqlite(path))
}

fn postgres(url: &str) -> Result<Place, String> {
    if url.contains(['\0', '#', ' ']) {
        return Err("has a blank, a # or a NUL; write it percent-encoded".to_owned());
    }
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let mut parts: Vec<String> = query.split('&').filter(|p| !p.is_empty()).map(str::to_owned).collect();
    let has = |parts: &[String], key: &str| parts.iter().any(|p| p.split('=').next() == Some(key));
    let defaults = [
        ("connect_timeout", "5"),
        // Without it libpq asks Kerberos first, which costs time and has aborted inside its exit handlers.
        ("gssencmode", "disable"),
        ("application_name", "pengx"),
        // A server that vanished is noticed, in milliseconds.
        ("tcp_user_timeout", "15000"),
        ("keepalives_idle", "15"),
    ];
    for (key, value) in defaults {
        if !has(&parts, key) {
            parts.push(format!("{key}={value}"));
        }
    }
    let authority = base.split_once("://").map_or("", |(_, rest)| rest);
    // A password may hold any character by mistake; the last @ ends it.
    let in_front = authority.rsplit_once('@').and_then(|(user, _)| user.split_once(':')).map(|(_, p)| p);
    let in_query = parts.iter().find_map(|p| p.strip_prefix("password="));
    let password = in_front.or(in_query).filter(|p| !p.is_empty()).map(str::to_owned);
    Ok(Place::Postgres { url: format!("{base}?{}", parts.join("&")), password })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_cannot_be_used_say_why() {
        for (url, why) in [
            ("", "must begin with sqlite:// or postgres://"),
            ("mysql://x", "must begin with sqlite:// or postgres://"),
            ("/var/lib/pengx.db", "must begin with sqlite:// or postgres://"),
            ("sqlite://", "must name a file after sqlite://, without ? and #"),
            ("sqlite://:memory:", "must name a file after sqlite://, without ? and #"),
            ("sqlite:///no/such/directory/pengx.db", "there is no directory /no/such/directory; create it first"),
            ("sqlite:///proc/self", "/proc/self is a directory; name a file in it"),
            ("postgres://h/a b", "has a blank, a # or a NUL; write it percent-encoded"),
        ] {
            assert_eq!(Place::parse(url).unwrap_err(), why, "{url}");
        }
    }

    #[test]
    fn postgres_gets_defaults_only_for_what_is_open() {
        let Place::Postgres { url, password } = Place::parse("postgres://u:p@h/db?connect_timeout=2").unwrap() else {
            panic!("not Postgres")
        };
        assert!(url.starts_with("postgres://u:p@h/db?connect_timeout=2&gssencmode=disable&"), "{url}");
        assert_eq!(url.matches("connect_timeout").count(), 1);
        assert_eq!(password.as_deref(), Some("p"));
    }

    #[test]
    fn passwords_are_blotted_out() {
        for url in ["postgres://u:s3cr@t@h:x/db", "postgres://h/db?password=s3cr@t"] {
            let place = Place::parse(url).unwrap();
            assert_eq!(place.redact("invalid port \"s3cr@t\""), "invalid port \"***\"", "{url}");
        }
    }
}
