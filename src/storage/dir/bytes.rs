//! The bytes of a volume's file, and the small files that lie beside volumes.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::atomic::Ordering;

use rustix::fs::{Advice, fadvise};
use sha2::{Digest, Sha256};

use super::{DirDriver, PATIENCE, SYNC_PATIENCE, beneath, part, unreadable};
use crate::error::{Error, ErrorKind, Result};
use crate::exec::{ExecError, Failure};
use crate::model::{MiB, VolumeName};
use crate::patience::begin;
use crate::storage::beneath::Dir;
use crate::storage::{BLOCK, Control, FileDigest, MAX_LOG, MAX_TEXT};

/// What `qemu-img check` ends with when tables contradict one another.
const ERRORS_FOUND: i32 = 2;
/// The same when there is space that nothing uses; what is used is sound.
const LEAKS_FOUND: i32 = 3;

/// Each block has a deadline of its own: a file may be large, and a mount dead.
pub(super) fn digest(link: &Path, volume: &VolumeName, control: &Control<'_>) -> Result<FileDigest> {
    let mut reading = Reading::begin(link, volume)?;
    let total = reading.length;
    let mut said = FileDigest { bytes: 0, blocks: Vec::new() };
    let mut block = Vec::new();
    let mut spare = Vec::new();
    loop {
        if control.cancel.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Cancelled { what: format!("reading volume {volume}") }));
        }
        // The storage reads one block while another one is hashed.
        let next = begin(PATIENCE, link, move || reading.block(spare))?;
        if !block.is_empty() {
            said.blocks.push(hex(&Sha256::digest(&block)));
            said.bytes += u64::try_from(block.len()).unwrap_or(u64::MAX);
            let percent = said.bytes.saturating_mul(100).checked_div(total).unwrap_or(100);
            (control.progress)(u32::try_from(percent.min(100)).unwrap_or(100));
        }
        spare = block;
        (reading, block) = next.end()?;
        if block.is_empty() {
            return Ok(said);
        }
    }
}

/// A file that is read from its beginning.
struct Reading {
    file: File,
    name: String,
    length: u64,
    at: u64,
}

impl Reading {
    fn begin(link: &Path, volume: &VolumeName) -> Result<Self> {
        let volume = volume.clone();
        beneath(link, move |dir| {
            let file = open(dir, &volume)?;
            let length = file.metadata().map_err(|e| unreadable(volume.as_str(), &e))?.len();
            Ok(Self { file, name: volume.to_string(), length, at: 0 })
        })
    }

    /// The next block, empty at the end. It comes from the storage: what the page cache holds is not what the storage gives.
    /// Where nothing can be dropped, the cache is what there is.
    fn block(mut self, mut buffer: Vec<u8>) -> Result<(Self, Vec<u8>)> {
        buffer.clear();
        fadvise(&self.file, self.at, NonZeroU64::new(BLOCK), Advice::DontNeed).ok();
        let read = (&self.file).take(BLOCK).read_to_end(&mut buffer).map_err(|e| unreadable(&self.name, &e))?;
        self.at += u64::try_from(read).unwrap_or(u64::MAX);
        Ok((self, buffer))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing into a String cannot fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

fn open(dir: &Dir, name: &VolumeName) -> Result<File> {
    dir.open_file(name.as_str())?.ok_or_else(|| Error::not_found("volume", name))
}

impl DirDriver {
    /// Whole or not at all.
    pub(super) fn put(&self, name: &VolumeName, text: &[u8]) -> Result<()> {
        if text.len() > MAX_TEXT {
            let why = format!("{name} would have {} bytes; at most {MAX_TEXT} are allowed", text.len());
            return Err(Error::refused("pengx", why));
        }
        let (name, text) = (name.clone(), text.to_owned());
        self.beneath_within(SYNC_PATIENCE, move |dir| {
            if dir.file(name.as_str())?.is_some() {
                return Err(Error::new(ErrorKind::Exists { what: "volume", name: name.to_string() }));
            }
            let mut file = dir.make(&part(&name))?;
            let written = match file.write_all(&text).and_then(|()| file.sync_all()) {
                Ok(()) => dir.rename(&part(&name), name.as_str()).and_then(|_| dir.sync()),
                Err(e) if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                    let need = MiB::from_bytes_ceil(u64::try_from(text.len()).unwrap_or(u64::MAX));
                    let free = dir.usage()?.free;
                    // It was tried, so it needs more than there is.
                    Err(dir.no_space(need.max(free + MiB(1)), free).caused_by(e))
                }
                Err(e) => Err(unreadable(name.as_str(), &e)),
            };
            if written.is_err() {
                dir.unlink(&part(&name))?;
            }
            written
        })
    }

    /// A daemon that logs for a hypervisor sets aside what became too long, as `<name>.0` and so on.
    pub(super) fn rolled_over(&self, log: &VolumeName) -> Result<Vec<String>> {
        let begin = format!("{log}.");
        self.beneath(move |dir| {
            let mut found = Vec::new();
            dir.each_name(|name| {
                let number = name.strip_prefix(&begin);
                if number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())) {
                    found.push(name.to_owned());
                }
            })?;
            Ok(found)
        })
    }
}

pub(super) fn read(link: &Path, name: &VolumeName) -> Result<Vec<u8>> {
    let text = head(link, name, MAX_TEXT + 1)?;
    if text.len() > MAX_TEXT {
        return Err(Error::refused("the storage", format!("{name} has more than {MAX_TEXT} bytes")));
    }
    Ok(text)
}

pub(super) fn read_log(link: &Path, name: &VolumeName) -> Result<Vec<u8>> {
    head(link, name, MAX_LOG)
}

/// So many bytes of a file, or all of it.
fn head(link: &Path, name: &VolumeName, most: usize) -> Result<Vec<u8>> {
    let name = name.clone();
    beneath(link, move |dir| {
        let mut text = Vec::new();
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        let read = open(dir, &name)?.take(most).read_to_end(&mut text);
        read.map_err(|e| unreadable(name.as_str(), &e))?;
        Ok(text)
    })
}

/// What a check has found, in our words.
pub(super) fn verdict(volume: &VolumeName, checked: Result<(), ExecError>) -> Result<()> {
    match checked {
        Err(e) if matches!(e.failure, Failure::Exit(LEAKS_FOUND)) => Ok(()),
        Err(e) if matches!(e.failure, Failure::Exit(ERRORS_FOUND)) => {
            let why = format!("the tables of volume {volume} contradict one another");
            Err(Error::refused("the storage", why).caused_by(e))
        }
        other => other.map_err(|e| Error::from(e).context(format!("checking volume {volume}"))),
    }
}
