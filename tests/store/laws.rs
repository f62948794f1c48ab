//! What transactions promise.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Barrier, mpsc};

use pengx::error::Error;
use pengx::store::{locks, pms, storlinks, tasks, vms};

use super::*;

const THREADS: u128 = 8;

#[test]
fn of_eight_rivals_one_gets_an_exclusive_lock() {
    on_both(|db| {
        let pm = pm(1);
        db.write(|c| pms::save(c, &pm).and_then(|()| (1..=THREADS).try_for_each(|n| tasks::insert(c, &task(&pm, n)))));
        let wanted = [Lock { resource: Resource::Name("vm", "web1".to_owned()), access: Access::Changes }];
        const ROUNDS: u32 = 60;
        let (taken, failed) = (AtomicU32::new(0), AtomicU32::new(0));
        let barrier = Barrier::new(usize::try_from(THREADS).unwrap());
        // Each with a store of its own, as so many servers on one database. A thread that panics would leave the others at
        // the barrier, so errors are counted.
        std::thread::scope(|s| {
            for n in 1..=THREADS {
                let store = Store::open(&db.url).unwrap();
                store.migrate().unwrap();
                let (pm, barrier, taken, failed, wanted) = (&pm, &barrier, &taken, &failed, &wanted);
                s.spawn(move || {
                    let me = task(pm, n).id;
                    for _ in 0..ROUNDS {
                        barrier.wait();
                        let got = store.note_tx(|c| locks::acquire(c, me, wanted));
                        barrier.wait();
                        match got {
                            Ok(None) => taken.fetch_add(1, Ordering::SeqCst),
                            Ok(Some(_)) => 0,
                            Err(_) => failed.fetch_add(1, Ordering::SeqCst),
                        };
                        if store.note_tx(|c| locks::release(c, me)).is_err() {
                            failed.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert_eq!(failed.load(Ordering::SeqCst), 0);
        assert_eq!(taken.load(Ordering::SeqCst), ROUNDS, "one in each round");
        assert!(db.read(locks::all).is_empty());
    });
}

#[test]
fn what_a_writer_read_still_holds_when_it_writes() {
    on_both(|db| {
        let pm = pm(1);
        let id = db.write(|c| pms::save(c, &pm).and_then(|()| storlinks::insert(c, &new_storlink(&pm, "s"))));
        db.write(|c| storlinks::set_usage(c, id, Usage::default()));
        std::thread::scope(|s| {
            for _ in 0..THREADS {
                s.spawn(|| {
                    let store = Store::open(&db.url).unwrap();
                    store.migrate().unwrap();
                    for _ in 0..50 {
                        let increment = |c: &mut Conn| {
                            let free = storlinks::find(c, id)?.unwrap().usage.free;
                            storlinks::set_usage(c, id, Usage { size: MiB(0), free: free + MiB(1) })
                        };
                        store.write_tx(increment).unwrap();
                    }
                });
            }
        });
        assert_eq!(db.read(|c| storlinks::find(c, id)).unwrap().usage.free, MiB(8 * 50));
    });
}

#[test]
fn a_reader_sees_one_moment_and_waits_for_no_writer() {
    on_both(|db| {
        db.write(|c| pms::save(c, &pm(1)));
        db.read(|c| {
            assert_eq!(pms::all(c)?.len(), 1);
            std::thread::scope(|s| s.spawn(|| db.write(|c| pms::save(c, &pm(2)))).join().unwrap());
            assert_eq!(pms::all(c)?.len(), 1, "still that moment");
            Ok(())
        });
        assert_eq!(db.read(pms::all).len(), 2);
        db.write(|c| {
            pms::save(c, &pm(3))?;
            let seen = std::thread::scope(|s| s.spawn(|| db.read(pms::all).len()).join().unwrap());
            assert_eq!(seen, 2, "reads beside an open write, and only what is committed");
            Ok(())
        });
    });
}

#[test]
fn nothing_is_written_in_a_read() {
    on_both(|db| {
        assert!(db.store.read(|c| pms::save(c, &pm(1))).is_err());
        assert!(db.read(pms::all).is_empty());
    });
}

#[test]
fn an_error_takes_everything_back() {
    on_both(|db| {
        let refused = db.store.write_tx(|c| pms::save(c, &pm(1)).and(Err::<(), _>(Error::not_found("vm", 7))));
        assert_eq!(refused.unwrap_err().to_string(), "there is no vm 7", "the error of the closure, as it was");
        assert!(db.read(pms::all).is_empty());
        db.write(|c| pms::save(c, &pm(1)));
    });
}

#[test]
fn an_error_that_was_swallowed_loses_nothing_silently() {
    on_both(|db| {
        let (pm, one) = (pm(1), vm(&pm(1), None, 1));
        db.write(|c| pms::save(c, &pm).and_then(|()| vms::insert(c, &one)));
        let swallowed = db.store.write_tx(|c| {
            vms::insert(c, &vm(&pm, None, 2))?;
            assert!(vms::insert(c, &one).is_err());
            Ok(())
        });
        // SQLite goes on after an error, Postgres cannot; either the row is there or the caller knows.
        let there = db.read(|c| vms::find_by_name(c, "vm2")).is_some();
        assert_eq!(swallowed.is_ok(), there);
        db.write(|c| vms::insert(c, &vm(&pm, None, 3)));
    });
}

#[test]
fn a_panic_takes_everything_back_and_the_next_one_can_write() {
    on_both(|db| {
        for _ in 0..20 {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                db.store.write_tx(|c| -> pengx::error::Result<()> {
                    pms::save(c, &pm(1))?;
                    // Without a word about it.
                    resume_unwind(Box::new("on purpose"))
                })
            }));
            assert!(panicked.is_err());
        }
        assert!(db.read(pms::all).is_empty());
        db.write(|c| pms::save(c, &pm(1)));
    });
}

#[test]
fn the_generation_follows_the_commits_that_documents_show() {
    on_both(|db| {
        let now = || db.store.read_generation().unwrap();
        let before = now();
        assert_eq!(db.store.generation(), db.is_sqlite().then_some(before));
        db.store.note_tx(|c| pms::save(c, &pm(1))).unwrap();
        db.read(pms::all);
        for write in [Store::write_tx, Store::tell_tx] {
            let refused: pengx::error::Result<()> = write(&db.store, |_: &mut Conn| Err(Error::internal("no")));
            assert!(refused.is_err());
        }
        assert_eq!(now(), before);
        db.write(|c| pms::save(c, &pm(2)));
        let written = now();
        assert_ne!(written, before);
        assert_eq!(db.store.clone().read_generation().unwrap(), written);
        db.store.tell_tx(|c| pms::save(c, &pm(3))).unwrap();
        assert_eq!(now() == written, db.is_sqlite(), "only on Postgres is there another host to tell");
    });
}

#[test]
fn on_postgres_the_generation_is_everybodys_and_moves_with_the_rows() {
    let db = Database::postgres();
    let other = Store::open(&db.url).unwrap();
    other.migrate().unwrap();
    let before = other.read_generation().unwrap();
    db.write(|c| {
        pms::save(c, &pm(1))?;
        assert_eq!(other.read_generation()?, before, "not before the rows can be read");
        Ok(())
    });
    let written = other.read_generation().unwrap();
    assert_ne!(written, before);
    assert_eq!(db.store.read_generation().unwrap(), written);
    // Never again what it was, or a cache would take it for what it has.
    let mut seen = vec![before, written];
    for _ in 0..50 {
        db.write(|_| Ok(()));
        let next = other.read_generation().unwrap();
        assert!(!seen.contains(&next));
        seen.push(next);
    }
}

#[test]
fn when_every_connection_is_taken_a_reader_is_told_so() {
    let db = Database::sqlite();
    let barrier = Barrier::new(9);
    std::thread::scope(|s| {
        let (hold, mut held) = (&barrier, Vec::new());
        for _ in 0..8 {
            let (done, wait) = mpsc::channel::<()>();
            held.push(done);
            let db = &db;
            s.spawn(move || {
                db.read(|_| {
                    hold.wait();
                    // Until the sender is dropped.
                    assert!(wait.recv().is_err());
                    Ok(())
                })
            });
        }
        hold.wait();
        let e = db.store.read(pms::all).unwrap_err();
        assert_eq!(e.kind().name(), "unavailable");
        assert!(e.story().contains("all 8 connections"), "{}", e.story());
        drop(held);
    });
    assert!(db.read(pms::all).is_empty());
}
