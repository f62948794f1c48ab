//! Volumes as files of a directory: storlinks of level FL.
//!
//! Law: a volume appears under its name whole or not at all. It is made as `<name>.part`, brought to the disk, and
//! renamed; `<name>.deleted` is one that was set aside.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::beneath::Dir;
use super::header::{self, HeaderError, MAX_VIRTUAL_BYTES};
use super::image::{self, Image};
use super::patience::within;
use super::{Control, DriverInfo, MAX_ISOS, NewVolume, VolumeDriver};
use crate::error::{Error, ErrorKind, Result};
use crate::exec::{ExecError, Failure, Runner};
use crate::model::{CacheMode, Format, IsoFile, IsoName, MiB, Usage, VolumeFacts, VolumeName, VolumeSource};

/// What only touches metadata.
const PATIENCE: Duration = Duration::from_secs(15);
/// What may have to write out a page cache.
const SYNC_PATIENCE: Duration = Duration::from_secs(300);

const INFO: DriverInfo = DriverInfo { formats: &[Format::Qcow2, Format::Raw], default_format: Format::Qcow2 };

pub struct DirDriver {
    link: PathBuf,
    runner: Arc<dyn Runner>,
}

impl DirDriver {
    /// Touches no storage.
    pub fn open(link: &Path, runner: Arc<dyn Runner>) -> Self {
        Self { link: link.to_owned(), runner }
    }

    fn beneath<T: Send + 'static>(&self, work: impl FnOnce(&Dir) -> Result<T> + Send + 'static) -> Result<T> {
        beneath(&self.link, work)
    }

    /// What is copied, before anything is made: a header that leads elsewhere is refused here.
    fn content(&self, make: &NewVolume) -> Result<Option<Content>> {
        let Some((VolumeSource::File(path), format)) = &make.copy_of else { return Ok(None) };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return Err(Error::not_found("volume", path.display()));
        };
        let (name, declared) = (name.to_owned(), *format);
        let facts = beneath(parent, move |dir| {
            let mut file = dir.open_file(&name)?.ok_or_else(|| Error::not_found("volume", &name))?;
            measure(&mut file, &name, declared)
        })?;
        if facts.virtual_bytes > make.size.bytes() {
            let (size, least) = (make.size, facts.size());
            return Err(Error::invalid("size", format!("{size} MiB cannot hold the {least} MiB of what is copied")));
        }
        Ok(Some(Content { path: path.clone(), facts }))
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
        content: Option<&Content>,
        control: &Control<'_>,
    ) -> Result<()> {
        let path = self.link.join(part(volume));
        let image = Image { path: &path, format: make.format };
        let runner = &*self.runner;
        let filled = match content {
            None => image::create(runner, image, make.size, control),
            Some(content) => {
                let cache = self.cache_mode()?;
                let (from, bytes) = (content.image(), content.facts.virtual_bytes);
                image::convert(runner, from, image, bytes, cache, control).and_then(|()| {
                    if bytes < make.size.bytes() { image::grow(runner, image, make.size, control) } else { Ok(()) }
                })
            }
        };
        filled.map_err(|e| self.explain(volume, need(content), e))
    }

    /// Brings the volume to the disk, makes sure that it is what was asked for, and gives it its name.
    fn finish(&self, volume: &VolumeName, make: &NewVolume, mut file: File) -> Result<()> {
        let (made, format) = (volume.clone(), make.format);
        let facts = within(SYNC_PATIENCE, &self.link, move || {
            file.sync_all().map_err(|e| unreadable(made.as_str(), &e))?;
            measure(&mut file, made.as_str(), format)
        })?;
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

    fn explain(&self, volume: &VolumeName, need: MiB, e: ExecError) -> Error {
        let full = ["No space left on device", "Disk quota exceeded"].iter().any(|words| e.stderr.contains(words));
        if matches!(e.failure, Failure::Cancelled) {
            return cancelled(volume).caused_by(e);
        }
        if !full {
            return Error::from(e).context(format!("making volume {volume}"));
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
        let content = self.content(make)?;
        let file = self.begin(volume, need(content.as_ref()))?;
        let made = self.fill(volume, make, content.as_ref(), control).and_then(|()| self.finish(volume, make, file));
        if made.is_err()
            && let Err(e) = self.unlink(vec![part(volume)])
        {
            tracing::warn!(%volume, error = %e.story(), "an unfinished volume is left");
        }
        made
    }

    fn remove(&self, volume: &VolumeName) -> Result<()> {
        self.unlink(vec![volume.to_string(), part(volume), deleted(volume)])
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
}

/// An image that is copied.
struct Content {
    path: PathBuf,
    facts: VolumeFacts,
}

impl Content {
    fn image(&self) -> Image<'_> {
        Image { path: &self.path, format: self.facts.format }
    }
}

/// What a volume surely takes: as much as its content does, and its own tables.
fn need(content: Option<&Content>) -> MiB {
    content.map_or(MiB(1), |content| MiB::from_bytes_ceil(content.facts.allocated_bytes).max(MiB(1)))
}

fn beneath<T: Send + 'static>(link: &Path, work: impl FnOnce(&Dir) -> Result<T> + Send + 'static) -> Result<T> {
    let path = link.to_owned();
    within(PATIENCE, link, move || work(&Dir::open(&path)?))
}

/// Makes a file, tries something with it, and removes it.
fn with_scratch<T>(dir: &Dir, attempt: impl FnOnce(&str) -> Result<T>) -> Result<T> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!(".pengx-probe-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    dir.make(&name)?;
    let outcome = attempt(&name);
    dir.unlink(&name)?;
    outcome
}

/// For an image from outside: see [`header::read`] for what is refused.
fn examine(file: &mut File, name: &str, declared: Format) -> Result<VolumeFacts> {
    match header::read(file, declared, MAX_VIRTUAL_BYTES) {
        Ok(virtual_bytes) => facts(file, name, declared, virtual_bytes),
        Err(HeaderError::Refused(why)) => Err(Error::refused("the storage", format!("volume {name} {why}"))),
        Err(HeaderError::Io(e)) => Err(unreadable(name, &e)),
    }
}

/// For an image of our own: a guest may have written anything to a raw disk, so all of that is content.
fn measure(file: &mut File, name: &str, format: Format) -> Result<VolumeFacts> {
    match format {
        Format::Raw => {
            let bytes = file.metadata().map_err(|e| unreadable(name, &e))?.len();
            facts(file, name, format, bytes)
        }
        Format::Qcow2 => examine(file, name, format),
    }
}

fn facts(file: &File, name: &str, format: Format, virtual_bytes: u64) -> Result<VolumeFacts> {
    let blocks = file.metadata().map_err(|e| unreadable(name, &e))?.blocks();
    // The kernel counts in units of 512, whatever the blocks of the file system are.
    Ok(VolumeFacts { format, virtual_bytes, allocated_bytes: blocks.saturating_mul(512) })
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
