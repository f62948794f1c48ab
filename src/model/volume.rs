//! Volumes: images on a storlink. Their names are made here, from uuids only.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::{BackupId, DiskId, MiB, words};

words! {
    /// The format of a volume: declared when it is made, never probed.
    Format {
        Qcow2 = "qcow2",
        Raw = "raw",
    }
}

/// The name of a volume on its storlink: `<disk uuid>.<format>`, or for a template that was added the bare uuid. What lies
/// beside volumes for a time or for good has such a name too: `<backup uuid>.json`, the manifest of a backup, and
/// `<uuid>.log`, what a guest writes to its console.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeName(String);

impl VolumeName {
    pub fn new(disk: DiskId, format: Format) -> Self {
        Self(format!("{disk}.{format}"))
    }

    /// For templates that were brought as a file without a suffix.
    pub fn bare(disk: DiskId) -> Self {
        Self(disk.to_string())
    }

    pub fn manifest(backup: BackupId) -> Self {
        Self(format!("{backup}.{MANIFEST}"))
    }

    pub fn log(id: DiskId) -> Self {
        Self(format!("{id}.{LOG}"))
    }

    pub fn is_log(&self) -> bool {
        self.0.ends_with(&format!(".{LOG}"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const MANIFEST: &str = "json";
const LOG: &str = "log";

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Only what the functions above can make.
impl FromStr for VolumeName {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let (id, format) = match s.split_once('.') {
            Some((id, format)) => (id, Some(format)),
            None => (s, None),
        };
        let disk: DiskId = id.parse()?;
        let name = match format {
            Some(MANIFEST) => Self::manifest(BackupId(disk.0)),
            Some(LOG) => Self::log(disk),
            Some(format) => Self::new(disk, format.parse()?),
            None => Self::bare(disk),
        };
        if name.0 == s { Ok(name) } else { Err("is not the name of a volume".to_owned()) }
    }
}

impl TryFrom<String> for VolumeName {
    type Error = String;
    fn try_from(s: String) -> Result<Self, String> {
        s.parse()
    }
}

impl From<VolumeName> for String {
    fn from(name: VolumeName) -> Self {
        name.0
    }
}

/// What a domain or a tool is given to open.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum VolumeSource {
    File(PathBuf),
}

/// One image of a backing chain. A chain is a list of them: first the one that is written to, and each reads what it does
/// not hold from the next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Layer {
    pub source: VolumeSource,
    pub format: Format,
}

/// What a volume's own header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeFacts {
    pub format: Format,
    /// What the guest sees, in bytes.
    pub virtual_bytes: u64,
    /// What it occupies on the storlink, in bytes.
    pub allocated_bytes: u64,
    /// How long its file is, in bytes.
    pub file_bytes: u64,
}

/// What the header of one image of a chain says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerFacts {
    pub facts: VolumeFacts,
    /// The file that it reads from what it does not hold, and the word for its format.
    pub backing: Option<(PathBuf, Option<String>)>,
    /// It holds nothing yet.
    pub is_blank: bool,
}

impl VolumeFacts {
    pub fn size(&self) -> MiB {
        MiB::from_bytes_ceil(self.virtual_bytes)
    }
}
