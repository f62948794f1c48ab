//! What an image says about itself, read without any tool.
//!
//! Law: an image is accepted only if everything it needs is inside itself. Whatever names another file, needs a key,
//! uses a feature we do not know or contradicts itself is refused, with a sentence that says why. Nothing is allocated
//! by a number that the image gives. Meant for images from outside: a guest may write any bytes to its own raw disk.

use std::io::{self, Read, Seek, SeekFrom};

use crate::model::Format;

/// The largest disk that any image may claim: 64 TiB.
pub const MAX_VIRTUAL_BYTES: u64 = 64 << 40;

const QCOW2_MAGIC: &[u8] = b"QFI\xfb";
/// Fixed fields, up to and with the compression type, padded to eight.
const QCOW2_FIELDS: u64 = 112;
const MAX_CLUSTER_BITS: u32 = 21;
const MAX_L1_BYTES: u64 = 32 << 20;
const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;
const MAX_BACKING_NAME: u64 = 1023;

mod incompatible {
    /// Reference counts may be stale; who opens it for writing repairs them. The data is sound.
    pub(super) const DIRTY: u64 = 1;
    pub(super) const CORRUPT: u64 = 1 << 1;
    pub(super) const EXTERNAL_DATA: u64 = 1 << 2;
    pub(super) const COMPRESSION: u64 = 1 << 3;
    /// Subclusters. They change the geometry and lead nowhere, so they are accepted.
    pub(super) const EXTENDED_L2: u64 = 1 << 4;
    pub(super) const KNOWN: u64 = DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION | EXTENDED_L2;
}

mod extension {
    pub(super) const END: u32 = 0;
    pub(super) const BACKING_FORMAT: u32 = 0xe279_2aca;
    pub(super) const ENCRYPTION: u32 = 0x0537_be77;
    pub(super) const EXTERNAL_DATA: u32 = 0x4441_5441;
}

#[derive(Debug)]
pub enum HeaderError {
    /// A clause about the image: `has a backing file; ...`.
    Refused(String),
    Io(io::Error),
}

impl From<io::Error> for HeaderError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

type Checked<T = ()> = Result<T, HeaderError>;

fn refuse<T>(why: impl Into<String>) -> Checked<T> {
    Err(HeaderError::Refused(why.into()))
}

/// Reads the header of an image that was declared to have this format, and gives the size that a guest would see, in bytes:
/// more than 0, at most `limit` and [`MAX_VIRTUAL_BYTES`].
pub fn read(image: &mut (impl Read + Seek), declared: Format, limit: u64) -> Checked<u64> {
    let file_bytes = image.seek(SeekFrom::End(0))?;
    let head = read_at(image, 0, QCOW2_FIELDS)?;
    if file_bytes == 0 {
        return refuse("is empty");
    }
    let seems = looks_like(&head);
    let virtual_bytes = match declared {
        Format::Raw => match seems {
            None => file_bytes,
            Some(other) => return refuse(format!("is declared raw, but it is a {other} image")),
        },
        Format::Qcow2 => match seems {
            Some("qcow2") => Qcow2::parse(&head)?.check(file_bytes, image, false)?,
            Some(other) => return refuse(format!("is declared qcow2, but it is a {other} image")),
            None => return refuse("is declared qcow2, but it is not one; perhaps it is raw"),
        },
    };
    within_limit(virtual_bytes, limit)
}

/// What the header of an image in a backing chain says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub virtual_bytes: u64,
    /// The name of the backing file, and the word for its format if there is one.
    pub backing: Option<(String, Option<String>)>,
    /// No cluster has been written.
    pub is_blank: bool,
}

