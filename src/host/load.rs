//! How busy this host is: counters of the kernel, or of a hypervisor below it, and what they say between two looks.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Host;
use crate::error::{Error, Result};
use crate::model::{HostUse, MiB};

/// CPU load is told over at least so long, once the server has run for so long.
const WINDOW: Duration = Duration::from_secs(1);
/// Over less, the clock ticks that it is counted in say nothing.
const LEAST_WINDOW: Duration = Duration::from_millis(250);

/// What is said now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Of all CPUs, since the look before; idle and waiting for disks is not busy.
    pub cpu_percent: f64,
    pub memory: Memory,
    /// Bytes since boot over all physical NICs.
    pub received: u64,
    pub sent: u64,
    /// Threads of one core.
    pub threads_per_core: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    total_kib: u64,
    available_kib: u64,
}

impl Memory {
    pub fn total(self) -> MiB {
        MiB(self.total_kib / 1024)
    }

    /// What programs could not have, were they to ask for it.
    pub fn used(self) -> MiB {
        MiB(self.total_kib.saturating_sub(self.available_kib) / 1024)
    }

    pub fn used_percent(self) -> f64 {
        percent(self.total_kib.saturating_sub(self.available_kib), self.total_kib)
    }
}

impl From<HostUse> for Memory {
    fn from(counted: HostUse) -> Self {
        Self { total_kib: counted.memory.0.saturating_mul(1024), available_kib: counted.free.0.saturating_mul(1024) }
    }
}

/// What all CPUs together have done, in some unit: the kernel's clock ticks since boot, or milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    total: u64,
}

impl Ticks {
    fn of(counted: HostUse, since: Duration) -> Self {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self { busy: ms(counted.busy), total: ms(since.saturating_mul(counted.cpus)) }
    }

    /// Some counters of the kernel step back now and then.
    fn percent_since(self, before: Self) -> f64 {
        percent(self.busy.saturating_sub(before.busy), self.total.saturating_sub(before.total))
    }
}

/// Remembers its looks, so that no answer has to wait for a second one. Each look is given what the hypervisor counts, if
/// that is the truth here; always or never.
pub struct Sampler {
    host: Host,
    began: Instant,
    looks: Mutex<Looks>,
}

/// The newest is less than [`WINDOW`] older than now, if somebody looked then; the one before is older than that.
struct Looks {
    before: Look,
    newest: Look,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    ticks: Option<Ticks>,
}

impl Sampler {
    /// Takes the first look.
    pub fn new(host: Host, counted: Option<HostUse>) -> Self {
        let at = Instant::now();
        let ticks = counted.map_or_else(|| host.ticks(), |counted| Some(Ticks::of(counted, Duration::ZERO)));
        let first = Look { at, ticks };
        Self { host, began: at, looks: Mutex::new(Looks { before: first, newest: first }) }
    }

    /// How long [`Sampler::load`] has nothing to compare with yet; not zero only right after the start.
    pub fn too_early(&self) -> Duration {
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        LEAST_WINDOW.saturating_sub(looks.before.at.elapsed())
    }

    /// Looks now, for the next [`Sampler::load`]. Called now and then, it keeps what that tells recent; so the first and the
    /// only answer of a day is about this minute.
    pub fn look_again(&self, counted: Option<HostUse>) {
        self.look(counted);
    }

    /// A look to compare with, and one taken now.
    fn look(&self, counted: Option<HostUse>) -> (Look, Look) {
        let at = Instant::now();
        let ticks = match counted {
            Some(counted) => Some(Ticks::of(counted, at.saturating_duration_since(self.began))),
            None => self.host.ticks(),
        };
        let now = Look { at, ticks };
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        if now.at.saturating_duration_since(looks.newest.at) >= WINDOW {
            looks.before = looks.newest;
            looks.newest = now;
        }
        (looks.before, now)
    }

