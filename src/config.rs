//! Settings, typed: command line over environment over file over default. Every bad one is reported at once.

mod listener;
mod public_url;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, Problems, Result};
use crate::model::{NicLink, Os, PmId, ProofSign};

pub use listener::{Dialect, LibvirtJson, Listener, Open, Placed, ProxmoxApi, VirtDancer};
pub use public_url::PublicUrl;

/// Where the file is when nobody says.
const DEFAULT_FILE: &str = "/etc/pengx/pengx.toml";

/// No time that is set is longer, in seconds: a moment so far away that it cannot be computed ends the program.
const YEAR: u64 = 366 * 24 * 3600;

/// What the command line and the environment said; both come through the same parser.
#[derive(Debug, Clone, Default)]
pub struct Given {
    pub config: Option<PathBuf>,
    pub listen: Option<String>,
    pub database_url: Option<String>,
    pub hypervisor: Option<String>,
    pub data_dir: Option<PathBuf>,
    pub insecure: bool,
}

#[derive(Debug, Clone)]
pub struct Config {
    /// Never empty.
    pub listeners: Vec<Listener>,
    /// While no account exists, everybody may do everything.
    pub insecure: bool,
    /// `sqlite://PATH` or `postgres://…`.
    pub database_url: String,
    /// `auto`, `xl:///`, `fake:///` or a libvirt URI.
    pub hypervisor: String,
    pub data_dir: PathBuf,
    pub pm_uuid: Option<PmId>,
    pub ssh_public_key: Option<PathBuf>,
    /// Where the keys of the site's hosts go; `None` if nothing says where our home is.
    pub authorized_keys: Option<PathBuf>,
    pub bridge_prefix: String,
    /// From a client's name for a bridge to what this host has.
    pub bridges: HashMap<String, NicLink>,
    /// So many vCPUs can be plugged into a running guest.
    pub max_vcpus: u32,
    /// The most images of one backing chain.
    pub max_chain: usize,
    /// What a restored snapshot replaces is kept as a snapshot.
    pub keep_replaced_leaf: bool,
    pub lock_timeout: Duration,
    pub shutdown_timeout: Duration,
    /// By what a backup is proven, and how long a guest may take for it.
    pub prove_wait: ProofSign,
    pub prove_timeout: Duration,
    /// How often what could not be undone is tried again.
    pub recover_interval: Duration,
    /// So many percent of each storlink stay free when data is copied to it.
    pub low_water: u32,
    /// The same, by the name of a storlink.
    pub low_water_of: HashMap<String, u32>,
    /// How long an orphan must have been left alone before it may be removed.
    pub orphan_quarantine: Duration,
    pub libvirt: Libvirt,
    pub xl: Xl,
    pub api: Api,
    pub limits: Limits,
    /// `text` or `json` lines on standard error.
    pub log_json: bool,
    /// A filter as `tracing` knows it: `info`, `pengx=debug`.
    pub log_level: String,
}

#[derive(Debug, Clone)]
pub struct Libvirt {
    /// `kvm`, `qemu` (software emulation) or `auto`.
    pub domain_type: String,
    /// No call takes longer.
    pub call_timeout: Duration,
}

/// What guests are on a Xen host.
#[derive(Debug, Clone)]
pub struct Xl {
    /// `hvm`, `pv` or `pvh`.
    pub guest: String,
    /// The same, by what the template of a VM is said to be.
    pub guest_of: HashMap<Os, String>,
    /// What PV and PVH guests boot; without it `bootloader` finds a kernel in their first disk.
    pub kernel: Option<PathBuf>,
    pub ramdisk: Option<PathBuf>,
    pub cmdline: String,
    pub bootloader: String,
    /// Whether a screen asks for its password.
    pub screen_password: bool,
    /// No call that only asks or tells Xen takes longer.
    pub call_timeout: Duration,
}

/// How the native API writes and what it accepts.
#[derive(Debug, Clone)]
pub struct Api {
    /// The URL tree is served below each; the empty one is the root.
    pub prefixes: Vec<String>,
    pub result_success: String,
    pub result_failure: String,
    pub null_text: String,
    /// A Django date format string.
    pub datetime_format: String,
    pub time_zone: chrono_tz::Tz,
    pub allowed_origins: Vec<String>,
    /// `None`: as each client says that it has reached us.
    pub public_url: Option<PublicUrl>,
}