/// Reads the header of a qcow2 image of our own. It may have a backing file; all else is refused as in [`read`].
pub fn read_layer(image: &mut (impl Read + Seek), limit: u64) -> Checked<Header> {
    let file_bytes = image.seek(SeekFrom::End(0))?;
    let head = read_at(image, 0, QCOW2_FIELDS)?;
    if looks_like(&head) != Some("qcow2") {
        return refuse("is not a qcow2 image");
    }
    let header = Qcow2::parse(&head)?;
    let virtual_bytes = within_limit(header.check(file_bytes, image, true)?, limit)?;
    let backing = header.backing_file(image)?;
    Ok(Header { virtual_bytes, backing, is_blank: header.is_blank(image)? })
}

/// The name of the backing file of whatever claims to be a qcow2 image, however broken it is otherwise.
pub fn backing_name(image: &mut (impl Read + Seek)) -> io::Result<Option<String>> {
    let head = read_at(image, 0, QCOW2_FIELDS)?;
    let (Some(offset), Some(bytes)) = (be64(&head, 8), be32(&head, 16)) else { return Ok(None) };
    if !head.starts_with(QCOW2_MAGIC) || offset == 0 || bytes == 0 {
        return Ok(None);
    }
    let name = read_at(image, offset, u64::from(bytes).min(MAX_BACKING_NAME))?;
    Ok(Some(String::from_utf8_lossy(&name).into_owned()))
}

fn within_limit(virtual_bytes: u64, limit: u64) -> Checked<u64> {
    let limit = limit.min(MAX_VIRTUAL_BYTES);
    match virtual_bytes {
        0 => refuse("has a size of 0"),
        n if n > limit => refuse(format!("has a size of {n} bytes; at most {limit} are allowed")),
        n => Ok(n),
    }
}

/// Which image format the first bytes announce, if any.
fn looks_like(head: &[u8]) -> Option<&'static str> {
    if head.starts_with(QCOW2_MAGIC) {
        return Some(if be32(head, 4) == Some(1) { "qcow" } else { "qcow2" });
    }
    // The mark of VirtualBox is behind a line of text that may be anything.
    if head.get(64..68) == Some(b"\x7f\x10\xda\xbe") {
        return Some("vdi");
    }
    let marks: [(&[u8], &str); 11] = [
        (b"QED\0", "qed"),
        (b"KDMV", "vmdk"),
        (b"COWD", "vmdk"),
        (b"# Disk DescriptorFile", "vmdk"),
        (b"vhdxfile", "vhdx"),
        (b"conectix", "vhd"),
        (b"LUKS\xba\xbe", "luks"),
        (b"WithoutFreeSpace", "parallels"),
        (b"WithouFreSpacExt", "parallels"),
        (b"Bochs Virtual HD Image", "bochs"),
        (b"#!/bin/sh\n#V2.0 Format", "cloop"),
    ];
    marks.iter().find(|(mark, _)| head.starts_with(mark)).map(|(_, name)| *name)
}

/// The fields of a qcow2 header, versions 2 and 3.
struct Qcow2 {
    version: u32,
    backing: (u64, u32),
    cluster_bits: u32,
    virtual_bytes: u64,
    encryption: u32,
    l1_entries: u32,
    l1_offset: u64,
    refcount_offset: u64,
    refcount_clusters: u32,
    snapshots: u32,
    incompatible: u64,
    refcount_order: u32,
    header_bytes: u32,
    compression: u8,
}

impl Qcow2 {
    fn parse(head: &[u8]) -> Checked<Self> {
        match Self::fields(head) {
            Some(header) if matches!(header.version, 2 | 3) => Ok(header),
            Some(header) => refuse(format!("has qcow2 version {}; 2 and 3 are known", header.version)),
            None => refuse("ends inside its own header"),
        }
    }

    fn fields(head: &[u8]) -> Option<Self> {
        let version = be32(head, 4)?;
        let v3 = version >= 3;
        let header_bytes = if v3 { be32(head, 100)? } else { 72 };
        // Old headers end before the compression type: what stands there is an extension.
        let compression = if header_bytes > 104 { *head.get(104)? } else { 0 };
        Some(Self {
            version,
            backing: (be64(head, 8)?, be32(head, 16)?),
            cluster_bits: be32(head, 20)?,
            virtual_bytes: be64(head, 24)?,
            encryption: be32(head, 32)?,
            l1_entries: be32(head, 36)?,
            l1_offset: be64(head, 40)?,
            refcount_offset: be64(head, 48)?,
            refcount_clusters: be32(head, 56)?,
            snapshots: be32(head, 60)?,
            incompatible: if v3 { be64(head, 72)? } else { 0 },
            refcount_order: if v3 { be32(head, 96)? } else { 4 },
            header_bytes,
            compression,
        })
    }

