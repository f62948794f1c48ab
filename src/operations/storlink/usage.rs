//! How full storlinks are, asked without waiting for a sick one.
//!
//! Law: at most one probe of a storlink is under way, however many ask; who asks waits for it a short while only, and is
//! then given what the storage said last.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::error::Result;
use crate::model::{Storlink, StorlinkId, Usage};
use crate::operations::health::Pulse;
use crate::operations::{Core, guard};
use crate::store::{disks, storlinks};

/// How long a probe may take before nobody waits for it.
const WAIT: Duration = Duration::from_secs(2);
/// How long a list waits for a storage that did not answer when it was last asked: for one that is back to say so.
const ANOTHER_CHANCE: Duration = Duration::from_millis(100);
/// How often at most what a storage said goes to its row, for the time after a restart.
const SAVE_INTERVAL: Duration = Duration::from_secs(60);
/// How often a storage that answers is asked when nobody else does.
const ASK_INTERVAL: Duration = Duration::from_secs(30);

/// What is known and what is being asked.
#[derive(Default)]
pub struct Usages(Mutex<HashMap<StorlinkId, Known>>);

#[derive(Default)]
struct Known {
    last: Option<Usage>,
    saved: Option<Instant>,
    asked: Option<Instant>,
    pulse: Pulse,
    /// Rings when the probe that is under way has ended.
    probe: Option<watch::Receiver<()>>,
}

impl Known {
    /// For how long to wait for the probe that is under way.
    fn patience(&self) -> Duration {
        let left = self.asked.map_or(WAIT, |at| WAIT.saturating_sub(at.elapsed()));
        if self.pulse.failing { ANOTHER_CHANCE } else { left.max(ANOTHER_CHANCE) }
    }

    fn is_silent(&self) -> bool {
        let late = || self.probe.is_some() && self.asked.is_some_and(|at| at.elapsed() >= WAIT);
        self.pulse.failing || late()
    }
}

impl Usages {
    /// What the storage said last to this process.
    pub(in crate::operations) fn said(&self, id: StorlinkId) -> Option<Usage> {
        self.lock().get(&id).and_then(|known| known.last)
    }

    pub(in crate::operations) fn pulse(&self, id: StorlinkId) -> Pulse {
        self.lock().get(&id).map(|known| known.pulse).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StorlinkId, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those whose size is what they said last: they do not answer, or say no.
    pub(super) fn silent(&self) -> HashSet<StorlinkId> {
        self.lock().iter().filter(|(_, known)| known.is_silent()).map(|(id, _)| *id).collect()
    }

    /// The storlink is gone, or is another place now.
    pub(super) fn forget(&self, id: StorlinkId) {
        self.lock().remove(&id);
    }
}

/// What the storage says now, or said last.
pub(super) async fn usage(core: &Core, storlink: &Storlink) -> Usage {
    if !guard::reaches(&core.pm, storlink) {
        return storlink.usage;
    }
    let (mut ended, patience) = probe(core, storlink);
    // Ended, given up by its sender, or too slow: what is known now is the answer in any case.
    drop(tokio::time::timeout(patience, ended.changed()).await);
    let known = core.usages.lock();
    known.get(&storlink.id).and_then(|known| known.last).unwrap_or(storlink.usage)
}

/// Begins a probe when the last one was a while ago or had no answer, and does not wait for it.
pub(in crate::operations) fn keep_asking(core: &Core, storlink: &Storlink) {
    let is_due = |known: &Known| known.pulse.failing || known.asked.is_none_or(|at| at.elapsed() >= ASK_INTERVAL);
    if core.usages.lock().get(&storlink.id).is_none_or(is_due) {
        drop(probe(core, storlink));
    }
}

/// Begins a probe, or joins the one that is under way; and for how long to wait for it.
fn probe(core: &Core, storlink: &Storlink) -> (watch::Receiver<()>, Duration) {
    let mut all = core.usages.lock();
    let known = all.entry(storlink.id).or_default();
    if let Some(probe) = &known.probe {
        return (probe.clone(), known.patience());
    }
    let (done, ended) = watch::channel(());
    known.probe = Some(ended.clone());
    known.asked = Some(Instant::now());
    let patience = known.patience();
    drop(all);
    let (asking, asked) = (core.clone(), storlink.clone());
    // A thread of its own: on the runtime's, dead storages would keep reads waiting, and the stop. The driver keeps its own
    // deadline, so the thread comes back.
    let begun = std::thread::Builder::new().name("probe".to_owned()).spawn(move || {
        let said = (asking.volumes)(&asked).and_then(|driver| driver.usage());
        match (&said, asking.usages.pulse(asked.id).failing) {
            (Err(why), false) => {
                tracing::warn!(storlink = %asked.id, error = why.story(), "the storage does not say how full it is");
            }
            (Ok(_), true) => tracing::info!(storlink = %asked.id, "the storage answers again"),
            _ => {}
        }
        if said.is_ok()
            && !asked.marked
            && let Err(why) = mark(&asking, &asked)
        {
            tracing::warn!(storlink = %asked.id, error = why.story(), "the directory could not be marked");
        }
        keep(&asking, asked.id, said.ok());
        done.send_replace(());
    });
    if let Err(why) = begun {
        tracing::warn!(storlink = %storlink.id, error = %why, "no thread to ask a storage how full it is");
        keep(core, storlink.id, None);
    }
    (ended, patience)
}

/// Marks the directory of a storlink that was made before there were marks, as soon as it holds a volume that it must hold:
/// then it is the right one.
fn mark(core: &Core, storlink: &Storlink) -> Result<()> {
    let disks = core.store.read(disks::all)?;
    let driver = (core.volumes)(storlink)?;
    for disk in disks.iter().filter(|disk| disk.storlink == storlink.id) {
        if driver.exists(&disk.volume).unwrap_or(false) {
            driver.mark()?;
            return core.store.note_tx(|tx| storlinks::set_marked(tx, storlink.id));
        }
    }
    Ok(())
}

fn keep(core: &Core, id: StorlinkId, said: Option<Usage>) {
    let save = {
        let mut all = core.usages.lock();
        let known = all.entry(id).or_default();
        known.probe = None;
        known.pulse.note(said.is_some());
        let changed = said.is_some() && said != known.last;
        known.last = said.or(known.last);
        let due = changed && known.saved.is_none_or(|saved| saved.elapsed() >= SAVE_INTERVAL);
        if due {
            known.saved = Some(Instant::now());
        }
        known.last.filter(|_| due)
    };
    if let Some(usage) = save
        && let Err(why) = core.store.note_tx(|tx| storlinks::set_usage(tx, id, usage))
    {
        tracing::warn!(storlink = %id, error = why.story(), "how full it is could not be kept");
    }
}
