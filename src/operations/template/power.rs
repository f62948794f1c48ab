//! Power of a template's own domain. When it is off its definition goes: the next start makes another one.

use crate::error::Result;
use crate::model::{Compensation, TaskKind, Template, TemplateId};
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
        work.settle(&format!("{name} is shut down"), &[Compensation::Undefine { vm: domain }], |_| Ok(()))
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
        work.settle(&format!("{name} is powered off"), &[Compensation::Undefine { vm: domain }], |_| Ok(()))
    }
}