#[derive(Debug, Clone)]
pub struct Limits {
    pub body_bytes: usize,
    pub connections: usize,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub write_timeout: Duration,
}

/// Files in PEM form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The server's own first, then those that lead to its root.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// If given, a client must have a certificate that one of these signed.
    pub client_ca: Option<PathBuf>,
}

impl Config {
    /// Where a backend that keeps definitions itself has them.
    pub fn domains_dir(&self) -> PathBuf {
        self.data_dir.join("domains")
    }

    /// Reads the file that `given` names, or the default one if it is there. `Invalid` names every bad setting.
    pub fn load(given: &Given) -> Result<Self> {
        let (path, must) = match &given.config {
            Some(path) => (path.clone(), true),
            None => (PathBuf::from(DEFAULT_FILE), false),
        };
        let table = match std::fs::read_to_string(&path) {
            Ok(text) => text
                .parse::<toml::Table>()
                .map_err(|e| Error::invalid(path.display().to_string(), e.to_string().trim().replace('\n', " ")))?,
            Err(absent) if absent.kind() == std::io::ErrorKind::NotFound && !must => toml::Table::new(),
            Err(why) => return Err(Error::invalid("config", format!("{}: {why}", path.display()))),
        };
        Self::from_table(table, given)
    }

    fn from_table(table: toml::Table, given: &Given) -> Result<Self> {
        let mut top = Section::new("", table);
        let mut bad = Problems::new();
        // Taken from the table even where the command line wins: what is left in the table is no setting.
        let (data_dir, database_url) = (top.parsed("data_dir", &mut bad), top.text("database_url", &mut bad));
        let (listen, hypervisor) = (top.text("listen", &mut bad), top.text("hypervisor", &mut bad));
        let data_dir = given.data_dir.clone().or(data_dir).unwrap_or_else(default_data);
        let database_url = given.database_url.clone().or(database_url);
        let tls = Tls::read(top.section("tls", &mut bad), &mut bad);
        let listeners = listeners(top.sections("listener", &mut bad), (given.listen.clone(), listen), tls, &mut bad);
        let config = Self {
            listeners,
            insecure: given.insecure,
            database_url: database_url.unwrap_or_else(|| format!("sqlite://{}", data_dir.join("pengx.db").display())),
            hypervisor: given.hypervisor.clone().or(hypervisor).unwrap_or_else(|| "auto".to_owned()),
            pm_uuid: top.parsed("pm_uuid", &mut bad),
            ssh_public_key: top.parsed("ssh_public_key", &mut bad),
            authorized_keys: authorized_keys(top.parsed("authorized_keys", &mut bad), &mut bad),
            bridge_prefix: top.text("bridge_prefix", &mut bad).unwrap_or_else(|| "xenbr".to_owned()),
            bridges: bridges(top.section("bridges", &mut bad), &mut bad),
            max_vcpus: max_vcpus(&mut top, &mut bad),
            max_chain: max_chain(&mut top, &mut bad),
            keep_replaced_leaf: top.flag("keep_replaced_leaf", true, &mut bad),
            lock_timeout: top.seconds("lock_timeout", 10, &mut bad),
            shutdown_timeout: top.seconds("shutdown_timeout", 120, &mut bad),
            prove_wait: top.parsed("prove_wait", &mut bad).unwrap_or(ProofSign::Agent),
            prove_timeout: top.seconds("prove_timeout", 300, &mut bad),
            recover_interval: top.seconds("recover_interval", 30, &mut bad),
            low_water: low_water(top.table.remove("low_water"), "low_water", &mut bad).unwrap_or(1),
            low_water_of: low_water_of(top.section("low_water_of", &mut bad), &mut bad),
            orphan_quarantine: top.seconds("orphan_quarantine", 24 * 3600, &mut bad),
            libvirt: Libvirt::read(top.section("libvirt", &mut bad), &mut bad),
            xl: Xl::read(top.section("xl", &mut bad), &mut bad),
            api: Api::read(top.section("api", &mut bad), &mut bad),
            limits: Limits::read(top.section("limits", &mut bad), &mut bad),
            log_json: top.one_of("log_format", &["text", "json"], &mut bad) == "json",
            log_level: top.text("log_level", &mut bad).unwrap_or_else(|| "info".to_owned()),
            data_dir,
        };
        top.end(&mut bad);
        bad.done()?;
        Ok(config)
    }

