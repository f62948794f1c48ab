//! Screens of guests: who may see one, where it is, and when it is gone. What is seen goes past the core.

use std::time::Duration;

use chrono::NaiveDateTime;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{PowerState, Right, Secret, VmId, VncEndpoint};

use super::inventory::Observed;
use super::{Core, vm};

/// Where the screen of a running VM is, for the one who may see it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub at: VncEndpoint,
    /// That the screen asks for, if it asks for one.
    pub password: Secret,
}

/// Stands for its caller once, with [`super::Gate::redeem`].
#[derive(Debug)]
pub struct Ticket {
    pub text: Secret,
    pub expires: NaiveDateTime,
}

/// # Errors
/// `Forbidden`; `NotFound`; `WrongState` when the VM is off or another host's; `Unsupported` when it has no screen.
pub async fn endpoint(core: &Core, id: VmId) -> Result<Endpoint> {
    let found = find(core, id).await?;
    let vm = &found.listing.vm;
    let noun = || format!("vm {}", vm.name);
    if vm.pm != core.pm.id {
        return Err(Error::wrong_state(noun(), format!("on pm {}", vm.pm), "ask the server there"));
    }
    match found.observed {
        Observed { state: PowerState::Unknown, .. } => Err(Error::unavailable("the hypervisor")),
        Observed { state, .. } if !state.is_active() => Err(vm::wrong_state(noun(), state, "start it first")),
        Observed { vnc: Some(at), .. } => Ok(Endpoint { at, password: vm.vnc_password.clone() }),
        Observed { vnc: None, .. } => {
            let what = format!("open a console: {} has no screen", noun());
            Err(Error::new(ErrorKind::Unsupported { what, by: "this host".to_owned() }))
        }
    }
}

/// A VM whose screen the caller may see, if it has one.
async fn find(core: &Core, id: VmId) -> Result<vm::VmView> {
    core.caller().require(Right::Operate, "open a console")?;
    vm::find(core, id).await
}

/// # Errors
/// As [`endpoint`].
pub async fn ticket(core: &Core, id: VmId) -> Result<Ticket> {
    endpoint(core, id).await?;
    let (text, expires) = core.tickets.make(id, core.caller(), core.clock.now())?;
    tracing::info!(vm = %id, user = %core.caller(), "a ticket for a console was given");
    Ok(Ticket { text, expires })
}

/// Waits until the caller may not see the screen any more: its account was removed or demoted, or does not show the VM by
/// its name, or what it came with is not valid any more. While nobody can tell it goes on.
pub async fn forbidden(core: &Core, id: VmId, look: Duration) {
    loop {
        tokio::time::sleep(look).await;
        let asked = async {
            let caller = core.known.again(core.caller(), core.clock.now()).await?;
            let caller = caller.ok_or_else(|| Error::new(ErrorKind::Unauthenticated))?;
            find(&core.in_the_name_of(caller), id).await
        };
        let kind = asked.await.err().map(|why| why.kind().clone());
        if matches!(kind, Some(ErrorKind::Unauthenticated | ErrorKind::Forbidden { .. })) {
            return;
        }
    }
}

/// Waits until the screen is not there any more: the VM was stopped, or is elsewhere, or runs with another screen.
pub async fn gone(core: &Core, id: VmId, at: &VncEndpoint) {
    let mut changes = core.inventory.changes();
    while !is_gone(&core.inventory.of(id), at) {
        // The inventory is there as long as the core is.
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// A hypervisor that does not answer says nothing of its guests, whose screens may well go on.
fn is_gone(now: &Observed, at: &VncEndpoint) -> bool {
    let elsewhere = || now.vnc.as_ref().is_some_and(|vnc| vnc != at);
    now.state != PowerState::Unknown && (!now.state.is_active() || elsewhere())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_is_gone_when_something_says_so() {
        let at = |port| VncEndpoint { host: "127.0.0.1".to_owned(), port };
        for (state, vnc, gone) in [
            (PowerState::Running, Some(at(1)), false),
            (PowerState::Paused, Some(at(1)), false),
            (PowerState::Running, None, false),
            (PowerState::Running, Some(at(2)), true),
            (PowerState::Shutdown, None, true),
            (PowerState::Crashed, None, true),
            (PowerState::Unknown, None, false),
        ] {
            let now = Observed { state, vnc, number: None };
            assert_eq!(is_gone(&now, &at(1)), gone, "{now:?}");
        }
    }
}
