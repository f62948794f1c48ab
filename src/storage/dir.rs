//! Volumes as files of a directory: storlinks of level FL.
//!
//! Law: a volume appears under its name whole or not at all. It is made as `<name>.part`, brought to the disk, and
//! renamed; `<name>.deleted` is one that was set aside.

mod bytes;

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use uuid::Uuid;

use super::beneath::Dir;
use super::header::{self, HeaderError, MAX_VIRTUAL_BYTES};
use super::image::{self, Image, Source};
use super::marks::Marker;
use super::patience::within;
use super::{Content, Control, DriverInfo, FileDigest, MAX_FILES, MAX_ISOS, NewVolume, VolumeDriver};
use crate::error::{Error, ErrorKind, Result};
use crate::exec::{ExecError, Failure, Runner};
use crate::model::{
    CacheMode, FileName, Format, IsoFile, IsoName, Layer, LayerFacts, MiB, PROBE_PREFIX, Usage, VolumeFacts,
    VolumeFile, VolumeFiles, VolumeName, VolumeSource,
};

/// What only touches metadata.
const PATIENCE: Duration = Duration::from_secs(15);
/// What may have to write out a page cache.
const SYNC_PATIENCE: Duration = Duration::from_secs(300);

const INFO: DriverInfo = DriverInfo { formats: &[Format::Qcow2, Format::Raw], default_format: Format::Qcow2 };

pub struct DirDriver {
    link: PathBuf,
    runner: Arc<dyn Runner>,
    /// Whose files it makes.
    site: Option<Uuid>,
    marker: Option<Marker>,
}

impl DirDriver {
    /// Touches no storage.
    pub fn open(link: &Path, runner: Arc<dyn Runner>) -> Self {
        Self { link: link.to_owned(), runner, site: None, marker: None }
    }

    /// Marks what it makes.
    #[must_use]
    pub fn of_site(self, site: Uuid) -> Self {
        Self { site: Some(site), ..self }
    }

    /// Tells its directory from others.
    #[must_use]
    pub fn marked(self, marker: Marker) -> Self {
        Self { marker: Some(marker), ..self }
    }