    fn check(&self, file_bytes: u64, image: &mut (impl Read + Seek), in_chain: bool) -> Checked<u64> {
        if self.backing != (0, 0) && !in_chain {
            return refuse("has a backing file; make it self-contained with qemu-img convert");
        }
        self.check_self_contained()?;
        self.check_features()?;
        self.check_geometry(file_bytes)?;
        self.check_extensions(file_bytes, image, in_chain)?;
        Ok(self.virtual_bytes)
    }

    fn check_self_contained(&self) -> Checked {
        if self.incompatible & incompatible::EXTERNAL_DATA != 0 {
            return refuse("keeps its data in another file; make it self-contained with qemu-img convert");
        }
        if self.encryption != 0 {
            return refuse("is encrypted");
        }
        if self.snapshots != 0 {
            let n = self.snapshots;
            return refuse(format!("holds {n} internal snapshots; delete them or use qemu-img convert"));
        }
        Ok(())
    }

    fn check_features(&self) -> Checked {
        let unknown = self.incompatible & !incompatible::KNOWN;
        if unknown != 0 {
            return refuse(format!("needs features that are not known here (bits {unknown:#x})"));
        }
        if self.incompatible & incompatible::CORRUPT != 0 {
            return refuse("is marked corrupt; repair it with qemu-img check");
        }
        let marked = self.incompatible & incompatible::COMPRESSION != 0;
        match self.compression {
            0 if !marked => Ok(()),
            1 if marked => Ok(()),
            n => refuse(format!("contradicts itself about its compression (type {n})")),
        }
    }

    fn check_geometry(&self, file_bytes: u64) -> Checked {
        let extended = self.incompatible & incompatible::EXTENDED_L2 != 0;
        let least_bits = if extended { 14 } else { 9 };
        if !(least_bits..=MAX_CLUSTER_BITS).contains(&self.cluster_bits) {
            return refuse(format!("has clusters of 2^{} bytes", self.cluster_bits));
        }
        let cluster = 1_u64 << self.cluster_bits;
        let header_bytes = u64::from(self.header_bytes);
        let shortest = if self.version >= 3 { 104 } else { 72 };
        if header_bytes < shortest || header_bytes > cluster || !header_bytes.is_multiple_of(8) {
            return refuse(format!("has a header of {header_bytes} bytes"));
        }
        if self.refcount_order > 6 {
            return refuse(format!("has reference counts of 2^{} bits", self.refcount_order));
        }
        let reach = cluster * (cluster / if extended { 16 } else { 8 });
        let l1_bytes = u64::from(self.l1_entries) * 8;
        if u64::from(self.l1_entries) < self.virtual_bytes.div_ceil(reach) || l1_bytes > MAX_L1_BYTES {
            let (entries, size) = (self.l1_entries, self.virtual_bytes);
            return refuse(format!("has a first table of {entries} entries for {size} bytes"));
        }
        let refcount_bytes = u64::from(self.refcount_clusters) * cluster;
        if refcount_bytes == 0 || refcount_bytes > MAX_REFCOUNT_TABLE_BYTES {
            return refuse(format!("has a reference count table of {refcount_bytes} bytes"));
        }
        for (offset, bytes) in [(self.l1_offset, l1_bytes), (self.refcount_offset, refcount_bytes)] {
            let inside = offset.checked_add(bytes).is_some_and(|end| end <= file_bytes);
            if offset == 0 || !offset.is_multiple_of(cluster) || !inside {
                return refuse(format!("has a table of {bytes} bytes at {offset}, outside the file; is it cut short?"));
            }
        }
        Ok(())
    }

