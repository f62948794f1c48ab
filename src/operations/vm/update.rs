//! Changes vCPUs, memory and disc of a VM: at once what a running guest lets be changed, the rest from its next start on.

use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Problems, Result};
use crate::hypervisor::Capabilities;
use crate::model::{Access, Compensation, DomainSpec, Iso, Lock, MiB, PowerState, Resource, TaskKind, Vm, VmId};
use crate::operations::domain::Machine;
use crate::operations::{Core, Operation, guard, iso};
use crate::store::vms;
use crate::tasks::Work;

use super::check::outline;
use super::{Known, noun, state_now};

/// How often a guest is looked at that was asked for another size of memory.
const MEMORY_POLL: Duration = Duration::from_millis(200);

/// What is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    pub cpu: Option<u32>,
    pub memory: Option<MiB>,
    pub maxmem: Option<MiB>,
    /// `Some(None)` takes the disc out.
    pub iso: Option<Option<Iso>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateVm {
    pub vm: VmId,
    pub changes: Changes,
}

impl Operation for UpdateVm {
    const KIND: TaskKind = TaskKind::VmUpdate;
    type Output = ();

    fn subject(&self, core: &Core) -> Result<String> {
        noun(core, self.vm)
    }

    fn locks(&self) -> Vec<Lock> {
        let mut locks = vec![Lock { resource: Resource::Vm(self.vm), access: Access::Changes }];
        if let Some(Some(iso)) = &self.changes.iso {
            locks.push(Lock { resource: Resource::Storlink(iso.storlink), access: Access::Uses });
        }
        locks
    }

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let mut machine = Machine::load(core, self.vm)?;
        let old = machine.vm.clone();
        let state = state_now(core, self.vm)?;
        judge(core, &old, state, &self.changes)?;
        let name = format!("vm {}", old.name);
        let new = self.changes.applied_to(&old);
        if new == old {
            return work.settle(&format!("{name} is as it was"), &[], |_| Ok(()));
        }
        machine.vm = Vm { updated_at: core.clock.now(), ..new };
        let spec = machine.spec(core)?;
        let live = if state.is_active() { Live::plan(core, &old, &spec, &machine.vm)? } else { Live::default() };
        live.can_be_done(&core.hypervisor.capabilities(&spec), &name, state)?;
        work.step(&Compensation::Redefine { vm: self.vm }, || core.hypervisor.define(&spec))?;
        live.change(core, work, &spec, state)?;
        work.settle(&format!("{name} is updated"), &[], |tx| vms::update(tx, &machine.vm))
    }
}

impl Changes {
    fn applied_to(&self, vm: &Vm) -> Vm {
        Vm {
            cpu: self.cpu.unwrap_or(vm.cpu),
            memory: self.memory.unwrap_or(vm.memory),
            maxmem: self.maxmem.unwrap_or(vm.maxmem),
            iso: self.iso.clone().unwrap_or_else(|| vm.iso.clone()),
            ..vm.clone()
        }
    }
}

/// `Invalid` with every change that this VM cannot have in the state that it is in.
pub fn check_update(core: &Core, id: VmId, changes: &Changes) -> Result<()> {
    let vm = core.store.read(|c| guard::vm(c, core, id))?;
    judge(core, &vm, state_now(core, id)?, changes)
}

fn judge(core: &Core, vm: &Vm, state: PowerState, changes: &Changes) -> Result<()> {
    let mut bad = Problems::new();
    let new = changes.applied_to(vm);
    let most = core.hypervisor.capabilities(&outline(&Known { cpu: Some(new.cpu), ..Known::default() })).max_vcpus;
    // So many could be plugged into it when it was started.
    let most_now = vm.cpu.max(core.settings.max_vcpus);
    let (name, active) = (&vm.name, state.is_active());
    if new.cpu > most {
        bad.add("cpu_core", format!("must be at most {most}"));
    } else if active && new.cpu < vm.cpu {
        bad.add("cpu_core", format!("vm {name} is {state} with {}; shut it down to take vCPUs away", vm.cpu));
    } else if active && new.cpu > most_now {
        bad.add("cpu_core", format!("must be at most {most_now} while vm {name} is {state}; shut it down for more"));
    }
    if new.memory > new.maxmem {
        match changes.memory {
            Some(_) => bad.add("memory", format!("must be at most maxmem, {}", new.maxmem)),
            None => bad.add("maxmem", format!("must be at least the memory of vm {name}, {}", new.memory)),
        }
    }
    if let Some(iso) = new.iso.as_ref().filter(|_| new.iso != vm.iso) {
        bad.absorb(iso::open(core, iso))?;
    }
    bad.done()
}

