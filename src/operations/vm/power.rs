//! Power: start, shut down, pull the plug, ask for a reboot, suspend and resume.

use std::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::hypervisor::Start;
use crate::model::{Compensation, DomainSpec, PowerState, TaskKind, VmId};
use crate::operations::domain::Machine;
use crate::operations::{Core, Operation, iso};
use crate::store::vms;
use crate::tasks::Work;

use super::{changes_its_vm, noun, state_now, wrong_state};

/// Starts a VM that is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartVm {
    pub vm: VmId,
}

impl Operation for StartVm {
    const KIND: TaskKind = TaskKind::VmStart;
    type Output = ();

    changes_its_vm!();

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let name = noun(core, self.vm)?;
        let state = state_now(core, self.vm)?;
        if state.is_active() {
            return Err(wrong_state(name, state, "it is started already"));
        }
        let spec = bootable(core, self.vm)?;
        // The rows may have changed since it ran last; defining again what is defined is no change.
        work.act(|| core.hypervisor.define(&spec))?;
        work.step(&Compensation::Destroy { vm: self.vm }, || core.hypervisor.start(self.vm, Start::Running))?;
        core.inventory.refresh(self.vm)?;
        let now = core.clock.now();
        work.settle(&format!("{name} is started"), &[], |tx| vms::set_booted(tx, self.vm, now))
    }
}

/// What a start needs is there: every volume, and the disc in the drive.
pub(super) fn bootable(core: &Core, vm: VmId) -> Result<DomainSpec> {
    let machine = Machine::load(core, vm)?;
    iso::of_vm(core, &machine.vm)?;
    machine.spec(core)
}

/// Asks the guest to power off, and waits until it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownVm {
    pub vm: VmId,
}

impl Operation for ShutdownVm {
    const KIND: TaskKind = TaskKind::VmShutdown;
    type Output = ();

    changes_its_vm!();

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let name = noun(core, self.vm)?;
        shut_down(core, work, self.vm, &name)?;
        work.settle(&format!("{name} is shut down"), &[], |_| Ok(()))
    }
}

/// Asks the guest of a domain, a VM's or a template's, to power off, again and again, and returns when it is off.
pub(in crate::operations) fn shut_down(core: &Core, work: &mut Work<'_>, domain: VmId, name: &str) -> Result<()> {
    require_running(core, domain, name)?;
    let (timeout, repeat) = (core.settings.shutdown_timeout, core.settings.shutdown_repeat);
    let deadline = Instant::now() + timeout;
    work.act(|| ask(core, domain))?;
    loop {
        if wait_off(core, work, domain, deadline.min(Instant::now() + repeat))? {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let action = format!("{name} did not power off");
            return Err(Error::new(ErrorKind::Timeout { action, after: timeout }));
        }
        // A guest that is still booting loses the request, so it is made again and again; a hypervisor that is away for a
        // moment is no reason to give up.
        work.act(|| match ask(core, domain) {
            Err(away) if matches!(away.kind(), ErrorKind::Unavailable { .. }) => Ok(()),
            other => other,
        })?;
    }
}

/// A guest that is off meanwhile has nothing against it.
fn ask(core: &Core, vm: VmId) -> Result<()> {
    match core.hypervisor.request_shutdown(vm) {
        Err(off) if matches!(off.kind(), ErrorKind::WrongState { .. }) => core.inventory.refresh(vm),
        other => other,
    }
}

/// Whether the domain is off before `until`. Looks up now and then to see whether the task was cancelled.
fn wait_off(core: &Core, work: &Work<'_>, vm: VmId, until: Instant) -> Result<bool> {
    loop {
        let look_up = until.min(Instant::now() + std::time::Duration::from_millis(500));
        let state = core.inventory.wait_for(vm, look_up, |state| !state.is_active() && state != PowerState::Unknown);
        if matches!(state, PowerState::Shutdown | PowerState::Crashed) {
            return Ok(true);
        }
        work.checkpoint()?;
        if Instant::now() >= until {
            return Ok(false);
        }
    }
}

