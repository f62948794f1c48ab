//! Power of a template's own domain. When it is off its definition goes: the next start makes another one.

use crate::error::Result;
use crate::model::{TaskKind, Template, TemplateId, VmId};
use crate::operations::vm::{power_off, shut_down};
use crate::operations::{Core, Operation};
use crate::tasks::Work;

use super::{changes_its_template, noun};

/// Asks the guest to power off, and waits until it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownTemplate {
    pub template: TemplateId,
}

impl Operation for ShutdownTemplate {
    const KIND: TaskKind = TaskKind::TemplateShutdown;
    type Output = ();

    changes_its_template!();

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let (name, domain) = (noun(core, self.template)?, Template::domain(self.template));
        shut_down(core, work, domain, &name)?;
        drop_definition(core, work, domain)?;
        work.settle(&format!("{name} is shut down"), &[], |_| Ok(()))
    }
}

/// Pulls the plug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoweroffTemplate {
    pub template: TemplateId,
}

impl Operation for PoweroffTemplate {
    const KIND: TaskKind = TaskKind::TemplatePoweroff;
    type Output = ();

    changes_its_template!();

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let (name, domain) = (noun(core, self.template)?, Template::domain(self.template));
        power_off(core, work, domain, &name)?;
        drop_definition(core, work, domain)?;
        work.settle(&format!("{name} is powered off"), &[], |_| Ok(()))
    }
}

/// One that stays does no harm: a guest that switches itself off leaves it too, the next start replaces it, and a delete
/// drops it. So it is not left to the journal, which would come to it under no lock, perhaps in the middle of that start.
fn drop_definition(core: &Core, work: &mut Work<'_>, domain: VmId) -> Result<()> {
    work.act(|| {
        if let Err(why) = core.hypervisor.undefine(domain) {
            tracing::warn!(%domain, error = why.story(), "the definition of a template that is off stays until its next start");
        }
        Ok(())
    })
}
