//! Makes a template of a VM, whether it runs or not: copies of its disks as they are at one instant.

use crate::error::{Error, ErrorKind, Result};
use crate::model::{
    Access, DiskOwner, Lane, Lock, MiB, Name, Os, OsArch, Resource, Seen, StorlinkId, TaskKind, Template, TemplateId,
    VmId,
};
use crate::operations::copies::Copies;
use crate::operations::domain::Machine;
use crate::operations::vm::{self, copy_disks};
use crate::operations::{Core, Operation, guard};
use crate::store::{disks, templates};
use crate::tasks::Work;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateTemplate {
    pub vm: VmId,
    pub name: Name,
    /// Where the copies of its disks go.
    pub storlink: StorlinkId,
    pub desc: String,
}

/// A template that was just made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeTemplate {
    pub template: Template,
    /// Virtual size of all its disks.
    pub size: MiB,
}

impl Operation for CreateTemplate {
    const KIND: TaskKind = TaskKind::TemplateCreate;
    type Output = MadeTemplate;

    fn lane(&self) -> Lane {
        Lane::Long
    }

    fn subject(&self, core: &Core) -> Result<String> {
        vm::noun(core, self.vm)
    }

    fn locks(&self) -> Vec<Lock> {
        vec![
            Lock { resource: Resource::Vm(self.vm), access: Access::Changes },
            Lock { resource: Resource::Name("template", self.name.to_string()), access: Access::Changes },
            Lock { resource: Resource::Storlink(self.storlink), access: Access::Uses },
        ]
    }

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<MadeTemplate> {
        let source = Machine::load(core, self.vm)?;
        let (storlink, like) = core.store.read(|c| {
            if templates::find_by_name(c, self.name.as_str())?.is_some() {
                return Err(Error::new(ErrorKind::Exists { what: "template", name: self.name.to_string() }));
            }
            let like = source.vm.template.map(|id| guard::template(c, id)).transpose()?;
            Ok((guard::storlink(c, &core.pm, self.storlink)?, like))
        })?;
        let template = self.template(core, like.as_ref());
        let copies = Copies::plan(core, &source, storlink, DiskOwner::Template(template.id), |_| true)?;
        copy_disks(core, work, &source, &copies)?;
        let size = copies.pairs.iter().map(|(_, copy)| copy.size).sum();
        let outcome = format!("template {} is made of vm {}", template.name, source.vm.name);
        work.settle(&outcome, &[], |tx| {
            templates::insert(tx, &template)?;
            copies.pairs.iter().try_for_each(|(_, copy)| disks::insert(tx, copy))
        })?;
        Ok(MadeTemplate { template, size })
    }
}

impl CreateTemplate {
    /// What runs in it is what was in the template that the VM was made from; of another VM nobody has said what it is.
    fn template(&self, core: &Core, like: Option<&Template>) -> Template {
        let now = core.clock.now();
        Template {
            id: TemplateId(core.ids.uuid()),
            name: self.name.to_string(),
            os: like.map_or(Os::Other, |like| like.os),
            os_arch: like.map_or(OsArch::X64, |like| like.os_arch),
            desc: self.desc.clone(),
            pm: core.pm.id,
            seen: Seen::default(),
            iso: None,
            vnc_password: None,
            created_at: now,
            recent_booted_at: None,
            updated_at: now,
        }
    }
}
