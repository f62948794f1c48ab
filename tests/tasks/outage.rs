//! The database goes away while tasks run, and comes back.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pengx::error::{Error, Result};
use pengx::model::*;
use pengx::tasks::TaskSettings;

use super::rig::{Gate, Rig, changes, done, quick, settings, undo};
use crate::harness::postgres::Server;
use crate::harness::wait::wait_until;

#[test]
fn the_end_of_a_task_is_recorded_when_the_database_is_back() {
    let server = Server::start();
    let rig = Rig::new(&server.database(), tempfile::tempdir().unwrap(), settings());
    let gate = Gate::new();
    let at = gate.clone();
    let with_steps = rig.submit(quick(TaskKind::VmCreate, &[changes(1)]), move |work| {
        work.step(&undo(1), || Ok(()))?;
        at.pass();
        work.step(&undo(2), || Ok(()))?;
        done(work)
    });
    // These have no journal: their locks must go all the same.
    let planning = rig.held(quick(TaskKind::VmStart, &[changes(2)]), &gate);
    let waiting = rig.submit(quick(TaskKind::VmStart, &[changes(2)]), done);
    gate.wait_inside(2);
    let ids = [with_steps.id, planning.id];
    server.stop();
    gate.open();
    for handle in [with_steps, planning] {
        assert_eq!(handle.wait_blocking().unwrap_err().to_string(), "the database does not answer");
    }
    let refused = rig.engine.submit(quick(TaskKind::VmStart, &[changes(3)]), done).err().unwrap();
    assert_eq!(refused.to_string(), "the database does not answer");
    assert_eq!(rig.undone.list(), [], "what the journal says cannot be read");
    server.start_again();
    waiting.wait_blocking().unwrap();
    rig.assert_at_rest();
    for id in ids {
        let row = rig.task(id);
        assert_eq!((row.state, row.error.as_deref()), (TaskState::Failure, Some("unavailable")), "{row:?}");
    }
    assert_eq!(rig.undone.list(), [1]);
    for n in 1..=3 {
        rig.submit(quick(TaskKind::VmStart, &[changes(n)]), done).wait_blocking().unwrap();
    }
    rig.engine.stop(crate::harness::wait::PATIENCE);
}

#[test]
fn a_waiter_is_sent_away_in_time_though_the_database_is_gone() {
    let server = Server::start();
    let short = TaskSettings { lock_timeout: Duration::from_millis(300), ..settings() };
    let rig = Rig::new(&server.database(), tempfile::tempdir().unwrap(), short);
    let gate = Gate::new();
    let holder = rig.held(quick(TaskKind::VmStart, &[changes(1)]), &gate);
    gate.wait_inside(1);
    let waiting = rig.submit(quick(TaskKind::VmDelete, &[changes(1)]), done);
    server.stop();
    let busy = waiting.wait_blocking().unwrap_err();
    assert!(busy.to_string().starts_with("vm web1 is busy: vm.start since "), "{busy}");
    server.start_again();
    gate.open();
    holder.wait_blocking().unwrap();
    rig.assert_at_rest();
}

/// Between the server and its clients: when armed, it passes a COMMIT on and cuts the line before the answer.
struct Proxy {
    dir: tempfile::TempDir,
    armed: Arc<AtomicBool>,
}

impl Proxy {
    fn before(server: PathBuf) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(".s.PGSQL.5432")).unwrap();
        let armed = Arc::new(AtomicBool::new(false));
        let trap = armed.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), UnixStream::connect(&server).unwrap());
                let (from, to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let cut = Arc::new(AtomicBool::new(false));
                let (told, trap) = (cut.clone(), trap.clone());
                std::thread::spawn(move || pump(from, to, |_| !cut.load(Ordering::SeqCst)));
                std::thread::spawn(move || {
                    pump(client, server, |bytes| {
                        if bytes.windows(7).any(|w| w == b"COMMIT\0") && trap.swap(false, Ordering::SeqCst) {
                            told.store(true, Ordering::SeqCst);
                        }
                        true
                    });
                });
            }
        });
        Self { dir, armed }
    }
}