    /// Extensions fill the rest of the first cluster; those not known may be skipped, but none may leave it.
    fn check_extensions(&self, file_bytes: u64, image: &mut (impl Read + Seek), in_chain: bool) -> Checked {
        let end = file_bytes.min(1 << self.cluster_bits);
        let mut at = u64::from(self.header_bytes);
        while at < end {
            let Some(room) = end.checked_sub(at + 8) else { return refuse("has a header extension that is cut short") };
            let head = read_at(image, at, 8)?;
            let (Some(kind), Some(bytes)) = (be32(&head, 0), be32(&head, 4)) else {
                return refuse("has a header extension that is cut short");
            };
            match kind {
                extension::END => return Ok(()),
                extension::BACKING_FORMAT if !in_chain => return refuse("names the format of a backing file"),
                extension::EXTERNAL_DATA => return refuse("names another file for its data"),
                extension::ENCRYPTION => return refuse("is encrypted"),
                _ => {}
            }
            if u64::from(bytes) > room {
                return refuse(format!("has a header extension of {bytes} bytes where {room} are left"));
            }
            at += 8 + u64::from(bytes).next_multiple_of(8);
        }
        Ok(())
    }
}

impl Qcow2 {
    /// The name, and the word for the format that the extension gives.
    fn backing_file(&self, image: &mut (impl Read + Seek)) -> Checked<Option<(String, Option<String>)>> {
        let (offset, bytes) = (self.backing.0, u64::from(self.backing.1));
        if offset == 0 || bytes == 0 {
            return Ok(None);
        }
        // QEMU takes no longer ones.
        if bytes > MAX_BACKING_NAME || offset > (1 << self.cluster_bits) - bytes {
            return refuse(format!("names a backing file in {bytes} bytes at {offset}"));
        }
        let text = |bytes: Vec<u8>, what: &str| match String::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(_) => refuse(format!("has a {what} that is not UTF-8")),
        };
        let name = text(read_at(image, offset, bytes)?, "backing file")?;
        let format = self.extension(image, extension::BACKING_FORMAT)?;
        Ok(Some((name, format.map(|format| text(format, "backing format")).transpose()?)))
    }

    /// The content of one extension; the list has been checked.
    fn extension(&self, image: &mut (impl Read + Seek), wanted: u32) -> Checked<Option<Vec<u8>>> {
        let mut at = u64::from(self.header_bytes);
        while at + 8 <= 1 << self.cluster_bits {
            let head = read_at(image, at, 8)?;
            let (Some(kind), Some(bytes)) = (be32(&head, 0), be32(&head, 4)) else { return Ok(None) };
            if kind == extension::END {
                return Ok(None);
            }
            if kind == wanted {
                return Ok(Some(read_at(image, at + 8, u64::from(bytes))?));
            }
            at += 8 + u64::from(bytes).next_multiple_of(8);
        }
        Ok(None)
    }

    /// Whether the first table is empty.
    fn is_blank(&self, image: &mut (impl Read + Seek)) -> Checked<bool> {
        image.seek(SeekFrom::Start(self.l1_offset))?;
        let mut left = image.take(u64::from(self.l1_entries) * 8);
        let mut chunk = [0; 4096];
        loop {
            match left.read(&mut chunk)? {
                0 => return Ok(true),
                n if chunk.iter().take(n).any(|byte| *byte != 0) => return Ok(false),
                _ => {}
            }
        }
    }
}

/// Fewer bytes where the file ends.
fn read_at(image: &mut (impl Read + Seek), offset: u64, bytes: u64) -> io::Result<Vec<u8>> {
    image.seek(SeekFrom::Start(offset))?;
    let mut head = Vec::new();
    image.take(bytes).read_to_end(&mut head)?;
    Ok(head)
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

mod tables;

pub use tables::is_cut_short;

#[cfg(test)]
mod tests;
