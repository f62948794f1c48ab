//! How this host does in detail: what its CPUs are busy with, its memory, its interfaces, and what it is made of.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Host;
use super::load::percent;
use crate::error::{Error, Result};
use crate::model::{HostUse, MiB};

/// Over less, the clock ticks that it is counted in say nothing.
const LEAST: Duration = Duration::from_millis(250);
/// What a hypervisor counted may be a second old.
const LEAST_COUNTED: Duration = Duration::from_millis(1250);
/// A look that is older says nothing about now.
const MOST: Duration = Duration::from_secs(5);
/// The kernel counts what is shared in pages of this size.
const PAGE: u64 = 4096;

#[derive(Debug, Clone, PartialEq)]
pub struct Vitals {
    pub cpu: CpuShares,
    /// Bytes, as all below.
    pub memory_total: u64,
    pub memory_free: u64,
    pub memory_buffers: u64,
    pub memory_available: u64,
    pub swap_total: u64,
    pub swap_free: u64,
    pub nics: Vec<NicCounters>,
    pub load_average: [f64; 3],
    pub uptime_secs: u64,
    /// Of the file system of `/`; what is available is what is free and not kept for root.
    pub root_used: u64,
    pub root_free: u64,
    pub root_available: u64,
    pub root_total: u64,
    /// Memory that guests have in common.
    pub ksm_shared: u64,
    pub cpu_model: String,
    pub mhz: f64,
    /// Logical CPUs.
    pub cpus: u32,
    pub sockets: u32,
    pub cores_per_socket: u32,
    pub threads_per_core: u32,
    pub numa_nodes: u32,
    /// Whether its CPUs can run whole machines.
    pub hvm: bool,
    /// `Linux 6.1.0 #1 SMP`
    pub kernel: String,
    /// `x86_64`
    pub machine: String,
}

/// What the CPUs did since a look some moments ago, in percent of all of them. Where a hypervisor below the kernel counts, it
/// knows the total alone, and all of it is shown as `user`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CpuShares {
    pub user: f64,
    pub system: f64,
    /// What guests of another host had, if this one is a guest.
    pub steal: f64,
    pub iowait: f64,
    pub irq: f64,
    /// All that is neither idle nor waiting for disks.
    pub total: f64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicCounters {
    pub name: String,
    pub physical: bool,
    /// Bytes since boot.
    pub rx: u64,
    pub tx: u64,
}

/// Remembers two looks at the CPUs, so that most answers need not wait for a second one.
#[derive(Default)]
pub struct Meter(Mutex<Option<Looks>>);

#[derive(Debug, Clone, Copy)]
struct Looks {
    before: Look,
    newest: Look,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    counted: Counted,
}

/// Since some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    Kernel(Ticks),
    Hypervisor { busy: Duration, cpus: u32 },
}

/// Of all CPUs together; `total` has what is idle as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    user: u64,
    system: u64,
    iowait: u64,
    irq: u64,
    steal: u64,
    total: u64,
    idle: u64,
}

impl Meter {
    /// What the CPUs did lately. Blocks for a moment when nobody has asked lately.
    fn shares(&self, look: impl Fn() -> Result<Counted>) -> Result<CpuShares> {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = Look { at: Instant::now(), counted: look()? };
        let least = now.counted.least();
        let before = match looks.and_then(|looks| compared(looks, now.at, least)) {
            Some(before) => before,
            None => {
                let before = now;
                std::thread::sleep(least);
                now = Look { at: Instant::now(), counted: look()? };
                before
            }
        };
        // Until the newest is old enough to be compared with, the one before it is kept.
        let kept = looks.filter(|looks| age(looks.newest, now.at) < least && looks.before.at == before.at);
        *looks = Some(Looks { before, newest: kept.map_or(now, |looks| looks.newest) });
        Ok(now.shares_since(before))
    }
}

fn age(look: Look, now: Instant) -> Duration {
    now.saturating_duration_since(look.at)
}

/// The newer one of those that are neither too young nor too old.
fn compared(looks: Looks, now: Instant, least: Duration) -> Option<Look> {
    [looks.newest, looks.before].into_iter().find(|look| (least..=MOST).contains(&age(*look, now)))
}

impl Counted {
    fn least(self) -> Duration {
        match self {
            Self::Kernel(_) => LEAST,
            Self::Hypervisor { .. } => LEAST_COUNTED,
        }
    }
}

