//! What libvirt says of its domains: state, and where the screen is.

use std::collections::HashSet;
use std::sync::PoisonError;

use virt_sys as sys;

use super::domain_xml::{self, Screen};
use super::errors::{self, Fault};
use super::ffi::{self, RawState};
use super::link::Connection;
use crate::model::{DomainStatus, PowerState, VmId, VncEndpoint};

impl Connection {
    /// For a sentence; `Unknown` if libvirt will not say.
    pub(super) fn state_now(&self, id: VmId) -> PowerState {
        self.find(id).and_then(|domain| ffi::state(&domain)).map_or(PowerState::Unknown, power_state)
    }

    pub(super) fn statuses(&self) -> Result<Vec<DomainStatus>, Fault> {
        let rows = ffi::all_states(&self.connect)?;
        let mut running = HashSet::new();
        let mut statuses = Vec::with_capacity(rows.len());
        for row in rows {
            let id = VmId(row.uuid);
            let state = power_state(row.raw);
            let number = row.run.filter(|_| state.is_active());
            let vnc = match number {
                Some(run) => {
                    running.insert(id);
                    self.screen(id, run)?
                }
                None => None,
            };
            statuses.push(DomainStatus { id, state, vnc, number });
        }
        self.screens.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| running.contains(id));
        Ok(statuses)
    }

    pub(super) fn status(&self, id: VmId) -> Result<Option<DomainStatus>, Fault> {
        let Some(domain) = self.find_if_there(id)? else { return Ok(None) };
        let raw = match ffi::state(&domain) {
            Ok(raw) => raw,
            Err(error) if errors::is_absent(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let state = power_state(raw);
        let number = domain.id().filter(|_| state.is_active());
        let vnc = match number {
            Some(run) => self.screen(id, run)?,
            None => None,
        };
        Ok(Some(DomainStatus { id, state, vnc, number }))
    }

    /// Asked of libvirt once for each run.
    fn screen(&self, id: VmId, run: u32) -> Result<Option<VncEndpoint>, Fault> {
        let known = self.screens.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        if let Some((of_run, endpoint)) = known
            && of_run == run
        {
            return Ok(endpoint);
        }
        let document = match self.find(id).and_then(|domain| domain.xml_desc(0)) {
            Ok(document) => document,
            Err(error) if errors::is_absent(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let endpoint = match domain_xml::screen(&document)? {
            Screen::NotYet => return Ok(None),
            Screen::None => None,
            Screen::At(endpoint) => Some(endpoint),
        };
        let mut screens = self.screens.lock().unwrap_or_else(PoisonError::into_inner);
        screens.insert(id, (run, endpoint.clone()));
        Ok(endpoint)
    }
}

/// A domain that failed to start is off as it was before; only one that ran can have crashed.
pub(super) fn power_state(RawState { state, reason }: RawState) -> PowerState {
    let (Ok(state), Ok(reason)) = (u32::try_from(state), u32::try_from(reason)) else { return PowerState::Unknown };
    match (state, reason) {
        (sys::VIR_DOMAIN_RUNNING | sys::VIR_DOMAIN_BLOCKED | sys::VIR_DOMAIN_SHUTDOWN, _) => PowerState::Running,
        (sys::VIR_DOMAIN_PAUSED | sys::VIR_DOMAIN_PMSUSPENDED, _) => PowerState::Paused,
        (sys::VIR_DOMAIN_SHUTOFF, sys::VIR_DOMAIN_SHUTOFF_CRASHED) | (sys::VIR_DOMAIN_CRASHED, _) => {
            PowerState::Crashed
        }
        (sys::VIR_DOMAIN_SHUTOFF, _) => PowerState::Shutdown,
        _ => PowerState::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_of_libvirt_has_a_word() {
        for (state, reason, word) in [
            (0, 0, PowerState::Unknown),
            (1, 1, PowerState::Running),
            (2, 0, PowerState::Running),
            (3, 1, PowerState::Paused),
            (4, 1, PowerState::Running),
            (5, 0, PowerState::Shutdown),
            (5, 1, PowerState::Shutdown),
            (5, 2, PowerState::Shutdown),
            (5, 3, PowerState::Crashed),
            (5, 6, PowerState::Shutdown),
            (5, 99, PowerState::Shutdown),
            (6, 1, PowerState::Crashed),
            (7, 0, PowerState::Paused),
            (8, 0, PowerState::Unknown),
            (-1, -1, PowerState::Unknown),
            (i32::MAX, 0, PowerState::Unknown),
        ] {
            assert_eq!(power_state(RawState { state, reason }), word, "{state}/{reason}");
        }
    }
}
