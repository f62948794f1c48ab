//! ISO images: files on a storlink that people put there, named as they named them.

use std::fmt;
use std::str::FromStr;

use super::{StorlinkId, is_noncharacter};

/// The name of an ISO file: one path component that ends in `.iso`, without control characters and no dot file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IsoName(String);

impl IsoName {
    /// The kernel's limit.
    pub const MAX_BYTES: usize = 255;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IsoName {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let suffix = s.len().checked_sub(4).and_then(|at| s.get(at..));
        if !suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case(".iso")) {
            Err("must end in .iso".to_owned())
        } else if s.starts_with('.') || s.contains('/') || s.chars().any(|c| c.is_control() || is_noncharacter(c)) {
            Err("must be the plain name of a file".to_owned())
        } else if s.len() > Self::MAX_BYTES {
            Err(format!("must have at most {} bytes", Self::MAX_BYTES))
        } else {
            Ok(Self(s.to_owned()))
        }
    }
}

impl fmt::Display for IsoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An ISO file as its storage lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsoFile {
    pub name: IsoName,
    pub bytes: u64,
}

/// An ISO file of a storlink: `2/debian.iso`, as clients write it and as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Iso {
    pub storlink: StorlinkId,
    pub name: IsoName,
}

impl fmt::Display for Iso {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.storlink, self.name)
    }
}

impl FromStr for Iso {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let (storlink, name) =
            s.split_once('/').ok_or_else(|| "must be STORLINK/FILE.iso, as in 2/debian.iso".to_owned())?;
        let storlink = storlink.parse().map_err(|why| format!("the number of the storlink {why}"))?;
        let name = name.parse().map_err(|why| format!("the name of the file {why}"))?;
        Ok(Self { storlink, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_iso_is_a_storlink_and_a_plain_file_name() {
        let iso: Iso = "2/데비안 12.ISO".parse().unwrap();
        assert_eq!((iso.storlink, iso.name.as_str()), (StorlinkId(2), "데비안 12.ISO"));
        assert_eq!(iso.to_string(), "2/데비안 12.ISO");
        let long = format!("1/{}.iso", "a".repeat(252));
        for bad in [
            "",
            "debian.iso",
            "x/debian.iso",
            "1/debian.img",
            "1/.iso",
            "1/../x.iso",
            "1/a/b.iso",
            "1/a\0.iso",
            "1/a\n.iso",
            &long,
        ] {
            assert!(bad.parse::<Iso>().is_err(), "{bad:?}");
        }
    }
}
