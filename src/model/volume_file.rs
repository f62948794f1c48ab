//! What lies on a storlink, as its directory says it; and the names that are made here.

use std::fmt;
use std::str::FromStr;

use chrono::NaiveDateTime;
use uuid::Uuid;

use super::{Format, IsoName, is_noncharacter, words};

words! {
    FileKind {
        File = "file",
        Directory = "directory",
        Symlink = "symlink",
        Fifo = "fifo",
        Socket = "socket",
        Device = "device",
    }
}

/// One entry of a storlink's directory; never what it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeFile {
    /// What is not UTF-8 in it is replaced: such a name is not one of ours.
    pub name: String,
    pub kind: FileKind,
    pub inode: u64,
    /// Its names, this one among them.
    pub links: u64,
    /// As its length says.
    pub bytes: u64,
    /// What it occupies.
    pub allocated_bytes: u64,
    /// Of its content or of anything about it, by the storage's clock; nobody can set it back.
    pub changed_at: NaiveDateTime,
    pub mark: Mark,
}

/// Who made a file, as its own mark says. A mark goes where its file goes, under whatever name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    ThisSite,
    /// Another pengx.
    OtherSite,
    None,
    /// The file system keeps no marks.
    Unsupported,
}

/// The entries that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeFiles {
    /// By name.
    pub files: Vec<VolumeFile>,
    /// How many more there are.
    pub unlisted: u64,
}

/// The name of a file on a storlink, as people write it: one component without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileName(String);

impl FileName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FileName {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let strange = |c: char| c == '/' || c.is_control() || is_noncharacter(c);
        if matches!(s, "" | "." | "..") || s.chars().any(strange) || s.len() > IsoName::MAX_BYTES {
            return Err("must be the plain name of a file".to_owned());
        }
        Ok(Self(s.to_owned()))
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name that pengx gives, or takes for a template that was added: `<uuid>`, `<uuid>.<format>`, `<uuid>.json`, `<uuid>.log`
/// (which may have been set aside as `<uuid>.log.0`), each perhaps unfinished or set aside; or the name of a file that only
/// tries something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MadeName<'a> {
    /// Without `.part` or `.deleted`.
    pub whole: &'a str,
    pub uuid: Option<Uuid>,
    /// Nobody makes a name that only has a uuid, until it is set aside.
    pub bare: bool,
    /// It is being made, or was set aside, or only tries something.
    pub passing: bool,
}

/// How the names of files begin that are made to try something.
pub const PROBE_PREFIX: &str = ".pengx-probe-";

/// How the name of the file begins that marks a directory as a storlink's, before the storlink's uuid.
pub const MARKER_PREFIX: &str = ".pengx-storlink-";

impl<'a> MadeName<'a> {
    /// `None`: no name of ours.
    pub fn parse(name: &'a str) -> Option<Self> {
        if let Some(rest) = name.strip_prefix(PROBE_PREFIX) {
            let (pid, count) = rest.split_once('-')?;
            let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            return (number(pid) && number(count)).then_some(Self {
                whole: name,
                uuid: None,
                bare: false,
                passing: true,
            });
        }
        let whole = name.strip_suffix(".part").or_else(|| name.strip_suffix(".deleted")).unwrap_or(name);
        let (stem, suffix) = match whole.split_once('.') {
            Some((stem, suffix)) => (stem, Some(suffix)),
            None => (whole, None),
        };
        let uuid = Uuid::try_parse(stem).ok().filter(|uuid| uuid.as_hyphenated().to_string() == stem)?;
        let known = |suffix: &str| {
            let begin = suffix.split_once('.').map_or(suffix, |(begin, _)| begin);
            matches!(suffix, "json") || begin == "log" || suffix.parse::<Format>().is_ok()
        };
        let bare = suffix.is_none() && whole == name;
        suffix.is_none_or(known).then_some(Self { whole, uuid: Some(uuid), bare, passing: whole != name })
    }
}

impl VolumeFile {
    /// Whether this site has certainly made it: the name is one that it gives, no other name leads to the file, and its mark
    /// says so; where nothing can be marked, only what is being made or was set aside has a name that nobody else gives.
    pub fn is_made_here(&self) -> bool {
        let plain = self.kind == FileKind::File && self.links == 1;
        let Some(name) = MadeName::parse(&self.name).filter(|_| plain) else { return false };
        match self.mark {
            Mark::ThisSite => !name.bare,
            Mark::Unsupported => name.passing,
            Mark::OtherSite | Mark::None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "bed05d84-7c44-4720-9588-57cbd8ecef8c";

    fn file(name: &str, mark: Mark) -> VolumeFile {
        VolumeFile {
            name: name.to_owned(),
            kind: FileKind::File,
            inode: 7,
            links: 1,
            bytes: 0,
            allocated_bytes: 0,
            changed_at: NaiveDateTime::default(),
            mark,
        }
    }

    #[test]
    fn only_marked_files_with_names_of_ours_are_made_here() {
        for (name, marked, unmarkable) in [
            (ID.to_owned(), false, false),
            (format!("{ID}.qcow2"), true, false),
            (format!("{ID}.raw"), true, false),
            (format!("{ID}.json"), true, false),
            (format!("{ID}.qcow2.part"), true, true),
            (format!("{ID}.json.deleted"), true, true),
            (format!("{ID}.deleted"), true, true),
            (".pengx-probe-12-0".to_owned(), true, true),
            (".pengx-probe-12".to_owned(), false, false),
            (".pengx-probe--1".to_owned(), false, false),
            (".pengx-probe-x-1".to_owned(), false, false),
            (format!("{ID}.vmdk"), false, false),
            (format!("{ID}.qcow2.bak"), false, false),
            (format!("{ID}.qcow2.part.part"), false, false),
            (format!("{ID}.iso"), false, false),
            (format!("{}.qcow2", ID.to_uppercase()), false, false),
            (format!("{}.qcow2", ID.replace('-', "")), false, false),
            (format!(" {ID}.qcow2"), false, false),
            ("notes.txt".to_owned(), false, false),
            (".part".to_owned(), false, false),
            (String::new(), false, false),
        ] {
            assert_eq!(file(&name, Mark::ThisSite).is_made_here(), marked, "{name} with our mark");
            assert_eq!(file(&name, Mark::Unsupported).is_made_here(), unmarkable, "{name} without marks");
            assert!(!file(&name, Mark::None).is_made_here() && !file(&name, Mark::OtherSite).is_made_here(), "{name}");
        }
        let ours = file(&format!("{ID}.qcow2"), Mark::ThisSite);
        assert!(!VolumeFile { links: 2, ..ours.clone() }.is_made_here());
        for kind in FileKind::ALL.iter().copied().filter(|kind| *kind != FileKind::File) {
            assert!(!VolumeFile { kind, ..ours.clone() }.is_made_here(), "{kind}");
        }
    }

    #[test]
    fn a_file_name_is_one_plain_component() {
        for good in ["a", "...", "가상 머신.qcow2", ".hidden", "a%2Fb", "-rf", "a\\b"] {
            assert_eq!(good.parse::<FileName>().unwrap().as_str(), good);
        }
        let long = "a".repeat(256);
        for bad in ["", ".", "..", "/", "a/b", "/etc/passwd", "a\0", "a\nb", "\u{fffe}", &long] {
            assert!(bad.parse::<FileName>().is_err(), "{bad:?}");
        }
    }
}
