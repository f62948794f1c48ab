//! Who may have which image: what runs, and what is about to.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use crate::model::VmId;
use crate::patience;

use super::definitions::Kept;
use super::images::{self, Identities, Images};
use super::parse::{Details, Row};
use super::seen::Age;
use super::{Inner, devices};

/// The images of domains that are being started or changed; they are not in Xen's list yet.
#[derive(Default)]
pub(super) struct Claims(Mutex<Vec<(VmId, Images)>>);

impl Claims {
    pub(super) fn holders(&self) -> HashSet<VmId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(id, _)| *id).collect()
    }

    fn take(&self, id: VmId, images: &Images, known: &Identities) -> Result<Claim<'_>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (other, theirs) in all.iter() {
            images.fit(theirs, &other.to_string(), known)?;
        }
        all.push((id, images.clone()));
        Ok(Claim { claims: self, id, images: images.clone() })
    }
}

/// Holds the images until Xen's list shows them, or they are not wanted any more.
pub(super) struct Claim<'a> {
    claims: &'a Claims,
    id: VmId,
    images: Images,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut all = self.claims.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = all.iter().position(|(id, images)| *id == self.id && *images == self.images) {
            all.swap_remove(at);
        }
    }
}

impl Inner {
    /// Refused when an image is missing, or another domain, ours or not, has it so that it cannot be shared.
    pub(super) fn claim(&self, id: VmId, images: &Images) -> Result<Claim<'_>> {
        let mut known = self.identities(images.all())?;
        images.are_there(&known)?;
        let claim = self.claims.take(id, images, &known)?;
        // Both lists come after our claim, so of two that want one image at least one sees the other.
        let sight = self.look(Age::Fresh)?;
        if sight.rows().iter().all(|row| row.id == id) {
            return Ok(claim);
        }
        let mut others = Vec::new();
        let details = self.details(None)?;
        for row in sight.rows().iter().filter(|row| row.id != id) {
            let details = details.iter().find(|details| details.domid == row.domid);
            others.push((row.name.clone(), self.images_of(row, details)?));
        }
        let theirs: Vec<&PathBuf> = others.iter().flat_map(|(_, images)| images.all()).collect();
        if !theirs.is_empty() {
            known.extend(self.identities(theirs.into_iter())?);
        }
        for (name, theirs) in &others {
            images.fit(theirs, name, &known)?;
        }
        Ok(claim)
    }

    /// Xen knows of the first image of each disk only, and of none once the QEMU of an HVM guest has died; of our domains we
    /// know the others.
    fn images_of(&self, row: &Row, details: Option<&Details>) -> Result<Images> {
        let run = self.definitions.read(row.id, Kept::Run)?;
        let mut images = Images::default();
        let mut noted = HashSet::new();
        if let Some(run) = &run {
            images.add(Images::of(&run.spec));
            images.written.extend(run.written.iter().map(|(_, layer)| super::path(&layer.source)));
            let kind = run.guest.kind();
            noted.extend(run.spec.disks.iter().map(|disk| devices::place(kind, disk.order)));
        }
        // Where a disk was moved, Xen still tells what it was started on.
        let others = details.iter().flat_map(|details| &details.disks).filter(|disk| !noted.contains(&disk.place));
        for disk in others.filter(|disk| disk.path.starts_with('/')) {
            let files = if disk.writable { &mut images.written } else { &mut images.read };
            files.push(PathBuf::from(&disk.path));
        }
        Ok(images)
    }

    /// With a deadline, because what is looked at may be on a mount that is dead.
    fn identities<'a>(&self, files: impl Iterator<Item = &'a PathBuf>) -> Result<Identities> {
        let mut dirs: BTreeMap<&Path, Vec<PathBuf>> = BTreeMap::new();
        for file in files {
            dirs.entry(file.parent().unwrap_or(file)).or_default().push(file.clone());
        }
        let look =
            |(dir, files)| patience::begin(self.options.call_timeout, dir, move || Ok(images::identities(files)));
        let looks: Vec<_> = dirs.into_iter().map(look).collect::<Result<_>>()?;
        looks.into_iter().try_fold(Identities::new(), |mut known, look| {
            known.extend(look.end()?);
            Ok(known)
        })
    }
}
