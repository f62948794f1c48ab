//! Reads of templates.

use crate::error::Result;
use crate::model::{MiB, PowerState, Resource, Template};
use crate::operations::Core;
use crate::store::{locks, templates};

/// A template as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateView {
    pub template: Template,
    /// Virtual size of all its disks.
    pub size: MiB,
    /// Whether a task changes it now.
    pub locked: bool,
    pub state: PowerState,
}

pub fn list(core: &Core) -> Result<Vec<TemplateView>> {
    core.store.read(|c| {
        let listing = templates::listing(c)?;
        listing
            .into_iter()
            .map(|entry| {
                let locked = locks::changing(c, &Resource::Template(entry.template.id))?;
                // A template has no domain: nothing starts one yet.
                let state = PowerState::Shutdown;
                Ok(TemplateView { template: entry.template, size: entry.size, locked, state })
            })
            .collect()
    })
}
