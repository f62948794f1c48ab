//! Images against their records: there, whole, of the right size, reading from the right ones; and what belongs to nobody.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use crate::error::{ErrorKind, Result};
use crate::model::{Disk, DiskOwner, Format, LayerFacts, MiB, VolumeSource};
use crate::operations::ledger::{self, OwnerKind};
use crate::store::ledger::Owned;

use super::{Look, Remedy};

const NO_GUESS: &str = "what an image holds is not changed by guess; restore it, or delete what it belongs to";

impl Look<'_> {
    /// Every volume that has a record.
    pub(super) fn images(&mut self) {
        let mut reads = HashMap::new();
        for owned in self.rows.disks.clone() {
            let busy = match owned.disk.owner {
                DiskOwner::Template(id) => self.rows.changes(id),
                _ => owned.vm.is_some_and(|vm| self.is_busy(vm)),
            };
            if !busy {
                self.image(&owned, &mut reads);
            }
        }
        self.circles_of_images(&reads);
    }

    fn image(&mut self, owned: &Owned, reads: &mut HashMap<PathBuf, PathBuf>) {
        let disk = &owned.disk;
        let Some((driver, storlink)) = self.driver(disk.storlink) else { return };
        let what = format!("disk {} of {}", disk.order, owned.by);
        match driver.layer(&disk.volume, disk.format) {
            Ok(said) => {
                let short = driver.is_cut_short(&disk.volume, disk.format);
                if let (Some(path), Some((below, _))) = (self.path(disk), &said.backing) {
                    reads.insert(path, below.clone());
                }
                for wrong in self.against_record(disk, &said, &short) {
                    self.find(format!("{what}: {wrong}"), Err(NO_GUESS));
                }
            }
            Err(error) => match error.kind() {
                ErrorKind::NotFound { .. } => {
                    let said = format!("{what}: volume {} is not on storlink {storlink}", disk.volume);
                    self.find(said, Err("only whoever took it away, or a backup, can bring it back"));
                }
                ErrorKind::Refused { why, .. } => self.find(format!("{what}: {why}"), Err(NO_GUESS)),
                _ => self.forget(disk.storlink, &error),
            },
        }
    }

    /// What an image says of itself against what its record says.
    fn against_record(&self, disk: &Disk, said: &LayerFacts, short: &Result<bool>) -> Vec<String> {
        let (volume, bytes, must) = (&disk.volume, said.facts.virtual_bytes, disk.size.bytes());
        let mut wrong = Vec::new();
        // A template that was added may end within a MiB, and its record is rounded up.
        if said.facts.size() != disk.size {
            let short = if disk.format == Format::Raw && bytes < must { ", so it is cut short" } else { "" };
            wrong.push(format!("volume {volume} has {bytes} bytes, and its record says {must}{short}"));
        }
        if matches!(short, Ok(true)) {
            wrong.push(format!("volume {volume} is cut short: it says that it has data beyond its end"));
        }
        let below = disk.backing.and_then(|id| self.rows.disk(id)).map(|below| &below.disk);
        let wanted = below.map(|below| self.path(below).map(|path| (path, Some(below.format.word().to_owned()))));
        let (is, must) = match (&said.backing, wanted) {
            // What it must read from is not there, or cannot be seen: that is said elsewhere.
            (_, Some(None)) => return wrong,
            (None, None) => return wrong,
            (Some(is), Some(Some(must))) if *is == must => return wrong,
            (is, must) => (is.clone(), must.flatten()),
        };
        let word = |backing: Option<(PathBuf, Option<String>)>| match backing {
            Some((path, format)) => {
                format!("{} ({})", path.display(), format.unwrap_or_else(|| "of no stated format".to_owned()))
            }
            None => "nothing".to_owned(),
        };
        wrong.push(format!("volume {volume} reads from {}, and its record says {}", word(is), word(must)));
        wrong
    }

    /// Where a volume is; `None` if it is not there, or its storlink does not answer.
    pub(super) fn path(&self, disk: &Disk) -> Option<PathBuf> {
        let (driver, _) = self.driver(disk.storlink)?;
        let VolumeSource::File(path) = driver.source(&disk.volume).ok()?;
        Some(path)
    }

    fn circles_of_images(&mut self, reads: &HashMap<PathBuf, PathBuf>) {
        for start in reads.keys() {
            let mut walked: Vec<&PathBuf> = vec![start];
            while let Some(next) = walked.last().and_then(|last| reads.get(*last)) {
                if next == start {
                    let names: BTreeSet<_> = walked.iter().map(|path| name(path)).collect();
                    let names = names.into_iter().collect::<Vec<_>>().join(", ");
                    self.find(format!("the images go in a circle, each reading from the next: {names}"), Err(NO_GUESS));
                    break;
                }
                if walked.contains(&next) {
                    break;
                }
                walked.push(next);
            }
        }
    }

    /// Chains as the records have them.
    pub(super) fn chains(&mut self) {
        let most = self.core.settings.max_chain;
        let mut said = Vec::new();
        for owned in &self.rows.disks {
            match self.rows.chain(&owned.disk) {
                Err(circle) => {
                    let ids: BTreeSet<_> = circle.iter().map(|disk| disk.id.to_string()).collect();
                    let ids = ids.into_iter().collect::<Vec<_>>().join(", ");
                    said.push((format!("the records of these disks go in a circle: {ids}"), NO_GUESS));
                }
                Ok(chain) if matches!(owned.disk.owner, DiskOwner::Vm(_)) && chain.len() > most => {
                    let (order, length) = (owned.disk.order, chain.len());
                    let line =
                        format!("disk {order} of {} is on a chain of {length} images; {most} are allowed", owned.by);
                    said.push((line, "delete snapshots of it"));
                }
                Ok(_) => {}
            }
        }
        for (line, why) in said {
            self.find(line, Err(why));
        }
    }

    /// Each backup has the file that says what it is.
    pub(super) fn manifests(&mut self) {
        for backup in self.rows.backups.clone() {
            let name = ledger::manifest(backup.id.0);
            if self.rows.owners.task(backup.id.0).is_some() || self.is_busy(backup.vm) {
                continue;
            }
            let (Some((driver, storlink)), Ok(file)) = (self.driver(backup.storlink), name.parse()) else { continue };
            match driver.file(&file) {
                Ok(Some(_)) => {}
                Ok(None) => {
                    let said = format!("{}: its manifest {name} is not on storlink {storlink}", backup.by);
                    self.find(said, Err("without it nobody can tell whether its images are whole; make a new backup"));
                }
                Err(error) => self.forget(backup.storlink, &error),
            }
        }
    }

    /// What belongs to nobody.
    pub(super) fn files(&mut self) -> Result<()> {
        let ids: BTreeSet<_> = self.places.keys().copied().collect();
        for id in ids {
            let Some(place) = self.places.get(&id) else { continue };
            let (storlink, Some(driver)) = (place.storlink.clone(), &place.driver) else { continue };
            match driver.files() {
                Ok(files) => {
                    let listed = ledger::assign(self.core, &storlink, driver.as_ref(), files)?;
                    self.orphans(&storlink.name, &listed);
                }
                Err(error) => self.forget(id, &error),
            }
        }
        Ok(())
    }

    fn orphans(&mut self, storlink: &str, listed: &ledger::Ledger) {
        if listed.unlisted > 0 {
            let looked = listed.entries.len();
            self.note(format!("storlink {storlink} has {} files more than the {looked} looked at", listed.unlisted));
        }
        let now = self.core.clock.now();
        let orphans = || listed.entries.iter().filter(|entry| entry.owner.kind == OwnerKind::Orphan);
        let is_manifest = |entry: &ledger::Entry| entry.file.name.ends_with(".json");
        let a_backup_is_lost = orphans().any(is_manifest);
        for entry in orphans() {
            let (Some(free_at), Ok(name)) = (entry.free_at, entry.file.name.parse()) else { continue };
            let size = MiB::from_bytes_ceil(entry.file.allocated_bytes);
            let from = free_at.format("%Y-%m-%d %H:%M:%S UTC");
            let key = format!("orphan {} {}", listed.storlink, entry.file.name);
            let said = format!(
                "storlink {storlink}: {} ({size} MiB) was made by this site and belongs to nobody; \
                 it may be removed from {from} on",
                entry.file.name
            );
            // After a restore of the database the backups that were made since are still whole.
            let remedy = match (free_at <= now, is_manifest(entry), a_backup_is_lost) {
                (false, ..) => Err("it is in quarantine"),
                (true, true, _) => Err("it tells what a backup is; remove it if nobody wants the backup back"),
                (true, false, true) => Err("it may be of a backup whose manifest lies beside it and has no record"),
                (true, false, false) => Ok(Remedy::Remove { storlink: listed.storlink, name }),
            };
            self.find_as(key, said, remedy);
        }
    }
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}
