//! What a storlink can do. A volume is named by the rows, never found by scanning; formats are declared, never probed.
//! Every call blocks, and ends within a deadline.

mod beneath;
pub mod dir;
pub mod header;
pub mod image;
pub mod marks;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::exec::Runner;
use crate::model::{
    CacheMode, FileName, Format, IsoFile, IsoName, Layer, LayerFacts, MiB, Storlink, StorlinkLevel, StorlinkType,
    Usage, VolumeFacts, VolumeFile, VolumeFiles, VolumeName, VolumeSource,
};
use crate::patience;

/// One storlink.
///
/// Laws, held by one test suite over every driver: `create` makes the whole volume or leaves nothing under its name;
/// `remove`, `set_aside`, `restore` and `purge` may be repeated; nothing outside the storlink is ever opened or removed.
pub trait VolumeDriver: Send + Sync {
    fn info(&self) -> &DriverInfo;

    /// The link exists and is usable; else the error says what is wrong with it.
    fn check(&self) -> Result<()>;

    /// Marks the place as this storlink's, so that it is told from another one under the same path; again is success.
    fn mark(&self) -> Result<()>;

    /// Takes this storlink's mark from the place; none is success.
    fn unmark(&self) -> Result<()>;

    /// Read now, never cached.
    fn usage(&self) -> Result<Usage>;

    /// Makes a volume under a name that is free. On an error, or if the process dies, at most the unfinished volume is
    /// left, which [`VolumeDriver::remove`] clears.
    fn create(&self, volume: &VolumeName, make: &NewVolume, control: &Control<'_>) -> Result<()>;

    /// Finished, unfinished or set aside; absent is success.
    fn remove(&self, volume: &VolumeName) -> Result<()>;

    /// Takes a volume out of sight, so that it can come back; absent is success.
    fn set_aside(&self, volume: &VolumeName) -> Result<()>;

    /// Brings back what was set aside; nothing to bring back is success.
    fn restore(&self, volume: &VolumeName) -> Result<()>;

    /// Removes for good what was set aside; absent is success.
    fn purge(&self, volume: &VolumeName) -> Result<()>;

    /// Whether the volume is there.
    fn exists(&self, volume: &VolumeName) -> Result<bool>;

    /// Reads the volume's own header and refuses what could lead anywhere else: backing files, external data files,
    /// unknown features, absurd sizes, another format than the declared one.
    fn probe(&self, volume: &VolumeName, declared: Format) -> Result<VolumeFacts>;

    /// As [`VolumeDriver::probe`] for a volume of our own, which may be the overlay of another one: who asks compares what is
    /// said with what must be.
    fn layer(&self, volume: &VolumeName, format: Format) -> Result<LayerFacts>;

    /// Whether an image says that it has data where its file has ended. Of a very large one not all tables are read.
    fn is_cut_short(&self, volume: &VolumeName, format: Format) -> Result<bool>;

    /// Writes what `overlay` holds into the next image of its chain, `below`, which must not be in use. Whatever moment it is
    /// stopped at, the overlay still shows what it showed, and it may be done again. The overlay stays.
    fn commit(&self, overlay: &VolumeName, below: &[Layer], control: &Control<'_>) -> Result<()>;

    /// Copies into `overlay` whatever it reads from the next image of its chain, `below`, and makes it the overlay of the one
    /// after that, or of none. It must not be in use. Stopped at any moment it still shows what it showed.
    fn pull(&self, overlay: &VolumeName, below: &[Layer], control: &Control<'_>) -> Result<()>;

    /// Writes into the header of `overlay`, and nowhere else, that it reads from the first of `below`, which shows what it read
    /// until now. It must not be in use; nothing is looked for in what it read until now, which may be gone.
    fn reattach(&self, overlay: &VolumeName, below: &[Layer]) -> Result<()>;

    /// Reads every byte of a volume's file from the storage.
    fn digest(&self, volume: &VolumeName, control: &Control<'_>) -> Result<FileDigest>;

    /// Lets the tool of its format look whether the tables of a volume that is self-contained agree with one another.
    fn inspect(&self, volume: &VolumeName, format: Format, control: &Control<'_>) -> Result<()>;

    /// Puts a text under a name that is free, [`MAX_TEXT`] bytes at most; whole or not at all, and on the disk. Like a volume
    /// it can be removed and set aside.
    fn write_text(&self, name: &VolumeName, text: &[u8]) -> Result<()>;

    /// A text of at most [`MAX_TEXT`] bytes.
    fn read_text(&self, name: &VolumeName) -> Result<Vec<u8>>;

    /// The first [`MAX_LOG`] bytes of what was logged so far, to a file that somebody writes to.
    fn read_log(&self, name: &VolumeName) -> Result<Vec<u8>>;

    /// Every volume by its proper name, set-aside and unfinished ones not among them.
    fn list(&self) -> Result<Vec<VolumeName>>;

    /// What a domain is given.
    fn source(&self, volume: &VolumeName) -> Result<VolumeSource>;

    /// How a domain should open its volumes here.
    fn cache_mode(&self) -> Result<CacheMode>;

    /// The ISO images that people put here, by name, [`MAX_ISOS`] at most. What [`VolumeDriver::iso`] would refuse for its
    /// kind or its name is not among them.
    fn isos(&self) -> Result<Vec<IsoFile>>;

    /// What a domain is given for its drive, to be read only and as it is: nothing looks into it. `Refused` says why it
    /// cannot be had.
    fn iso(&self, name: &IsoName) -> Result<VolumeSource>;

    /// Whatever lies here, each entry as it is itself: [`MAX_FILES`] at most, those whose names could be ours first.
    fn files(&self) -> Result<VolumeFiles>;

    /// One of these, by name; `None` if it is not there.
    fn file(&self, name: &FileName) -> Result<Option<VolumeFile>>;

    /// An image here whose header says that it reads from a file of this name, wherever that is.
    fn reader_of(&self, name: &FileName) -> Result<Option<String>>;

    /// Removes a file for good that is still what it was when it was listed; gone is success.
    fn discard(&self, file: &VolumeFile) -> Result<()>;
}

/// The most entries of one listing of files.
pub const MAX_FILES: usize = 10_000;

/// The most ISO images of one list.
pub const MAX_ISOS: usize = 10_000;

/// The longest text beside volumes, in bytes: the hashes of some 15 TiB.
pub const MAX_TEXT: usize = 64 << 20;

/// What is looked at of a log, in bytes.
pub const MAX_LOG: usize = 4 << 20;

/// So many bytes of a file have one hash.
pub const BLOCK: u64 = 16 << 20;

/// What the bytes of a file are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDigest {
    pub bytes: u64,
    /// SHA-256 of each [`BLOCK`] bytes and of the rest, in hexadecimal.
    pub blocks: Vec<String>,
}

/// What a driver can do, as data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverInfo {
    pub formats: &'static [Format],
    /// Format of a disk for which none was asked.
    pub default_format: Format,
}

/// A volume to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVolume {
    pub format: Format,
    /// At least as large as what it is copied from.
    pub size: MiB,
    pub content: Content,
}

/// What a new volume shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Zeros,
    /// A full, self-contained copy of what this chain shows; zeros stay sparse.
    Copy(Vec<Layer>),
    /// The same in the clusters of qcow2 that zstd makes smaller.
    Compressed(Vec<Layer>),
    /// What this chain shows, and nothing of its own: qcow2, and as large as the chain.
    Overlay(Vec<Layer>),
}

impl Content {
    /// What is copied or read through.
    pub fn chain(&self) -> &[Layer] {
        match self {
            Self::Zeros => &[],
            Self::Copy(chain) | Self::Compressed(chain) | Self::Overlay(chain) => chain,
        }
    }
}

/// How the one who asked follows and stops a long call.
pub struct Control<'a> {
    /// Set from another thread: the call ends soon, with `Cancelled`.
    pub cancel: &'a AtomicBool,
    /// Percent of this call.
    pub progress: &'a (dyn Fn(u32) + Sync),
}

