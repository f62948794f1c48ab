//! Reads of storlinks.

use std::collections::{HashMap, HashSet};

use futures_util::future::join_all;

use crate::error::Result;
use crate::model::{IsoFile, PmId, Storlink, StorlinkId};
use crate::operations::{Core, guard};
use crate::store::{pms, storlinks};

use super::usage::usage;

/// All of the site, each with what its storage says now; one that does not answer soon shows what it said last.
pub async fn list(core: &Core) -> Result<Vec<Storlink>> {
    let all = core.read(|core| core.store.read(storlinks::all)).await?;
    Ok(as_of_now(core, all).await)
}

/// All of the site, with what their storages said last. Asks none of them.
pub fn known(core: &Core) -> Result<Vec<Storlink>> {
    core.store.read(storlinks::all)
}

/// As [`list`], each with the name of its PM.
pub async fn list_with_pms(core: &Core) -> Result<Vec<(Storlink, String)>> {
    let rows = |core: &Core| core.store.read(|c| Ok((storlinks::all(c)?, pms::all(c)?)));
    let (all, pms) = core.read(rows).await?;
    let names: HashMap<PmId, String> = pms.into_iter().map(|pm| (pm.id, pm.name)).collect();
    let all = as_of_now(core, all).await.into_iter();
    let named = |storlink: Storlink| {
        let name = names.get(&storlink.pm).cloned().unwrap_or_default();
        (storlink, name)
    };
    Ok(all.map(named).collect())
}

/// Those that did not answer when they were last asked, so that a list shows what they said before. Asks nobody.
pub fn silent(core: &Core) -> HashSet<StorlinkId> {
    core.usages.silent()
}

async fn as_of_now(core: &Core, mut all: Vec<Storlink>) -> Vec<Storlink> {
    let usages = join_all(all.iter().map(|storlink| usage(core, storlink))).await;
    for (storlink, usage) in all.iter_mut().zip(usages) {
        storlink.usage = usage;
    }
    all
}

/// The ISO images on a storlink that this host reaches; its storage is asked now.
pub async fn isos(core: &Core, id: StorlinkId) -> Result<Vec<IsoFile>> {
    let storlink = core.read(move |core| core.store.read(|c| guard::storlink(c, &core.pm, id))).await?;
    core.read_storage(Some(id), move |core| (core.volumes)(&storlink)?.isos()).await
}
