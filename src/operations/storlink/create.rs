//! Registers a storlink of this host.

use crate::error::{Error, ErrorKind, Result};
use crate::model::{
    Access, Compensation, Lock, Name, Resource, Right, StorlinkId, StorlinkLevel, StorlinkType, TaskKind,
};
use crate::operations::{Core, Operation};
use crate::store::storlinks::{self, NewStorlink};
use crate::tasks::Work;

use super::{check, draft};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateStorlink {
    pub name: Name,
    /// Directory, volume group or pool.
    pub link: String,
    pub kind: StorlinkType,
    pub level: StorlinkLevel,
    pub desc: String,
    pub shared: bool,
}

impl Operation for CreateStorlink {
    const KIND: TaskKind = TaskKind::StorlinkCreate;
    const RIGHT: Right = Right::Administer;
    type Output = StorlinkId;

    fn subject(&self, _: &Core) -> Result<String> {
        Ok(format!("storlink {}", self.name))
    }

    fn locks(&self) -> Vec<Lock> {
        vec![Lock { resource: Resource::Name("storlink", self.name.to_string()), access: Access::Changes }]
    }

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<StorlinkId> {
        let pm = core.pm.id;
        if core.store.read(|c| storlinks::find_by_name(c, pm, self.name.as_str()))?.is_some() {
            return Err(Error::new(ErrorKind::Exists { what: "storlink", name: self.name.into_string() }));
        }
        let usage = check(core, &self.link, self.kind, self.level)?;
        let storlink = NewStorlink {
            uuid: core.ids.uuid(),
            pm,
            name: self.name.to_string(),
            link: self.link,
            kind: self.kind,
            level: self.level,
            usage,
            desc: self.desc,
            shared: self.shared,
        };
        let place = draft(core, storlink.uuid, &storlink.link, storlink.kind, storlink.level);
        let driver = (core.volumes)(&place)?;
        let undo = Compensation::Unmark { link: storlink.link.clone(), storlink: storlink.uuid };
        work.step(&undo, || driver.mark())?;
        let outcome = format!("storlink {} is registered", self.name);
        work.settle(&outcome, &[], |tx| {
            let id = storlinks::insert(tx, &storlink)?;
            storlinks::set_marked(tx, id)?;
            Ok(id)
        })
    }
}
