//! The task engine itself, on real stores, with operations of the tests' own.

mod failing;
mod outage;
mod rig;
mod stopping;

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pengx::error::ErrorKind;
use pengx::model::*;
use pengx::store::tasks as rows;
use pengx::tasks::TaskSettings;

use crate::harness::wait::wait_until;
use rig::{Gate, changes, done, long, on_both, quick, settings, undo, uses};

/// Readers up, a writer far down: any two that must not meet show as a number that cannot be.
#[derive(Default)]
struct Room(AtomicI64);

impl Room {
    fn enter(&self, access: Access) {
        match access {
            Access::Uses => assert!(self.0.fetch_add(1, Ordering::SeqCst) >= 0, "a reader met a writer"),
            Access::Changes => assert_eq!(self.0.fetch_sub(1000, Ordering::SeqCst), 0, "a writer met somebody"),
        }
    }
    fn leave(&self, access: Access) {
        self.0.fetch_add(if access == Access::Uses { -1 } else { 1000 }, Ordering::SeqCst);
    }
}

#[test]
fn opposite_orders_of_locks_under_load_exclude_one_another_and_never_deadlock() {
    on_both(settings(), |rig| {
        let rooms: Arc<[Room; 3]> = Arc::default();
        let ran = Arc::new(AtomicUsize::new(0));
        let orders: [&[(usize, Access)]; 5] = [
            &[(0, Access::Changes), (1, Access::Changes)],
            &[(1, Access::Changes), (0, Access::Changes)],
            &[(2, Access::Changes), (0, Access::Uses)],
            &[(0, Access::Uses), (1, Access::Uses), (2, Access::Uses)],
            &[(1, Access::Uses), (2, Access::Changes)],
        ];
        std::thread::scope(|s| {
            for thread in 0..6 {
                let (rooms, ran) = (rooms.clone(), ran.clone());
                s.spawn(move || {
                    for round in 0..10 {
                        let order = orders[(thread + round) % orders.len()];
                        let locks: Vec<_> = order
                            .iter()
                            .map(
                                |(n, access)| {
                                    if *access == Access::Uses { uses(*n as u128) } else { changes(*n as u128) }
                                },
                            )
                            .collect();
                        let (rooms, ran) = (rooms.clone(), ran.clone());
                        let handle = rig.submit(quick(TaskKind::VmStart, &locks), move |work| {
                            order.iter().for_each(|(n, access)| rooms[*n].enter(*access));
                            ran.fetch_add(1, Ordering::SeqCst);
                            std::thread::yield_now();
                            order.iter().for_each(|(n, access)| rooms[*n].leave(*access));
                            done(work)
                        });
                        handle.wait_blocking().unwrap();
                    }
                });
            }
        });
        assert_eq!(ran.load(Ordering::SeqCst), 60, "each task ran exactly once");
        assert_eq!(rig.store.read(|c| rows::recent(c, 1_000)).unwrap().len(), 60);
    });
}

#[test]
fn sharers_run_together_and_do_not_starve_an_exclusive_waiter() {
    on_both(settings(), |rig| {
        let gate = Gate::new();
        let sharers = [1, 2].map(|_| rig.held(quick(TaskKind::VmStart, &[uses(1), uses(2)]), &gate));
        gate.wait_inside(2);
        let order = Arc::new(Mutex::new(Vec::new()));
        let late = |name: &'static str, lock: Lock| {
            let order = order.clone();
            rig.submit(quick(TaskKind::VmDelete, &[lock]), move |work| {
                order.lock().unwrap().push(name);
                done(work)
            })
        };
        let waiting = [late("exclusive", changes(1)), late("sharer", uses(1)), late("exclusive 2", changes(1))];
        for handle in &waiting {
            assert_eq!(rig.task(handle.id).state, TaskState::Queued);
            assert_eq!(rig.held_locks(handle.id), 0);
        }
        // Who conflicts with nobody does not wait behind those who do.
        late("other", uses(2)).wait_blocking().unwrap();
        gate.open();
        for handle in sharers.into_iter().chain(waiting) {
            handle.wait_blocking().unwrap();
        }
        assert_eq!(*order.lock().unwrap(), ["other", "exclusive", "sharer", "exclusive 2"]);
    });
}

