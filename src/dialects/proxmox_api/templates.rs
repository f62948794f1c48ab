//! `/template`: what machines are made from.

use serde::Serialize;
use serde_json::{Map, Value};

use super::front::{Answer, Call};
use super::nodes::{Nodes, collapsed, inside};
use super::reply::Reply;
use crate::error::{Error, Result};
use crate::model::{Disk, PmId, StorlinkId, TemplateId};
use crate::operations::{Core, disk, storlink, template};

/// What stands between the storage and the file in the name of a template.
const CONTENT: &str = "vztmpl";

/// A template that has a disk.
pub(super) struct Known {
    pub(super) id: TemplateId,
    pm: PmId,
    name: String,
    volid: String,
    bytes: u64,
    format: &'static str,
    /// Where its first disk is.
    pub(super) storlink: StorlinkId,
}

/// The oldest first. Asks no storage.
pub(super) fn known(core: &Core) -> Result<Vec<Known>> {
    let storlinks = storlink::known(core)?;
    let mut all = Vec::new();
    for view in template::list(core)? {
        let disks = disk::of_template(core, view.template.id)?;
        let Some(Disk { storlink, volume, format, .. }) = disks.into_iter().next().map(|first| first.disk) else {
            continue;
        };
        let place = storlinks.iter().find(|known| known.id == storlink);
        let place =
            place.ok_or_else(|| Error::internal(format!("template {} without its storlink", view.template.id)))?;
        all.push(Known {
            id: view.template.id,
            pm: view.template.pm,
            name: view.template.name,
            volid: format!("{}:{CONTENT}/{}", place.name, volume.as_str()),
            bytes: view.size.bytes(),
            format: format.word(),
            storlink,
        });
    }
    Ok(all)
}

impl Known {
    /// By its volid, its uuid or its name.
    pub(super) fn is_called(&self, word: &str) -> bool {
        self.volid == word || self.name == word || word.parse() == Ok(self.id)
    }
}

#[derive(Serialize)]
struct Shown<'a> {
    size: u64,
    format: &'static str,
    content: &'static str,
    volid: &'a str,
}

/// GET.
pub(super) async fn list(call: Call<'_>) -> Answer {
    let nodes = Nodes::of(&call.core).await?;
    let all = call.core.read(known).await?;
    let mut by_node = Map::new();
    for pm in &nodes.all {
        let of_it = all.iter().filter(|known| known.pm == pm.id);
        let shown = of_it.map(|it| Shown { size: it.bytes, format: it.format, content: CONTENT, volid: &it.volid });
        by_node.insert(pm.name.clone(), inside(&shown.collect::<Vec<_>>())?);
    }
    let by_node = Value::Object(by_node);
    Ok(Reply::value(&if call.settings.late { collapsed(by_node) } else { by_node }))
}
