//! Virtual machines: created, changed, started, stopped, deleted, looked at.

mod check;
mod copy;
mod create;
mod delete;
mod edit;
mod live;
mod power;
mod query;
mod reset;
mod smigrate;
mod update;

pub use check::{Known, check};
pub use copy::CopyVm;
pub(super) use copy::copy_disks;
pub use create::CreateVm;
pub(super) use create::new_vnc_password;
pub use delete::DeleteVm;
pub use edit::EditVm;
pub use live::{addresses, description, screenshot, series, stats, vcpu_use};
pub use power::{PoweroffVm, RebootVm, RequestShutdownVm, ResumeVm, ShutdownVm, StartVm, SuspendVm};
pub(super) use power::{power_off, shut_down};
pub(super) use query::whole;
pub use query::{Edition, Listings, VmList, VmView, find, list};
pub use reset::ResetVm;
pub use smigrate::SmigrateVm;
pub use update::{Changes, UpdateVm, check_update};

use crate::error::{Error, ErrorKind, Result};
use crate::model::{PowerState, VmId};

use super::Core;
pub use super::samples::SeriesPoint;

/// The state of a VM's domain, asked of the hypervisor now. A domain that it does not have is off.
pub(super) fn state_now(core: &Core, id: VmId) -> Result<PowerState> {
    Ok(core.hypervisor.domain(id)?.map_or(PowerState::Shutdown, |domain| domain.state))
}

/// The outcome of a change to a running guest. One that powered off meanwhile does not need it: what is defined is what
/// it starts with.
pub(super) fn unless_off(core: &Core, id: VmId, outcome: Result<()>) -> Result<()> {
    match outcome {
        Err(off) if matches!(off.kind(), ErrorKind::WrongState { .. }) && !state_now(core, id)?.is_active() => Ok(()),
        other => other,
    }
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
pub(super) use changes_its_vm;

/// For subjects of tasks and for refusals: `vm web1`.
pub(super) fn noun(core: &Core, id: VmId) -> Result<String> {
    let vm = core.store.read(|c| super::guard::vm(c, core, id))?;
    Ok(format!("vm {}", vm.name))
}

pub(super) fn wrong_state(what: String, is: PowerState, needs: &str) -> Error {
    Error::wrong_state(what, is.word(), needs)
}