    /// For a start without any account: `Invalid` if hosts that nobody vouches for can reach the server.
    pub fn allows_no_account(&self) -> Result<()> {
        let far = |listener: &&Listener| !listener.address.ip().is_loopback();
        let Some(listener) = self.listeners.iter().find(far).filter(|_| !self.insecure) else { return Ok(()) };
        let to_do = "run pengx user add, or add --insecure to serve everybody";
        let why = format!("{} is not loopback and no account exists; {to_do}", listener.address);
        Err(Error::invalid("listen", why))
    }
}

impl Libvirt {
    fn read(mut section: Section, bad: &mut Problems) -> Self {
        let read = Self {
            domain_type: section.one_of("domain_type", &["auto", "kvm", "qemu"], bad),
            call_timeout: section.seconds("call_timeout", 20, bad),
        };
        section.end(bad);
        read
    }
}

/// What a guest can be on Xen.
const GUESTS: &[&str] = &["hvm", "pv", "pvh"];

impl Xl {
    fn read(mut section: Section, bad: &mut Problems) -> Self {
        let mut by_os = section.section("guest_of", bad);
        let systems = Os::ALL.iter().filter(|os| by_os.table.contains_key(os.word())).collect::<Vec<_>>();
        let guest_of = systems.into_iter().map(|os| (*os, by_os.one_of(os.word(), GUESTS, bad))).collect();
        by_os.end(bad);
        let read = Self {
            guest: section.one_of("guest", GUESTS, bad),
            guest_of,
            kernel: section.text("kernel", bad).map(PathBuf::from),
            ramdisk: section.text("ramdisk", bad).map(PathBuf::from),
            cmdline: section.text("cmdline", bad).unwrap_or_default(),
            bootloader: section.text("bootloader", bad).unwrap_or_else(|| "pygrub".to_owned()),
            screen_password: section.flag("screen_password", false, bad),
            call_timeout: section.seconds("call_timeout", 20, bad),
        };
        for (name, file) in [("kernel", &read.kernel), ("ramdisk", &read.ramdisk)] {
            if file.as_ref().is_some_and(|file| !file.is_absolute()) {
                bad.add(section.name(name), "must be an absolute path");
            }
        }
        let all_hvm = read.guest_of.values().chain([&read.guest]).all(|guest| guest == "hvm");
        if all_hvm && (read.kernel.is_some() || read.ramdisk.is_some()) {
            bad.add(section.name("kernel"), "is for guest = \"pv\" or \"pvh\"; an HVM guest boots its disk");
        }
        if read.ramdisk.is_some() && read.kernel.is_none() {
            bad.add(section.name("ramdisk"), "needs a kernel");
        }
        section.end(bad);
        read
    }
}

impl Api {
    fn read(mut section: Section, bad: &mut Problems) -> Self {
        let default_prefixes = ["", "/api", "/api/v1", "/api/v2", "/apiv2", "/v1", "/v2"];
        let prefixes = section.list("prefixes", bad);
        let read = Self {
            prefixes: prefixes.unwrap_or_else(|| default_prefixes.map(str::to_owned).into()),
            result_success: section.text("result_success", bad).unwrap_or_else(|| "success".to_owned()),
            result_failure: section.text("result_failure", bad).unwrap_or_else(|| "failure".to_owned()),
            null_text: section.text("null_text", bad).unwrap_or_else(|| "None".to_owned()),
            datetime_format: section.text("datetime_format", bad).unwrap_or_else(|| "Y-m-d H:i:s".to_owned()),
            time_zone: section.parsed("time_zone", bad).unwrap_or(chrono_tz::UTC),
            allowed_origins: section.list("allowed_origins", bad).unwrap_or_default(),
            public_url: section.parsed("public_url", bad),
        };
        for prefix in &read.prefixes {
            if !prefix.is_empty() && (!prefix.starts_with('/') || prefix.ends_with('/')) {
                bad.add("api.prefixes", format!("{prefix:?} must begin with / and not end with it"));
            }
        }
        section.end(bad);
        read
    }
}

impl Limits {
    fn read(mut section: Section, bad: &mut Problems) -> Self {
        let read = Self {
            body_bytes: section.count("body_bytes", 1 << 20, bad),
            connections: section.count("connections", 1_000, bad),
            header_timeout: section.seconds("header_timeout", 15, bad),
            body_timeout: section.seconds("body_timeout", 30, bad),
            write_timeout: section.seconds("write_timeout", 30, bad),
        };
        section.end(bad);
        read
    }
}

