//! Puts the parts together, serves, and takes them apart in order.

mod systemd;

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{self, Config, Dialect, Placed};
use crate::dialects::ask::Bodies;
use crate::dialects::{Refusal, libvirt_json, monitor, pengx, plain_refusal, proxmox_api, virtdancer};
use crate::error::{Error, Problems, Result};
use crate::exec::SystemRunner;
use crate::hypervisor::{self, Boot, DomainType, Guest, Hypervisor, LibvirtOptions, Timed, XlOptions};
use crate::model::{Clock, Ids, Pm, PmId, RandomIds, SshKey, SystemClock};
use crate::operations::{Core, Gate, Parts, Settings, health, metrics, pm};
use crate::server::{Listener, Tls};
use crate::store::{Conn, Store, accounts};
use crate::tasks::{NoFaults, TaskSettings};
use crate::{host, server, storage};

/// How often this host says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// While the database is away at the start it is asked this often.
const DATABASE_RETRY: Duration = Duration::from_secs(1);
/// How long tasks may take to end once we are asked to.
const DRAIN: Duration = Duration::from_secs(30);

/// What is served where.
#[derive(Debug, Clone)]
pub struct Listening {
    pub address: SocketAddr,
    pub tls: bool,
    /// Each dialect's name and prefix.
    pub dialects: Vec<(&'static str, String)>,
}

/// For people: `virtdancer listening on http://127.0.0.1:8000/vd`, a line for each.
impl std::fmt::Display for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        for (n, (name, prefix)) in self.dialects.iter().enumerate() {
            let gap = if n == 0 { "" } else { "\n" };
            write!(f, "{gap}{name} listening on {scheme}://{}{prefix}", self.address)?;
        }
        Ok(())
    }
}

/// Serves until SIGTERM or SIGINT. `ready` is called once all is listened to.
pub async fn serve(config: Config, ready: impl FnOnce(&[Listening])) -> Result<()> {
    let core_config = config.clone();
    let start = tokio::task::spawn_blocking(move || start(&core_config)).await;
    let (core, mut registry, tls, _lock) =
        start.map_err(|why| Error::internal("the start panicked").caused_by(why))??;
    let sockets = listen(&config).await?;
    let hear = |kind| signal(kind).map_err(|e| Error::internal("a signal cannot be caught").caused_by(e));
    let (mut term, mut int) = (hear(SignalKind::terminate())?, hear(SignalKind::interrupt())?);
    let mut beside = tokio::task::JoinSet::new();
    beside.spawn(reload_when_told(hear(SignalKind::hangup())?, tls.iter().flatten().cloned().collect()));
    beside.spawn(health::watch(core.clone()));
    beside.spawn(systemd::watchdog());
    let alive = Arc::new(AtomicBool::new(true));
    let heart = keep_alive(core.clone(), alive.clone())?;
    let traffic = server::Traffic::new(&mut registry);
    let gate = Gate::new(core.clone(), config.insecure)?;
    let doors = Doors { core: core.clone(), gate, registry: Arc::new(registry) };
    let limits = server::Limits {
        connections: config.limits.connections,
        header_timeout: config.limits.header_timeout,
        write_timeout: config.limits.write_timeout,
        ..server::Limits::default()
    };
    let (stop, _) = tokio::sync::watch::channel(());
    let mut serving = tokio::task::JoinSet::new();
    let mut listening = Vec::new();
    for ((listener, tls), (socket, address)) in config.listeners.iter().zip(tls).zip(sockets) {
        let dialects = listener.dialects.iter().map(|d| (d.dialect.name(), d.prefix.clone())).collect();
        listening.push(Listening { address, tls: tls.is_some(), dialects });
        let (mounts, refusal) = doors.mounts(&config, listener);
        let edge = Listener { socket, tls, limits, traffic: traffic.clone() };
        let mut stopping = stop.subscribe();
        serving.spawn(async move { server::serve(edge, mounts, refusal, stopping.changed()).await });
    }
    ready(&listening);
    systemd::ready(&listening);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("asked to stop");
    systemd::stopping();
    stop.send_replace(());
    while let Some(stopped) = serving.join_next().await {
        let stopped = stopped.map_err(|why| Error::internal("a listener panicked").caused_by(why))?;
        tracing::info!(cut = stopped.cut, "no connection is left");
    }
    alive.store(false, Ordering::SeqCst);
    heart.thread().unpark();
    let ended = tokio::task::spawn_blocking(move || core.stop(DRAIN)).await;
    ended.map_err(|why| Error::internal("the stop panicked").caused_by(why))
}