    fn beneath<T: Send + 'static>(&self, work: impl FnOnce(&Dir) -> Result<T> + Send + 'static) -> Result<T> {
        self.beneath_within(PATIENCE, work)
    }

    fn beneath_within<T: Send + 'static>(
        &self,
        patience: Duration,
        work: impl FnOnce(&Dir) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (path, site) = (self.link.clone(), self.site);
        let required = self.marker.clone().filter(|marker| marker.required);
        within(patience, &self.link, move || {
            let dir = Dir::open(&path)?.of_site(site);
            if let Some(marker) = required {
                dir.must_be(&marker.storlink, marker.uuid)?;
            }
            work(&dir)
        })
    }

    /// The chain that is read, before anything is made: a header that leads elsewhere is refused here.
    fn read_through(&self, make: &NewVolume) -> Result<Option<ChainFacts>> {
        let chain = make.content.chain();
        if chain.is_empty() {
            return Ok(None);
        }
        let facts = examine_chain(chain)?;
        if facts.virtual_bytes > make.size.bytes() {
            let (size, least) = (make.size, MiB::from_bytes_ceil(facts.virtual_bytes));
            return Err(Error::invalid("size", format!("{size} MiB cannot hold the {least} MiB of what is copied")));
        }
        Ok(Some(facts))
    }

    /// The empty file that becomes the volume, if there is room for it.
    fn begin(&self, volume: &VolumeName, need: MiB) -> Result<File> {
        let volume = volume.clone();
        self.beneath(move |dir| {
            if dir.file(volume.as_str())?.is_some() {
                return Err(Error::new(ErrorKind::Exists { what: "volume", name: volume.to_string() }));
            }
            let free = dir.usage()?.free;
            if free < need {
                return Err(dir.no_space(need, free));
            }
            dir.make(&part(&volume))
        })
    }

    fn fill(
        &self,
        volume: &VolumeName,
        make: &NewVolume,
        content: Option<&ChainFacts>,
        control: &Control<'_>,
    ) -> Result<(), Failed> {
        let path = self.link.join(part(volume));
        let image = Image { path: &path, format: make.format };
        let runner = &*self.runner;
        match &make.content {
            Content::Zeros => image::create(runner, image, make.size, control)?,
            Content::Overlay(chain) => {
                let below = chain.first().ok_or_else(|| Error::internal("an overlay of nothing"))?;
                image::create_overlay(runner, &path, make.size, below, control)?;
            }
            Content::Copy(chain) | Content::Compressed(chain) => {
                let ChainFacts { virtual_bytes, cache, .. } =
                    *content.ok_or_else(|| Error::internal("a copy of nothing"))?;
                let from = Source { chain, virtual_bytes, cache };
                let packed = matches!(make.content, Content::Compressed(_));
                image::convert(runner, &from, image, packed, self.cache_mode()?, control)?;
                if virtual_bytes < make.size.bytes() {
                    image::grow(runner, image, make.size, control)?;
                }
            }
        }
        Ok(())
    }

    /// The overlay and what is below it, each header read once more; and how large it is.
    fn chain(&self, overlay: &VolumeName, below: &[Layer]) -> Result<(Vec<Layer>, u64)> {
        let top = Layer { source: self.source(overlay)?, format: Format::Qcow2 };
        let chain: Vec<Layer> = std::iter::once(top).chain(below.iter().cloned()).collect();
        let facts = examine_chain(&chain)?;
        Ok((chain, facts.virtual_bytes))
    }

    /// Brings to the disk what a tool has written to an image.
    fn sync_image(&self, layer: Option<&Layer>) -> Result<()> {
        let Some(Layer { source: VolumeSource::File(path), .. }) = layer else { return Ok(()) };
        let (parent, name) = parts(path)?;
        let link = parent.clone();
        within(SYNC_PATIENCE, &parent, move || {
            let dir = Dir::open(&link)?;
            let file = dir.open_file(&name)?.ok_or_else(|| Error::not_found("volume", &name))?;
            file.sync_all().map_err(|e| unreadable(&name, &e))
        })
    }

    /// Brings the volume to the disk, makes sure that it is what was asked for, and gives it its name.
    fn finish(&self, volume: &VolumeName, make: &NewVolume, mut file: File) -> Result<()> {
        let (made, format) = (volume.clone(), make.format);
        let said = within(SYNC_PATIENCE, &self.link, move || {
            file.sync_all().map_err(|e| unreadable(made.as_str(), &e))?;
            measure(&mut file, made.as_str(), format)
        })?;
        let next = if let Content::Overlay(chain) = &make.content { chain.first() } else { None };
        is_on(volume.as_str(), &said, next)?;
        let facts = said.facts;
        if facts.virtual_bytes != make.size.bytes() {
            let (is, asked) = (facts.virtual_bytes, make.size.bytes());
            return Err(Error::refused(
                "qemu-img",
                format!("volume {volume} has {is} bytes where {asked} were asked for"),
            ));
        }
        let volume = volume.clone();
        self.beneath(move |dir| {
            if dir.rename(&part(&volume), volume.as_str())? {
                dir.sync()
            } else {
                Err(Error::not_found("volume", volume))
            }
        })
    }

    fn explain(&self, volume: &VolumeName, need: MiB, failed: Failed) -> Error {
        let e = match failed {
            Failed::Tool(e) => e,
            Failed::Ours(error) => return error,
        };
        let full = ["No space left on device", "Disk quota exceeded"].iter().any(|words| e.stderr.contains(words));
        if matches!(e.failure, Failure::Cancelled) {
            return cancelled(volume).caused_by(e);
        }
        if !full {
            return Error::from(e).context(format!("writing volume {volume}"));
        }
        let free = self.usage().unwrap_or_default().free;
        // It was tried, so it needs more than there is.
        let need = need.max(free + MiB(1));
        let what = format!("the storage at {}", self.link.display());
        Error::new(ErrorKind::NoSpace { what, need, free }).caused_by(e)
    }

    fn rename(&self, from: String, to: String) -> Result<()> {
        self.beneath(move |dir| if dir.rename(&from, &to)? { dir.sync() } else { Ok(()) })
    }

    fn unlink(&self, names: Vec<String>) -> Result<()> {
        self.beneath(move |dir| {
            let mut changed = false;
            for name in &names {
                changed |= dir.unlink(name)?;
            }
            if changed { dir.sync() } else { Ok(()) }
        })
    }
}