    /// Looks now.
    ///
    /// # Errors
    /// `Refused` if `/proc` does not say.
    pub fn load(&self, counted: Option<HostUse>) -> Result<Load> {
        let unknown = |file: &str| Error::refused("the kernel", format!("{file} does not say how busy this host is"));
        let (before, now) = self.look(counted);
        let (Some(before), Some(ticks)) = (before.ticks, now.ticks) else { return Err(unknown("/proc/stat")) };
        let kernel = || self.host.text("proc/meminfo").as_deref().and_then(memory);
        let memory = counted.map(Memory::from).or_else(kernel);
        let (received, sent) = self.host.traffic();
        Ok(Load {
            cpu_percent: ticks.percent_since(before),
            memory: memory.ok_or_else(|| unknown("/proc/meminfo"))?,
            received,
            sent,
            threads_per_core: counted.map_or_else(|| self.host.threads_per_core(), |counted| counted.threads_per_core),
        })
    }
}

impl Host {
    fn ticks(&self) -> Option<Ticks> {
        self.text("proc/stat").as_deref().and_then(ticks)
    }

    fn traffic(&self) -> (u64, u64) {
        let nics = self.names("sys/class/net").into_iter().filter(|name| self.is_physical(name));
        nics.fold((0, 0), |(received, sent), name| {
            let count = |what| self.number(&format!("sys/class/net/{name}/statistics/{what}")).unwrap_or_default();
            (received.saturating_add(count("rx_bytes")), sent.saturating_add(count("tx_bytes")))
        })
    }

    pub(super) fn threads_per_core(&self) -> u32 {
        let siblings = |cpu: &String| {
            let list = self.line(&format!("sys/devices/system/cpu/{cpu}/topology/thread_siblings_list"))?;
            Some(listed(&list))
        };
        self.names("sys/devices/system/cpu").iter().filter_map(siblings).max().unwrap_or(1).max(1)
    }
}

/// How many CPUs a list such as `0,4` or `0-1` has.
fn listed(list: &str) -> u32 {
    let count = |part: &str| match part.split_once('-') {
        Some((first, last)) => match (first.parse::<u32>(), last.parse::<u32>()) {
            (Ok(first), Ok(last)) => last.saturating_sub(first).saturating_add(1),
            _ => 0,
        },
        None => u32::from(part.parse::<u32>().is_ok()),
    };
    list.trim().split(',').map(count).sum()
}

/// `cpu  user nice system idle iowait irq softirq steal guest guest_nice`; what guests use is in the first two as well.
fn ticks(stat: &str) -> Option<Ticks> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let counts = line.split_ascii_whitespace().take(8).map(str::parse).collect::<Result<Vec<u64>, _>>().ok()?;
    let [_, _, _, idle, rest @ ..] = &counts[..] else { return None };
    let total = counts.iter().sum();
    Some(Ticks { busy: total - idle - rest.first().unwrap_or(&0), total })
}

pub(super) fn memory(meminfo: &str) -> Option<Memory> {
    // `MemTotal:       24689420 kB`
    let kib = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    let total_kib = kib("MemTotal:")?;
    // Kernels before 3.14 do not say what is available.
    let available_kib = kib("MemAvailable:").or_else(|| kib("MemFree:")).unwrap_or_default();
    Some(Memory { total_kib, available_kib })
}

