//! Reads of templates: rows from the store, states from the inventory. No hypervisor call.

use crate::error::{Error, Result};
use crate::model::{MiB, Resource, Template, TemplateId};
use crate::operations::Core;
use crate::operations::inventory::Observed;
use crate::operations::peers::{self, Up};
use crate::store::templates::{self, TemplateListing};
use crate::store::{Conn, locks};

/// A template as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateView {
    pub template: Template,
    /// Virtual size of all its disks.
    pub size: MiB,
    /// Whether a task changes it now.
    pub locked: bool,
    /// Of its own domain.
    pub observed: Observed,
}

/// All of the site, the oldest first. Blocks for some queries, as does [`find`].
pub fn list(core: &Core) -> Result<Vec<TemplateView>> {
    let up = peers::load(core)?.up(core);
    core.store.read(|c| templates::listing(c)?.into_iter().map(|listing| view(core, &up, c, listing)).collect())
}

pub fn find(core: &Core, id: TemplateId) -> Result<TemplateView> {
    let up = peers::load(core)?.up(core);
    core.store.read(|c| {
        let listing = templates::listing_of(c, id)?.ok_or_else(|| Error::not_found("template", id))?;
        view(core, &up, c, listing)
    })
}

/// Another host's template is in the state that its own host saw last.
fn view(core: &Core, up: &Up, c: &mut Conn, listing: TemplateListing) -> Result<TemplateView> {
    let TemplateListing { template, size } = listing;
    let locked = locks::changing(c, &Resource::Template(template.id))?;
    let observed = if template.pm == core.pm.id {
        core.inventory.of(Template::domain(template.id))
    } else {
        up.observed(template.pm, template.seen)
    };
    Ok(TemplateView { template, size, locked, observed })
}