impl VolumeDriver for DirDriver {
    fn info(&self) -> &DriverInfo {
        &INFO
    }

    fn check(&self) -> Result<()> {
        self.beneath(|dir| {
            dir.names()?;
            with_scratch(dir, |_| Ok(()))
        })
    }

    fn mark(&self) -> Result<()> {
        let uuid = self.marker.as_ref().map(|marker| marker.uuid);
        beneath(&self.link, move |dir| uuid.map_or(Ok(()), |uuid| dir.mark_as(uuid)))
    }

    fn unmark(&self) -> Result<()> {
        let uuid = self.marker.as_ref().map(|marker| marker.uuid);
        beneath(&self.link, move |dir| uuid.map_or(Ok(()), |uuid| dir.unmark_as(uuid)))
    }

    fn usage(&self) -> Result<Usage> {
        self.beneath(Dir::usage)
    }

    fn create(&self, volume: &VolumeName, make: &NewVolume, control: &Control<'_>) -> Result<()> {
        if make.size == MiB(0) || make.size.bytes() > MAX_VIRTUAL_BYTES {
            let most = MiB::from_bytes_floor(MAX_VIRTUAL_BYTES);
            return Err(Error::invalid("size", format!("must be from 1 to {most} MiB")));
        }
        if control.cancel.load(Ordering::Relaxed) {
            return Err(cancelled(volume));
        }
        let content = self.read_through(make)?;
        let need = need(make, content.as_ref());
        let file = self.begin(volume, need)?;
        let filled = self.fill(volume, make, content.as_ref(), control);
        let filled = filled.map_err(|failed| self.explain(volume, need, failed));
        let made = filled.and_then(|()| self.finish(volume, make, file));
        if made.is_err()
            && let Err(e) = self.unlink(vec![part(volume)])
        {
            tracing::warn!(%volume, error = %e.story(), "an unfinished volume is left");
        }
        made
    }

    fn remove(&self, volume: &VolumeName) -> Result<()> {
        let mut names = vec![volume.to_string(), part(volume), deleted(volume)];
        if volume.is_log() {
            names.extend(self.rolled_over(volume)?);
        }
        self.unlink(names)
    }

    fn set_aside(&self, volume: &VolumeName) -> Result<()> {
        self.rename(volume.to_string(), deleted(volume))
    }

    fn restore(&self, volume: &VolumeName) -> Result<()> {
        self.rename(deleted(volume), volume.to_string())
    }

    fn purge(&self, volume: &VolumeName) -> Result<()> {
        self.unlink(vec![deleted(volume)])
    }

    fn exists(&self, volume: &VolumeName) -> Result<bool> {
        let volume = volume.clone();
        self.beneath(move |dir| Ok(dir.file(volume.as_str())?.is_some()))
    }

    fn probe(&self, volume: &VolumeName, declared: Format) -> Result<VolumeFacts> {
        let volume = volume.clone();
        self.beneath(move |dir| {
            let mut file = dir.open_file(volume.as_str())?.ok_or_else(|| Error::not_found("volume", &volume))?;
            examine(&mut file, volume.as_str(), declared)
        })
    }

