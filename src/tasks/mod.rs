//! Tasks: one durable run of an operation each. Knows locks, lanes, the undo journal, progress and recovery; knows no VM.
//!
//! Laws: the task row and its locks are written before anything runs; the undo of a step is in the journal before the
//! step's effect; `settle` makes the result visible and drops the undo in one transaction; a task that fails leaves the
//! world as it was, and one whose process died is undone at the next start. Whatever cannot be undone now keeps its
//! locks and is tried again.

mod admission;
mod lanes;
mod meter;
mod probe;
mod recover;
mod work;

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Clock, Compensation, Ids, Lane, Lock, PmId, Task, TaskId, TaskKind, TaskState};
use crate::store::{Conn, Store, journal, locks, reservations, tasks as rows};

use admission::Admission;
use lanes::Lanes;
pub use meter::Load;
use meter::Meter;
pub use probe::{Fate, NoFaults, Point, Probe};
pub use work::{Reporter, Work};

/// What the scheduler must know of a task before it runs.
#[derive(Debug, Clone)]
pub struct TaskSpec {
    pub kind: TaskKind,
    pub lane: Lane,
    /// What it is about, for people: `vm web1`.
    pub subject: String,
    /// All that it touches; taken together or not at all.
    pub locks: Vec<Lock>,
    /// The account that asks for it, by name.
    pub account: Option<String>,
}

#[derive(Debug, Clone, Copy)]
pub struct TaskSettings {
    /// How long a task waits for locks that others hold.
    pub lock_timeout: Duration,
    /// How often what could not be undone is tried again.
    pub recover_interval: Duration,
    pub quick_threads: usize,
    pub long_threads: usize,
    /// Tasks that may wait for a thread or a lock; beyond it submitting fails at once.
    pub queue: usize,
}

impl Default for TaskSettings {
    fn default() -> Self {
        Self {
            lock_timeout: Duration::from_secs(10),
            recover_interval: Duration::from_secs(30),
            quick_threads: 64,
            long_threads: 4,
            queue: 1_000,
        }
    }
}

/// How a compensation is applied. It looks before it acts, and may be called twice.
pub type Compensator = Box<dyn Fn(&Compensation) -> Result<()> + Send + Sync>;

/// What the engine stands on.
pub struct Ground {
    pub store: Store,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn Ids>,
    pub pm: PmId,
    pub compensate: Compensator,
    pub probe: Arc<dyn Probe>,
    pub settings: TaskSettings,
}

/// Runs tasks on threads of its own. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    ground: Ground,
    /// This run of the server; rows of another one on this PM belong to the dead.
    process: Uuid,
    admission: Mutex<Admission>,
    lanes: Lanes,
    meter: Meter,
    live: Mutex<HashMap<TaskId, Arc<Live>>>,
    /// Journal entries whose effect was not begun, and that could not be dropped because the database was away.
    void: Mutex<HashSet<(TaskId, i32)>>,
    /// No new tasks.
    stopping: AtomicBool,
    /// Held for each pass of recovery.
    recovering: Mutex<()>,
    /// A test killed this engine: it must not touch anything any more.
    dead: AtomicBool,
}

/// A task of this process, from submission to its end.
struct Live {
    kind: TaskKind,
    subject: String,
    cancel: AtomicBool,
    /// It has a thread.
    begun: AtomicBool,
    /// From the moment that it settles it cannot be cancelled any more.
    settling: Mutex<bool>,
    settled: AtomicBool,
    /// The sentence that it settled with.
    outcome: Mutex<String>,
    lane: Lane,
    percent: AtomicU32,
    step: Mutex<(String, Option<Instant>)>,
    ended: watch::Sender<bool>,
}

/// The job of a task once its type is erased: runs it, and hands the result to whoever waits.
type Job = Box<dyn FnOnce(Ending<'_>) + Send>;

/// How a [`Job`] is ended: by running, or by an error before it ran.
enum Ending<'a> {
    Run(&'a Engine, TaskId, Arc<Live>),
    Refuse(Error),
}

/// The end of a task that did not settle.
struct Failed {
    state: TaskState,
    error: &'static str,
    message: String,
}

impl Failed {
    fn of(error: &Error) -> Self {
        Self { state: TaskState::Failure, error: error.kind().name(), message: error.to_string() }
    }
}

/// What a task that succeeded gives to the one who waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done<T> {
    pub output: T,
    /// The sentence that it settled with.
    pub outcome: String,
}