impl Tls {
    fn read(mut section: Section, bad: &mut Problems) -> Option<Self> {
        let [certificate, key, client_ca] =
            ["certificate", "key", "client_ca"].map(|name| section.text(name, bad).map(PathBuf::from));
        let path = section.path.clone();
        section.end(bad);
        match (certificate, key, client_ca) {
            (None, None, None) => None,
            (Some(certificate), Some(key), client_ca) => Some(Self { certificate, key, client_ca }),
            (certificate, key, _) => {
                for (name, file) in [("certificate", certificate), ("key", key)] {
                    if file.is_none() {
                        bad.add(format!("{path}{name}"), "is required with the others of tls");
                    }
                }
                None
            }
        }
    }
}

/// `listen`, from the command line and from the file, is short for one of them; the command line wins over all of them.
fn listeners(
    entries: Vec<Section>,
    (given, set): (Option<String>, Option<String>),
    tls: Option<Tls>,
    bad: &mut Problems,
) -> Vec<Listener> {
    if set.is_some() && !entries.is_empty() {
        bad.add("listen", "is short for a [[listener]]; use one of the two");
    }
    if tls.is_some() && !entries.is_empty() {
        bad.add("tls", "is for listen; each [[listener]] has its own");
    }
    let listeners: Vec<_> = entries.into_iter().map(|entry| Listener::read(entry, bad)).collect();
    if given.is_some() || listeners.is_empty() {
        return vec![Listener::native(listen_address(given.or(set), "listen", bad), tls)];
    }
    listeners
}

fn listen_address(given: Option<String>, key: &str, bad: &mut Problems) -> SocketAddr {
    let default = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8000);
    let Some(text) = given else { return default };
    // `localhost:8000` is what people write; no name is ever looked up.
    text.replace("localhost:", "127.0.0.1:").parse().unwrap_or_else(|_| {
        bad.add(key, format!("{text:?} must be ADDRESS:PORT, as 127.0.0.1:8000 or [::1]:8000"));
        default
    })
}

/// More than any backend plugs into a domain.
const MOST_VCPUS: u32 = 255;

fn max_vcpus(top: &mut Section, bad: &mut Problems) -> u32 {
    let count = u32::try_from(top.count("max_vcpus", 16, bad)).unwrap_or(u32::MAX);
    if count > MOST_VCPUS {
        bad.add("max_vcpus", format!("must be from 1 to {MOST_VCPUS}"));
    }
    count
}

/// libvirt opens no longer ones.
const LONGEST_CHAIN: usize = 200;

fn max_chain(top: &mut Section, bad: &mut Problems) -> usize {
    let length = top.count("max_chain", 30, bad);
    if !(2..=LONGEST_CHAIN).contains(&length) {
        bad.add("max_chain", format!("must be from 2 to {LONGEST_CHAIN}"));
    }
    length
}

/// Percent; with all of it nothing could ever be copied there.
fn low_water(value: Option<toml::Value>, key: &str, bad: &mut Problems) -> Option<u32> {
    let percent = value?.as_integer().and_then(|n| u32::try_from(n).ok()).filter(|percent| *percent < 100);
    if percent.is_none() {
        bad.add(key, "must be a whole number from 0 to 99");
    }
    percent
}

fn low_water_of(section: Section, bad: &mut Problems) -> HashMap<String, u32> {
    let mut map = HashMap::new();
    for (name, value) in section.table {
        let key = format!("low_water_of.{name}");
        map.extend(low_water(Some(value), &key, bad).map(|percent| (name, percent)));
    }
    map
}

/// `/var/lib/pengx` for root, else below the home directory.
fn default_data() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/pengx");
    }
    let home = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    home("XDG_DATA_HOME")
        .or_else(|| home("HOME").map(|home| home.join(".local/share")))
        .unwrap_or_else(|| Path::new("/var/tmp").to_path_buf())
        .join("pengx")
}

