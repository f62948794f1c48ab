//! Whether this host can do its work, known without asking anybody at that moment.
//!
//! Law: [`report`] and all that metrics read here never block. What needs the database or a storage is looked at by
//! [`watch`], now and then, and kept with its age; an answer that is overdue counts as silence.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::model::{MiB, Storlink, StorlinkId, TaskId, VmId};
use crate::store::{Conn, journal, reservations, storlinks, tasks, vms};

use super::{Core, guard, storlink};

/// How often the database is looked at.
const INTERVAL: Duration = Duration::from_secs(5);
/// The database is silent when it has not answered for so long, though nobody has said that it does not.
const DATABASE_LATE: Duration = Duration::from_secs(15);
/// The same of the hypervisor, which is asked every ten seconds and has twenty to answer.
const HYPERVISOR_LATE: Duration = Duration::from_secs(40);

/// When a neighbour answered last, and whether it did when it was last asked.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pulse {
    pub(super) answered: Option<Instant>,
    pub(super) failing: bool,
}

impl Pulse {
    pub(super) fn note(&mut self, answers: bool) {
        self.failing = !answers;
        if answers {
            self.answered = Some(Instant::now());
        }
    }

    /// Since its last answer; `None` before the first.
    pub(super) fn age(&self) -> Option<Duration> {
        self.answered.map(|at| at.elapsed())
    }

    fn is_up(&self, late: Duration) -> bool {
        !self.failing && self.age().is_some_and(|age| age < late)
    }

    fn silence(&self, who: &str) -> String {
        match self.age() {
            Some(age) => format!("{who} has not answered for {} s", age.as_secs()),
            None => format!("{who} has not answered yet"),
        }
    }
}

/// What was seen last. One per core.
#[derive(Default)]
pub struct Seen(Mutex<Look>);

#[derive(Default)]
struct Look {
    database: Pulse,
    rows: Option<Arc<Rows>>,
}

/// What the database said when it was looked at last.
pub(super) struct Rows {
    pub(super) at: Instant,
    /// Of this host.
    pub(super) vms: Vec<VmId>,
    /// Within reach of this host.
    pub(super) storlinks: Vec<Storlink>,
    /// What running tasks have reserved on them, of every host.
    pub(super) reserved: HashMap<StorlinkId, MiB>,
    /// Tasks of this host that are over and not cleaned up after.
    pub(super) unclean: usize,
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, Look> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In sentences for the operator. It names no object: whoever connects may read it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Why this host cannot do its work.
    pub down: Vec<String>,
    /// What an operator should look at while it goes on.
    pub warnings: Vec<String>,
}

/// Looks for as long as it is polled.
pub async fn watch(core: Core) {
    let mut turn = tokio::time::interval(INTERVAL);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        look(&core).await;
    }
}

/// Looks once. Waits for the database, not for storages.
pub async fn look(core: &Core) {
    let rows = core.read(|core| core.store.read(|c| rows(core, c))).await;
    let mut seen = core.health.lock();
    seen.database.note(rows.is_ok());
    if let Ok(rows) = rows {
        for storlink in &rows.storlinks {
            storlink::keep_asking(core, storlink);
        }
        seen.rows = Some(Arc::new(rows));
    }
}

fn rows(core: &Core, c: &mut Conn) -> Result<Rows> {
    let mut storlinks = storlinks::all(c)?;
    storlinks.retain(|storlink| guard::reaches(&core.pm, storlink));
    let mut unclean = 0;
    for id in journal::pending(c, core.pm.id)? {
        unclean += usize::from(is_over(c, id)?);
    }
    let mut reserved: HashMap<StorlinkId, MiB> = HashMap::new();
    for (storlink, size) in reservations::all(c)? {
        let sum = reserved.entry(storlink).or_default();
        *sum = *sum + size;
    }
    Ok(Rows { at: Instant::now(), vms: vms::ids_of(c, core.pm.id)?, storlinks, reserved, unclean })
}

/// A task that runs has a journal too.
fn is_over(c: &mut Conn, id: TaskId) -> Result<bool> {
    Ok(tasks::find(c, id)?.is_some_and(|task| task.state.is_over()))
}

/// What is known now.
pub fn report(core: &Core) -> Report {
    let now = Now::of(core);
    let mut report = Report::default();
    if !now.database_up {
        report.down.push(now.database.silence("the database"));
    }
    if !now.hypervisor_up {
        report.down.push(now.hypervisor.silence("the hypervisor"));
    }
    let Some(rows) = now.rows else { return report };
    let silent = rows.storlinks.iter().filter(|s| core.usages.pulse(s.id).failing).count();
    if silent > 0 {
        report.warnings.push(format!("storlinks that do not answer: {silent} of {}", rows.storlinks.len()));
    }
    if rows.unclean > 0 {
        report.warnings.push(format!("tasks that wait to be undone or finished: {}; see the log", rows.unclean));
    }
    report
}

/// The neighbours of this moment.
pub(super) struct Now {
    pub(super) database: Pulse,
    pub(super) database_up: bool,
    pub(super) hypervisor: Pulse,
    pub(super) hypervisor_up: bool,
    pub(super) rows: Option<Arc<Rows>>,
}

impl Now {
    pub(super) fn of(core: &Core) -> Self {
        let (database, rows) = {
            let seen = core.health.lock();
            (seen.database, seen.rows.clone())
        };
        let hypervisor = core.inventory.pulse();
        let (database_up, hypervisor_up) = (database.is_up(DATABASE_LATE), hypervisor.is_up(HYPERVISOR_LATE));
        Self { database, database_up, hypervisor, hypervisor_up, rows }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_an_error_or_an_overdue_answer() {
        let late = Duration::from_secs(15);
        let mut pulse = Pulse::default();
        assert!(!pulse.is_up(late));
        assert_eq!(pulse.silence("the database"), "the database has not answered yet");
        pulse.note(true);
        assert!(pulse.is_up(late));
        pulse.note(false);
        assert!(!pulse.is_up(late));
        let hanging = Pulse { answered: Instant::now().checked_sub(Duration::from_secs(20)), failing: false };
        assert!(!hanging.is_up(late));
        assert_eq!(hanging.silence("the database"), "the database has not answered for 20 s");
    }
}
