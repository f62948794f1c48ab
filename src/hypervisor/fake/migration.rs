//! Guests of the fake that move between two fakes.

use std::net::IpAddr;
use std::sync::Arc;

use super::{FakeHypervisor, Run, State, refused};
use crate::error::{Error, Result};
use crate::hypervisor::{MigrationTarget, Transit, Verb};
use crate::model::{DomainSpec, PowerState, VmId};

/// What a migration that was broken off has left on one side.
pub(super) struct Half {
    /// Suspended, sent or arrived.
    is: Transit,
    run: Run,
}

impl Half {
    /// Whether it is still a guest of this host.
    pub(super) fn is_shown(&self) -> bool {
        self.is == Transit::Suspended
    }
}

impl FakeHypervisor {
    /// The hypervisor that is reached at this address from now on.
    pub fn reach(&self, address: IpAddr, other: &Self) {
        self.world.lock().reached.insert(address, Arc::downgrade(&other.world));
    }

    /// The next guest that is sent gets only so far: what the source and the target have of it then.
    pub fn break_next_migration(&self, source: Transit, target: Transit) {
        self.world.lock().broken = Some((source, target));
    }

    pub(super) fn send(&self, id: VmId, to: &MigrationTarget) -> Result<()> {
        let mut here = self.world.lock();
        here.listening(id, Verb::SendGuest)?;
        let run = here.run(id, Verb::SendGuest)?;
        if let Some(order) = run.jobs.keys().next() {
            return Err(crate::hypervisor::job_runs(id, *order));
        }
        let run = run.clone();
        let there = here.reached.get(&to.address).and_then(std::sync::Weak::upgrade);
        let there = there.ok_or_else(|| refused(format!("{} is not reached", to.address)))?;
        let broken = here.broken.take();
        let (left, come) = broken.unwrap_or((Transit::Absent, Transit::Here));
        // Never both at once, so two that send to each other do not wait for ever.
        drop(here);
        there.lock().receive(id, run, come)?;
        there.changed();
        self.world.lock().domain(id)?.leave(left);
        match broken {
            None => Ok(()),
            Some(_) => Err(Error::unavailable(format!("the host at {}", to.address))),
        }
    }
}

impl super::Domain {
    fn leave(&mut self, left: Transit) {
        match (left, self.run.take()) {
            (Transit::Here, run) => self.run = run,
            (Transit::Absent, _) => self.ended = PowerState::Shutdown,
            (is, run) => self.half = run.map(|run| Half { is, run }),
        }
    }
}

impl State {
    pub(super) fn expect(&mut self, spec: &DomainSpec) -> Result<()> {
        self.check(spec.id, spec)?;
        if self.transit(spec.id) != Transit::Absent {
            return Err(refused(format!("vm {} is here already", spec.id)));
        }
        self.domains.entry(spec.id).or_insert_with(|| super::Domain::new(spec.clone())).spec = spec.clone();
        self.expected.insert(spec.id);
        Ok(())
    }

    fn receive(&mut self, id: VmId, run: Run, come: Transit) -> Result<()> {
        if !self.expected.contains(&id) {
            return Err(refused(format!("vm {id} is not expected there")));
        }
        let domain = self.domain(id)?;
        match come {
            Transit::Absent => {}
            Transit::Here => domain.run = Some(run),
            is => domain.half = Some(Half { is, run }),
        }
        Ok(())
    }

    pub(super) fn transit(&self, id: VmId) -> Transit {
        let domain = self.domains.get(&id);
        match domain.map(|domain| (&domain.run, &domain.half)) {
            Some((Some(_), _)) => Transit::Here,
            Some((None, Some(half))) => half.is,
            _ => Transit::Absent,
        }
    }

    pub(super) fn take_over(&mut self, id: VmId) -> Result<()> {
        if self.transit(id) == Transit::Absent {
            return Err(Error::not_found("guest of vm", id));
        }
        self.expected.remove(&id);
        let domain = self.domain(id)?;
        if let Some(half) = domain.half.take() {
            domain.run = Some(half.run);
        }
        Ok(())
    }

    pub(super) fn give_up(&mut self, id: VmId) -> Result<()> {
        let Some(domain) = self.domains.get_mut(&id) else { return Ok(()) };
        if domain.run.is_some() {
            return Err(Verb::GiveUp.wrong_state(id, domain.state()));
        }
        domain.half = None;
        self.expected.remove(&id);
        Ok(())
    }
}
