//! Adds an image that lies on a storlink already as a template.

use crate::error::{Error, ErrorKind, Result};
use crate::model::{
    Access, Disk, DiskId, DiskOwner, Format, Lock, Name, Os, OsArch, Resource, Seen, Storlink, StorlinkId, TaskKind,
    Template, TemplateId, VolumeFacts, VolumeName,
};
use crate::operations::{Core, Operation, guard};
use crate::store::{disks, journal, templates};
use crate::tasks::Work;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddTemplate {
    pub name: Name,
    pub os: Os,
    pub os_arch: OsArch,
    pub desc: String,
    pub storlink: StorlinkId,
    /// Names the image: `<uuid>.<format>`, or the bare uuid.
    pub disk: DiskId,
    pub format: Format,
}

impl Operation for AddTemplate {
    const KIND: TaskKind = TaskKind::TemplateAdd;
    type Output = TemplateId;

    fn subject(&self, _: &Core) -> Result<String> {
        Ok(format!("template {}", self.name))
    }

    fn locks(&self) -> Vec<Lock> {
        vec![
            Lock { resource: Resource::Name("template", self.name.to_string()), access: Access::Changes },
            Lock { resource: Resource::Name("disk", self.disk.to_string()), access: Access::Changes },
            Lock { resource: Resource::Storlink(self.storlink), access: Access::Uses },
        ]
    }

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<TemplateId> {
        core.store.read(|c| {
            if templates::find_by_name(c, self.name.as_str())?.is_some() {
                return Err(Error::new(ErrorKind::Exists { what: "template", name: self.name.to_string() }));
            }
            if let Some(disk) = disks::find(c, self.disk)? {
                let by = disk.owner.to_string();
                return Err(Error::new(ErrorKind::InUse { what: format!("disk {}", self.disk), by }));
            }
            Ok(())
        })?;
        let Found { storlink, volume, facts } = check(core, self.storlink, self.disk, self.format)?;
        let now = core.clock.now();
        let template = Template {
            id: TemplateId(core.ids.uuid()),
            name: self.name.to_string(),
            os: self.os,
            os_arch: self.os_arch,
            desc: self.desc,
            pm: core.pm.id,
            seen: Seen::default(),
            iso: None,
            vnc_password: None,
            created_at: now,
            recent_booted_at: None,
            updated_at: now,
        };
        let disk = Disk {
            id: self.disk,
            owner: DiskOwner::Template(template.id),
            order: 0,
            size: facts.size(),
            format: self.format,
            storlink: storlink.id,
            volume,
            desc: None,
            created_at: now,
            backing: None,
        };
        work.settle(&format!("template {} is added", template.name), &[], |tx| {
            // A volume has its name before its owner has rows, and keeps it until a task that failed has cleaned up.
            if let Some(task) = journal::claimant(tx, &disk.volume)? {
                let (what, by) = (format!("volume {}", disk.volume), format!("task {task}"));
                return Err(Error::new(ErrorKind::InUse { what, by }));
            }
            templates::insert(tx, &template)?;
            disks::insert(tx, &disk)?;
            Ok(template.id)
        })
    }
}

/// An image on a storlink.
pub struct Found {
    pub storlink: Storlink,
    pub volume: VolumeName,
    pub facts: VolumeFacts,
}

/// The image under either of its names, and what its header says. `Invalid` when it is not there, or when its header
/// forbids it.
pub fn check(core: &Core, storlink: StorlinkId, disk: DiskId, format: Format) -> Result<Found> {
    let storlink = core.store.read(|c| guard::storlink(c, &core.pm, storlink))?;
    let driver = (core.volumes)(&storlink)?;
    if !driver.info().formats.contains(&format) {
        return Err(Error::invalid("disk.format", format!("storlink {} has no {format} volumes", storlink.name)));
    }
    for volume in [VolumeName::new(disk, format), VolumeName::bare(disk)] {
        let refused = |error: Error| match error.kind() {
            ErrorKind::Refused { why, .. } => Error::invalid("disk", why.clone()),
            _ => error,
        };
        if driver.exists(&volume)? {
            let facts = driver.probe(&volume, format).map_err(refused)?;
            return Ok(Found { storlink, volume, facts });
        }
    }
    let expected = VolumeName::new(disk, format);
    Err(Error::invalid("disk.uuid", format!("storlink {} has no image {expected}", storlink.name)))
}