/// The driver of a storlink. Touches no storage; [`VolumeDriver::check`] does. What it makes has no mark: see [`open_for`].
pub fn open(storlink: &Storlink, runner: Arc<dyn Runner>) -> Result<Box<dyn VolumeDriver>> {
    Ok(Box::new(directory(storlink, runner)?))
}

/// As [`open`], for a site, whose mark goes to what it makes.
pub fn open_for(site: Uuid, storlink: &Storlink, runner: Arc<dyn Runner>) -> Result<Box<dyn VolumeDriver>> {
    Ok(Box::new(directory(storlink, runner)?.of_site(site)))
}

fn directory(storlink: &Storlink, runner: Arc<dyn Runner>) -> Result<dir::DirDriver> {
    use StorlinkType::{FibreChannel, Iscsi, Local, Nfs};
    match (storlink.level, storlink.kind) {
        (StorlinkLevel::File, Local | Nfs | FibreChannel | Iscsi) => {
            let marker = marks::Marker::new(&storlink.name, storlink.uuid, storlink.marked);
            Ok(dir::DirDriver::open(Path::new(&storlink.link), runner).marked(marker))
        }
        (level, kind) => Err(Error::new(ErrorKind::Unsupported {
            what: format!("hold volumes; use type LO, NFS, FC or ISC with level {}", StorlinkLevel::File),
            by: format!("a storlink of type {kind} and level {level}"),
        })),
    }
}