/// A submitted task, and the way to its result. Dropping it does not stop the task.
pub struct TaskHandle<T> {
    pub id: TaskId,
    result: oneshot::Receiver<Result<Done<T>>>,
}

impl<T> TaskHandle<T> {
    /// Waits for the end of the task.
    pub async fn wait(self) -> Result<Done<T>> {
        self.result.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// The same on a thread that may block.
    pub fn wait_blocking(self) -> Result<Done<T>> {
        self.result.blocking_recv().unwrap_or_else(|_| Err(stopping()))
    }
}

impl Engine {
    /// Starts the threads; recovery of what earlier processes left begins at once, on its own thread.
    pub fn start(ground: Ground) -> Self {
        let process = ground.ids.uuid();
        let lanes = Lanes::new(ground.settings.quick_threads, ground.settings.long_threads);
        let engine = Self(Arc::new(Inner {
            ground,
            process,
            admission: Mutex::default(),
            lanes,
            meter: Meter::new(),
            live: Mutex::default(),
            void: Mutex::default(),
            stopping: AtomicBool::new(false),
            recovering: Mutex::default(),
            dead: AtomicBool::new(false),
        }));
        engine.spawn_clock();
        engine.spawn_recovery();
        engine
    }

    /// Records a task and takes its locks, or queues it for them; `job` runs on a thread of its lane. Blocks for the
    /// length of one transaction. A full queue and a stopping server are `Unavailable`.
    pub fn submit<T: Send + 'static>(
        &self,
        spec: TaskSpec,
        job: impl FnOnce(&mut Work) -> Result<T> + Send + 'static,
    ) -> Result<TaskHandle<T>> {
        let id = TaskId(self.0.ground.ids.ordered_uuid());
        let live = Arc::new(Live {
            kind: spec.kind,
            subject: spec.subject.clone(),
            cancel: AtomicBool::new(false),
            begun: AtomicBool::new(false),
            settling: Mutex::default(),
            settled: AtomicBool::new(false),
            outcome: Mutex::default(),
            lane: spec.lane,
            percent: AtomicU32::new(0),
            step: Mutex::default(),
            ended: watch::Sender::new(false),
        });
        let (answer, result) = oneshot::channel();
        let erased: Job = Box::new(move |ending| {
            let outcome = match ending {
                Ending::Run(engine, task, live) => engine.run(task, &live, job),
                Ending::Refuse(error) => Err(error),
            };
            // A caller that hung up does not matter to the task.
            drop(answer.send(outcome));
        });
        self.admit(id, spec, live, erased)?;
        Ok(TaskHandle { id, result })
    }

    /// Asks a task to stop at its next checkpoint; what it did is undone. `NotFound`, or `WrongState` when it is over or
    /// past the point of no return.
    pub fn cancel(&self, id: TaskId) -> Result<()> {
        let Some(live) = lock(&self.0.live).get(&id).cloned() else {
            let task = self.find(id)?.ok_or_else(|| Error::not_found("task", id))?;
            return Err(Error::wrong_state(format!("task {id}"), task.state.word(), "there is nothing to cancel"));
        };
        {
            let settling = lock(&live.settling);
            if *settling {
                return Err(Error::wrong_state(format!("task {id}"), "past its point of no return", "it will finish"));
            }
            live.cancel.store(true, Ordering::SeqCst);
        }
        self.drop_cancelled_waiters();
        Ok(())
    }

    /// The record, with the progress of this moment.
    pub fn find(&self, id: TaskId) -> Result<Option<Task>> {
        Ok(self.0.ground.store.read(|c| rows::find(c, id))?.map(|task| self.freshen(task)))
    }

    /// The newest records first.
    pub fn recent(&self, limit: i64) -> Result<Vec<Task>> {
        self.fresh(|c| rows::recent(c, limit))
    }

    /// As [`Engine::recent`], those that this account started.
    pub fn recent_of(&self, account: &str, limit: i64) -> Result<Vec<Task>> {
        self.fresh(|c| rows::recent_of(c, account, limit))
    }

    fn fresh(&self, rows: impl FnOnce(&mut Conn) -> Result<Vec<Task>>) -> Result<Vec<Task>> {
        let tasks = self.0.ground.store.read(rows)?;
        Ok(tasks.into_iter().map(|task| self.freshen(task)).collect())
    }

