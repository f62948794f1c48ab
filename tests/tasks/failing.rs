//! Operations that fail, panic or die, and undoing that does not work at first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pengx::error::{Error, ErrorKind, Result};
use pengx::model::*;
use pengx::store::{locks, storlinks, tasks as rows};
use pengx::tasks::{Fate, TaskSettings};

use super::rig::{Gate, Rig, changes, done, on_both, pm, quick, settings, undo};
use crate::harness::app::Fuse;
use crate::harness::postgres;
use crate::harness::wait::wait_until;

fn refused() -> Error {
    Error::refused("the test", "no")
}

#[test]
fn what_was_done_is_undone_from_the_last_to_the_first() {
    on_both(settings(), |rig| {
        let handle = rig.submit(quick(TaskKind::VmCreate, &[changes(1)]), |work| {
            work.step(&undo(1), || Ok(()))?;
            work.act(|| Ok(()))?;
            work.step(&undo(2), || Ok(()))?;
            work.step(&undo(3), || Err::<(), _>(refused()))
        });
        let id = handle.id;
        assert_eq!(handle.wait_blocking().unwrap_err().to_string(), "the test refused: no");
        assert_eq!(rig.undone.list(), [3, 2, 1], "the one that failed may have happened in part");
        let row = rig.task(id);
        assert_eq!((row.state, row.error.as_deref()), (TaskState::Failure, Some("refused")));
        assert_eq!((row.message.as_str(), rig.journal(id), rig.held_locks(id)), ("the test refused: no", 0, 0));
    });
}

#[test]
fn an_effect_that_was_not_begun_is_not_undone() {
    on_both(settings(), |rig| {
        let handle = rig.submit(quick(TaskKind::VmStart, &[changes(1)]), |work| {
            work.step(&undo(1), || Ok(()))?;
            work.step(&undo(2), || Err::<(), _>(Error::wrong_state("vm web1", "RUNNING", "it is started already")))
        });
        assert_eq!(handle.wait_blocking().unwrap_err().kind().name(), "wrong_state");
        assert_eq!(rig.undone.list(), [1]);
    });
}

#[test]
fn an_operation_that_panics_is_undone_and_its_thread_goes_on() {
    on_both(TaskSettings { quick_threads: 1, ..settings() }, |rig| {
        for _ in 0..3 {
            let handle = rig.submit(quick(TaskKind::VmStart, &[changes(1)]), |work| -> Result<()> {
                work.step(&undo(1), || Ok(()))?;
                work.step(&undo(2), || panic!("secret of row 7"))
            });
            let id = handle.id;
            let error = handle.wait_blocking().unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Internal);
            let row = rig.task(id);
            assert_eq!((row.state, row.error.as_deref()), (TaskState::Failure, Some("internal")));
            assert!(row.message == error.to_string() && !row.message.contains("secret"), "{row:?}");
        }
        assert_eq!(rig.undone.list(), [2, 1, 2, 1, 2, 1]);
        rig.submit(quick(TaskKind::VmStart, &[changes(1)]), done).wait_blocking().unwrap();
    });
}

/// Its rows are there and its undo is gone: whatever happens after, it has succeeded.
#[test]
fn a_task_that_fails_after_it_settled_is_recorded_as_what_it_is() {
    on_both(settings(), |rig| {
        let handle = rig.submit(quick(TaskKind::VmDelete, &[changes(1)]), |work| -> Result<()> {
            work.step(&undo(1), || Ok(()))?;
            work.settle("it is done", &[undo(10)], |_| Ok(()))?;
            // Without a word about it.
            std::panic::resume_unwind(Box::new("on purpose"))
        });
        let id = handle.id;
        assert_eq!(*handle.wait_blocking().unwrap_err().kind(), ErrorKind::Internal);
        let row = rig.task(id);
        assert_eq!((row.state, row.error, row.message.as_str()), (TaskState::Success, None, "it is done"));
        assert_eq!(rig.undone.list(), [10], "what it had left to do is done");
    });
}

#[test]
fn an_operation_that_does_not_settle_has_failed() {
    on_both(settings(), |rig| {
        let handle = rig.submit(quick(TaskKind::VmStart, &[changes(1)]), |work| work.step(&undo(1), || Ok(())));
        assert_eq!(*handle.wait_blocking().unwrap_err().kind(), ErrorKind::Internal);
        assert_eq!(rig.undone.list(), [1]);
    });
}

