//! What this host knows of itself, written down for the other hosts: networks, resolvers, virtual functions, storage.
//!
//! Law: nothing here fails a start or a heartbeat. What cannot be written is said in the log and tried again.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::model::{Dns, Network, Ocfs2Peer, PmId, Sriov, Storage};
use crate::operations::Core;
use crate::store::{Conn, networks, storages};

/// How often the mounts are asked how full they are.
const MEASURE_INTERVAL: Duration = Duration::from_secs(300);

/// When the mounts were asked last.
#[derive(Default)]
pub struct Measured(Mutex<Option<Instant>>);

#[derive(Debug, PartialEq, Eq)]
struct Facts {
    networks: Vec<Network>,
    dns: Option<Dns>,
    sriov: Vec<Sriov>,
    storages: Vec<Storage>,
    peers: Vec<Ocfs2Peer>,
}

/// Writes what has changed. How full storage is stays as it is recorded.
pub(super) fn renew(core: &Core) {
    write(core, |_| {});
}

/// Writes what has changed, and asks every mount how full it is.
pub(super) fn measure(core: &Core) {
    *core.measured.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    write(core, |storages| core.host.measure(storages));
}

pub(super) fn is_due(core: &Core) -> bool {
    let measured = core.measured.0.lock().unwrap_or_else(PoisonError::into_inner);
    measured.is_none_or(|at| at.elapsed() >= MEASURE_INTERVAL)
}

fn write(core: &Core, measure: impl FnOnce(&mut [Storage])) {
    let pm = core.pm.id;
    let mut fresh = Facts::of(core);
    let written = core.store.read(|c| Facts::recorded(c, pm)).and_then(|known| {
        fresh.carry_usage_over(&known);
        measure(&mut fresh.storages);
        if fresh == known { Ok(()) } else { core.store.note_tx(|tx| fresh.replace(tx, pm, &known)) }
    });
    if let Err(why) = written {
        tracing::warn!(error = why.story(), "the facts of this host could not be written");
    }
}

impl Facts {
    fn of(core: &Core) -> Self {
        let host = &core.host;
        Self {
            networks: host.networks(),
            dns: Some(host.dns()),
            sriov: host.sriov(),
            storages: host.storages(),
            peers: host.ocfs2(&core.pm.name),
        }
    }

    fn recorded(c: &mut Conn, pm: PmId) -> Result<Self> {
        Ok(Self {
            networks: networks::of_pm(c, pm)?,
            dns: networks::dns_of_pm(c, pm)?,
            sriov: networks::sriov_of_pm(c, pm)?,
            storages: storages::of_pm(c, pm)?,
            peers: storages::peers_of_pm(c, pm)?,
        })
    }

    fn carry_usage_over(&mut self, known: &Self) {
        for storage in &mut self.storages {
            storage.usage = known.storages.iter().find(|old| old.is_same(storage)).and_then(|old| old.usage);
        }
    }

    /// Replaces what differs from `known`.
    fn replace(&self, tx: &mut Conn, pm: PmId, known: &Self) -> Result<()> {
        if self.networks != known.networks {
            networks::replace(tx, pm, &self.networks)?;
        }
        if self.dns != known.dns {
            networks::replace_dns(tx, pm, self.dns.unwrap_or_default())?;
        }
        if self.sriov != known.sriov {
            networks::replace_sriov(tx, pm, &self.sriov)?;
        }
        if self.storages != known.storages || self.peers != known.peers {
            storages::replace(tx, pm, &self.storages, &self.peers)?;
        }
        Ok(())
    }
}