#[test]
fn who_waits_too_long_is_told_who_is_in_the_way_and_since_when() {
    on_both(TaskSettings { lock_timeout: Duration::from_millis(200), ..settings() }, |rig| {
        let gate = Gate::new();
        let holder = rig.held(quick(TaskKind::VmStart, &[uses(1)]), &gate);
        gate.wait_inside(1);
        let since = rig.task(holder.id).started_at.unwrap().format("%H:%M:%S UTC").to_string();
        let wanting = || rig.submit(quick(TaskKind::VmDelete, &[changes(1)]), done);
        let (first, behind) = (wanting(), wanting());
        let (first_id, behind_id) = (first.id, behind.id);
        let error = first.wait_blocking().unwrap_err();
        let busy = ErrorKind::Busy { what: "vm web1".to_owned(), by: "vm.start".to_owned(), since: since.clone() };
        assert_eq!(*error.kind(), busy);
        assert_eq!(error.to_string(), format!("vm web1 is busy: vm.start since {since}"));
        let row = rig.task(first_id);
        assert_eq!((row.state, row.error.as_deref()), (TaskState::Failure, Some("busy")));
        assert_eq!((row.message, row.started_at), (error.to_string(), None));
        // The second was behind the first, or, once that one was gone, behind the holder.
        let error = behind.wait_blocking().unwrap_err();
        let ErrorKind::Busy { by, since, .. } = error.kind() else { panic!("{error}") };
        assert!(["vm.delete", "vm.start"].contains(&by.as_str()) && since.ends_with("UTC"), "{error}");
        assert_eq!(rig.task(behind_id).message, error.to_string());
        gate.open();
        holder.wait_blocking().unwrap();
    });
}

#[test]
fn beyond_the_bound_of_the_queue_nothing_is_recorded() {
    on_both(TaskSettings { queue: 3, long_threads: 1, ..settings() }, |rig| {
        let gate = Gate::new();
        let mut handles = vec![rig.held(long(TaskKind::VmCreate, &[changes(1)]), &gate)];
        gate.wait_inside(1);
        // One waits for its lock, two for a thread.
        handles.push(rig.held(long(TaskKind::VmCreate, &[changes(1)]), &gate));
        handles.push(rig.held(long(TaskKind::VmCreate, &[changes(2)]), &gate));
        handles.push(rig.held(long(TaskKind::VmCreate, &[changes(3)]), &gate));
        let refused = rig.engine.submit(quick(TaskKind::VmStart, &[changes(4)]), done).err().unwrap();
        assert_eq!(refused.to_string(), "the task queue is full and does not answer");
        assert_eq!(rig.store.read(|c| rows::recent(c, 100)).unwrap().len(), 4);
        assert_eq!(rig.engine.live_count(), 4);
        gate.open();
        for handle in handles {
            handle.wait_blocking().unwrap();
        }
        rig.submit(quick(TaskKind::VmStart, &[changes(4)]), done).wait_blocking().unwrap();
    });
}

#[test]
fn a_full_long_lane_is_bounded_and_keeps_no_quick_task_waiting() {
    on_both(TaskSettings { long_threads: 2, quick_threads: 2, ..settings() }, |rig| {
        let gate = Gate::new();
        let handles: Vec<_> = (0..6).map(|n| rig.held(long(TaskKind::VmCreate, &[changes(n)]), &gate)).collect();
        gate.wait_inside(2);
        for n in 10..15 {
            rig.submit(quick(TaskKind::VmStart, &[changes(n)]), done).wait_blocking().unwrap();
        }
        let states = handles.iter().filter(|h| rig.task(h.id).state == TaskState::Queued).count();
        assert_eq!((gate.inside(), states), (2, 4));
        gate.open();
        for handle in handles {
            handle.wait_blocking().unwrap();
        }
        assert!(gate.most() <= 2);
    });
}

#[test]
fn lanes_lose_no_task_while_threads_come_and_go() {
    on_both(TaskSettings { long_threads: 3, quick_threads: 3, ..settings() }, |rig| {
        let ran = Arc::new(AtomicUsize::new(0));
        std::thread::scope(|s| {
            for n in 0..4_u128 {
                let ran = ran.clone();
                s.spawn(move || {
                    for k in 0..10 {
                        let ran = ran.clone();
                        let lane = if k % 2 == 0 { quick } else { long };
                        let handle = rig.submit(lane(TaskKind::VmStart, &[changes(n)]), move |work| {
                            ran.fetch_add(1, Ordering::SeqCst);
                            done(work)
                        });
                        handle.wait_blocking().unwrap();
                    }
                });
            }
        });
        assert_eq!(ran.load(Ordering::SeqCst), 40);
    });
}

#[test]
fn a_task_is_cancelled_while_it_waits_for_a_lock_for_a_thread_and_between_its_steps() {
    on_both(TaskSettings { long_threads: 1, ..settings() }, |rig| {
        let (gate, inside) = (Gate::new(), Gate::new());
        let held = inside.clone();
        let running = rig.submit(long(TaskKind::VmCreate, &[changes(1)]), move |work| {
            work.step(&undo(1), || Ok(()))?;
            held.pass();
            work.step(&undo(2), || -> pengx::error::Result<()> { panic!("it went on") })
        });
        inside.wait_inside(1);
        let for_a_lock = rig.held(quick(TaskKind::VmStart, &[changes(1)]), &gate);
        let for_a_thread = rig.held(long(TaskKind::VmCreate, &[changes(2)]), &gate);
        for id in [for_a_lock.id, for_a_thread.id, running.id] {
            rig.engine.cancel(id).unwrap();
        }
        let waiter = for_a_lock.id;
        assert!(matches!(for_a_lock.wait_blocking().unwrap_err().kind(), ErrorKind::Cancelled { .. }));
        assert_eq!((rig.task(waiter).state, rig.task(waiter).started_at), (TaskState::Failure, None));
        inside.open();
        for handle in [running, for_a_thread] {
            let id = handle.id;
            let error = handle.wait_blocking().unwrap_err();
            assert_eq!(error.to_string(), format!("task {id} was cancelled"));
            let row = rig.task(id);
            assert_eq!((row.error.as_deref(), row.message), (Some("cancelled"), error.to_string()));
            assert_eq!(rig.held_locks(id), 0);
        }
        assert_eq!((rig.undone.list(), gate.most()), (vec![1], 0), "the step is undone; nothing else ran");
    });
}

