//! A whole pengx in this process: a database and storlinks of its own, any hypervisor, and a way to break it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pengx::error::{Error, Result};
use pengx::exec::SystemRunner;
use pengx::hypervisor::{FakeHypervisor, Hypervisor};
use pengx::model::*;
use pengx::operations::storlink::CreateStorlink;
use pengx::operations::template::AddTemplate;
use pengx::operations::vm::CreateVm;
use pengx::operations::{Core, Operation, Parts, Settings, pm};
use pengx::storage::{Content, Control, DriverInfo, FileDigest, NewVolume, VolumeDriver};
use pengx::store::Store;
use pengx::tasks::{Fate, Point, Probe, TaskSettings};
use rustix::process::{Signal, getpid, kill_process};

use super::tool::qemu_img;
use super::wait::{PATIENCE, wait_until};

/// What the files of a site are marked with.
pub const SITE: uuid::Uuid = uuid::Uuid::from_u128(0x517e);

/// A host that outlives any number of servers on it.
pub struct Site {
    pub dir: tempfile::TempDir,
    pub fake: FakeHypervisor,
    pub hypervisor: Arc<dyn Hypervisor>,
    pub database_url: String,
    pub storage: Arc<StorageFaults>,
    pub settings: Settings,
    /// Tells hosts of one database apart.
    pub host: u128,
    /// What the host's `/proc`, `/sys` and `/etc` are below; the real ones if it is `/`.
    pub root: PathBuf,
    ids: Arc<dyn Ids>,
    clock: Arc<dyn Clock>,
    /// Seconds that the clock of its servers is ahead.
    pub ahead: Arc<AtomicI64>,
}

/// A site and the server that runs on it now.
pub struct App {
    pub site: Site,
    pub core: Core,
    pub fuse: Arc<Fuse>,
}

impl Site {
    pub fn new() -> Self {
        let fake = FakeHypervisor::new();
        Self::on(Arc::new(fake.clone()), fake)
    }

    /// On a hypervisor of the caller's; `fake` is then only there.
    pub fn on(hypervisor: Arc<dyn Hypervisor>, fake: FakeHypervisor) -> Self {
        let dir = tempfile::Builder::new().prefix("px").tempdir().unwrap();
        std::fs::create_dir(dir.path().join("store")).unwrap();
        let ahead = Arc::<AtomicI64>::default();
        let settings = Settings {
            bridges: [("xenbr0".to_owned(), NicLink::User), ("xenbr1".to_owned(), NicLink::User)].into(),
            shutdown_timeout: Duration::from_millis(600),
            shutdown_repeat: Duration::from_millis(200),
            memory_timeout: Duration::from_millis(600),
            prove_timeout: Duration::from_millis(600),
            authorized_keys: Some(dir.path().join("authorized_keys")),
            tasks: TaskSettings {
                lock_timeout: Duration::from_secs(20),
                recover_interval: Duration::from_millis(100),
                ..TaskSettings::default()
            },
            ..Settings::default()
        };
        Self {
            database_url: format!("sqlite://{}", dir.path().join("pengx.db").display()),
            dir,
            fake,
            hypervisor,
            storage: Arc::default(),
            settings,
            host: 0xB105_F00D,
            root: PathBuf::from("/"),
            ids: Arc::new(RandomIds),
            clock: Arc::new(ShiftedClock(ahead.clone())),
            ahead,
        }
    }

    /// Ids that count, and a clock that stands: for answers that are compared to the letter.
    pub fn fixed(mut self) -> Self {
        self.ids = Arc::new(CountedIds::default());
        self.clock = Arc::new(StandingClock);
        self
    }

