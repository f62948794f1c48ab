//! Templates: disks that VMs are made from. One can be started, in a domain of its own, so that a system is installed on it.

mod add;
mod create;
mod delete;
mod new;
mod power;
mod query;
mod start;
mod update;

pub use add::{AddTemplate, check};
pub use create::{CreateTemplate, MadeTemplate};
pub use delete::DeleteTemplate;
pub use new::{NewTemplate, check_new};
pub use power::{PoweroffTemplate, ShutdownTemplate};
pub use query::{TemplateView, find, list};
pub use start::{StartTemplate, check_start};
pub use update::UpdateTemplate;

use crate::error::Result;
use crate::model::{PowerState, Template, TemplateId};

use super::vm::{state_now, wrong_state};
use super::{Core, guard};

/// The subject and the lock of an operation on the one template that its field `template` names.
macro_rules! changes_its_template {
    () => {
        fn subject(&self, core: &$crate::operations::Core) -> $crate::error::Result<String> {
            $crate::operations::template::noun(core, self.template)
        }

        fn locks(&self) -> Vec<$crate::model::Lock> {
            let resource = $crate::model::Resource::Template(self.template);
            vec![$crate::model::Lock { resource, access: $crate::model::Access::Changes }]
        }
    };
}
use changes_its_template;

/// For subjects of tasks and for refusals: `template debian`.
fn noun(core: &Core, id: TemplateId) -> Result<String> {
    let template = core.store.read(|c| guard::own_template(c, &core.pm, id))?;
    Ok(format!("template {}", template.name))
}

/// `WrongState` while the template's own domain writes to its disks, or may do so. Of another host's, its own host said last what it saw.
pub(super) fn off(core: &Core, template: &Template, needs: &str) -> Result<()> {
    let here = template.pm == core.pm.id;
    let state = if here { state_now(core, Template::domain(template.id))? } else { template.seen.state };
    let needs = match state {
        PowerState::Unknown => "nobody can tell whether it is off",
        state if state.is_active() => needs,
        _ => return Ok(()),
    };
    Err(wrong_state(format!("template {}", template.name), state, needs))
}
