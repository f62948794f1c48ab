//! Virtual machines: created, changed, started, stopped, deleted, looked at.

mod check;
mod create;
mod delete;
mod edit;
mod power;
mod query;
mod reset;
mod update;

pub use check::{Known, check};
pub use create::CreateVm;
pub use delete::DeleteVm;
pub use edit::EditVm;
pub use power::{PoweroffVm, RebootVm, ResumeVm, ShutdownVm, StartVm, SuspendVm};
pub use query::{Listings, VmView, find, list};
pub use reset::ResetVm;
pub use update::{Changes, UpdateVm, check_update};

use crate::error::{Error, Result};
use crate::model::{PowerState, VmId};

use super::Core;

/// The state of a VM's domain, asked of the hypervisor now. A domain that it does not have is off.
fn state_now(core: &Core, id: VmId) -> Result<PowerState> {
    Ok(core.hypervisor.domain(id)?.map_or(PowerState::Shutdown, |domain| domain.state))
}

/// The subject and the lock of an operation on the one VM that its field `vm` names.
macro_rules! changes_its_vm {
    () => {
        fn subject(&self, core: &$crate::operations::Core) -> $crate::error::Result<String> {
            $crate::operations::vm::noun(core, self.vm)
        }

        fn locks(&self) -> Vec<$crate::model::Lock> {
            let resource = $crate::model::Resource::Vm(self.vm);
            vec![$crate::model::Lock { resource, access: $crate::model::Access::Changes }]
        }
    };
}
use changes_its_vm;

/// For subjects of tasks and for refusals: `vm web1`.
fn noun(core: &Core, id: VmId) -> Result<String> {
    let vm = core.store.read(|c| super::guard::vm(c, &core.pm, id))?;
    Ok(format!("vm {}", vm.name))
}

fn wrong_state(what: String, is: PowerState, needs: &str) -> Error {
    Error::wrong_state(what, is.word(), needs)
}