/// Copies until `goes_on` says no or an end is closed, and then closes both.
fn pump(mut from: UnixStream, mut to: UnixStream, goes_on: impl Fn(&[u8]) -> bool) {
    let mut bytes = [0; 65_536];
    while let Ok(n @ 1..) = from.read(&mut bytes) {
        if !goes_on(&bytes[..n]) || to.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    for end in [from, to] {
        end.shutdown(std::net::Shutdown::Both).ok();
    }
}

fn through_a_proxy(server: &Server, settings: TaskSettings) -> (Rig, Proxy) {
    let url = server.database();
    let socket_dir = url.split("host=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let proxy = Proxy::before(PathBuf::from(&socket_dir).join(".s.PGSQL.5432"));
    let url = url.replace(&socket_dir, proxy.dir.path().to_str().unwrap());
    (Rig::new(&url, tempfile::tempdir().unwrap(), settings), proxy)
}

/// The client cannot be told that it succeeded, but the record tells it, and nothing of it is undone.
#[test]
fn a_settling_commit_whose_answer_is_lost_is_not_undone() {
    let server = Server::start();
    // Recovery's own looks end with a COMMIT too: one pass at the start, and none again.
    let never = TaskSettings { recover_interval: Duration::from_secs(3_600), ..settings() };
    let (rig, proxy) = through_a_proxy(&server, never);
    rig.engine.recover().unwrap();
    let armed = proxy.armed.clone();
    let handle = rig.submit(quick(TaskKind::VmCreate, &[changes(1)]), move |work| {
        work.step(&undo(1), || Ok(()))?;
        work.settle("it is done", &[undo(10)], |_| {
            armed.store(true, Ordering::SeqCst);
            Ok(())
        })
    });
    let id = handle.id;
    assert_eq!(handle.wait_blocking().unwrap_err().to_string(), "the database does not answer");
    assert!(!proxy.armed.load(Ordering::SeqCst), "a commit went unanswered");
    rig.assert_at_rest();
    let row = rig.task(id);
    assert_eq!((row.state, row.message.as_str()), (TaskState::Success, "it is done"));
    assert_eq!(rig.undone.list(), [10]);
}

#[test]
fn an_admission_whose_commit_is_not_answered_leaves_no_lock() {
    let server = Server::start();
    let (rig, proxy) = through_a_proxy(&server, settings());
    proxy.armed.store(true, Ordering::SeqCst);
    let mut lost = None;
    // Recovery's own looks may take the trap; then it is set again.
    wait_until("an admission is not answered", || {
        proxy.armed.store(true, Ordering::SeqCst);
        match rig.engine.submit(quick(TaskKind::VmStart, &[changes(1)]), done) {
            Ok(handle) => drop(handle.wait_blocking()),
            Err(error) => lost = Some(error),
        }
        Ok(lost.is_some())
    });
    proxy.armed.store(false, Ordering::SeqCst);
    assert_eq!(lost.unwrap().to_string(), "the database does not answer");
    rig.submit(quick(TaskKind::VmStart, &[changes(1)]), done).wait_blocking().unwrap();
    rig.assert_at_rest();
}

/// A start that lost a race must not be undone: that would pull the plug of who won it.
#[test]
fn an_effect_that_was_not_begun_is_not_undone_though_the_database_went_away_meanwhile() {
    let server = Arc::new(Server::start());
    let rig = Rig::new(&server.database(), tempfile::tempdir().unwrap(), settings());
    let away = server.clone();
    let handle = rig.submit(quick(TaskKind::VmStart, &[changes(1)]), move |work| {
        work.step(&undo(1), || Ok(()))?;
        work.step(&undo(2), || -> Result<()> {
            away.stop();
            Err(Error::wrong_state("vm web1", "RUNNING", "it is started already"))
        })?;
        done(work)
    });
    let error = handle.wait_blocking().unwrap_err();
    assert_eq!(error.to_string(), "vm web1 is RUNNING; it is started already");
    server.start_again();
    rig.assert_at_rest();
    assert_eq!(rig.undone.list(), [1]);
}