    /// Returns when the task is over; at once when it is not one of this process.
    pub async fn ended(&self, id: TaskId) {
        let watch = lock(&self.0.live).get(&id).map(|live| live.ended.subscribe());
        if let Some(mut watch) = watch {
            // An error means that the task's end dropped the sender.
            drop(watch.wait_for(|ended| *ended).await);
        }
    }

    /// Takes no new tasks and waits for the running ones. Long tasks are cancelled at once, the others at `deadline`;
    /// what is left then is undone by the next start.
    pub fn stop(&self, deadline: Duration) {
        if self.is_dead() {
            return;
        }
        self.0.stopping.store(true, Ordering::SeqCst);
        // Who was let in before that is live when this lock is free; nobody is let in any more.
        drop(lock(&self.0.admission));
        let begun = Instant::now();
        let cancel = |all: bool| {
            for live in lock(&self.0.live).values() {
                if all || live.lane == Lane::Long {
                    live.cancel.store(true, Ordering::SeqCst);
                }
            }
            self.drop_cancelled_waiters();
        };
        cancel(false);
        while !lock(&self.0.live).is_empty() && begun.elapsed() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        cancel(true);
        while !lock(&self.0.live).is_empty() && begun.elapsed() < deadline + Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.0.lanes.close();
        // A pass of recovery that is under way ends; none begins any more.
        drop(lock(&self.0.recovering));
    }

    /// Has `registry` show the tasks that end.
    pub fn register(&self, registry: &mut Registry) {
        self.0.meter.register(registry);
    }

    /// Does not block.
    pub fn load(&self) -> Load {
        let live = lock(&self.0.live);
        let running = live.values().filter(|live| live.begun.load(Ordering::Relaxed)).count();
        Load { running, queued: live.len() - running }
    }

    /// Tasks of this process that are not over.
    pub fn live_count(&self) -> usize {
        lock(&self.0.live).len()
    }

    fn freshen(&self, mut task: Task) -> Task {
        if let Some(live) = lock(&self.0.live).get(&task.id)
            && !task.state.is_over()
        {
            task.percent = live.percent.load(Ordering::Relaxed);
            task.step.clone_from(&lock(&live.step).0);
        }
        task
    }

    /// On a lane's thread: runs the job, undoes it if it failed, and ends the task.
    fn run<T>(&self, id: TaskId, live: &Arc<Live>, job: impl FnOnce(&mut Work) -> Result<T>) -> Result<Done<T>> {
        let begun = Instant::now();
        live.begun.store(true, Ordering::Relaxed);
        let mut work = Work::new(self, id, live);
        let outcome = work.begin().and_then(|()| self.catch(|| job(&mut work))).and_then(|output| {
            if live.settled.load(Ordering::SeqCst) {
                Ok(Done { output, outcome: std::mem::take(&mut *lock(&live.outcome)) })
            } else {
                Err(Error::internal("the operation returned without settling"))
            }
        });
        let outcome = self.end(id, outcome);
        self.0.meter.ran(live.kind, begun.elapsed());
        let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        match &outcome {
            Ok(_) => {
                tracing::info!(task = %id, kind = %live.kind, subject = live.subject, duration_ms, "task succeeded")
            }
            Err(error) => {
                let error = error.story();
                tracing::warn!(task = %id, kind = %live.kind, subject = live.subject, duration_ms, error, "task failed");
            }
        }
        outcome
    }

    /// An operation that panics is a defect, and is undone like any failure.
    fn catch<T>(&self, job: impl FnOnce() -> Result<T>) -> Result<T> {
        match std::panic::catch_unwind(AssertUnwindSafe(job)) {
            Ok(outcome) => outcome,
            Err(payload) if self.is_dead() => std::panic::resume_unwind(payload),
            Err(_) => Err(Error::internal("an operation or its undo panicked")),
        }
    }

    /// Undoes what a failed task did, finishes what a settled one has left to do, and closes the record.
    fn end<T>(&self, id: TaskId, outcome: Result<T>) -> Result<T> {
        let mut failed = outcome.as_ref().err().map(Failed::of);
        if let Err(why) = self.apply_journal(id) {
            tracing::error!(task = %id, error = why.story(), "clean-up of a task stopped; it is tried again");
            match &mut failed {
                Some(failed) => failed.message.push_str(&format!("; cleaning up stopped and is tried again: {why}")),
                None => self.say_that_it_waits(id, &why),
            }
        }
        self.close(id, failed);
        outcome
    }

