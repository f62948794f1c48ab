//! Lets the other hosts of the site in: writes their keys into this host's `authorized_keys`.

use crate::error::{Error, Result};
use crate::host::authorized_keys;
use crate::model::{Access, Lock, Pm, PmId, Resource, Right, SshKey, TaskKind};
use crate::operations::{Core, Operation};
use crate::store::pms;
use crate::tasks::Work;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthorizeKeys;

impl Operation for AuthorizeKeys {
    const KIND: TaskKind = TaskKind::PmAuthorizeKeys;
    const RIGHT: Right = Right::Administer;
    type Output = ();

    fn subject(&self, core: &Core) -> Result<String> {
        Ok(format!("authorized_keys of pm {}", core.pm.name))
    }

    fn locks(&self) -> Vec<Lock> {
        vec![Lock { resource: Resource::Name("file", "authorized_keys".to_owned()), access: Access::Changes }]
    }

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let Some(path) = &core.settings.authorized_keys else {
            return Err(Error::refused("pengx", "no home directory is known here; set authorized_keys to a file"));
        };
        let all = core.store.read(pms::all)?;
        let keys = all.iter().filter_map(|pm| key(pm).transpose()).collect::<Result<Vec<_>>>()?;
        // No undo: the file changes in one rename, as the last thing that can fail here, and to what the rows say in any
        // case. Had it been taken back, the next call would only write the same again.
        work.act(|| authorized_keys::write(path, &keys))?;
        let outcome = format!("authorized_keys has the keys of {} of {} pms", keys.len(), all.len());
        work.settle(&outcome, &[], |_| Ok(()))
    }
}

/// A row may have been written by a pengx that knew other keys.
fn key(pm: &Pm) -> Result<Option<(PmId, SshKey)>> {
    let Some(text) = &pm.ssh_pubkey else { return Ok(None) };
    let key = text.parse().map_err(|why| {
        let is = format!("recorded with an ssh key that {why}");
        Error::wrong_state(format!("pm {}", pm.name), is, "set ssh_public_key there and restart its server")
    })?;
    Ok(Some((pm.id, key)))
}
