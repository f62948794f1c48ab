//! What an operation holds while it runs: steps with their undo, progress, cancellation, the settling transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Compensation, MiB, StorlinkId, TaskId};
use crate::store::{Conn, journal, reservations, tasks as rows};

use super::{Engine, Live, Point, lock};

/// How often at most the progress of a task is written to its row.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);

/// One running task, as its operation sees it: plan first, then steps, then settle.
pub struct Work<'a> {
    engine: &'a Engine,
    task: TaskId,
    live: &'a Arc<Live>,
    seq: i32,
    /// Past the point of no return.
    committed: bool,
}

impl<'a> Work<'a> {
    pub(super) fn new(engine: &'a Engine, task: TaskId, live: &'a Arc<Live>) -> Self {
        Self { engine, task, live, seq: 0, committed: false }
    }

    pub fn task(&self) -> TaskId {
        self.task
    }

    /// The task has its locks and a thread.
    pub(super) fn begin(&mut self) -> Result<()> {
        self.checkpoint()?;
        self.at("begin")?;
        let now = self.engine.0.ground.clock.now();
        self.engine.0.ground.store.note_tx(|c| rows::start(c, self.task, now))
    }

    /// `Cancelled` once somebody asked for it, until the point of no return. Called before every step; long effects look at
    /// [`Reporter::cancel_flag`].
    pub fn checkpoint(&self) -> Result<()> {
        if !self.committed && self.live.cancel.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Cancelled { what: format!("task {}", self.task) }));
        }
        Ok(())
    }

    /// For long effects: progress, and the wish to cancel.
    pub fn reporter(&self) -> Reporter {
        Reporter { engine: self.engine.clone(), task: self.task, live: self.live.clone() }
    }

    /// An effect that can be undone: `undo` is in the journal before `effect` runs. `WrongState` from the effect means
    /// that it was not begun, so there is nothing to undo.
    pub fn step<T>(&mut self, undo: &Compensation, effect: impl FnOnce() -> Result<T>) -> Result<T> {
        self.checkpoint()?;
        self.at("journal")?;
        let (task, seq) = (self.task, self.seq);
        self.seq += 1;
        let store = &self.engine.0.ground.store;
        store.note_tx(|c| journal::push(c, task, seq, journal::Direction::Undo, undo))?;
        self.at("effect")?;
        let done = effect();
        if let Err(error) = &done
            && matches!(error.kind(), ErrorKind::WrongState { .. })
        {
            // Should the database be away just now, the entry stays, and this process remembers not to apply it.
            if store.note_tx(|c| journal::remove(c, task, seq)).is_err() {
                lock(&self.engine.0.void).insert((task, seq));
            }
        }
        let done = done?;
        self.at("done")?;
        Ok(done)
    }

    /// An effect that needs no undo, because the rows already say it or because nothing can take it back.
    pub fn act<T>(&mut self, effect: impl FnOnce() -> Result<T>) -> Result<T> {
        self.checkpoint()?;
        self.at("effect")?;
        let done = effect()?;
        self.at("done")?;
        Ok(done)
    }

    /// Takes so much of what is `free` on a storlink for this task, until it ends, instead of what it had taken there before.
    /// `Err` says how much is left by the other tasks.
    pub fn reserve(&mut self, storlink: StorlinkId, size: MiB, free: MiB) -> Result<std::result::Result<(), MiB>> {
        let task = self.task;
        self.engine.0.ground.store.note_tx(|c| {
            let left = MiB(free.0.saturating_sub(reservations::of_others(c, storlink, task)?.0));
            if left < size {
                return Ok(Err(left));
            }
            reservations::set(c, task, storlink, size).map(Ok)
        })
    }

    /// The point of no return of a task whose rows change only later, with [`Work::settle`]: who asked to cancel it before is
    /// obeyed here, and who asks from now on is refused. What it does then is finished and not taken back, by steps whose
    /// compensations look how far they came.
    pub fn commit(&mut self) -> Result<()> {
        self.at("commit")?;
        self.past_cancelling()
    }

    fn past_cancelling(&mut self) -> Result<()> {
        let mut settling = lock(&self.live.settling);
        self.checkpoint()?;
        *settling = true;
        self.committed = true;
        Ok(())
    }

    /// The point of no return: in one transaction the rows change, the undo is dropped, `forward` is journalled, and
    /// `outcome` becomes the task's message. What is in `forward` is done right after, and again after a crash.
    pub fn settle<T>(
        &mut self,
        outcome: &str,
        forward: &[Compensation],
        rows_change: impl FnOnce(&mut Conn) -> Result<T>,
    ) -> Result<T> {
        self.checkpoint()?;
        self.at("settle")?;
        self.past_cancelling()?;
        let (task, seq) = (self.task, self.seq);
        let value = self.engine.0.ground.store.write_tx(|c| {
            let value = rows_change(c)?;
            journal::clear_undo(c, task)?;
            for (entry, n) in forward.iter().zip(seq..) {
                journal::push(c, task, n, journal::Direction::Forward, entry)?;
            }
            rows::settle(c, task, outcome)?;
            Ok(value)
        })?;
        outcome.clone_into(&mut lock(&self.live.outcome));
        self.live.settled.store(true, Ordering::SeqCst);
        self.engine.probe(Point::new(task, "settled")).or_else(|_| Ok::<(), Error>(()))?;
        Ok(value)
    }

    fn at(&self, name: &'static str) -> Result<()> {
        self.engine.probe(Point::new(self.task, name))
    }
}

/// The part of a task that its long effects see.
pub struct Reporter {
    engine: Engine,
    task: TaskId,
    live: Arc<Live>,
}

impl Reporter {
    /// Set once somebody asked to cancel.
    pub fn cancel_flag(&self) -> &AtomicBool {
        &self.live.cancel
    }

    /// How far the task is. Kept in memory; the row follows at most once a second.
    pub fn progress(&self, percent: u32, step: &str) {
        let percent = percent.min(100);
        self.live.percent.store(percent, Ordering::Relaxed);
        let due = {
            let mut now = lock(&self.live.step);
            if now.0 != step {
                step.clone_into(&mut now.0);
            }
            let due = now.1.is_none_or(|noted| noted.elapsed() >= NOTE_INTERVAL);
            if due {
                now.1 = Some(Instant::now());
            }
            due
        };
        if due && let Err(why) = self.engine.0.ground.store.note_tx(|c| rows::note(c, self.task, percent, step)) {
            // The row is for people; the task does not depend on it.
            tracing::warn!(task = %self.task, error = why.story(), "progress could not be written");
        }
    }
}
