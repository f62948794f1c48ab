//! What earlier processes of this PM left: their tasks are undone, or finished if they had settled, and their locks freed.
//! What cannot be done now, because a hypervisor or a storlink is away, is tried again until it is done.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::model::{TaskId, TaskState};
use crate::store::{journal, tasks as rows};

use super::{Engine, Failed, free, lock};

/// While the database cannot be asked, try this often.
const DATABASE_RETRY: Duration = Duration::from_secs(1);

/// How late a pass may begin, and how long the thread outlives its engine.
const TICK: Duration = Duration::from_millis(200);

impl Engine {
    pub(super) fn spawn_recovery(&self) {
        let engine = Arc::downgrade(&self.0);
        let recover = move || {
            let mut due = Instant::now();
            while let Some(inner) = engine.upgrade() {
                let engine = Engine(inner);
                if engine.is_dead() {
                    return;
                }
                if Instant::now() >= due {
                    let again = match engine.recover() {
                        Ok(()) => engine.0.ground.settings.recover_interval,
                        Err(_) => DATABASE_RETRY,
                    };
                    due = Instant::now() + again;
                }
                drop(engine);
                std::thread::sleep(TICK);
            }
        };
        if let Err(why) = std::thread::Builder::new().name("task-recover".to_owned()).spawn(recover) {
            tracing::error!(error = %why, "no thread for recovery; it is left to the next start");
        }
    }

    /// One pass over everything that is left. An error means that the database did not answer.
    pub fn recover(&self) -> Result<()> {
        let _turn = lock(&self.0.recovering);
        if self.0.stopping.load(Ordering::SeqCst) {
            return Ok(());
        }
        let ground = &self.0.ground;
        for task in ground.store.read(|c| rows::unfinished(c, ground.pm))? {
            if self.0.stopping.load(Ordering::SeqCst) {
                return Ok(());
            }
            // Also one of this process that nobody runs: its admission was committed, and that answer was lost.
            if !lock(&self.0.live).contains_key(&task.id) {
                self.recover_task(task.id)?;
            }
        }
        for id in ground.store.read(|c| journal::pending(c, ground.pm))? {
            // What waits for dead storage takes its time, each for itself; a stop waits for one at most.
            if self.0.stopping.load(Ordering::SeqCst) {
                return Ok(());
            }
            if lock(&self.0.live).contains_key(&id) {
                continue;
            }
            match self.apply_journal(id) {
                Ok(()) => {
                    ground.store.note_tx(|c| rows::set_step(c, id, "").and_then(|()| free(c, id)))?;
                    tracing::info!(task = %id, "clean-up of an ended task is complete");
                    self.admit_waiters();
                }
                Err(why) => tracing::warn!(task = %id, error = why.story(), "clean-up of an ended task waits"),
            }
        }
        Ok(())
    }

    /// The task row is closed only after its journal is empty or has been tried; the journal itself is the memory.
    fn recover_task(&self, id: TaskId) -> Result<()> {
        let store = &self.0.ground.store;
        let (task, entries) = store.read(|c| Ok((rows::find(c, id)?, journal::of_task(c, id)?)))?;
        // It may have ended since it was listed.
        let Some(task) = task.filter(|task| !task.state.is_over()) else { return Ok(()) };
        let undoing = entries.iter().any(|e| e.direction == journal::Direction::Undo);
        let moving = entries.iter().any(|e| e.direction == journal::Direction::Undo && e.compensation.binds());
        let message = match self.apply_journal(id) {
            Ok(()) if moving => {
                "the server stopped while the task ran; what it had moved already stays, all else is undone".to_owned()
            }
            Ok(()) if undoing => "the server stopped while the task ran; what it had done is undone".to_owned(),
            Ok(()) => "the server stopped before the task had changed anything".to_owned(),
            // Of one that had settled, its own message stays.
            Err(why) if !task.message.is_empty() => {
                self.say_that_it_waits(id, &why);
                String::new()
            }
            Err(why) => format!("the server stopped while the task ran; undoing it waits and is tried again: {why}"),
        };
        self.record(id, Some(&Failed { state: TaskState::Interrupted, error: "interrupted", message }))?;
        tracing::info!(task = %id, kind = %task.kind, "recovered a task that nobody ran any more");
        self.admit_waiters();
        Ok(())
    }
}
