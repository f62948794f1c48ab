//! The end of a server: what runs, what waits, and who comes too late.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pengx::error::ErrorKind;
use pengx::model::*;

use super::rig::{Gate, changes, done, long, on_both, quick, settings, undo};
use crate::harness::wait::{PATIENCE, wait_until};

#[test]
fn a_stop_lets_quick_tasks_end_and_undoes_long_ones() {
    on_both(settings(), |rig| {
        let (quick_gate, long_gate) = (Gate::new(), Gate::new());
        let quick_one = rig.held(quick(TaskKind::VmStart, &[changes(1)]), &quick_gate);
        let waiting_quick = rig.submit(quick(TaskKind::VmStart, &[changes(1)]), done);
        let at = long_gate.clone();
        let long_one = rig.submit(long(TaskKind::VmCreate, &[changes(2)]), move |work| {
            work.step(&undo(1), || Ok(()))?;
            at.pass();
            work.step(&undo(2), || Ok(()))?;
            done(work)
        });
        let waiting_long = rig.submit(long(TaskKind::VmCreate, &[changes(2)]), done);
        quick_gate.wait_inside(1);
        long_gate.wait_inside(1);
        std::thread::scope(|s| {
            let stopped = s.spawn(|| rig.engine.stop(PATIENCE));
            // The long waiter is sent away first: from then on the stop is under way.
            let cancelled = waiting_long.wait_blocking().unwrap_err();
            assert!(matches!(cancelled.kind(), ErrorKind::Cancelled { .. }), "{cancelled}");
            let refused = rig.engine.submit(quick(TaskKind::VmStart, &[changes(3)]), done).err().unwrap();
            assert_eq!(refused.to_string(), "pengx is stopping and does not answer");
            long_gate.open();
            assert!(matches!(long_one.wait_blocking().unwrap_err().kind(), ErrorKind::Cancelled { .. }));
            assert!(!stopped.is_finished(), "a quick task still runs");
            quick_gate.open();
            quick_one.wait_blocking().unwrap();
            waiting_quick.wait_blocking().unwrap();
            stopped.join().unwrap();
        });
        assert_eq!(rig.undone.list(), [1]);
        assert_eq!(rig.engine.live_count(), 0);
    });
}

#[test]
fn at_the_deadline_of_a_stop_quick_tasks_are_cancelled_too() {
    on_both(settings(), |rig| {
        let gate = Gate::new();
        let at = gate.clone();
        let patient = rig.submit(quick(TaskKind::VmShutdown, &[changes(1)]), move |work| {
            at.pass();
            loop {
                work.checkpoint()?;
                std::thread::yield_now();
            }
            #[allow(unreachable_code, reason = "it says what the task gives")]
            done(work)
        });
        gate.wait_inside(1);
        gate.open();
        rig.engine.stop(Duration::from_millis(10));
        assert_eq!(rig.engine.live_count(), 0);
        assert!(matches!(patient.wait_blocking().unwrap_err().kind(), ErrorKind::Cancelled { .. }));
    });
}

#[test]
fn nothing_begins_after_a_stop_has_returned() {
    for _ in 0..8 {
        on_both(settings(), |rig| {
            let (stopped, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
            std::thread::scope(|s| {
                for n in 0..4 {
                    let (stopped, begun) = (stopped.clone(), begun.clone());
                    s.spawn(move || {
                        loop {
                            let (stopped, begun) = (stopped.clone(), begun.clone());
                            let submitted =
                                rig.engine.submit(quick(TaskKind::VmStart, &[changes(n % 2)]), move |work| {
                                    assert!(!stopped.load(Ordering::SeqCst), "begun after the stop");
                                    begun.fetch_add(1, Ordering::SeqCst);
                                    done(work)
                                });
                            match submitted {
                                Ok(handle) => drop(handle.wait_blocking().unwrap()),
                                Err(refused) => break assert_eq!(refused.kind().name(), "unavailable"),
                            }
                        }
                    });
                }
                wait_until("tasks run", || Ok(begun.load(Ordering::SeqCst) > 3));
                rig.engine.stop(PATIENCE);
                stopped.store(true, Ordering::SeqCst);
                assert_eq!(rig.engine.live_count(), 0);
            });
        });
    }
}
