//! Makes a template with an empty disk, to be installed.

use crate::error::{Error, ErrorKind, Problems, Result};
use crate::model::{
    Access, Compensation, Disk, DiskId, DiskOwner, Format, Iso, Lock, MiB, Name, Os, OsArch, Resource, Seen, Storlink,
    StorlinkId, TaskKind, Template, TemplateId, VolumeName,
};
use crate::operations::{Core, Operation, guard, iso};
use crate::storage::{Content, Control, NewVolume};
use crate::store::{disks, templates};
use crate::tasks::Work;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTemplate {
    pub name: Name,
    pub os: Os,
    pub os_arch: OsArch,
    pub desc: String,
    pub storlink: StorlinkId,
    pub size: MiB,
    pub format: Format,
    /// The disc in its drive.
    pub iso: Option<Iso>,
}

impl Operation for NewTemplate {
    const KIND: TaskKind = TaskKind::TemplateNew;
    type Output = TemplateId;

    fn subject(&self, _: &Core) -> Result<String> {
        Ok(format!("template {}", self.name))
    }

    fn locks(&self) -> Vec<Lock> {
        let name = Resource::Name("template", self.name.to_string());
        let mut locks = vec![
            Lock { resource: name, access: Access::Changes },
            Lock { resource: Resource::Storlink(self.storlink), access: Access::Uses },
        ];
        if let Some(iso) = &self.iso {
            locks.push(Lock { resource: Resource::Storlink(iso.storlink), access: Access::Uses });
        }
        locks
    }

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<TemplateId> {
        core.store.read(|c| match templates::find_by_name(c, self.name.as_str())? {
            Some(_) => Err(Error::new(ErrorKind::Exists { what: "template", name: self.name.to_string() })),
            None => Ok(()),
        })?;
        let storlink = check_new(core, self.storlink, Some(self.format), self.iso.as_ref())?;
        let driver = (core.volumes)(&storlink)?;
        // Where a storlink is gone, nothing could be undone either, so nothing is begun there.
        driver.usage()?;
        let (template, disk) = self.rows(core);
        let undo = Compensation::DeleteVolume { storlink: storlink.id, volume: disk.volume.clone() };
        let make = NewVolume { format: self.format, size: self.size, content: Content::Zeros };
        let reporter = work.reporter();
        let progress = |percent: u32| reporter.progress(percent, "making the disk");
        let control = Control { cancel: reporter.cancel_flag(), progress: &progress };
        work.step(&undo, || driver.create(&disk.volume, &make, &control))?;
        work.settle(&format!("template {} is created", template.name), &[], |tx| {
            templates::insert(tx, &template)?;
            disks::insert(tx, &disk)?;
            Ok(template.id)
        })
    }
}

impl NewTemplate {
    fn rows(&self, core: &Core) -> (Template, Disk) {
        let now = core.clock.now();
        let template = Template {
            id: TemplateId(core.ids.uuid()),
            name: self.name.to_string(),
            os: self.os,
            os_arch: self.os_arch,
            desc: self.desc.clone(),
            pm: core.pm.id,
            seen: Seen::default(),
            iso: self.iso.clone(),
            vnc_password: None,
            created_at: now,
            recent_booted_at: None,
            updated_at: now,
        };
        let id = DiskId(core.ids.uuid());
        let disk = Disk {
            id,
            owner: DiskOwner::Template(template.id),
            order: 0,
            size: self.size,
            format: self.format,
            storlink: self.storlink,
            volume: VolumeName::new(id, self.format),
            desc: None,
            created_at: now,
            backing: None,
        };
        (template, disk)
    }
}

/// The storlink that the disk is to be on; `Invalid` with every field that the site cannot serve.
pub fn check_new(core: &Core, storlink: StorlinkId, format: Option<Format>, iso: Option<&Iso>) -> Result<Storlink> {
    let storlink = core.store.read(|c| guard::storlink(c, &core.pm, storlink))?;
    let driver = (core.volumes)(&storlink)?;
    let mut bad = Problems::new();
    if let Some(format) = format.filter(|format| !driver.info().formats.contains(format)) {
        bad.add("disk.format", format!("storlink {} has no {format} volumes", storlink.name));
    }
    if let Some(iso) = iso {
        bad.absorb(iso::open(core, iso))?;
    }
    bad.done()?;
    Ok(storlink)
}
