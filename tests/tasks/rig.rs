//! An engine on a store of its own, with operations that a test holds at gates and compensations that it makes fail.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use pengx::error::{Error, Result};
use pengx::model::*;
use pengx::store::{Store, journal, locks, pms, tasks as rows};
use pengx::tasks::{Engine, Ground, NoFaults, Probe, TaskHandle, TaskSettings, TaskSpec, Work};
use uuid::Uuid;

use crate::harness::postgres;
use crate::harness::wait::{PATIENCE, wait_until};

pub(super) struct Rig {
    pub(super) engine: Engine,
    pub(super) store: Store,
    pub(super) undone: Arc<Undone>,
    settings: TaskSettings,
    _dir: tempfile::TempDir,
}

/// What was compensated, by the numbers of [`undo`], and which of them fail now.
#[derive(Default)]
pub(super) struct Undone {
    done: Mutex<Vec<u128>>,
    failing: Mutex<BTreeSet<u128>>,
    panicking: Mutex<BTreeSet<u128>>,
    tried: Mutex<usize>,
}

impl Undone {
    pub(super) fn list(&self) -> Vec<u128> {
        self.done.lock().unwrap().clone()
    }
    pub(super) fn fail(&self, n: u128) {
        self.failing.lock().unwrap().insert(n);
    }
    pub(super) fn panic(&self, n: u128) {
        self.panicking.lock().unwrap().insert(n);
    }
    pub(super) fn heal(&self) {
        self.failing.lock().unwrap().clear();
        self.panicking.lock().unwrap().clear();
    }
    pub(super) fn tried(&self) -> usize {
        *self.tried.lock().unwrap()
    }

    fn apply(&self, what: &Compensation) -> Result<()> {
        let Compensation::Undefine { vm: VmId(id) } = what else { panic!("not of this test: {what:?}") };
        *self.tried.lock().unwrap() += 1;
        let panics = self.panicking.lock().unwrap().contains(&id.as_u128());
        if panics {
            // Without a word about it.
            std::panic::resume_unwind(Box::new("on purpose"));
        }
        if self.failing.lock().unwrap().contains(&id.as_u128()) {
            return Err(Error::unavailable("the world"));
        }
        self.done.lock().unwrap().push(id.as_u128());
        Ok(())
    }
}

pub(super) fn undo(n: u128) -> Compensation {
    Compensation::Undefine { vm: VmId(Uuid::from_u128(n)) }
}

pub(super) fn pm() -> PmId {
    PmId(Uuid::from_u128(0xB105))
}

pub(super) fn uses(n: u128) -> Lock {
    Lock { resource: Resource::Vm(VmId(Uuid::from_u128(n))), access: Access::Uses }
}

pub(super) fn changes(n: u128) -> Lock {
    Lock { access: Access::Changes, ..uses(n) }
}

pub(super) fn quick(kind: TaskKind, locks: &[Lock]) -> TaskSpec {
    TaskSpec { kind, lane: Lane::Quick, subject: "vm web1".to_owned(), locks: locks.to_vec(), account: None }
}

pub(super) fn long(kind: TaskKind, locks: &[Lock]) -> TaskSpec {
    TaskSpec { lane: Lane::Long, ..quick(kind, locks) }
}

pub(super) fn settings() -> TaskSettings {
    TaskSettings { lock_timeout: PATIENCE * 2, recover_interval: Duration::from_millis(50), ..TaskSettings::default() }
}

/// Runs the test on SQLite and on Postgres, and looks that nothing is left.
pub(super) fn on_both(settings: TaskSettings, test: impl Fn(&Rig)) {
    let dir = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}/pengx.db", dir.path().display());
    for (url, dir) in [(sqlite, dir), (postgres::database(), tempfile::tempdir().unwrap())] {
        let rig = Rig::new(&url, dir, settings);
        test(&rig);
        rig.assert_at_rest();
    }
}

impl Rig {
    pub(super) fn new(url: &str, dir: tempfile::TempDir, settings: TaskSettings) -> Self {
        Self::with(url, dir, settings, Arc::new(NoFaults))
    }