/// Pulls the plug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoweroffVm {
    pub vm: VmId,
}

impl Operation for PoweroffVm {
    const KIND: TaskKind = TaskKind::VmPoweroff;
    type Output = ();

    changes_its_vm!();

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let name = noun(core, self.vm)?;
        power_off(core, work, self.vm, &name)?;
        work.settle(&format!("{name} is powered off"), &[], |_| Ok(()))
    }
}

/// Pulls the plug of a domain, a VM's or a template's.
pub(in crate::operations) fn power_off(core: &Core, work: &mut Work<'_>, domain: VmId, name: &str) -> Result<()> {
    let state = state_now(core, domain)?;
    if !state.is_active() {
        return Err(wrong_state(name.to_owned(), state, "it is off already"));
    }
    work.act(|| core.hypervisor.destroy(domain))?;
    core.inventory.refresh(domain)
}

/// Asks the guest to reboot. It is done when the guest was asked: what the guest makes of it, nobody can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RebootVm {
    pub vm: VmId,
}

impl Operation for RebootVm {
    const KIND: TaskKind = TaskKind::VmReboot;
    type Output = ();

    changes_its_vm!();

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let name = noun(core, self.vm)?;
        require_running(core, self.vm, &name)?;
        work.act(|| core.hypervisor.request_reboot(self.vm))?;
        core.inventory.refresh(self.vm)?;
        work.settle(&format!("{name} is asked to reboot"), &[], |_| Ok(()))
    }
}

/// Asks the guest to power off, once. As with [`RebootVm`], it is done when the guest was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestShutdownVm {
    pub vm: VmId,
}

impl Operation for RequestShutdownVm {
    const KIND: TaskKind = TaskKind::VmShutdown;
    type Output = ();

    changes_its_vm!();

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let name = noun(core, self.vm)?;
        require_running(core, self.vm, &name)?;
        work.act(|| core.hypervisor.request_shutdown(self.vm))?;
        core.inventory.refresh(self.vm)?;
        work.settle(&format!("{name} is asked to power off"), &[], |_| Ok(()))
    }
}

/// A guest that stands still hears nothing.
fn require_running(core: &Core, domain: VmId, name: &str) -> Result<()> {
    match state_now(core, domain)? {
        PowerState::Running => Ok(()),
        PowerState::Paused => Err(wrong_state(name.to_owned(), PowerState::Paused, "resume it first")),
        state => Err(wrong_state(name.to_owned(), state, "it is not running")),
    }
}

/// Stops the vCPUs of a running VM where they are; its memory stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuspendVm {
    pub vm: VmId,
}

impl Operation for SuspendVm {
    const KIND: TaskKind = TaskKind::VmSuspend;
    type Output = ();

    changes_its_vm!();

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let name = noun(core, self.vm)?;
        match state_now(core, self.vm)? {
            PowerState::Running => {}
            PowerState::Paused => return Err(wrong_state(name, PowerState::Paused, "it is suspended already")),
            state => return Err(wrong_state(name, state, "it is not running")),
        }
        work.act(|| core.hypervisor.pause(self.vm))?;
        core.inventory.refresh(self.vm)?;
        work.settle(&format!("{name} is suspended"), &[], |_| Ok(()))
    }
}

/// Lets a suspended VM go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumeVm {
    pub vm: VmId,
}

impl Operation for ResumeVm {
    const KIND: TaskKind = TaskKind::VmResume;
    type Output = ();

    changes_its_vm!();

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let name = noun(core, self.vm)?;
        let state = state_now(core, self.vm)?;
        if state != PowerState::Paused {
            return Err(wrong_state(name, state, "only a suspended vm can be resumed"));
        }
        work.act(|| core.hypervisor.unpause(self.vm))?;
        core.inventory.refresh(self.vm)?;
        work.settle(&format!("{name} is resumed"), &[], |_| Ok(()))
    }
}