    pub fn store_dir(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Of the second storlink, where there is one.
    pub fn second_dir(&self) -> PathBuf {
        self.dir.path().join("store2")
    }

    pub fn pm(&self) -> Pm {
        let now = self.clock.now();
        Pm {
            id: PmId(uuid::Uuid::from_u128(self.host)),
            name: "host1".to_owned(),
            cpu: 8,
            memory: MiB(16_384),
            ssh_pubkey: None,
            hypervisor: "fake".to_owned(),
            heartbeat_at: now,
            created_at: now,
            updated_at: now,
        }
    }

    /// As a server here gets it.
    pub fn parts(&self, store: Store, probe: Arc<dyn Probe>) -> Parts {
        let (faults, site) = (self.storage.clone(), store.clone());
        Parts {
            host_use: self.hypervisor.host_use().unwrap(),
            store,
            hypervisor: self.hypervisor.clone(),
            volumes: Arc::new(move |storlink| {
                let driver = pengx::storage::open_for(site.site(|| SITE)?, storlink, Arc::new(SystemRunner))?;
                Ok(Box::new(FaultyDriver { driver, faults: faults.clone() }))
            }),
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            probe,
            pm: self.pm(),
            host: pengx::host::Host::below(&self.root),
            settings: self.settings.clone(),
        }
    }

    /// Starts a server here.
    pub fn start(self) -> App {
        self.start_with(Arc::default())
    }

    pub fn start_with(self, fuse: Arc<Fuse>) -> App {
        let store = Store::open(&self.database_url).unwrap();
        store.migrate().unwrap();
        let core = Core::start(self.parts(store, fuse.clone()));
        pm::register(&core).unwrap();
        App { site: self, core, fuse }
    }
}

impl App {
    pub fn new() -> Self {
        Site::new().start()
    }

    /// Ends this server, in order or dead already, and starts the next one on the same site.
    pub fn restart(self) -> Self {
        self.restart_with(Arc::default())
    }

    pub fn restart_with(self, fuse: Arc<Fuse>) -> Self {
        let Self { site, core, .. } = self;
        core.stop(PATIENCE);
        drop(core);
        site.start_with(fuse)
    }

    /// Runs an operation to its end.
    pub fn run<O: Operation>(&self, operation: O) -> Result<O::Output> {
        Ok(self.core.submit_blocking(operation)?.wait_blocking()?.output)
    }

    pub fn storlink(&self) -> StorlinkId {
        self.run(CreateStorlink {
            name: "store1".parse().unwrap(),
            link: self.site.store_dir().to_str().unwrap().to_owned(),
            kind: StorlinkType::Local,
            level: StorlinkLevel::File,
            desc: "VM store1".to_owned(),
            shared: false,
        })
        .unwrap()
    }

    /// A template of 4 MiB whose content is a pattern.
    pub fn template(&self, storlink: StorlinkId, format: Format) -> TemplateId {
        self.template_of(storlink, format, |path| make_image(path, format, 4))
    }

    /// One whose image the caller makes.
    pub fn template_of(&self, storlink: StorlinkId, format: Format, make: impl FnOnce(&Path)) -> TemplateId {
        let disk = DiskId(uuid::Uuid::from_u128(0xbed0_5d84));
        let path = self.site.store_dir().join(VolumeName::new(disk, format).as_str());
        make(&path);
        self.run(AddTemplate {
            name: "debian 8 64bit template".parse().unwrap(),
            os: Os::Debian,
            os_arch: OsArch::X64,
            desc: "Debian 8 jessie 64bit template".to_owned(),
            storlink,
            disk,
            format,
        })
        .unwrap()
    }

    pub fn vm_of(&self, storlink: StorlinkId, template: Option<TemplateId>, name: &str) -> CreateVm {
        CreateVm {
            name: name.parse().unwrap(),
            template,
            storlink,
            cpu: 1,
            memory: MiB(64),
            maxmem: MiB(64),
            os_disk_size: template.is_none().then_some(MiB(4)),
            extra_disk_size: Some(MiB(2)),
            format: None,
            networks: vec!["0".to_owned(), "1".to_owned()],
            iso: None,
            desc: "VM for something".to_owned(),
        }
    }

    /// Nothing may be left over when a test is done: no running task, no lock, no journal entry.
    pub fn assert_at_rest(&self) {
        assert_at_rest(&self.store());
    }

    /// The driver of a storlink, past the core and its faults.
    pub fn driver(&self, storlink: StorlinkId) -> Box<dyn VolumeDriver> {
        let row = self.store().read(|c| pengx::store::storlinks::find(c, storlink)).unwrap().unwrap();
        pengx::storage::open_for(SITE, &row, Arc::new(SystemRunner)).unwrap()
    }

    /// A volume of 1 MiB that this site has made and that nobody owns.
    pub fn orphan(&self, storlink: StorlinkId, format: Format) -> VolumeName {
        let volume = VolumeName::new(DiskId(RandomIds.uuid()), format);
        let make = NewVolume { format, size: MiB(1), content: Content::Zeros };
        let control = Control { cancel: &AtomicBool::new(false), progress: &|_| {} };
        self.driver(storlink).create(&volume, &make, &control).unwrap();
        volume
    }

