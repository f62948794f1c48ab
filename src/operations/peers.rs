//! The other hosts of the site, as far as this one can tell: who is alive, and what their domains are doing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::model::{Pm, PmId, Seen, VncEndpoint};
use crate::store::pms;

use super::Core;
use super::inventory::Observed;

/// A PM without a heartbeat for this long is down.
const HEARTBEAT_LOST: chrono::Duration = chrono::Duration::seconds(90);

/// Heartbeats come every half minute, so their rows need not be read for each list.
const KEPT: Duration = Duration::from_secs(5);

/// Whether a PM has shown lately that it is alive.
pub(super) fn is_up(core: &Core, pm: &Pm) -> bool {
    core.clock.now() - pm.heartbeat_at < HEARTBEAT_LOST
}

/// The rows of all PMs.
#[derive(Clone, Default)]
pub(super) struct Peers(Arc<Vec<Pm>>);

/// The PMs that are up, with their names. Decided once, so that all that is shown together agrees; and equal ones show the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Up(BTreeMap<PmId, String>);

impl Peers {
    /// Those that are up now.
    pub(super) fn up(&self, core: &Core) -> Up {
        Up(self.0.iter().filter(|pm| is_up(core, pm)).map(|pm| (pm.id, pm.name.clone())).collect())
    }
}

impl Up {
    /// What is shown of a domain of another host: what that host saw last, or `Unknown` when it is down.
    pub(super) fn observed(&self, pm: PmId, seen: Seen) -> Observed {
        match self.0.get(&pm) {
            Some(name) => {
                let vnc = seen.vnc_port.map(|port| VncEndpoint { host: name.clone(), port });
                Observed { state: seen.state, vnc, number: None }
            }
            None => Observed::unknown(),
        }
    }
}

/// The rows as they were read last, and when.
#[derive(Default)]
pub(super) struct Known(Mutex<Option<(Instant, Peers)>>);

/// Without a query, if somebody asked a moment ago.
pub(super) fn kept(core: &Core) -> Option<Peers> {
    let known = core.peers.0.lock().unwrap_or_else(PoisonError::into_inner);
    known.as_ref().filter(|(at, _)| at.elapsed() < KEPT).map(|(_, peers)| peers.clone())
}

pub(super) fn load(core: &Core) -> Result<Peers> {
    let at = Instant::now();
    let all = core.store.read(pms::all)?;
    let peers = Peers(Arc::new(all));
    *core.peers.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, peers.clone()));
    Ok(peers)
}
