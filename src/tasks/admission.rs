//! Who may begin: all locks of a task at once, in the order of asking.
//!
//! A task that conflicts with an earlier waiting one waits behind it, so nobody starves. No lock is ever held while
//! waiting for another, so there is no order of locks and no deadlock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chrono::NaiveDateTime;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Access, Lane, Lock, Resource, Task, TaskId, TaskState};
use crate::store::locks::{self, Holder};
use crate::store::tasks as rows;

use super::{Ending, Engine, Failed, Job, Live, TaskSpec, lock, stopping};

/// How often waiters try again when nothing in this process told them to: another process may have freed a lock.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Tasks that wait for locks, oldest first.
#[derive(Default)]
pub(super) struct Admission {
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    id: TaskId,
    spec: TaskSpec,
    live: Arc<Live>,
    job: Job,
    since: NaiveDateTime,
    deadline: Instant,
    /// Who was in the way last.
    behind: Holder,
}

impl Engine {
    /// Records the task; gives it its locks and a place in its lane, or a place among the waiting.
    pub(super) fn admit(&self, id: TaskId, spec: TaskSpec, live: Arc<Live>, job: Job) -> Result<()> {
        let mut admission = lock(&self.0.admission);
        if self.0.stopping.load(Ordering::SeqCst) || self.is_dead() {
            return Err(stopping());
        }
        if admission.waiting.len() + self.0.lanes.queued() >= self.0.ground.settings.queue {
            return Err(Error::unavailable("the task queue is full and"));
        }
        let behind = admission.waiting.iter().find_map(|w| w.in_the_way(&spec.locks));
        let row = self.new_row(id, &spec);
        // Live before its row can be seen: recovery takes a row that nobody here runs for a lost one.
        lock(&self.0.live).insert(id, live.clone());
        let admitted = self.0.ground.store.note_tx(|c| {
            rows::insert(c, &row)?;
            if behind.is_some() { Ok(None) } else { locks::acquire(c, id, &spec.locks) }
        });
        let holder = admitted.inspect_err(|_| drop(lock(&self.0.live).remove(&id)))?;
        if let Some(behind) = behind.or(holder) {
            let deadline = Instant::now() + self.0.ground.settings.lock_timeout;
            admission.waiting.push_back(Waiting { id, spec, live, job, since: row.created_at, deadline, behind });
        } else {
            self.launch(id, spec.lane, live, job);
        }
        Ok(())
    }

    /// After locks became free: lets in, oldest first, whoever can have all of theirs.
    pub(super) fn admit_waiters(&self) {
        if self.is_dead() {
            return;
        }
        let mut admission = lock(&self.0.admission);
        let mut still: VecDeque<Waiting> = VecDeque::new();
        while let Some(mut w) = admission.waiting.pop_front() {
            if let Some(behind) = still.iter().find_map(|earlier| earlier.in_the_way(&w.spec.locks)) {
                w.behind = behind;
                still.push_back(w);
                continue;
            }
            match self.0.ground.store.note_tx(|c| locks::acquire(c, w.id, &w.spec.locks)) {
                Ok(None) => self.launch(w.id, w.spec.lane, w.live, w.job),
                Ok(Some(holder)) => {
                    w.behind = holder;
                    still.push_back(w);
                }
                Err(why) => {
                    tracing::warn!(task = %w.id, error = why.story(), "locks could not be taken; trying again");
                    still.push_back(w);
                }
            }
        }
        admission.waiting = still;
    }

    /// Ends the waiting of tasks that were cancelled.
    pub(super) fn drop_cancelled_waiters(&self) {
        self.refuse_waiters(
            |w| w.live.cancel.load(Ordering::SeqCst),
            |w| Error::new(ErrorKind::Cancelled { what: format!("task {}", w.id) }),
        );
    }

    /// The thread that ends waiting at its deadline.
    pub(super) fn spawn_clock(&self) {
        let engine = Arc::downgrade(&self.0);
        let tick = move || {
            while let Some(inner) = engine.upgrade() {
                let engine = Engine(inner);
                if engine.is_dead() {
                    return;
                }
                if !lock(&engine.0.admission).waiting.is_empty() {
                    engine.admit_waiters();
                    let now = Instant::now();
                    engine.refuse_waiters(|w| w.deadline <= now, busy);
                }
                drop(engine);
                std::thread::sleep(RETRY_INTERVAL);
            }
        };
        if let Err(why) = std::thread::Builder::new().name("task-clock".to_owned()).spawn(tick) {
            tracing::error!(error = %why, "no thread for the task clock; waiting tasks will not time out");
        }
    }

    fn refuse_waiters(&self, which: impl Fn(&Waiting) -> bool, why: impl Fn(&Waiting) -> Error) {
        let refused: Vec<Waiting> = {
            let mut admission = lock(&self.0.admission);
            let (refused, still) = std::mem::take(&mut admission.waiting).into_iter().partition(|w| which(w));
            admission.waiting = still;
            Vec::from_iter::<VecDeque<_>>(refused)
        };
        for w in refused {
            let error = why(&w);
            self.close(w.id, Some(Failed::of(&error)));
            (w.job)(Ending::Refuse(error));
        }
    }

    fn launch(&self, id: TaskId, lane: Lane, live: Arc<Live>, job: Job) {
        let engine = self.clone();
        self.0.lanes.push(lane, Box::new(move || job(Ending::Run(&engine, id, live))));
    }

    fn new_row(&self, id: TaskId, spec: &TaskSpec) -> Task {
        Task {
            id,
            kind: spec.kind,
            subject: spec.subject.clone(),
            state: TaskState::Queued,
            percent: 0,
            step: String::new(),
            error: None,
            message: String::new(),
            pm: self.0.ground.pm,
            process: self.0.process,
            created_at: self.0.ground.clock.now(),
            started_at: None,
            ended_at: None,
            account: spec.account.clone(),
        }
    }
}

impl Waiting {
    /// This one as the holder of what it waits for, if `wanted` needs it too.
    fn in_the_way(&self, wanted: &[Lock]) -> Option<Holder> {
        let resource = conflict(&self.spec.locks, wanted)?.to_string();
        Some(Holder { task: self.id, kind: self.spec.kind, since: self.since, resource })
    }
}

fn busy(w: &Waiting) -> Error {
    let (by, since) = (w.behind.kind.word().to_owned(), w.behind.since.format("%H:%M:%S UTC").to_string());
    Error::new(ErrorKind::Busy { what: w.spec.subject.clone(), by, since })
}

/// What the two cannot have at once.
fn conflict<'a>(a: &'a [Lock], b: &[Lock]) -> Option<&'a Resource> {
    let exclusive = |x: &Lock, y: &Lock| x.access == Access::Changes || y.access == Access::Changes;
    let clash = |x: &&Lock| b.iter().any(|y| x.resource == y.resource && exclusive(x, y));
    a.iter().find(clash).map(|lock| &lock.resource)
}