#[expect(clippy::as_conversions, reason = "no conversion from u64 to f64 is without loss, and one decimal is shown")]
pub(super) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64 * 100.0).clamp(0.0, 100.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tree::Tree;

    #[test]
    fn busy_is_what_is_neither_idle_nor_waiting() {
        let stat = "cpu  100 1 20 800 50 2 3 24 90 0\ncpu0 1 1 1 1\nintr 5\n";
        assert_eq!(ticks(stat), Some(Ticks { busy: 150, total: 1000 }));
        assert_eq!(ticks("cpu  1 2 3 4\n"), Some(Ticks { busy: 6, total: 10 }));
        for broken in ["", "cpu0 1 2 3 4\n", "cpu  1 2 3\n", "cpu  1 x 3 4\n"] {
            assert_eq!(ticks(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn load_is_told_between_two_looks() {
        let (before, now) = (Ticks { busy: 150, total: 1000 }, Ticks { busy: 175, total: 1100 });
        assert_eq!(now.percent_since(before), 25.0);
        assert_eq!(now.percent_since(now), 0.0);
        assert_eq!(before.percent_since(now), 0.0, "counters that step back");
    }

    #[test]
    fn memory_is_used_when_it_is_not_available() {
        let read = memory("MemTotal:       24689420 kB\nMemFree: 1 kB\nMemAvailable:   6172355 kB\n").unwrap();
        assert_eq!((read.total(), read.used(), read.used_percent()), (MiB(24110), MiB(18083), 75.0));
        assert_eq!(memory("MemTotal: 2048 kB\nMemFree: 1024 kB\n").unwrap().used(), MiB(1));
        assert_eq!(memory("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn threads_of_a_core_are_counted_in_every_form() {
        for (list, count) in [("0", 1), ("0,4\n", 2), ("0-1", 2), ("0-1,64-65", 4), ("", 0), ("x", 0)] {
            assert_eq!(listed(list), count, "{list:?}");
        }
    }

    #[test]
    fn traffic_is_that_of_physical_nics_alone() {
        let tree = Tree::of(&[
            ("proc/stat", "cpu  1 2 3 4\n"),
            ("proc/meminfo", "MemTotal: 2048 kB\nMemAvailable: 1024 kB\n"),
            ("sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0,2\n"),
            ("sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "1,3\n"),
            ("sys/devices/system/cpu/online", "0-3\n"),
            ("sys/class/net/eth0/device/vendor", "0x8086\n"),
            ("sys/class/net/eth0/statistics/rx_bytes", "100\n"),
            ("sys/class/net/eth0/statistics/tx_bytes", "10\n"),
            ("sys/class/net/eth1/device/vendor", "0x8086\n"),
            ("sys/class/net/eth1/statistics/rx_bytes", "5\n"),
            ("sys/class/net/eth1/statistics/tx_bytes", "1\n"),
            ("sys/class/net/br0/bridge/bridge_id", "8000\n"),
            ("sys/class/net/br0/statistics/rx_bytes", "1000\n"),
            ("sys/class/net/vnet0/tun_flags", "0x1002\n"),
            ("sys/class/net/vnet0/statistics/rx_bytes", "1000\n"),
            ("sys/class/net/vif1.0/device/subsystem", "-> ../../bus/xen-backend"),
            ("sys/class/net/vif1.0/statistics/rx_bytes", "1000\n"),
        ]);
        let load = Sampler::new(tree.host(), None).load(None).unwrap();
        assert_eq!((load.received, load.sent, load.threads_per_core), (105, 11, 2));
        assert_eq!((load.cpu_percent, load.memory.used_percent()), (0.0, 50.0));
        let nothing = Tree::of(&[]);
        assert!(Sampler::new(nothing.host(), None).load(None).unwrap_err().to_string().contains("/proc/stat"));
    }

    #[test]
    fn what_a_hypervisor_counts_is_what_counts() {
        let tree = Tree::of(&[("proc/stat", "cpu  1 2 3 4\n"), ("proc/meminfo", "MemTotal: 2048 kB\n")]);
        let counted = |busy| HostUse {
            cpus: 2,
            threads_per_core: 2,
            busy: Duration::from_secs(busy),
            memory: MiB(2047),
            free: MiB(1256),
        };
        let sampler = Sampler::new(tree.host(), Some(counted(1000)));
        std::thread::sleep(Duration::from_millis(20));
        let idle = sampler.load(Some(counted(1000))).unwrap();
        assert_eq!((idle.cpu_percent, idle.threads_per_core), (0.0, 2));
        assert_eq!((idle.memory.total(), idle.memory.used()), (MiB(2047), MiB(791)));
        assert_eq!(sampler.load(Some(counted(4000))).unwrap().cpu_percent, 100.0, "more than there is");
    }

    #[test]
    fn work_shows_as_load() {
        let sampler = Sampler::new(Host::this(), None);
        let stop = std::sync::atomic::AtomicBool::new(false);
        let most = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop()
                }
            });
            let deadline = Instant::now() + Duration::from_secs(60);
            let mut most = 0.0;
            while most < 1.0 && Instant::now() < deadline {
                std::thread::sleep(sampler.too_early().max(Duration::from_millis(20)));
                most = sampler.load(None).unwrap().cpu_percent.max(most);
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            most
        });
        let load = sampler.load(None).unwrap();
        assert!(most >= 1.0, "one CPU was busy, and the load was {most} % at most");
        assert!(load.memory.used() < load.memory.total() && load.threads_per_core >= 1, "{load:?}");
    }
}