    fn layer(&self, volume: &VolumeName, format: Format) -> Result<LayerFacts> {
        let volume = volume.clone();
        self.beneath(move |dir| {
            let mut file = dir.open_file(volume.as_str())?.ok_or_else(|| Error::not_found("volume", &volume))?;
            measure(&mut file, volume.as_str(), format)
        })
    }

    fn is_cut_short(&self, volume: &VolumeName, format: Format) -> Result<bool> {
        if format == Format::Raw {
            return Ok(false);
        }
        let volume = volume.clone();
        self.beneath_within(SYNC_PATIENCE, move |dir| {
            let mut file = dir.open_file(volume.as_str())?.ok_or_else(|| Error::not_found("volume", &volume))?;
            header::is_cut_short(&mut file).map_err(|e| wrong(volume.as_str(), e))
        })
    }

    fn commit(&self, overlay: &VolumeName, below: &[Layer], control: &Control<'_>) -> Result<()> {
        let (chain, bytes) = self.chain(overlay, below)?;
        let done = image::commit(&*self.runner, &chain, bytes, self.cache_mode()?, control);
        done.map_err(|e| self.explain(overlay, MiB(1), e.into()))?;
        self.sync_image(below.first())
    }

    fn pull(&self, overlay: &VolumeName, below: &[Layer], control: &Control<'_>) -> Result<()> {
        let (chain, bytes) = self.chain(overlay, below)?;
        let done = image::rebase(&*self.runner, &chain, bytes, self.cache_mode()?, control);
        done.map_err(|e| self.explain(overlay, MiB(1), e.into()))?;
        self.sync_image(chain.first())
    }

    fn reattach(&self, overlay: &VolumeName, below: &[Layer]) -> Result<()> {
        let top = Layer { source: self.source(overlay)?, format: Format::Qcow2 };
        let onto = below.first().ok_or_else(|| Error::internal("an overlay of nothing"))?;
        let bytes = examine_chain(below)?.virtual_bytes;
        let done = image::reattach(&*self.runner, &top, onto, bytes, self.cache_mode()?);
        done.map_err(|e| self.explain(overlay, MiB(1), e.into()))?;
        self.sync_image(Some(&top))?;
        self.chain(overlay, below).map(drop)
    }

    fn digest(&self, volume: &VolumeName, control: &Control<'_>) -> Result<FileDigest> {
        bytes::digest(&self.link, volume, control)
    }

    fn inspect(&self, volume: &VolumeName, format: Format, control: &Control<'_>) -> Result<()> {
        let size = self.probe(volume, format)?.virtual_bytes;
        let layer = Layer { source: self.source(volume)?, format };
        bytes::verdict(volume, image::check(&*self.runner, &layer, size, control))
    }

    fn write_text(&self, name: &VolumeName, text: &[u8]) -> Result<()> {
        self.put(name, text)
    }

    fn read_text(&self, name: &VolumeName) -> Result<Vec<u8>> {
        bytes::read(&self.link, name)
    }

    fn read_log(&self, name: &VolumeName) -> Result<Vec<u8>> {
        bytes::read_log(&self.link, name)
    }