/// What dialects are made from.
struct Doors {
    core: Core,
    gate: Gate,
    registry: Arc<Registry>,
}

impl Doors {
    fn mounts(&self, config: &Config, listener: &config::Listener) -> (server::Mounts, Refusal) {
        let mut native = dialect(config);
        native.public_url = listener.public_url.clone().or(native.public_url);
        let bodies = Bodies { limit_bytes: config.limits.body_bytes, deadline: config.limits.body_timeout };
        let gate = || self.gate.clone();
        let has_native = listener.dialects.iter().any(|placed| matches!(placed.dialect, Dialect::Pengx));
        let refusal = if has_native { pengx::refusal(&native) } else { plain_refusal() };
        let mounted = |placed: &Placed| match &placed.dialect {
            Dialect::Pengx => pengx::mount(gate(), native.clone()),
            Dialect::VirtDancer(settings) => virtdancer::mount(gate(), settings.clone(), bodies),
            Dialect::ProxmoxApi(settings) => proxmox_api::mount(gate(), settings.clone(), bodies),
            Dialect::LibvirtJson(settings) => libvirt_json::mount(gate(), settings.clone(), bodies),
        };
        let monitor = has_native.then(|| monitor::mount(self.core.clone(), gate(), self.registry.clone()));
        let first = monitor.map(|monitor| (String::new(), monitor));
        let all = listener.dialects.iter().map(|placed| (placed.prefix.clone(), mounted(placed)));
        (server::Mounts::found_at(listener.public_url.clone(), first.into_iter().chain(all)), refusal)
    }
}

/// SIGHUP: TLS from its files again, for connections from then on.
async fn reload_when_told(mut hup: Signal, all: Vec<Tls>) {
    while hup.recv().await.is_some() {
        if all.is_empty() {
            tracing::info!("SIGHUP: there is no TLS whose files could be read again");
        }
        for tls in all.clone() {
            match tokio::task::spawn_blocking(move || tls.reload()).await {
                Ok(Ok(())) => tracing::info!("SIGHUP: new connections use the files of [tls] as they are now"),
                Ok(Err(why)) => {
                    tracing::error!(error = why.story(), "SIGHUP: the files of [tls] as they were stay in use")
                }
                Err(why) => tracing::error!(error = %why, "SIGHUP: reading the files of [tls] panicked"),
            }
        }
    }
}

/// Everything below the edge, and its TLS. The lock on the data directory lives as long as its file is open.
fn start(config: &Config) -> Result<(Core, Registry, Vec<Option<Tls>>, File)> {
    server::raise_descriptors(config.limits.connections.saturating_mul(config.listeners.len()));
    let mut bad = Problems::new();
    let mut tls = Vec::new();
    for listener in &config.listeners {
        tls.push(bad.absorb(listener.tls.as_ref().map(Tls::load).transpose())?.flatten());
    }
    for placed in config.listeners.iter().flat_map(|listener| &listener.dialects) {
        if let Dialect::LibvirtJson(settings) = &placed.dialect {
            libvirt_json::check(settings, &mut bad);
        }
    }
    let lock = bad.absorb(claim(&config.data_dir))?;
    let store = bad.absorb(Store::open(&config.database_url))?;
    bad.absorb(store.as_ref().map_or(Ok(()), Store::claim))?;
    let hypervisor = bad.absorb(connect(config))?;
    let ssh_pubkey = bad.absorb(config.ssh_public_key.as_deref().map(read_key).transpose())?.flatten();
    bad.done()?;
    let (Some(lock), Some(store), Some(hypervisor)) = (lock, store, hypervisor) else {
        return Err(Error::internal("a bad setting without a problem"));
    };
    let mut registry = Registry::default();
    let hypervisor: Arc<dyn Hypervisor> = Arc::new(Timed::new(hypervisor, &mut registry));
    let id = match config.pm_uuid {
        Some(id) => id,
        None => host::identity(&config.data_dir, PmId(RandomIds.uuid()))?,
    };
    // A database that is away now is waited for later; one that says no is an error now.
    let migrated = migrate(&store)?;
    if migrated && store.read(accounts::users)?.is_empty() {
        config.allows_no_account()?;
    }
    if migrated {
        store.read(|c| acting(c, config))?;
    }
    let core = Core::start(parts(config, store, hypervisor, id, ssh_pubkey)?);
    if migrated {
        pm::register(&core)?;
    }
    metrics::register(&core, &mut registry)?;
    Ok((core, registry, tls, lock))
}

