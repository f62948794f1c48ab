//! Removes an orphan.

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Access, FileName, Lock, MadeName, Resource, Right, Storlink, StorlinkId, TaskKind, VolumeFile};
use crate::operations::{Core, Operation, guard};
use crate::storage::VolumeDriver;
use crate::store::storlinks;
use crate::tasks::Work;

use super::{Owner, OwnerKind, Owners, free_at};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteVolume {
    pub storlink: StorlinkId,
    pub name: FileName,
}

impl Operation for DeleteVolume {
    const KIND: TaskKind = TaskKind::VolumeDelete;
    const RIGHT: Right = Right::Administer;
    type Output = ();

    fn subject(&self, core: &Core) -> Result<String> {
        let storlink = core.store.read(|c| guard::storlink(c, &core.pm, self.storlink))?;
        Ok(format!("volume {} of storlink {}", self.name, storlink.name))
    }

    fn locks(&self) -> Vec<Lock> {
        locks(self.storlink, &self.name)
    }

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let outcome = remove(core, work, self.storlink, &self.name)?;
        work.settle(&outcome, &[], |_| Ok(()))
    }
}

/// The storlink stays what it is, and nobody makes a template of the file meanwhile: adding one takes the same lock. Whoever
/// else makes rows makes the name as well.
pub(in crate::operations) fn locks(storlink: StorlinkId, name: &FileName) -> Vec<Lock> {
    let mut locks = vec![Lock { resource: Resource::Storlink(storlink), access: Access::Uses }];
    if let Some(uuid) = MadeName::parse(name.as_str()).and_then(|made| made.uuid) {
        locks.push(Lock { resource: Resource::Name("disk", uuid.to_string()), access: Access::Changes });
    }
    locks
}

/// Removes the file if it is an orphan that may go; what was done, in a sentence.
pub(in crate::operations) fn remove(
    core: &Core,
    work: &mut Work<'_>,
    storlink: StorlinkId,
    name: &FileName,
) -> Result<String> {
    let storlink = core.store.read(|c| guard::storlink(c, &core.pm, storlink))?;
    let driver = (core.volumes)(&storlink)?;
    let file = orphan(core, &storlink, driver.as_ref(), name)?;
    is_free(core, &file)?;
    is_unused(core, name)?;
    work.act(|| {
        // Once more, for all of that took its time. No undo: nothing brings it back.
        let now = orphan(core, &storlink, driver.as_ref(), name)?;
        is_free(core, &now)?;
        driver.discard(&now)
    })?;
    Ok(format!("volume {name} of {} bytes is removed from storlink {}", file.allocated_bytes, storlink.name))
}

/// The file, if it is one.
fn orphan(core: &Core, storlink: &Storlink, driver: &dyn VolumeDriver, name: &FileName) -> Result<VolumeFile> {
    let file = driver.file(name)?.ok_or_else(|| Error::not_found("volume", name))?;
    let Owner { kind, id, by } = core.store.read(Owners::read)?.of(storlink.id, &file);
    let by = match kind {
        OwnerKind::Orphan => return Ok(file),
        OwnerKind::Foreign | OwnerKind::Iso => {
            let why = format!("volume {name} was not made by this site; who put it there may remove it");
            return Err(Error::refused("pengx", why));
        }
        OwnerKind::Disk => format!("disk {id} of {by}"),
        OwnerKind::Task => format!("task {id} ({by})"),
        OwnerKind::Snapshot | OwnerKind::Backup | OwnerKind::Template | OwnerKind::Storlink => by,
    };
    Err(Error::new(ErrorKind::InUse { what: format!("volume {name}"), by }))
}

fn is_free(core: &Core, file: &VolumeFile) -> Result<()> {
    let free_at = free_at(core, file);
    if free_at <= core.clock.now() {
        return Ok(());
    }
    let time = |at: chrono::NaiveDateTime| at.format("%Y-%m-%d %H:%M:%S UTC");
    let is = format!("an orphan that changed last at {}", time(file.changed_at));
    let needs = format!("it may be removed from {} on", time(free_at));
    Err(Error::wrong_state(format!("volume {}", file.name), is, needs))
}

/// Rows can be older than the world, after a restore of the database: no domain may name the file, and no image may read
/// from it.
fn is_unused(core: &Core, name: &FileName) -> Result<()> {
    let in_use = |by: String| Err(Error::new(ErrorKind::InUse { what: format!("volume {name}"), by }));
    for domain in core.hypervisor.domains()? {
        let Some(definition) = core.hypervisor.defined(domain.id)? else { continue };
        if definition.files.iter().any(|file| file.file_name().is_some_and(|file| file == name.as_str())) {
            return in_use(format!("domain {}", definition.name));
        }
    }
    for place in core.store.read(storlinks::all)? {
        if !guard::reaches(&core.pm, &place) {
            continue;
        }
        if let Some(reader) = (core.volumes)(&place)?.reader_of(name)? {
            return in_use(format!("volume {reader} of storlink {}, which reads from it", place.name));
        }
    }
    Ok(())
}