impl Look {
    fn shares_since(self, before: Self) -> CpuShares {
        match (self.counted, before.counted) {
            (Counted::Kernel(now), Counted::Kernel(before)) => now.shares_since(before),
            (Counted::Hypervisor { busy, cpus }, Counted::Hypervisor { busy: before_that, .. }) => {
                let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                let all = ms(age(before, self.at).saturating_mul(cpus));
                let total = percent(ms(busy.saturating_sub(before_that)), all);
                CpuShares { user: total, total, ..CpuShares::default() }
            }
            _ => CpuShares::default(),
        }
    }
}

impl Ticks {
    /// Some counters of the kernel step back now and then.
    fn shares_since(self, before: Self) -> CpuShares {
        let all = self.total.saturating_sub(before.total);
        let share = |of: fn(Self) -> u64| percent(of(self).saturating_sub(of(before)), all);
        CpuShares {
            user: share(|ticks| ticks.user),
            system: share(|ticks| ticks.system),
            steal: share(|ticks| ticks.steal),
            iowait: share(|ticks| ticks.iowait),
            irq: share(|ticks| ticks.irq),
            total: share(|ticks| ticks.total.saturating_sub(ticks.idle.saturating_add(ticks.iowait))),
        }
    }
}

/// `cpu  user nice system idle iowait irq softirq steal guest guest_nice`; what guests use is in the first two as well.
fn ticks(stat: &str) -> Option<Ticks> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let counts = line.split_ascii_whitespace().take(8).map(str::parse).collect::<Result<Vec<u64>, _>>().ok()?;
    let [user, nice, system, idle, rest @ ..] = &counts[..] else { return None };
    let of = |at: usize| rest.get(at).copied().unwrap_or_default();
    Some(Ticks {
        user: user.saturating_add(*nice),
        system: *system,
        iowait: of(0),
        irq: of(1).saturating_add(of(2)),
        steal: of(3),
        total: counts.iter().fold(0, |all, one| all.saturating_add(*one)),
        idle: *idle,
    })
}

/// What `/proc/cpuinfo` says of the first CPU, and of how many packages there are.
#[derive(Debug, Clone, PartialEq, Default)]
struct Cpus {
    model: String,
    mhz: f64,
    cpus: u32,
    sockets: u32,
    cores_per_socket: u32,
    hvm: bool,
}

impl Cpus {
    fn read(cpuinfo: &str) -> Self {
        let mut cpus = Self::default();
        let mut packages = BTreeSet::new();
        for line in cpuinfo.lines() {
            let Some((key, value)) = line.split_once(':').map(|(key, value)| (key.trim(), value.trim())) else {
                continue;
            };
            match key {
                "processor" => cpus.cpus = cpus.cpus.saturating_add(1),
                "physical id" => {
                    packages.insert(value);
                }
                "cpu cores" if cpus.cores_per_socket == 0 => cpus.cores_per_socket = value.parse().unwrap_or(0),
                "model name" if cpus.model.is_empty() => value.clone_into(&mut cpus.model),
                "cpu MHz" if cpus.mhz == 0.0 => cpus.mhz = value.parse().unwrap_or(0.0),
                "flags" => cpus.hvm |= value.split(' ').any(|flag| matches!(flag, "vmx" | "svm")),
                _ => {}
            }
        }
        cpus.sockets = u32::try_from(packages.len()).unwrap_or(1).max(1);
        cpus
    }
}

/// Bytes.
struct Space {
    used: u64,
    free: u64,
    available: u64,
    total: u64,
}