/// Whom dialects without a login act as must be there.
fn acting(c: &mut Conn, config: &Config) -> Result<()> {
    let mut bad = Problems::new();
    for open in config.listeners.iter().flat_map(|l| &l.dialects).filter_map(|placed| placed.dialect.open()) {
        if accounts::user_named(c, open.act_as.as_str())?.is_none() {
            bad.add(format!("{}act_as", open.path), format!("there is no account {}; run pengx user add", open.act_as));
        }
    }
    bad.done()
}

/// What a core is built from on this host.
fn parts(
    config: &Config,
    store: Store,
    hypervisor: Arc<dyn Hypervisor>,
    id: PmId,
    ssh_pubkey: Option<String>,
) -> Result<Parts> {
    let (clock, ids) = (Arc::new(SystemClock), Arc::new(RandomIds));
    let facts = host::facts()?;
    let host_use = hypervisor.host_use()?;
    let now = clock.now();
    let pm = Pm {
        id,
        name: facts.name,
        cpu: host_use.map_or(facts.cpus, |counted| counted.cpus),
        memory: host_use.map_or(facts.memory, |counted| counted.memory),
        ssh_pubkey,
        hypervisor: hypervisor.kind().to_owned(),
        heartbeat_at: now,
        created_at: now,
        updated_at: now,
    };
    let runner = Arc::new(SystemRunner::new());
    let (site, site_ids) = (store.clone(), ids.clone());
    Ok(Parts {
        store,
        hypervisor,
        volumes: Arc::new(move |link| storage::open_for(site.site(|| site_ids.uuid())?, link, runner.clone())),
        clock,
        ids,
        probe: Arc::new(NoFaults),
        pm,
        host: host::Host::this(),
        host_use,
        settings: settings(config),
    })
}

/// Whether the database is ready. `false`: it does not answer.
fn migrate(store: &Store) -> Result<bool> {
    match store.migrate() {
        Ok(()) => Ok(true),
        Err(away) if matches!(away.kind(), crate::error::ErrorKind::Unavailable { .. }) => {
            tracing::warn!(error = away.story(), "the database does not answer; serving 503 until it does");
            Ok(false)
        }
        Err(other) => Err(other),
    }
}

/// A core that looks beside a server, and changes nothing.
pub fn beside(config: &Config) -> Result<Core> {
    let store = Store::open(&config.database_url)?;
    store.look()?;
    Ok(Core::beside(parts(config, store, connect(config)?, known(config)?, None)?))
}

/// A core that runs tasks where no server runs. It recovers what the last one left. Its lock is the one that a server holds.
pub fn instead(config: &Config) -> Result<(Core, File)> {
    let served = |error: Error| {
        let why = format!("{error}; a repair needs that no server runs: stop it, or leave it to its own recovery");
        Error::refused("pengx", why)
    };
    let id = known(config)?;
    let lock = claim(&config.data_dir).map_err(served)?;
    let store = Store::open(&config.database_url)?;
    store.claim().map_err(served)?;
    store.look()?;
    Ok((Core::start(parts(config, store, connect(config)?, id, None)?), lock))
}

fn connect(config: &Config) -> Result<Arc<dyn Hypervisor>> {
    let options = hypervisor::Options {
        libvirt: libvirt_options(config),
        xl: xl_options(config),
        runner: Arc::new(SystemRunner::new()),
    };
    hypervisor::connect(&config.hypervisor, options)
}

/// This host as its server knows it; nothing is made.
fn known(config: &Config) -> Result<PmId> {
    if let Some(id) = config.pm_uuid {
        return Ok(id);
    }
    let dir = &config.data_dir;
    host::known_identity(dir)?
        .ok_or_else(|| Error::invalid("data_dir", format!("{}: no server has ever run on it", dir.display())))
}

/// One server per data directory.
fn claim(dir: &Path) -> Result<File> {
    let wrong = |why: &dyn std::fmt::Display| Error::invalid("data_dir", format!("{}: {why}", dir.display()));
    std::fs::create_dir_all(dir).map_err(|e| wrong(&e))?;
    let file = File::create(dir.join("lock")).map_err(|e| wrong(&e))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| wrong(&"another pengx is running on it"))?;
    Ok(file)
}