    pub(super) fn with(url: &str, dir: tempfile::TempDir, settings: TaskSettings, probe: Arc<dyn Probe>) -> Self {
        let store = Store::open(url).unwrap();
        store.migrate().unwrap();
        let now = SystemClock.now();
        let row = Pm {
            id: pm(),
            name: "host1".to_owned(),
            cpu: 1,
            memory: MiB(1),
            ssh_pubkey: None,
            hypervisor: "fake".to_owned(),
            heartbeat_at: now,
            created_at: now,
            updated_at: now,
        };
        store.write_tx(|c| pms::save(c, &row)).unwrap();
        let undone = Arc::<Undone>::default();
        let engine = start(store.clone(), undone.clone(), settings, probe);
        Self { engine, store, undone, settings, _dir: dir }
    }

    /// The next process on the same database, after this one died or was stopped.
    pub(super) fn next(self) -> Self {
        let undone = Arc::<Undone>::default();
        let engine = start(self.store.clone(), undone.clone(), self.settings, Arc::new(NoFaults));
        Self { engine, undone, ..self }
    }

    pub(super) fn submit<T: Send + 'static>(
        &self,
        spec: TaskSpec,
        job: impl FnOnce(&mut Work<'_>) -> Result<T> + Send + 'static,
    ) -> TaskHandle<T> {
        self.engine.submit(spec, job).unwrap()
    }

    /// A task that waits inside the gate and then succeeds.
    pub(super) fn held(&self, spec: TaskSpec, gate: &Arc<Gate>) -> TaskHandle<()> {
        let gate = gate.clone();
        self.submit(spec, move |work| {
            gate.pass();
            done(work)
        })
    }

    pub(super) fn task(&self, id: TaskId) -> Task {
        self.store.read(|c| rows::find(c, id)).unwrap().unwrap()
    }

    pub(super) fn held_locks(&self, id: TaskId) -> usize {
        self.store.read(|c| locks::of_task(c, id)).unwrap().len()
    }

    pub(super) fn journal(&self, id: TaskId) -> usize {
        self.store.read(|c| journal::of_task(c, id)).unwrap().len()
    }

    /// The engine has counted it as ended: its record is closed, and who waited for its locks has been looked at.
    pub(super) fn assert_at_rest(&self) {
        wait_until("no task, lock or journal entry is left", || {
            let left = self.store.read(|c| {
                let open = rows::recent(c, 10_000)?.iter().filter(|t| !t.state.is_over()).count();
                Ok(open + locks::all(c)?.len() + journal::all(c)?.len())
            })?;
            Ok(left == 0 && self.engine.live_count() == 0)
        });
        for task in self.store.read(|c| rows::recent(c, 10_000)).unwrap() {
            assert!(!task.message.is_empty() && task.ended_at.is_some(), "{task:?}");
            assert_eq!(task.error.is_none(), task.state == TaskState::Success, "{task:?}");
        }
    }
}

fn start(store: Store, undone: Arc<Undone>, settings: TaskSettings, probe: Arc<dyn Probe>) -> Engine {
    Engine::start(Ground {
        store,
        clock: Arc::new(SystemClock),
        ids: Arc::new(RandomIds),
        pm: pm(),
        compensate: Box::new(move |what| undone.apply(what)),
        probe,
        settings,
    })
}

pub(super) fn done(work: &mut Work<'_>) -> Result<()> {
    work.settle("it is done", &[], |_| Ok(()))
}

/// Where operations wait until the test lets them go on.
#[derive(Default)]
pub(super) struct Gate {
    state: Mutex<(usize, usize, bool)>,
    moved: Condvar,
}

impl Gate {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        state.1 = state.1.max(state.0);
        self.moved.notify_all();
        let (mut state, late) = self.moved.wait_timeout_while(state, PATIENCE * 2, |(_, _, open)| !*open).unwrap();
        state.0 -= 1;
        drop(state);
        assert!(!late.timed_out(), "nobody opened the gate");
    }

    pub(super) fn inside(&self) -> usize {
        self.state.lock().unwrap().0
    }

    /// The most that were ever inside at once.
    pub(super) fn most(&self) -> usize {
        self.state.lock().unwrap().1
    }

    pub(super) fn wait_inside(&self, count: usize) {
        wait_until("operations are at the gate", || Ok(self.inside() == count));
    }

    pub(super) fn open(&self) {
        self.state.lock().unwrap().2 = true;
        self.moved.notify_all();
    }
}
