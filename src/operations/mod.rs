//! The use cases. An operation reads as plan, steps, settle; a query is a plain function. Here alone store, hypervisor,
//! storage and host meet, and here it is decided what each action may do. Knows no HTTP, and no backend by name.

mod account;
pub mod backup;
pub mod bridge;
mod chain;
pub mod check;
mod compensate;
pub mod console;
mod copies;
pub mod deletion;
pub mod disk;
pub mod domain;
mod generation;
mod guard;
pub mod health;
pub mod inventory;
pub mod iso;
pub mod ledger;
pub mod metrics;
mod mirror;
pub mod nic;
pub mod number;
mod peers;
pub mod pm;
mod samples;
mod seen;
pub mod snapshot;
mod space;
pub mod storlink;
pub mod task;
pub mod template;
pub mod tenant;
pub mod vm;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::error::{Error, Result};
use crate::host::{Host, Meter, Sampler};
use crate::hypervisor::Hypervisor;
use crate::model::{Clock, HostUse, Ids, Lane, Lock, NicLink, Pm, ProofSign, Right, Storlink, StorlinkId, TaskKind};
use crate::storage::VolumeDriver;
use crate::store::Store;
pub use crate::tasks::Done;
use crate::tasks::{Engine, Ground, Probe, TaskHandle, TaskSettings, TaskSpec, Work};

use account::hidden;
pub use account::{Caller, Credentials, Gate, Listed, Login, Registry};
use inventory::Inventory;
use samples::{Pace, Samples};

/// One way to change the world. Inputs are plain data: ids, names, sizes.
pub trait Operation: Send + 'static {
    const KIND: TaskKind;
    /// What its caller must be allowed to do.
    const RIGHT: Right = Right::Operate;
    type Output: Send + 'static;

    /// Which threads run it: `Long` for what copies data.
    fn lane(&self) -> Lane {
        Lane::Quick
    }

    /// What it is about, for people; `vm web1`. May read a row.
    fn subject(&self, core: &Core) -> Result<String>;

    /// Everything it touches.
    fn locks(&self) -> Vec<Lock>;

    /// Plan, steps, settle.
    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<Self::Output>;
}

/// Opens the driver of a storlink.
pub type Opener = Arc<dyn Fn(&Storlink) -> Result<Box<dyn VolumeDriver>> + Send + Sync>;

/// What an operator can set about operations.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `N` of a network list means bridge `<prefix>N`.
    pub bridge_prefix: String,
    /// From a client's name for a bridge to what this host has.
    pub bridges: HashMap<String, NicLink>,
    /// So many vCPUs can be plugged into a guest that was started with fewer.
    pub max_vcpus: u32,
    /// How long a guest may take to power off after it was asked.
    pub shutdown_timeout: Duration,
    /// How often it is asked.
    pub shutdown_repeat: Duration,
    /// How long a running guest may take to give up or take memory after it was asked.
    pub memory_timeout: Duration,
    /// The most images of one backing chain.
    pub max_chain: usize,
    /// What a restored snapshot replaces becomes a snapshot, if anything was written to it; else it goes.
    pub keep_replaced_leaf: bool,
    /// So much of a storlink's size stays free when data is copied to it, in percent; by the storlink's name, and for all
    /// others.
    pub low_water: HashMap<String, u32>,
    pub low_water_default: u32,
    /// By what a backup is proven, and how long a guest may take for it.
    pub prove_wait: ProofSign,
    pub prove_timeout: Duration,
    /// How long an orphan must have been left alone before it may be removed.
    pub orphan_quarantine: Duration,
    /// The file that lets the other hosts of the site in; `None` where nobody knows which one.
    pub authorized_keys: Option<PathBuf>,
    pub tasks: TaskSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bridge_prefix: "xenbr".to_owned(),
            bridges: HashMap::new(),
            max_vcpus: 16,
            shutdown_timeout: Duration::from_secs(120),
            shutdown_repeat: Duration::from_secs(5),
            memory_timeout: Duration::from_secs(30),
            max_chain: 30,
            keep_replaced_leaf: true,
            low_water: HashMap::new(),
            low_water_default: 1,
            prove_wait: ProofSign::Agent,
            prove_timeout: Duration::from_secs(300),
            orphan_quarantine: Duration::from_secs(24 * 3600),
            authorized_keys: None,
            tasks: TaskSettings::default(),
        }
    }
}

