//! Changes what is said of a template, and the disc in its drive.

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Access, Iso, Lock, Name, Os, OsArch, Resource, TaskKind, TemplateId};
use crate::operations::{Core, Operation, guard, iso};
use crate::store::templates;
use crate::tasks::Work;

use super::{noun, off};

/// What is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateTemplate {
    pub template: TemplateId,
    pub name: Option<Name>,
    pub os: Option<Os>,
    pub os_arch: Option<OsArch>,
    pub desc: Option<String>,
    /// `Some(None)` takes the disc out.
    pub iso: Option<Option<Iso>>,
}

impl Operation for UpdateTemplate {
    const KIND: TaskKind = TaskKind::TemplateUpdate;
    type Output = ();

    fn subject(&self, core: &Core) -> Result<String> {
        noun(core, self.template)
    }

    fn locks(&self) -> Vec<Lock> {
        let mut locks = vec![Lock { resource: Resource::Template(self.template), access: Access::Changes }];
        if let Some(name) = &self.name {
            locks.push(Lock { resource: Resource::Name("template", name.to_string()), access: Access::Changes });
        }
        if let Some(Some(iso)) = &self.iso {
            locks.push(Lock { resource: Resource::Storlink(iso.storlink), access: Access::Uses });
        }
        locks
    }

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let old = core.store.read(|c| {
            let old = guard::own_template(c, &core.pm, self.template)?;
            if let Some(name) = self.name.as_ref().filter(|name| name.as_str() != old.name)
                && templates::find_by_name(c, name.as_str())?.is_some()
            {
                return Err(Error::new(ErrorKind::Exists { what: "template", name: name.to_string() }));
            }
            Ok(old)
        })?;
        let mut new = old.clone();
        if let Some(name) = &self.name {
            new.name = name.to_string();
        }
        new.os = self.os.unwrap_or(old.os);
        new.os_arch = self.os_arch.unwrap_or(old.os_arch);
        new.desc = self.desc.unwrap_or_else(|| old.desc.clone());
        new.iso = self.iso.unwrap_or_else(|| old.iso.clone());
        if new.iso != old.iso {
            off(core, &old, "shut it down before changing its disc")?;
            new.iso.as_ref().map(|disc| iso::open(core, disc)).transpose()?;
        }
        new.updated_at = core.clock.now();
        work.settle(&format!("template {} is changed", new.name), &[], |tx| templates::update(tx, &new))
    }
}