    /// What a task of another host, which is over, still has to do: this host leaves it alone. It looks like the last task.
    pub fn pending_elsewhere(&self, entry: &Compensation) -> TaskId {
        use pengx::store::{journal, pms, tasks};
        let pm = Pm { id: PmId(uuid::Uuid::from_u128(0x0ddb)), name: "host9".to_owned(), ..self.site.pm() };
        let store = self.store();
        let mut row = store.read(|c| tasks::recent(c, 1)).unwrap().remove(0);
        (row.id, row.pm) = (TaskId(RandomIds.ordered_uuid()), pm.id);
        let done = store.note_tx(|tx| {
            pms::save(tx, &pm)?;
            tasks::insert(tx, &row)?;
            journal::push(tx, row.id, 0, journal::Direction::Forward, entry)
        });
        done.unwrap();
        row.id
    }

    /// From now on what was quiet until now is past its quarantine.
    pub fn wait_out_quarantine(&self) {
        let quarantine = i64::try_from(self.site.settings.orphan_quarantine.as_secs()).unwrap();
        self.site.ahead.fetch_add(quarantine + 60, Ordering::SeqCst);
        pm::heartbeat(&self.core).unwrap();
    }

    /// A second handle to the database.
    pub fn store(&self) -> Store {
        let store = Store::open(&self.site.database_url).unwrap();
        store.migrate().unwrap();
        store
    }
}

/// See [`App::assert_at_rest`]; for the database of any server.
pub fn assert_at_rest(store: &Store) {
    wait_until("tasks, locks, reservations and journal are empty", || {
        store.read(|c| {
            let locks = pengx::store::locks::all(c)?;
            let journal = pengx::store::journal::all(c)?;
            let reserved = pengx::store::reservations::all(c)?;
            let open = pengx::store::tasks::recent(c, 10_000)?.iter().filter(|t| !t.state.is_over()).count();
            Ok(locks.is_empty() && journal.is_empty() && reserved.is_empty() && open == 0)
        })
    });
}

/// Writes a pattern, so that a copy can be told from zeros.
pub fn make_image(path: &Path, format: Format, mib: usize) {
    let raw = path.with_extension("making");
    let pattern: Vec<u8> = (0..mib << 20).map(|i| (i / 4096 % 251) as u8).collect();
    std::fs::write(&raw, pattern).unwrap();
    qemu_img(&["convert", "-f", "raw", "-O", format.word(), raw.to_str().unwrap(), path.to_str().unwrap()]);
    std::fs::remove_file(raw).unwrap();
}

/// What happens at the n-th point of all tasks together; counts from 1.
#[derive(Default)]
pub struct Fuse {
    passed: AtomicUsize,
    plan: Mutex<Vec<(usize, Fate)>>,
    pub blown: AtomicBool,
    /// [`Fate::Die`] is a SIGKILL to this very process.
    pub for_real: AtomicBool,
    names: Mutex<Vec<&'static str>>,
    /// What else happens at a point, once.
    also: Mutex<Option<(usize, Also)>>,
    watch: Mutex<Option<Box<dyn FnMut() -> Fate + Send>>>,
}

type Also = Box<dyn FnOnce() + Send>;

impl Fuse {
    /// At the n-th point from when it was armed last, and before its fate, this happens.
    pub fn also_at(&self, n: usize, happens: impl FnOnce() + Send + 'static) {
        *self.also.lock().unwrap() = Some((n, Box::new(happens)));
    }

    pub fn at(plan: &[(usize, Fate)]) -> Arc<Self> {
        Arc::new(Self { plan: Mutex::new(plan.to_vec()), ..Self::default() })
    }

    /// From now on this decides at every point, too.
    pub fn watch(&self, watch: impl FnMut() -> Fate + Send + 'static) {
        *self.watch.lock().unwrap() = Some(Box::new(watch));
    }

    /// Starts counting again, with another plan.
    pub fn arm(&self, plan: &[(usize, Fate)]) {
        *self.plan.lock().unwrap() = plan.to_vec();
        self.passed.store(0, Ordering::SeqCst);
        self.blown.store(false, Ordering::SeqCst);
        self.names.lock().unwrap().clear();
        *self.also.lock().unwrap() = None;
        *self.watch.lock().unwrap() = None;
    }

    /// The points passed since it was armed.
    pub fn names(&self) -> Vec<&'static str> {
        self.names.lock().unwrap().clone()
    }

    pub fn passed(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }
}