impl Host {
    /// How this host does now. `counted` is what the hypervisor counts, if that is the truth here; always or never.
    ///
    /// # Errors
    /// `Refused` if `/proc` does not say.
    pub fn vitals(&self, meter: &Meter, counted: impl Fn() -> Result<Option<HostUse>>) -> Result<Vitals> {
        let unknown = |file: &str| Error::refused("the kernel", format!("/{file} does not say how this host does"));
        let hypervisor = counted()?;
        let cpu = meter.shares(|| match counted()? {
            Some(HostUse { busy, cpus, .. }) => Ok(Counted::Hypervisor { busy, cpus }),
            None => {
                let ticks = self.text("proc/stat").as_deref().and_then(ticks);
                ticks.map(Counted::Kernel).ok_or_else(|| unknown("proc/stat"))
            }
        })?;
        let meminfo = self.text("proc/meminfo").ok_or_else(|| unknown("proc/meminfo"))?;
        let bytes = |name: &str| kib(&meminfo, name).unwrap_or_default().saturating_mul(1024);
        let whole = |MiB(size): MiB| size.saturating_mul(1 << 20);
        let free = hypervisor.map(|counted| whole(counted.free));
        let cpus = Cpus::read(&self.text("proc/cpuinfo").unwrap_or_default());
        let seen = u32::try_from(std::thread::available_parallelism().map_or(1, std::num::NonZero::get)).unwrap_or(1);
        let logical = hypervisor.map_or(cpus.cpus, |counted| counted.cpus);
        let logical = if logical == 0 { seen } else { logical };
        let threads = hypervisor.map_or_else(|| self.threads_per_core(), |counted| counted.threads_per_core).max(1);
        let root = self.root_space();
        Ok(Vitals {
            cpu,
            memory_total: hypervisor.map_or_else(|| bytes("MemTotal:"), |counted| whole(counted.memory)),
            memory_free: free.unwrap_or_else(|| bytes("MemFree:")),
            memory_buffers: bytes("Buffers:"),
            memory_available: free.unwrap_or_else(|| bytes("MemAvailable:")),
            swap_total: bytes("SwapTotal:"),
            swap_free: bytes("SwapFree:"),
            nics: self.nic_counters(),
            load_average: self.load_average(),
            uptime_secs: self.uptime(),
            root_used: root.used,
            root_free: root.free,
            root_available: root.available,
            root_total: root.total,
            ksm_shared: self.number("sys/kernel/mm/ksm/pages_sharing").unwrap_or_default().saturating_mul(PAGE),
            cpu_model: cpus.model,
            mhz: cpus.mhz,
            cpus: logical,
            sockets: cpus.sockets,
            cores_per_socket: match cpus.cores_per_socket {
                0 => (logical / threads / cpus.sockets).max(1),
                cores => cores,
            },
            threads_per_core: threads,
            numa_nodes: self.numa_nodes(),
            // A hypervisor below may hide it from the kernel that it runs.
            hvm: cpus.hvm || self.has("dev/kvm") || self.xen_caps().contains("hvm-"),
            kernel: self.kernel(),
            machine: rustix::system::uname().machine().to_string_lossy().into_owned(),
        })
    }

    fn nic_counters(&self) -> Vec<NicCounters> {
        let names = self.names("sys/class/net").into_iter();
        // A file such as `bonding_masters` is no interface.
        let is_one = |name: &String| self.has(&format!("sys/class/net/{name}/statistics"));
        names
            .filter(is_one)
            .map(|name| {
                let count = |what| self.number(&format!("sys/class/net/{name}/statistics/{what}")).unwrap_or_default();
                let (rx, tx) = (count("rx_bytes"), count("tx_bytes"));
                NicCounters { physical: self.is_physical(&name), name, rx, tx }
            })
            .collect()
    }

    fn load_average(&self) -> [f64; 3] {
        let line = self.line("proc/loadavg").unwrap_or_default();
        let mut loads = line.split(' ').map(|load| load.parse().unwrap_or(0.0));
        std::array::from_fn(|_| loads.next().unwrap_or(0.0))
    }

    fn uptime(&self) -> u64 {
        let line = self.line("proc/uptime").unwrap_or_default();
        line.split('.').next().and_then(|secs| secs.parse().ok()).unwrap_or_default()
    }

    fn numa_nodes(&self) -> u32 {
        let is_node = |name: &&String| name.strip_prefix("node").is_some_and(|number| number.parse::<u32>().is_ok());
        let nodes = self.names("sys/devices/system/node").iter().filter(is_node).count();
        u32::try_from(nodes).unwrap_or(1).max(1)
    }

    fn xen_caps(&self) -> String {
        self.line("sys/hypervisor/properties/capabilities").unwrap_or_default()
    }

    fn kernel(&self) -> String {
        let of = |what: &str| self.line(&format!("proc/sys/kernel/{what}")).unwrap_or_default();
        format!("{} {} {}", of("ostype"), of("osrelease"), of("version")).trim().to_owned()
    }

    /// The root of a host is no mount that can be dead.
    fn root_space(&self) -> Space {
        match rustix::fs::statvfs(&self.root) {
            Ok(fs) => {
                let bytes = |blocks: u64| blocks.saturating_mul(fs.f_frsize);
                Space {
                    used: bytes(fs.f_blocks.saturating_sub(fs.f_bfree)),
                    free: bytes(fs.f_bfree),
                    available: bytes(fs.f_bavail),
                    total: bytes(fs.f_blocks),
                }
            }
            Err(e) => {
                self.say(&format!("the file system of / does not say how full it is: {e}"));
                Space { used: 0, free: 0, available: 0, total: 0 }
            }
        }
    }
}

/// `MemTotal:       24689420 kB`
fn kib(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