#[test]
fn rows_that_the_database_refuses_undo_the_task() {
    on_both(settings(), |rig| {
        let make = || {
            let store1 = storlinks::NewStorlink {
                uuid: uuid::Uuid::new_v4(),
                pm: pm(),
                name: "store1".to_owned(),
                link: "/nowhere".to_owned(),
                kind: StorlinkType::Local,
                level: StorlinkLevel::File,
                usage: Usage::default(),
                desc: String::new(),
                shared: false,
            };
            rig.submit(quick(TaskKind::StorlinkCreate, &[]), move |work| {
                work.step(&undo(1), || Ok(()))?;
                work.settle("made", &[undo(10)], |tx| storlinks::insert(tx, &store1))
            })
        };
        make().wait_blocking().unwrap();
        let twin = make();
        let id = twin.id;
        assert_eq!(twin.wait_blocking().unwrap_err().kind().name(), "exists");
        assert_eq!(rig.undone.list(), [10, 1], "forward of the first, undo of the second");
        assert_eq!(rig.task(id).state, TaskState::Failure);
        assert_eq!(rig.store.read(storlinks::all).unwrap().len(), 1);
    });
}

#[test]
fn forward_work_of_a_settled_task_survives_death_after_each_piece() {
    for url in [None, Some(postgres::database())] {
        let dir = tempfile::tempdir().unwrap();
        let url = url.unwrap_or_else(|| format!("sqlite://{}/pengx.db", dir.path().display()));
        // begin, journal, effect, done, settle, settled, and then undo, undone twice.
        let fuse = Fuse::at(&[(8, Fate::Die)]);
        let rig = Rig::with(&url, dir, settings(), fuse.clone());
        let handle = rig.submit(quick(TaskKind::VmDelete, &[changes(1)]), |work| {
            work.step(&undo(1), || Ok(()))?;
            work.settle("it is gone", &[undo(10), undo(11)], |_| Ok(()))
        });
        let id = handle.id;
        handle.wait_blocking().unwrap_err();
        assert_eq!(fuse.names()[4..], ["settle", "settled", "undo", "undone"]);
        assert_eq!((rig.undone.list(), rig.journal(id)), (vec![11], 2), "done, and not yet noted as done");
        let rig = rig.next();
        rig.assert_at_rest();
        assert_eq!(rig.undone.list(), [11, 10], "doing one again is allowed; leaving one out is not");
        let row = rig.task(id);
        assert_eq!((row.state, row.error, row.message.as_str()), (TaskState::Success, None, "it is gone"));
    }
}

#[test]
fn what_cannot_be_undone_keeps_its_locks_until_recovery_has_undone_it() {
    on_both(TaskSettings { lock_timeout: Duration::from_millis(200), ..settings() }, |rig| {
        for panics in [false, true] {
            let before = rig.undone.list().len();
            if panics {
                rig.undone.panic(2)
            } else {
                rig.undone.fail(2)
            }
            let handle = rig.submit(quick(TaskKind::VmCreate, &[changes(1)]), |work| {
                work.step(&undo(1), || Ok(()))?;
                work.step(&undo(2), || Ok(()))?;
                work.step(&undo(3), || Err::<(), _>(refused()))
            });
            let id = handle.id;
            handle.wait_blocking().unwrap_err();
            let row = rig.task(id);
            assert_eq!(row.state, TaskState::Failure);
            let told = "the test refused: no; cleaning up stopped and is tried again: ";
            assert!(row.message.starts_with(told), "{}", row.message);
            assert_eq!(rig.undone.list()[before..], [3], "what is below the one that fails may depend on it");
            assert_eq!((rig.journal(id), rig.held_locks(id)), (2, 1));
            let busy = rig.submit(quick(TaskKind::VmStart, &[changes(1)]), done).wait_blocking().unwrap_err();
            let since = row.started_at.unwrap().format("%H:%M:%S UTC");
            assert_eq!(busy.to_string(), format!("vm web1 is busy: vm.create since {since}"));
            let tried = rig.undone.tried();
            wait_until("recovery tries again and again", || Ok(rig.undone.tried() >= tried + 2));
            assert_eq!((rig.journal(id), rig.held_locks(id)), (2, 1));
            rig.undone.heal();
            wait_until("recovery has undone it", || Ok(rig.held_locks(id) == 0));
            assert_eq!(rig.undone.list()[before..], [3, 2, 1]);
            rig.submit(quick(TaskKind::VmStart, &[changes(1)]), done).wait_blocking().unwrap();
        }
    });
}