/// By default where sshd looks for the keys of the user that we are.
fn authorized_keys(given: Option<PathBuf>, bad: &mut Problems) -> Option<PathBuf> {
    if let Some(path) = given {
        if !path.is_absolute() {
            bad.add("authorized_keys", format!("{} must be an absolute path", path.display()));
        }
        return Some(path);
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    // Users of a directory service are not in the file.
    let home =
        home_of(&passwd, rustix::process::geteuid().as_raw()).or_else(|| std::env::var_os("HOME").map(PathBuf::from));
    home.filter(|home| home.is_absolute()).map(|home| home.join(".ssh/authorized_keys"))
}

/// `name:password:uid:gid:comment:home:shell`
fn home_of(passwd: &str, uid: u32) -> Option<PathBuf> {
    let home = |line: &str| {
        let fields: Vec<_> = line.split(':').collect();
        match fields[..] {
            [_, _, id, _, _, home, ..] if id.parse() == Ok(uid) && !home.is_empty() => Some(PathBuf::from(home)),
            _ => None,
        }
    };
    passwd.lines().find_map(home)
}

fn bridges(section: Section, bad: &mut Problems) -> HashMap<String, NicLink> {
    let mut map = HashMap::new();
    for (name, value) in section.table {
        match value.as_str() {
            Some("user") => drop(map.insert(name, NicLink::User)),
            Some(bridge) if is_interface_name(bridge) => drop(map.insert(name, NicLink::Bridge(bridge.to_owned()))),
            _ => bad.add(format!("bridges.{name}"), "must be the name of a bridge, or \"user\""),
        }
    }
    map
}

/// What Linux allows for an interface, less what would need escaping somewhere.
fn is_interface_name(text: &str) -> bool {
    (1..=15).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// A table whose keys are taken one by one, so that what is left over is unknown.
struct Section {
    /// `api.`, empty at the top.
    path: String,
    table: toml::Table,
}

impl Section {
    fn new(path: &str, table: toml::Table) -> Self {
        Self { path: path.to_owned(), table }
    }

    fn name(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    fn section(&mut self, key: &str, bad: &mut Problems) -> Self {
        let table = match self.table.remove(key) {
            Some(toml::Value::Table(table)) => table,
            Some(_) => {
                bad.add(self.name(key), "must be a table");
                toml::Table::new()
            }
            None => toml::Table::new(),
        };
        Self::new(&format!("{}{key}.", self.path), table)
    }

    /// Those of a list of tables, each named by its place in it.
    fn sections(&mut self, key: &str, bad: &mut Problems) -> Vec<Self> {
        let Some(value) = self.table.remove(key) else { return Vec::new() };
        let name = self.name(key);
        let toml::Value::Array(all) = value else {
            bad.add(name, "must be a list of tables");
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (n, value) in all.into_iter().enumerate() {
            match value {
                toml::Value::Table(table) => sections.push(Self::new(&format!("{name}[{n}]."), table)),
                _ => bad.add(format!("{name}[{n}]"), "must be a table"),
            }
        }
        sections
    }

    fn text(&mut self, key: &str, bad: &mut Problems) -> Option<String> {
        match self.table.remove(key)? {
            toml::Value::String(text) => Some(text),
            _ => {
                bad.add(self.name(key), "must be a string");
                None
            }
        }
    }

    fn parsed<T: FromStr>(&mut self, key: &str, bad: &mut Problems) -> Option<T>
    where
        T::Err: std::fmt::Display,
    {
        let text = self.text(key, bad)?;
        text.parse().map_err(|why| bad.add(self.name(key), format!("{text:?}: {why}"))).ok()
    }

    /// The first word is the default.
    fn one_of(&mut self, key: &str, words: &[&str], bad: &mut Problems) -> String {
        let default = words.first().copied().unwrap_or_default().to_owned();
        match self.text(key, bad) {
            Some(text) if words.contains(&text.as_str()) => text,
            Some(text) => {
                bad.add(self.name(key), format!("{text:?} must be one of {}", words.join(", ")));
                default
            }
            None => default,
        }
    }

    fn list(&mut self, key: &str, bad: &mut Problems) -> Option<Vec<String>> {
        let value = self.table.remove(key)?;
        let list = value.as_array().and_then(|all| all.iter().map(|v| v.as_str().map(str::to_owned)).collect());
        if list.is_none() {
            bad.add(self.name(key), "must be a list of strings");
        }
        list
    }

    fn count(&mut self, key: &str, default: usize, bad: &mut Problems) -> usize {
        let Some(value) = self.table.remove(key) else { return default };
        match value.as_integer().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0) {
            Some(n) => n,
            None => {
                bad.add(self.name(key), "must be a whole number above 0");
                default
            }
        }
    }

    fn flag(&mut self, key: &str, default: bool, bad: &mut Problems) -> bool {
        let Some(value) = self.table.remove(key) else { return default };
        value.as_bool().unwrap_or_else(|| {
            bad.add(self.name(key), "must be true or false");
            default
        })
    }

    fn seconds(&mut self, key: &str, default: u64, bad: &mut Problems) -> Duration {
        let seconds = self.count(key, usize::try_from(default).unwrap_or(usize::MAX), bad);
        match u64::try_from(seconds) {
            Ok(seconds) if seconds <= YEAR => Duration::from_secs(seconds),
            _ => {
                bad.add(self.name(key), format!("must be at most {YEAR} seconds, which is a year"));
                Duration::from_secs(default)
            }
        }
    }

    /// What nobody took is no setting of ours.
    fn end(self, bad: &mut Problems) {
        for key in self.table.keys() {
            bad.add(format!("{}{key}", self.path), "is no setting");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, given: &Given) -> Result<Config> {
        Config::from_table(text.parse().unwrap(), given)
    }

    #[test]
    fn defaults_hold_without_a_file() {
        let config = load("", &Given { data_dir: Some("/d".into()), ..Given::default() }).unwrap();
        assert_eq!(config.listeners[0].address.to_string(), "127.0.0.1:8000");
        assert_eq!(config.database_url, "sqlite:///d/pengx.db");
        assert_eq!(config.hypervisor, "auto");
        assert_eq!(config.max_vcpus, 16);
        assert_eq!((config.low_water, config.low_water_of.len()), (1, 0));
        assert_eq!(config.orphan_quarantine, Duration::from_secs(86_400));
        assert_eq!(config.api.prefixes.len(), 7);
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let given = Given { listen: Some("[::1]:9".into()), ..Given::default() };
        let config =
            load("listen = '127.0.0.1:1'\nhypervisor = 'fake:///'\n[bridges]\nxenbr0 = 'user'", &given).unwrap();
        assert_eq!(config.listeners[0].address.to_string(), "[::1]:9");
        assert_eq!(config.hypervisor, "fake:///");
        assert_eq!(config.bridges.get("xenbr0"), Some(&NicLink::User));
    }

    /// What is commented out in it is what it shows.
    #[test]
    fn the_packaged_file_shows_what_holds() {
        let file = include_str!("../docs/packaging/pengx.toml");
        let shown: String = file
            .lines()
            .map(|line| line.strip_prefix('#').unwrap_or(line))
            .filter(|line| !line.starts_with(' '))
            .map(|line| format!("{line}\n"))
            .collect();
        let (all, listeners) = shown.split_at(shown.find("[[listener]]").unwrap());
        let default = |config: Config| Config { bridges: HashMap::new(), ..config };
        let given = Given { data_dir: Some("/var/lib/pengx".into()), ..Given::default() };
        let told = format!("{:?}", default(load(all, &given).unwrap()));
        assert_eq!(told, format!("{:?}", load("", &given).unwrap()));
        let listeners = load(listeners, &given).unwrap().listeners;
        let dialects: Vec<_> = listeners.iter().flat_map(|l| &l.dialects).map(|placed| placed.dialect.name()).collect();
        assert_eq!(dialects, ["pengx", "virtdancer", "proxmox-api"]);
    }

    #[test]
    fn low_water_is_set_for_all_storlinks_and_for_one_by_its_name() {
        let text = "low_water = 0\norphan_quarantine = 60\n[low_water_of]\nstore1 = 99\n'a b' = 5";
        let config = load(text, &Given::default()).unwrap();
        assert_eq!((config.low_water, config.orphan_quarantine), (0, Duration::from_secs(60)));
        let mut of: Vec<_> = config.low_water_of.into_iter().collect();
        of.sort();
        assert_eq!(of, [("a b".to_owned(), 5), ("store1".to_owned(), 99)]);
        let text = "low_water = -1\norphan_quarantine = 0\n[low_water_of]\na = 100\nb = '5'\nc = 1";
        let said = load(text, &Given::default()).unwrap_err().to_string();
        let range = "must be a whole number from 0 to 99";
        assert_eq!(
            said,
            format!(
                "low_water: {range}; low_water_of.a: {range}; low_water_of.b: {range}; \
                 orphan_quarantine: must be a whole number above 0"
            )
        );
    }

    #[test]
    fn every_bad_setting_is_named_at_once() {
        let text = "listen = 'nowhere'\nlock_timeout = 0\nmax_vcpus = 256\nmax_chain = 1\nkeep_replaced_leaf = 'no'\nshutdown_timeout = 9223372036854775807\nprove_wait = 'screen'\ntypo = 1\npm_uuid = 'x'\n[api]\ntime_zone = 'Mars'\nprefixes = ['x/']\n[bridges]\nxenbr0 = '../x'";
        let said = load(text, &Given::default()).unwrap_err().to_string();
        for name in [
            "listen",
            "lock_timeout",
            "max_vcpus: must be from 1 to 255",
            "max_chain: must be from 2 to 200",
            "keep_replaced_leaf: must be true or false",
            "shutdown_timeout: must be at most",
            "prove_wait: \"screen\": must be agent or console:TEXT",
            "typo: is no setting",
            "pm_uuid",
            "api.time_zone",
            "api.prefixes",
            "bridges.xenbr0",
        ] {
            assert!(said.contains(name), "{name} is missing in: {said}");
        }
    }

    #[test]
    fn what_guests_are_on_xen_is_set_as_a_whole() {
        let xl = load("[xl]\nguest = 'pv'\nkernel = '/k'\ncmdline = 'quiet'", &Given::default()).unwrap().xl;
        assert_eq!((xl.guest.as_str(), xl.kernel, xl.cmdline.as_str()), ("pv", Some("/k".into()), "quiet"));
        let xl = load("[xl]\nkernel = '/k'\n[xl.guest_of]\nDEBIAN = 'pv'", &Given::default()).unwrap().xl;
        assert_eq!((xl.guest.as_str(), xl.guest_of), ("hvm", [(Os::Debian, "pv".to_owned())].into()));
        let text = "[xl]\nguest = 'lxc'\nkernel = 'k'\nramdisk = '/r'\n[xl.guest_of]\nDEBIAN = 'lxd'\nPLAN9 = 'pv'";
        let said = load(text, &Given::default()).unwrap_err().to_string();
        for name in [
            "xl.guest: \"lxc\" must be one of hvm, pv, pvh",
            "xl.kernel: must be an absolute path",
            "xl.guest_of.DEBIAN: \"lxd\" must be one of hvm, pv, pvh",
            "xl.guest_of.PLAN9: is no setting",
        ] {
            assert!(said.contains(name), "{name} is missing in: {said}");
        }
    }

    #[test]
    fn the_keys_of_other_hosts_go_where_sshd_looks() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/nonexistent:/bin/false\nbroken:x:7\nempty:x:8:8:::/bin/sh\n";
        assert_eq!(home_of(passwd, 0), Some("/root".into()));
        assert_eq!(home_of(passwd, 65_534), Some("/nonexistent".into()));
        for uid in [7, 8, 9] {
            assert_eq!(home_of(passwd, uid), None);
        }
        let set = load("authorized_keys = '/srv/keys'", &Given::default()).unwrap();
        assert_eq!(set.authorized_keys, Some("/srv/keys".into()));
        let default = load("", &Given::default()).unwrap().authorized_keys;
        assert!(default.is_none_or(|path| path.is_absolute() && path.ends_with(".ssh/authorized_keys")));
        let said = load("authorized_keys = 'keys'", &Given::default()).unwrap_err().to_string();
        assert_eq!(said, "authorized_keys: keys must be an absolute path");
    }

    #[test]
    fn an_address_that_others_reach_needs_an_account_or_insecure() {
        let without_account = |listen: &str, insecure| {
            let given = Given { listen: Some(listen.to_owned()), insecure, ..Given::default() };
            load("", &given).unwrap().allows_no_account()
        };
        for open in ["0.0.0.0:8000", "[::]:8000", "192.0.2.1:8000"] {
            let said = without_account(open, false).unwrap_err().to_string();
            assert!(said.starts_with(&format!("listen: {open} ")), "{said}");
            assert!(said.contains("pengx user add") && said.contains("--insecure"), "{said}");
            without_account(open, true).unwrap();
        }
        for own in ["127.0.0.1:8000", "localhost:8000", "[::1]:8000", "127.9.9.9:1"] {
            without_account(own, false).unwrap();
        }
    }
}