fn read_key(path: &Path) -> Result<String> {
    let wrong = |why: String| Error::invalid("ssh_public_key", format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    let key: SshKey = text.parse().map_err(wrong)?;
    Ok(key.to_string())
}

async fn listen(config: &Config) -> Result<Vec<(TcpListener, SocketAddr)>> {
    let mut bad = Problems::new();
    let mut sockets = Vec::new();
    for listener in &config.listeners {
        match TcpListener::bind(listener.address).await {
            Ok(socket) => {
                let address = socket.local_addr();
                sockets.push((socket, address.map_err(|e| Error::internal("a listener has no address").caused_by(e))?));
            }
            Err(why) => bad.add("listen", format!("{}: {why}", listener.address)),
        }
    }
    bad.done()?;
    Ok(sockets)
}

/// The thread that brings the database up if it was down at the start, and then keeps the heartbeat.
fn keep_alive(core: Core, alive: Arc<AtomicBool>) -> Result<std::thread::JoinHandle<()>> {
    let beat = move || {
        let mut registered = false;
        while alive.load(Ordering::SeqCst) {
            let done = if registered { pm::heartbeat(&core) } else { pm::prepare(&core) };
            match done {
                Ok(()) => registered = true,
                Err(why) => tracing::warn!(error = why.story(), "no heartbeat could be written"),
            }
            std::thread::park_timeout(if registered { HEARTBEAT } else { DATABASE_RETRY });
        }
    };
    let thread = std::thread::Builder::new().name("heartbeat".to_owned()).spawn(beat);
    thread.map_err(|why| Error::internal("no thread for the heartbeat").caused_by(why))
}

fn libvirt_options(config: &Config) -> LibvirtOptions {
    let domain_type = match config.libvirt.domain_type.as_str() {
        "kvm" => DomainType::Kvm,
        "qemu" => DomainType::Qemu,
        _ => DomainType::Auto,
    };
    LibvirtOptions { domain_type, call_timeout: config.libvirt.call_timeout, ..LibvirtOptions::default() }
}

fn xl_options(config: &Config) -> XlOptions {
    let xl = &config.xl;
    let boot = match &xl.kernel {
        Some(kernel) => {
            Boot::Kernel { kernel: kernel.clone(), ramdisk: xl.ramdisk.clone(), cmdline: xl.cmdline.clone() }
        }
        None => Boot::Loader(xl.bootloader.clone()),
    };
    let guest = |kind: &str| match kind {
        "pv" => Guest::Pv(boot.clone()),
        "pvh" => Guest::Pvh(boot.clone()),
        _ => Guest::Hvm,
    };
    XlOptions {
        guest: guest(&xl.guest),
        guest_of: xl.guest_of.iter().map(|(os, kind)| (*os, guest(kind))).collect(),
        screen_password: xl.screen_password,
        call_timeout: xl.call_timeout,
        ..XlOptions::new(config.domains_dir())
    }
}

fn settings(config: &Config) -> Settings {
    Settings {
        bridge_prefix: config.bridge_prefix.clone(),
        bridges: config.bridges.clone(),
        max_vcpus: config.max_vcpus,
        max_chain: config.max_chain,
        keep_replaced_leaf: config.keep_replaced_leaf,
        shutdown_timeout: config.shutdown_timeout,
        prove_wait: config.prove_wait.clone(),
        prove_timeout: config.prove_timeout,
        low_water: config.low_water_of.clone(),
        low_water_default: config.low_water,
        orphan_quarantine: config.orphan_quarantine,
        authorized_keys: config.authorized_keys.clone(),
        tasks: TaskSettings {
            lock_timeout: config.lock_timeout,
            recover_interval: config.recover_interval,
            ..TaskSettings::default()
        },
        ..Settings::default()
    }
}

fn dialect(config: &Config) -> pengx::Settings {
    let api = &config.api;
    pengx::Settings {
        prefixes: api.prefixes.iter().map(|path| pengx::Prefix::new(path)).collect(),
        success: api.result_success.clone(),
        failure: api.result_failure.clone(),
        style: pengx::style::Style {
            null_text: api.null_text.clone(),
            dates: pengx::times::DateFormat::new(&api.datetime_format),
            zone: api.time_zone,
        },
        body_limit: config.limits.body_bytes,
        body_deadline: config.limits.body_timeout,
        allowed_origins: api.allowed_origins.clone(),
        public_url: api.public_url.clone(),
        ..pengx::Settings::default()
    }
}