    fn list(&self) -> Result<Vec<VolumeName>> {
        let names = self.beneath(Dir::names)?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    fn source(&self, volume: &VolumeName) -> Result<VolumeSource> {
        if self.exists(volume)? {
            Ok(VolumeSource::File(self.link.join(volume.as_str())))
        } else {
            Err(Error::not_found("volume", volume))
        }
    }

    fn cache_mode(&self) -> Result<CacheMode> {
        let direct = self.beneath(|dir| with_scratch(dir, |name| dir.opens_direct(name)))?;
        Ok(if direct { CacheMode::None } else { CacheMode::Writeback })
    }

    fn isos(&self) -> Result<Vec<IsoFile>> {
        self.beneath(|dir| {
            let mut names = BTreeSet::new();
            dir.each_name(|name| {
                names.extend(name.parse::<IsoName>().ok());
                if names.len() > MAX_ISOS {
                    names.pop_last();
                }
            })?;
            // Gone since, or no regular file with one name: not listed.
            let file = |name: IsoName| {
                let stat = dir.file(name.as_str()).ok()??;
                Some(IsoFile { name, bytes: u64::try_from(stat.st_size).unwrap_or_default() })
            };
            Ok(names.into_iter().filter_map(file).collect())
        })
    }

    fn iso(&self, name: &IsoName) -> Result<VolumeSource> {
        let path = self.link.join(name.as_str());
        let name = name.clone();
        self.beneath(move |dir| match dir.open_file(name.as_str())? {
            Some(_) => Ok(VolumeSource::File(path)),
            None => Err(Error::refused("the storage", format!("{} is not there", path.display()))),
        })
    }

    fn files(&self) -> Result<VolumeFiles> {
        self.beneath(|dir| dir.entries(MAX_FILES))
    }

    fn file(&self, name: &FileName) -> Result<Option<VolumeFile>> {
        let name = CString::new(name.as_str()).map_err(|e| Error::internal("a name with NUL").caused_by(e))?;
        self.beneath(move |dir| dir.entry(&name))
    }

    fn reader_of(&self, name: &FileName) -> Result<Option<String>> {
        let name = name.clone();
        self.beneath_within(SYNC_PATIENCE, move |dir| dir.reader_of(name.as_str()))
    }

    fn discard(&self, file: &VolumeFile) -> Result<()> {
        let file = file.clone();
        self.beneath(move |dir| dir.discard(&file))
    }
}

/// Why an image could not be filled.
enum Failed {
    Tool(ExecError),
    Ours(Error),
}

impl From<ExecError> for Failed {
    fn from(e: ExecError) -> Self {
        Self::Tool(e)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

/// The images of a chain together.
struct ChainFacts {
    virtual_bytes: u64,
    allocated_bytes: u64,
    /// How all of them can be read.
    cache: CacheMode,
}

/// Each header, and that each image is on the one that comes next.
fn examine_chain(chain: &[Layer]) -> Result<ChainFacts> {
    let mut all = ChainFacts { virtual_bytes: 0, allocated_bytes: 0, cache: CacheMode::None };
    for (n, layer) in chain.iter().enumerate() {
        let VolumeSource::File(path) = &layer.source;
        let (parent, name) = parts(path)?;
        let format = layer.format;
        let (title, next) = (path.display().to_string(), chain.get(n + 1));
        let (said, direct) = beneath(&parent, move |dir| {
            let mut file = dir.open_file(&name)?.ok_or_else(|| Error::not_found("volume", &name))?;
            Ok((measure(&mut file, &name, format)?, dir.opens_direct(&name)?))
        })?;
        is_on(&title, &said, next)?;
        if !direct {
            all.cache = CacheMode::Writeback;
        }
        all.virtual_bytes = all.virtual_bytes.max(said.facts.virtual_bytes);
        all.allocated_bytes += said.facts.allocated_bytes;
    }
    Ok(all)
}

/// Whether an image reads from the one that it must read from, or from none.
fn is_on(title: &str, said: &LayerFacts, next: Option<&Layer>) -> Result<()> {
    let wanted = next.map(|layer| {
        let VolumeSource::File(path) = &layer.source;
        (path.clone(), Some(layer.format.word().to_owned()))
    });
    if said.backing == wanted {
        return Ok(());
    }
    let word = |backing: &Option<(PathBuf, Option<String>)>| match backing {
        Some((path, format)) => {
            format!("{} ({})", path.display(), format.as_deref().unwrap_or("of no stated format"))
        }
        None => "none".to_owned(),
    };
    let is = word(&said.backing);
    let why = match &wanted {
        Some(_) => format!("{title} has the backing file {is}; it should have {}", word(&wanted)),
        None => format!("{title} has a backing file, {is}; it should have none"),
    };
    Err(Error::refused("the storage", why))
}

fn parts(path: &Path) -> Result<(PathBuf, String)> {
    match (path.parent(), path.file_name().and_then(|name| name.to_str())) {
        (Some(parent), Some(name)) => Ok((parent.to_owned(), name.to_owned())),
        _ => Err(Error::not_found("volume", path.display())),
    }
}

/// What a volume surely takes: as much as what it copies does, and its own tables.
fn need(make: &NewVolume, chain: Option<&ChainFacts>) -> MiB {
    match (&make.content, chain) {
        (Content::Copy(_), Some(chain)) => {
            // What is in two images of a chain is copied once.
            MiB::from_bytes_ceil(chain.allocated_bytes.min(chain.virtual_bytes)).max(MiB(1))
        }
        _ => MiB(1),
    }
}

fn beneath<T: Send + 'static>(link: &Path, work: impl FnOnce(&Dir) -> Result<T> + Send + 'static) -> Result<T> {
    let path = link.to_owned();
    within(PATIENCE, link, move || work(&Dir::open(&path)?))
}

/// Makes a file, tries something with it, and removes it.
fn with_scratch<T>(dir: &Dir, attempt: impl FnOnce(&str) -> Result<T>) -> Result<T> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("{PROBE_PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    dir.make(&name)?;
    let outcome = attempt(&name);
    dir.unlink(&name)?;
    outcome
}

/// For an image from outside: see [`header::read`] for what is refused.
fn examine(file: &mut File, name: &str, declared: Format) -> Result<VolumeFacts> {
    match header::read(file, declared, MAX_VIRTUAL_BYTES) {
        Ok(virtual_bytes) => facts(file, name, declared, virtual_bytes),
        Err(e) => Err(wrong(name, e)),
    }
}

/// For an image of our own: a guest may have written anything to a raw disk, so all of that is content.
fn measure(file: &mut File, name: &str, format: Format) -> Result<LayerFacts> {
    match format {
        Format::Raw => {
            let bytes = file.metadata().map_err(|e| unreadable(name, &e))?.len();
            Ok(LayerFacts { facts: facts(file, name, format, bytes)?, backing: None, is_blank: false })
        }
        Format::Qcow2 => {
            let header = header::read_layer(file, MAX_VIRTUAL_BYTES).map_err(|e| wrong(name, e))?;
            let facts = facts(file, name, format, header.virtual_bytes)?;
            let backing = header.backing.map(|(path, format)| (PathBuf::from(path), format));
            Ok(LayerFacts { facts, backing, is_blank: header.is_blank })
        }
    }
}

fn wrong(name: &str, e: HeaderError) -> Error {
    match e {
        HeaderError::Refused(why) => Error::refused("the storage", format!("volume {name} {why}")),
        HeaderError::Io(e) => unreadable(name, &e),
    }
}

fn facts(file: &File, name: &str, format: Format, virtual_bytes: u64) -> Result<VolumeFacts> {
    let said = file.metadata().map_err(|e| unreadable(name, &e))?;
    // The kernel counts in units of 512, whatever the blocks of the file system are.
    let allocated_bytes = said.blocks().saturating_mul(512);
    Ok(VolumeFacts { format, virtual_bytes, allocated_bytes, file_bytes: said.len() })
}

fn unreadable(name: &str, e: &std::io::Error) -> Error {
    Error::refused("the storage", format!("volume {name}: {e}"))
}

fn cancelled(volume: &VolumeName) -> Error {
    Error::new(ErrorKind::Cancelled { what: format!("making volume {volume}") })
}

fn part(volume: &VolumeName) -> String {
    format!("{volume}.part")
}

fn deleted(volume: &VolumeName) -> String {
    format!("{volume}.deleted")
}