/// What a core is built from.
pub struct Parts {
    pub store: Store,
    pub hypervisor: Arc<dyn Hypervisor>,
    pub volumes: Opener,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn Ids>,
    pub probe: Arc<dyn Probe>,
    /// This host, as its row will say.
    pub pm: Pm,
    /// Where the other facts of this host come from.
    pub host: Host,
    /// What the hypervisor says now that it is used for, if it is to be asked.
    pub host_use: Option<HostUse>,
    pub settings: Settings,
}

/// The one handle to all of this, in somebody's name; a dialect gets it at the [`Gate`]. Cheap to clone.
#[derive(Clone)]
pub struct Core {
    inner: Arc<Inner>,
    caller: Caller,
}

/// What a [`Core`] points to; open to operations alone.
pub struct Inner {
    store: Store,
    hypervisor: Arc<dyn Hypervisor>,
    volumes: Opener,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    pm: Pm,
    settings: Settings,
    host: Host,
    sampler: Sampler,
    meter: Meter,
    measured: pm::Measured,
    peers: peers::Known,
    inventory: Inventory,
    samples: Samples,
    listings: vm::Listings,
    usages: storlink::Usages,
    health: health::Seen,
    tickets: account::Tickets,
    known: Arc<account::Known>,
    engine: std::sync::OnceLock<Engine>,
    /// Blocking reads under way at once; more would only wait for each other.
    reads: Arc<Semaphore>,
    /// The same for reads that ask a storage, of each and of all.
    storage_reads: StorageReads,
}

impl std::ops::Deref for Core {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.inner
    }
}

/// Blocking reads under way at once.
const READS: usize = 16;
/// Of those that ask a storage. Together with the others no more than the runtime has threads for.
const STORAGE_READS: usize = 40;
/// Of those that ask the same one.
const READS_OF_ONE: usize = 4;
/// How long one of them waits for its turn.
const STORAGE_TURN: Duration = Duration::from_secs(15);