/// What changes in a guest that runs or is paused.
#[derive(Default)]
struct Live {
    memory: Option<Memory>,
    disc: bool,
    vcpus: bool,
}

struct Memory {
    from: MiB,
    /// No more than the guest was started with; the rest of what the row says comes with its next start.
    to: MiB,
}

impl Live {
    fn plan(core: &Core, old: &Vm, spec: &DomainSpec, new: &Vm) -> Result<Self> {
        let mut live = Self { memory: None, disc: new.iso != old.iso, vcpus: new.cpu > old.cpu };
        if new.memory != old.memory {
            let to = new.memory.min(core.hypervisor.size(spec.id)?.max_memory);
            let from = core.hypervisor.memory(spec.id)?;
            live.memory = (from != to).then_some(Memory { from, to });
        }
        Ok(live)
    }

    fn can_be_done(&self, can: &Capabilities, name: &str, state: PowerState) -> Result<()> {
        let wishes = [
            (self.memory.is_some() && !can.live_memory, "the memory"),
            (self.disc && !can.live_disc, "the disc"),
            (self.vcpus && !can.live_vcpus, "the vCPUs"),
        ];
        let lacking: Vec<_> = wishes.iter().filter(|(lacks, _)| *lacks).map(|(_, what)| *what).collect();
        if lacking.is_empty() {
            return Ok(());
        }
        let what = format!("change {} of {name} while it is {state}; shut it down first", lacking.join(" and "));
        Err(Error::new(ErrorKind::Unsupported { what, by: "the hypervisor".to_owned() }))
    }

    /// vCPUs come last, because they cannot be pulled out again: whatever fails before leaves the guest as it was.
    fn change(&self, core: &Core, work: &mut Work<'_>, spec: &DomainSpec, state: PowerState) -> Result<()> {
        let vm = spec.id;
        if let Some(memory) = &self.memory {
            work.step(&Compensation::ResetMemory { vm }, || core.hypervisor.set_memory(vm, memory.to))?;
            // A paused guest follows when it is resumed.
            if state == PowerState::Running {
                memory.wait(core, work, spec)?;
            }
        }
        if self.disc {
            let undo = Compensation::ResetDisc { vm };
            work.step(&undo, || core.hypervisor.change_disc(vm, spec.disc.as_ref()))?;
        }
        if self.vcpus {
            work.step(&Compensation::AdoptVcpus { vm }, || core.hypervisor.set_vcpus(vm, spec.vcpus))?;
        }
        Ok(())
    }
}

impl Memory {
    /// Until the guest has followed. `Timeout` when it does not.
    fn wait(&self, core: &Core, work: &Work<'_>, spec: &DomainSpec) -> Result<()> {
        let timeout = core.settings.memory_timeout;
        let deadline = Instant::now() + timeout;
        loop {
            let now = core.hypervisor.memory(spec.id)?;
            let followed = if self.to > self.from { now >= self.to } else { now <= self.to };
            if followed {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let (verb, by) = if self.to > self.from {
                    ("take", self.to.0.abs_diff(self.from.0))
                } else {
                    ("give up", self.from.0.abs_diff(self.to.0))
                };
                let action = format!("vm {} did not {verb} {by} MiB of memory", spec.title);
                return Err(Error::new(ErrorKind::Timeout { action, after: timeout }));
            }
            work.checkpoint()?;
            let off = |state| matches!(state, PowerState::Shutdown | PowerState::Crashed);
            core.inventory.wait_for(spec.id, deadline.min(Instant::now() + MEMORY_POLL), off);
        }
    }
}