    /// For people: what a task that has settled is not done with, and why. The log has it too.
    fn say_that_it_waits(&self, id: TaskId, why: &Error) {
        let step = format!("what is left to do waits and is tried again: {why}");
        if let Err(away) = self.0.ground.store.note_tx(|c| rows::set_step(c, id, &step)) {
            tracing::warn!(task = %id, error = away.story(), "progress could not be written");
        }
    }

    /// Writes the end of a task. While the database is away it keeps trying, off the caller's path.
    fn close(&self, id: TaskId, failed: Option<Failed>) {
        if let Err(why) = self.record(id, failed.as_ref()) {
            tracing::error!(task = %id, error = why.story(), "the end of a task could not be recorded; trying again");
            let engine = self.clone();
            let keep_trying = move || {
                while !engine.is_dead() && engine.record(id, failed.as_ref()).is_err() {
                    std::thread::sleep(Duration::from_secs(1));
                }
                engine.forget(id);
            };
            if let Err(why) = std::thread::Builder::new().name("task-close".to_owned()).spawn(keep_trying) {
                tracing::error!(task = %id, error = %why, "no thread to record the end of a task; the next start does");
            }
            return;
        }
        self.forget(id);
    }

    /// The rows decide, not what this process believes: a commit that was never answered may have taken place.
    fn record(&self, id: TaskId, failed: Option<&Failed>) -> Result<()> {
        let now = self.0.ground.clock.now();
        let mut ended = None;
        self.0.ground.store.note_tx(|c| {
            let task = rows::find(c, id)?.ok_or_else(|| Error::not_found("task", id))?;
            if !task.state.is_over() {
                // A task that is not over has a message only if it settled; then that message stays.
                let failed = failed.filter(|_| task.message.is_empty());
                match failed {
                    Some(f) => rows::finish(c, id, f.state, Some(f.error), Some(&f.message), now)?,
                    None => rows::finish(c, id, TaskState::Success, None, None, now)?,
                }
                ended = Some((task.kind, failed.map_or(TaskState::Success, |f| f.state)));
            }
            // Locks stay while there is something to undo, or to finish that nobody may meet half way.
            let protects = |e: &journal::Entry| e.direction == journal::Direction::Undo || e.compensation.binds();
            if journal::of_task(c, id)?.iter().any(protects) { Ok(()) } else { free(c, id) }
        })?;
        if let Some((kind, state)) = ended {
            self.0.meter.ended(kind, state);
        }
        Ok(())
    }

    fn forget(&self, id: TaskId) {
        if let Some(live) = lock(&self.0.live).remove(&id) {
            live.ended.send_replace(true);
        }
        self.admit_waiters();
    }

    fn is_dead(&self) -> bool {
        self.0.dead.load(Ordering::SeqCst)
    }

    /// Applies the journal of one task, last entry first, dropping each entry once it is done. Stops at the first that
    /// fails, because what is below may depend on it.
    fn apply_journal(&self, id: TaskId) -> Result<()> {
        let store = &self.0.ground.store;
        // As a writer: a settling commit that was never answered is over before this looks.
        let mut entries = store.note_tx(|c| journal::of_task(c, id))?;
        while let Some(entry) = entries.pop() {
            self.probe(Point::new(id, "undo"))?;
            if !lock(&self.0.void).contains(&(id, entry.seq)) {
                self.catch(|| (self.0.ground.compensate)(&entry.compensation))?;
            }
            self.probe(Point::new(id, "undone"))?;
            store.note_tx(|c| journal::remove(c, id, entry.seq))?;
            lock(&self.0.void).remove(&(id, entry.seq));
        }
        Ok(())
    }

    /// Where tests let a task fail or the process die.
    fn probe(&self, point: Point) -> Result<()> {
        match self.0.ground.probe.at(point) {
            Fate::Go => Ok(()),
            Fate::Fail => Err(Error::new(ErrorKind::Refused { by: "the test".to_owned(), why: point.name.to_owned() })),
            Fate::Die => {
                self.0.dead.store(true, Ordering::SeqCst);
                std::panic::resume_unwind(Box::new("the process died"))
            }
        }
    }
}

/// What the task held: its locks, and the space that it had reserved.
fn free(c: &mut Conn, id: TaskId) -> Result<()> {
    reservations::release(c, id)?;
    locks::release(c, id)
}

fn stopping() -> Error {
    Error::unavailable("pengx is stopping and")
}

/// No code here panics while it holds a lock in a way that breaks what it guards.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
