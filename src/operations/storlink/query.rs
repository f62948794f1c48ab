//! Reads of storlinks.

use futures_util::future::join_all;

use crate::error::Result;
use crate::model::{IsoFile, Storlink, StorlinkId};
use crate::operations::{Core, guard};
use crate::store::storlinks;

use super::usage::usage;

/// All of the site, each with what its storage says now; one that does not answer soon shows what it said last.
pub async fn list(core: &Core) -> Result<Vec<Storlink>> {
    let mut all = core.read(|core| core.store.read(storlinks::all)).await?;
    let usages = join_all(all.iter().map(|storlink| usage(core, storlink))).await;
    for (storlink, usage) in all.iter_mut().zip(usages) {
        storlink.usage = usage;
    }
    Ok(all)
}

/// The ISO images on a storlink that this host reaches; its storage is asked now.
pub async fn isos(core: &Core, id: StorlinkId) -> Result<Vec<IsoFile>> {
    let storlink = core.read(move |core| core.store.read(|c| guard::storlink(c, &core.pm, id))).await?;
    core.read_storage(move |core| (core.volumes)(&storlink)?.isos()).await
}