#[test]
fn a_long_effect_sees_that_it_is_cancelled() {
    on_both(settings(), |rig| {
        let gate = Gate::new();
        let at = gate.clone();
        let handle = rig.submit(long(TaskKind::VmCreate, &[changes(1)]), move |work| {
            let reporter = work.reporter();
            work.step(&undo(1), || {
                at.pass();
                assert!(reporter.cancel_flag().load(Ordering::SeqCst));
                Err::<(), _>(pengx::error::Error::new(ErrorKind::Cancelled { what: "the copy".to_owned() }))
            })
        });
        gate.wait_inside(1);
        rig.engine.cancel(handle.id).unwrap();
        gate.open();
        assert_eq!(handle.wait_blocking().unwrap_err().to_string(), "the copy was cancelled");
        assert_eq!(rig.undone.list(), [1]);
    });
}

/// `Ok` of a cancel is a promise that the task does not succeed; so it is refused from the moment that the task settles.
#[test]
fn past_the_point_of_no_return_nothing_is_cancelled() {
    on_both(settings(), |rig| {
        let gate = Gate::new();
        let at = gate.clone();
        let handle = rig.submit(quick(TaskKind::VmStart, &[changes(1)]), move |work| {
            work.step(&undo(1), || Ok(()))?;
            work.settle("it is done", &[], |_| {
                at.pass();
                Ok(())
            })
        });
        let id = handle.id;
        gate.wait_inside(1);
        let refused = rig.engine.cancel(id).unwrap_err();
        assert_eq!(refused.to_string(), format!("task {id} is past its point of no return; it will finish"));
        gate.open();
        assert_eq!(handle.wait_blocking().unwrap().outcome, "it is done");
        let over = rig.engine.cancel(id).unwrap_err();
        assert_eq!(over.to_string(), format!("task {id} is success; there is nothing to cancel"));
        let nobody = TaskId(uuid::Uuid::from_u128(1));
        assert!(matches!(rig.engine.cancel(nobody).unwrap_err().kind(), ErrorKind::NotFound { what: "task", .. }));
        assert_eq!(rig.undone.list(), []);
    });
}

#[test]
fn a_cancel_that_is_accepted_at_any_moment_means_that_the_task_fails() {
    on_both(settings(), |rig| {
        let (mut accepted, mut refused) = (0, 0);
        for n in 0..40 {
            let handle = rig.submit(quick(TaskKind::VmStart, &[changes(1)]), |work| {
                work.step(&undo(1), || Ok(()))?;
                done(work)
            });
            // At another point of its life each time.
            for _ in 0..n {
                std::thread::yield_now();
                assert!(rig.engine.live_count() <= 1);
            }
            let cancelled = rig.engine.cancel(handle.id).is_ok();
            let outcome = handle.wait_blocking();
            assert_eq!(cancelled, outcome.is_err(), "{outcome:?}");
            if cancelled { accepted += 1 } else { refused += 1 }
        }
        println!("tasks: of 40 cancels {accepted} were accepted, {refused} refused");
    });
}

#[test]
fn progress_is_in_memory_at_once_and_in_the_row_soon() {
    on_both(settings(), |rig| {
        let gate = Gate::new();
        let at = gate.clone();
        let handle = rig.submit(long(TaskKind::VmCreate, &[changes(1)]), move |work| {
            work.reporter().progress(40, "copying");
            work.reporter().progress(150, "nearly done");
            at.pass();
            done(work)
        });
        gate.wait_inside(1);
        let seen = rig.engine.find(handle.id).unwrap().unwrap();
        assert_eq!((seen.state, seen.percent, seen.step.as_str()), (TaskState::Running, 100, "nearly done"));
        assert_eq!(rig.engine.recent(1).unwrap()[0], seen);
        let row = rig.task(handle.id);
        assert_eq!((row.percent, row.step.as_str()), (40, "copying"), "the row follows at most once a second");
        gate.open();
        let id = handle.id;
        handle.wait_blocking().unwrap();
        wait_until("the record is closed", || Ok(rig.task(id).state == TaskState::Success));
        assert_eq!(rig.task(id).percent, 100);
    });
}
