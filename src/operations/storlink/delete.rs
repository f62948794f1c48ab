//! Forgets a storlink that nothing needs. The files on it are the operator's and stay.

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Access, Lock, Resource, Right, Storlink, StorlinkId, TaskKind};
use crate::operations::{Core, Operation, guard};
use crate::store::storlinks;
use crate::tasks::Work;

use super::{noun, users};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteStorlink {
    pub storlink: StorlinkId,
}

impl Operation for DeleteStorlink {
    const KIND: TaskKind = TaskKind::StorlinkDelete;
    const RIGHT: Right = Right::Administer;
    type Output = ();

    fn subject(&self, core: &Core) -> Result<String> {
        noun(core, self.storlink)
    }

    fn locks(&self) -> Vec<Lock> {
        vec![Lock { resource: Resource::Storlink(self.storlink), access: Access::Changes }]
    }

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let storlink = core.store.read(|c| guard::storlink(c, &core.pm, self.storlink))?;
        let name = format!("storlink {}", storlink.name);
        work.settle(&format!("{name} is deleted"), &[], |tx| {
            // Looked at here and not before: the task that empties a storlink last removes its rows under other locks than
            // this one, and its volumes after them.
            if let Some(by) = users(&storlinks::uses(tx, self.storlink)?) {
                return Err(Error::new(ErrorKind::InUse { what: name.clone(), by }));
            }
            storlinks::remove(tx, self.storlink)
        })?;
        core.usages.forget(self.storlink);
        // The directory may be gone for good; that is no reason to keep the storlink.
        let unmarked = (core.volumes)(&Storlink { marked: false, ..storlink }).and_then(|driver| driver.unmark());
        if let Err(why) = unmarked {
            tracing::warn!(storlink = %self.storlink, error = why.story(), "its directory keeps the mark of a storlink");
        }
        Ok(())
    }
}
