//! Deletes a template that no VM is made from: its disks can come back until its rows go, and go for good right after.

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Compensation, Disk, TaskKind, Template, TemplateId};
use crate::operations::{Core, Operation, guard};
use crate::store::{disks, templates};
use crate::tasks::Work;

use super::{changes_its_template, off};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteTemplate {
    pub template: TemplateId,
}

impl Operation for DeleteTemplate {
    const KIND: TaskKind = TaskKind::TemplateDelete;
    type Output = ();

    changes_its_template!();

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let (template, disks) = core.store.read(|c| {
            let template = guard::own_template(c, &core.pm, self.template)?;
            if let Some(by) = linked(&templates::vms_of(c, self.template)?) {
                return Err(Error::new(ErrorKind::InUse { what: format!("template {}", template.name), by }));
            }
            let mut disks = Vec::new();
            for disk in disks::of_template(c, self.template)? {
                let storlink = guard::storlink(c, &core.pm, disk.storlink)?;
                disks.push((disk, storlink));
            }
            Ok((template, disks))
        })?;
        off(core, &template, "shut it down before deleting it")?;
        // Where a storlink is gone, nothing could be undone either, so nothing is begun there.
        disks.iter().try_for_each(|(_, place)| (core.volumes)(place)?.usage().map(drop))?;
        // A guest that switched itself off left its definition.
        let mut finish = vec![Compensation::Undefine { vm: Template::domain(self.template) }];
        for (Disk { storlink, volume, .. }, place) in disks {
            let driver = (core.volumes)(&place)?;
            let undo = Compensation::RestoreVolume { storlink, volume: volume.clone() };
            work.step(&undo, || driver.set_aside(&volume))?;
            finish.push(Compensation::PurgeVolume { storlink, volume });
        }
        work.settle(&format!("template {} is deleted", template.name), &finish, |tx| {
            disks::remove_of_template(tx, self.template)?;
            templates::remove(tx, self.template)
        })
    }
}

/// The VMs that were made from a template, for sentences: some of them by name.
fn linked(vms: &[String]) -> Option<String> {
    const NAMED: usize = 3;
    let names = vms.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match vms.len() {
        0 => None,
        1 => Some(format!("vm {names}")),
        count if count <= NAMED => Some(format!("the vms {names}")),
        count => Some(format!("{count} vms, the first {names}")),
    }
}