impl Probe for Fuse {
    fn at(&self, point: Point) -> Fate {
        let n = self.passed.fetch_add(1, Ordering::SeqCst) + 1;
        self.names.lock().unwrap().push(point.name);
        let also = self.also.lock().unwrap().take_if(|(at, _)| *at == n);
        if let Some((_, happens)) = also {
            happens();
        }
        let watched = self.watch.lock().unwrap().as_mut().map_or(Fate::Go, |watch| watch());
        let fate = self.plan.lock().unwrap().iter().find(|(at, _)| *at == n).map_or(watched, |(_, fate)| *fate);
        if fate == Fate::Die && self.for_real.load(Ordering::SeqCst) {
            kill_process(getpid(), Signal::KILL).unwrap();
        }
        if fate != Fate::Go {
            self.blown.store(true, Ordering::SeqCst);
        }
        fate
    }
}

/// Fails the n-th effect on any storlink, before or after it was done.
#[derive(Default)]
pub struct StorageFaults {
    effects: AtomicUsize,
    fail_at: AtomicUsize,
    after: AtomicBool,
    no_isos: AtomicBool,
    silent: AtomicBool,
    while_copying: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl StorageFaults {
    /// Once, in the middle of the next copying of a disk, this happens.
    pub fn while_copying(&self, happens: impl FnOnce() + Send + 'static) {
        *self.while_copying.lock().unwrap() = Some(Box::new(happens));
    }

    /// 0 disarms; 1 is the next effect. `after`: it happens, and its answer is lost.
    pub fn fail_effect(&self, n: usize, after: bool) {
        self.effects.store(0, Ordering::SeqCst);
        self.after.store(after, Ordering::SeqCst);
        self.fail_at.store(n, Ordering::SeqCst);
    }

    /// Whether whoever asks for ISO images hears nothing.
    pub fn hide_isos(&self, hide: bool) {
        self.no_isos.store(hide, Ordering::SeqCst);
    }

    /// Whether whoever looks at a storlink hears nothing, as from a dead mount.
    pub fn silence(&self, silent: bool) {
        self.silent.store(silent, Ordering::SeqCst);
    }

    fn look<T>(&self, ask: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.silent.load(Ordering::SeqCst) { Err(Error::unavailable("the storage at /nfs")) } else { ask() }
    }

    fn isos<T>(&self, ask: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.no_isos.load(Ordering::SeqCst) { Err(Error::unavailable("the storage at /nfs")) } else { ask() }
    }

    pub fn effects(&self) -> usize {
        self.effects.load(Ordering::SeqCst)
    }

    fn effect(&self, act: impl FnOnce() -> Result<()>) -> Result<()> {
        let n = self.effects.fetch_add(1, Ordering::SeqCst) + 1;
        if n != self.fail_at.load(Ordering::SeqCst) {
            return act();
        }
        if self.after.load(Ordering::SeqCst) {
            act()?;
        }
        Err(Error::refused("storage", "the test says so"))
    }
}

struct FaultyDriver {
    driver: Box<dyn VolumeDriver>,
    faults: Arc<StorageFaults>,
}

impl VolumeDriver for FaultyDriver {
    fn info(&self) -> &DriverInfo {
        self.driver.info()
    }
    fn check(&self) -> Result<()> {
        self.driver.check()
    }
    fn mark(&self) -> Result<()> {
        self.faults.effect(|| self.driver.mark())
    }
    fn unmark(&self) -> Result<()> {
        self.faults.effect(|| self.driver.unmark())
    }
    fn usage(&self) -> Result<Usage> {
        self.faults.look(|| self.driver.usage())
    }
    fn create(&self, volume: &VolumeName, make: &NewVolume, control: &Control<'_>) -> Result<()> {
        let progress = |percent| {
            (control.progress)(percent);
            // Its tool goes on meanwhile.
            if percent > 0 && !matches!(make.content, Content::Zeros | Content::Overlay(_)) {
                let happens = self.faults.while_copying.lock().unwrap().take();
                happens.into_iter().for_each(|happens| happens());
            }
        };
        self.faults
            .effect(|| self.driver.create(volume, make, &Control { cancel: control.cancel, progress: &progress }))
    }
    fn remove(&self, volume: &VolumeName) -> Result<()> {
        self.faults.effect(|| self.driver.remove(volume))
    }
    fn set_aside(&self, volume: &VolumeName) -> Result<()> {
        self.faults.effect(|| self.driver.set_aside(volume))
    }
    fn restore(&self, volume: &VolumeName) -> Result<()> {
        self.faults.effect(|| self.driver.restore(volume))
    }
    fn purge(&self, volume: &VolumeName) -> Result<()> {
        self.faults.effect(|| self.driver.purge(volume))
    }
    fn exists(&self, volume: &VolumeName) -> Result<bool> {
        self.driver.exists(volume)
    }
    fn probe(&self, volume: &VolumeName, declared: Format) -> Result<VolumeFacts> {
        self.driver.probe(volume, declared)
    }
    fn layer(&self, volume: &VolumeName, format: Format) -> Result<LayerFacts> {
        self.faults.look(|| self.driver.layer(volume, format))
    }
    fn is_cut_short(&self, volume: &VolumeName, format: Format) -> Result<bool> {
        self.faults.look(|| self.driver.is_cut_short(volume, format))
    }
    fn commit(&self, overlay: &VolumeName, below: &[Layer], control: &Control<'_>) -> Result<()> {
        self.faults.effect(|| self.driver.commit(overlay, below, control))
    }
    fn pull(&self, overlay: &VolumeName, below: &[Layer], control: &Control<'_>) -> Result<()> {
        self.faults.effect(|| self.driver.pull(overlay, below, control))
    }
    fn reattach(&self, overlay: &VolumeName, below: &[Layer]) -> Result<()> {
        self.faults.effect(|| self.driver.reattach(overlay, below))
    }
    fn digest(&self, volume: &VolumeName, control: &Control<'_>) -> Result<FileDigest> {
        self.driver.digest(volume, control)
    }
    fn inspect(&self, volume: &VolumeName, format: Format, control: &Control<'_>) -> Result<()> {
        self.driver.inspect(volume, format, control)
    }
    fn write_text(&self, name: &VolumeName, text: &[u8]) -> Result<()> {
        self.faults.effect(|| self.driver.write_text(name, text))
    }
    fn read_text(&self, name: &VolumeName) -> Result<Vec<u8>> {
        self.driver.read_text(name)
    }
    fn read_log(&self, name: &VolumeName) -> Result<Vec<u8>> {
        self.driver.read_log(name)
    }
    fn list(&self) -> Result<Vec<VolumeName>> {
        self.driver.list()
    }
    fn source(&self, volume: &VolumeName) -> Result<VolumeSource> {
        self.driver.source(volume)
    }
    fn cache_mode(&self) -> Result<CacheMode> {
        self.driver.cache_mode()
    }
    fn isos(&self) -> Result<Vec<IsoFile>> {
        self.faults.isos(|| self.driver.isos())
    }
    fn iso(&self, name: &IsoName) -> Result<VolumeSource> {
        self.faults.isos(|| self.driver.iso(name))
    }
    fn files(&self) -> Result<VolumeFiles> {
        self.faults.look(|| self.driver.files())
    }
    fn file(&self, name: &FileName) -> Result<Option<VolumeFile>> {
        self.faults.look(|| self.driver.file(name))
    }
    fn reader_of(&self, name: &FileName) -> Result<Option<String>> {
        self.faults.look(|| self.driver.reader_of(name))
    }
    fn discard(&self, file: &VolumeFile) -> Result<()> {
        self.faults.effect(|| self.driver.discard(file))
    }
}

/// 00000100-0000-4000-8000-000000000001 and so on. The count is in the first bytes too, because MAC addresses are made of
/// them.
#[derive(Default)]
pub struct CountedIds(AtomicU64);

impl Ids for CountedIds {
    fn uuid(&self) -> uuid::Uuid {
        let n = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        uuid::Uuid::from_u128(0x0000_0000_0000_4000_8000_0000_0000_0000 | u128::from(n) << 104 | u128::from(n))
    }
    fn ordered_uuid(&self) -> uuid::Uuid {
        self.uuid()
    }
}

/// The time of day, and so many seconds more.
pub struct ShiftedClock(Arc<AtomicI64>);

impl Clock for ShiftedClock {
    fn now(&self) -> chrono::NaiveDateTime {
        SystemClock.now() + chrono::TimeDelta::seconds(self.0.load(Ordering::SeqCst))
    }
}

/// 2017-07-26 15:04:05, the day of the manual.
pub struct StandingClock;

impl Clock for StandingClock {
    fn now(&self) -> chrono::NaiveDateTime {
        chrono::NaiveDate::from_ymd_opt(2017, 7, 26).unwrap().and_hms_opt(15, 4, 5).unwrap()
    }
}