/// How often one who waits looks whether the database still moves.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Core {
    /// Starts the threads of tasks and inventory. The database may be away, and so may the hypervisor. This handle is the
    /// server's own, which may do everything.
    pub fn start(parts: Parts) -> Self {
        let probe = parts.probe.clone();
        let core = Self::beside(parts);
        // Weak, or the engine inside the core would keep the core alive for ever.
        let weak = Arc::downgrade(&core.inner);
        let engine = Engine::start(Ground {
            store: core.store.clone(),
            clock: core.clock.clone(),
            ids: core.ids.clone(),
            pm: core.pm.id,
            compensate: Box::new(move |c| match weak.upgrade() {
                Some(inner) => compensate::apply(&Core::of_server(inner), c),
                None => Err(Error::unavailable("pengx is stopping and")),
            }),
            probe,
            settings: core.settings.tasks,
        });
        // The cell is new, so this sets it.
        core.engine.get_or_init(|| engine);
        seen::follow(&core);
        core.samples.follow();
        core
    }

    /// A core that looks, and changes nothing: it runs no task, and recovers none. For a look beside a server.
    pub fn beside(parts: Parts) -> Self {
        let inventory = Inventory::new(&parts.hypervisor);
        let (hypervisor, clock) = (parts.hypervisor.clone(), parts.clock.clone());
        let samples = Samples::new(hypervisor, clock, inventory.clone(), Pace::default());
        Self::of_server(Arc::new(Inner {
            known: Arc::new(account::Known::new(parts.store.clone())),
            store: parts.store,
            hypervisor: parts.hypervisor,
            volumes: parts.volumes,
            clock: parts.clock,
            ids: parts.ids,
            pm: parts.pm,
            settings: parts.settings,
            samples,
            sampler: Sampler::new(parts.host.clone(), parts.host_use),
            meter: Meter::default(),
            host: parts.host,
            measured: pm::Measured::default(),
            peers: peers::Known::default(),
            inventory,
            listings: vm::Listings::default(),
            usages: storlink::Usages::default(),
            health: health::Seen::default(),
            tickets: account::Tickets::default(),
            engine: std::sync::OnceLock::new(),
            reads: Arc::new(Semaphore::new(READS)),
            storage_reads: StorageReads::default(),
        }))
    }

    fn of_server(inner: Arc<Inner>) -> Self {
        Self { inner, caller: Caller::server() }
    }

    fn in_the_name_of(&self, caller: Caller) -> Self {
        Self { inner: self.inner.clone(), caller }
    }

    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Submits an operation as a task. Blocks for its admission; see [`Core::submit`] for async callers.
    ///
    /// # Errors
    /// `Forbidden`, before anything is written, if the caller has not the operation's right, or may not see a VM that it is about.
    pub fn submit_blocking<O: Operation>(&self, operation: O) -> Result<TaskHandle<O::Output>> {
        self.caller.require(O::RIGHT, format_args!("run {}", O::KIND))?;
        let locks = operation.locks();
        guard::locks(self, &locks)?;
        let subject = operation.subject(self)?;
        let account = self.caller.account().map(str::to_owned);
        let spec = TaskSpec { kind: O::KIND, lane: operation.lane(), subject: subject.clone(), locks, account };
        let core = self.clone();
        let handle = self
            .tasks()?
            .submit(spec, move |work| operation.run(&core, work).map_err(|why| core.caller.discreet(why)))?;
        tracing::info!(task = %handle.id, kind = %O::KIND, subject, user = %self.caller, "task submitted");
        Ok(handle)
    }

    /// Submits an operation as a task; the handle waits for its end.
    pub async fn submit<O: Operation>(&self, operation: O) -> Result<TaskHandle<O::Output>> {
        self.read(move |core| core.submit_blocking(operation)).await
    }

    /// Runs a blocking query off the async threads.
    pub async fn read<T: Send + 'static>(&self, query: impl FnOnce(&Core) -> Result<T> + Send + 'static) -> Result<T> {
        let turn = while_moving(&self.store, self.reads.clone().acquire_owned()).await?;
        self.read_in_turn(turn, query).await
    }

    /// As [`Core::read`], for queries that ask a storage, this one if it is known: on turns of its own, so that a dead one
    /// keeps nobody waiting who does not ask it.
    pub async fn read_storage<T: Send + 'static>(
        &self,
        storlink: Option<StorlinkId>,
        query: impl FnOnce(&Core) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = tokio::time::timeout(STORAGE_TURN, self.storage_reads.turn(storlink)).await;
        self.read_in_turn(turn.map_err(|late| Error::unavailable("the storage").caused_by(late))?, query).await
    }

    async fn read_in_turn<T: Send + 'static>(
        &self,
        turn: impl Send + 'static,
        query: impl FnOnce(&Core) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let core = self.clone();
        let blocking = move || {
            // Kept by the thread: a caller that hangs up does not make room for another one.
            let _turn = turn;
            query(&core)
        };
        let done = while_moving(&self.store, tokio::task::spawn_blocking(blocking)).await?;
        done.unwrap_or_else(|why| Err(Error::internal("a query panicked").caused_by(why)))
    }

    /// The end of a task; `Unavailable`, while the task goes on, if the database stands still meanwhile.
    pub async fn wait<T>(&self, handle: TaskHandle<T>) -> Result<Done<T>> {
        let id = handle.id;
        let waited = while_moving(&self.store, handle.wait()).await;
        waited.map_err(|stalled| stalled.context(format!("task {id} goes on")))?
    }

    /// For operations alone: the engine asks nobody for a right.
    fn tasks(&self) -> Result<&Engine> {
        self.engine.get().ok_or_else(|| Error::internal("tasks before the start"))
    }

    /// Lets running tasks end within `deadline`; blocks.
    pub fn stop(&self, deadline: Duration) {
        if let Some(engine) = self.engine.get() {
            engine.stop(deadline);
        }
    }
}

struct StorageReads {
    of_all: Arc<Semaphore>,
    /// Those that ask nobody knows which take turns of their own.
    of_one: Mutex<HashMap<Option<StorlinkId>, Arc<Semaphore>>>,
}

impl Default for StorageReads {
    fn default() -> Self {
        Self { of_all: Arc::new(Semaphore::new(STORAGE_READS)), of_one: Mutex::default() }
    }
}

impl StorageReads {
    async fn turn(&self, storlink: Option<StorlinkId>) -> impl Send + 'static {
        let of_one = {
            let mut all = self.of_one.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(storlink).or_insert_with(|| Arc::new(Semaphore::new(READS_OF_ONE))).clone()
        };
        // Nobody closes them.
        let turn = of_one.acquire_owned().await.ok();
        (turn, self.of_all.clone().acquire_owned().await.ok())
    }
}

/// Waits, unless the database stands still: nobody waits for a transaction that does not end.
async fn while_moving<T>(store: &Store, what: impl Future<Output = T>) -> Result<T> {
    let mut what = std::pin::pin!(what);
    loop {
        match tokio::time::timeout(LOOK_AGAIN, &mut what).await {
            Ok(done) => return Ok(done),
            Err(_) if store.stalled() => return Err(Error::unavailable("the database")),
            Err(_) => {}
        }
    }
}