#[test]
fn forward_work_that_fails_does_not_hold_the_locks_and_is_done_later() {
    on_both(settings(), |rig| {
        rig.undone.fail(10);
        let handle = rig.submit(quick(TaskKind::VmDelete, &[changes(1)]), |work| {
            work.settle("it is gone", &[undo(10), undo(11)], |_| Ok(()))
        });
        let id = handle.id;
        assert_eq!(handle.wait_blocking().unwrap().outcome, "it is gone");
        assert_eq!((rig.task(id).state, rig.held_locks(id), rig.journal(id)), (TaskState::Success, 0, 1));
        rig.undone.heal();
        wait_until("recovery has done it", || Ok(rig.journal(id) == 0));
        assert_eq!(rig.undone.list(), [11, 10]);
    });
}

/// Passes of recovery over and over, while tasks with journals run: none of them is taken for a dead one.
#[test]
fn recovery_leaves_living_tasks_alone() {
    on_both(settings(), |rig| {
        let over = AtomicBool::new(false);
        std::thread::scope(|s| {
            s.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    rig.engine.recover().unwrap();
                }
            });
            let workers: Vec<_> = (0..3)
                .map(|n| {
                    s.spawn(move || {
                        for _ in 0..15 {
                            let handle = rig.submit(quick(TaskKind::VmCreate, &[changes(n)]), |work| {
                                work.step(&undo(1), || Ok(()))?;
                                work.step(&undo(2), || Ok(()))?;
                                done(work)
                            });
                            handle.wait_blocking().unwrap();
                        }
                    })
                })
                .collect();
            let outcomes: Vec<_> = workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            over.store(true, Ordering::SeqCst);
            outcomes.into_iter().for_each(Result::unwrap);
        });
        assert_eq!(rig.undone.list(), []);
        let rows = rig.store.read(|c| rows::recent(c, 1_000)).unwrap();
        assert!(rows.len() == 45 && rows.iter().all(|t| t.state == TaskState::Success));
    });
}

/// A commit can take place although its answer is lost. Then there is a task of this very process that nobody runs.
#[test]
fn a_task_whose_admission_was_committed_unheard_is_recovered_without_a_restart() {
    on_both(settings(), |rig| {
        let gate = Gate::new();
        let handle = rig.held(quick(TaskKind::VmStart, &[changes(1)]), &gate);
        gate.wait_inside(1);
        let live = rig.task(handle.id);
        let lost = Task { id: TaskId(uuid::Uuid::now_v7()), state: TaskState::Queued, started_at: None, ..live };
        let taken = rig.store.note_tx(|c| {
            rows::insert(c, &lost)?;
            locks::acquire(c, lost.id, &[changes(2)])
        });
        assert_eq!(taken.unwrap(), None);
        rig.submit(quick(TaskKind::VmStart, &[changes(2)]), done).wait_blocking().unwrap();
        let row = rig.task(lost.id);
        assert_eq!((row.state, row.error.as_deref()), (TaskState::Interrupted, Some("interrupted")));
        assert_eq!((rig.task(handle.id).state, rig.held_locks(handle.id)), (TaskState::Running, 1));
        gate.open();
        handle.wait_blocking().unwrap();
    });
}

/// Dies while an undo that failed waits for its next try: the next process goes on with it.
#[test]
fn undoing_that_waits_is_taken_over_by_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/pengx.db", dir.path().display());
    let fuse: Arc<Fuse> = Arc::default();
    let rig = Rig::with(&url, dir, settings(), fuse.clone());
    rig.undone.fail(1);
    let handle = rig.submit(quick(TaskKind::VmCreate, &[changes(1)]), |work| {
        work.step(&undo(1), || Ok(()))?;
        Err::<(), _>(refused())
    });
    let id = handle.id;
    handle.wait_blocking().unwrap_err();
    fuse.arm(&[(1, Fate::Die)]);
    wait_until("the engine dies in a pass of recovery", || Ok(fuse.blown.load(Ordering::SeqCst)));
    assert_eq!((rig.journal(id), rig.held_locks(id)), (1, 1));
    let rig = rig.next();
    rig.assert_at_rest();
    assert_eq!((rig.undone.list(), rig.task(id).state), (vec![1], TaskState::Failure));
}
