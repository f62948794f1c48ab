use super::*;
use crate::host::tree::Tree;

const STAT: &str = "cpu  100 20 40 700 60 5 15 60 90 0\ncpu0 1 1 1 1\n";

fn second(at: Instant, secs: u64) -> Instant {
    at + Duration::from_secs(secs)
}

fn kernel(user: u64, idle: u64) -> Counted {
    let of = Ticks { user, system: 0, iowait: 0, irq: 0, steal: 0, total: user + idle, idle };
    Counted::Kernel(of)
}

#[test]
fn a_line_of_ticks_is_sorted_by_what_was_done() {
    let all = ticks(STAT).unwrap();
    let expected = Ticks { user: 120, system: 40, iowait: 60, irq: 20, steal: 60, total: 1000, idle: 700 };
    assert_eq!(all, expected);
    for broken in ["", "cpu0 1 2 3 4\n", "cpu  1 2 3\n", "cpu  1 x 3 4\n"] {
        assert_eq!(ticks(broken), None, "{broken:?}");
    }
}

#[test]
fn shares_are_of_all_that_passed() {
    let before = ticks(STAT).unwrap();
    let now = ticks("cpu  110 30 50 730 70 10 20 80\n").unwrap();
    let shares = now.shares_since(before);
    assert_eq!(shares, CpuShares { user: 20.0, system: 10.0, steal: 20.0, iowait: 10.0, irq: 10.0, total: 60.0 });
    assert_eq!(before.shares_since(now), CpuShares::default(), "counters that step back");
}

#[test]
fn a_hypervisor_tells_the_total() {
    let at = Instant::now();
    let look = |secs, busy| Look {
        at: second(at, secs),
        counted: Counted::Hypervisor { busy: Duration::from_millis(busy), cpus: 4 },
    };
    let shares = look(2, 5000).shares_since(look(0, 1000));
    assert_eq!(shares, CpuShares { user: 50.0, total: 50.0, ..CpuShares::default() });
}

#[test]
fn it_is_compared_with_a_look_that_is_neither_too_young_nor_too_old() {
    let at = Instant::now();
    let look = |secs| Look { at: second(at, secs), counted: kernel(0, 0) };
    let looks = Looks { before: look(0), newest: look(3) };
    let with = |ms: u64| compared(looks, at + Duration::from_millis(ms), LEAST).map(|look| look.at);
    assert_eq!(with(3100), Some(at), "the newest is too young");
    assert_eq!(with(3250), Some(second(at, 3)));
    assert_eq!(with(8000), Some(second(at, 3)));
    assert_eq!(with(8001), None);
}

#[test]
fn whoever_asks_again_is_not_told_about_nothing() {
    let meter = Meter::default();
    let asked = std::cell::Cell::new(0_u64);
    // Each look finds the CPU busy half of the time since the look before.
    let look = || {
        asked.set(asked.get() + 1);
        Ok(kernel(asked.get() * 50, asked.get() * 50))
    };
    for n in 1..10 {
        let shares = meter.shares(look).unwrap();
        assert_eq!((shares.user, shares.total), (50.0, 50.0), "time {n}");
    }
    assert!(asked.get() >= 10);
    assert!(meter.shares(|| Err(Error::internal("no"))).is_err());
}

fn a_host() -> Tree {
    Tree::of(&[
        ("proc/stat", STAT),
        (
            "proc/meminfo",
            "MemTotal: 1000 kB\nMemFree: 200 kB\nMemAvailable: 600 kB\nBuffers: 30 kB\nSwapTotal: 50 kB\nSwapFree: 40 kB\n",
        ),
        ("proc/loadavg", "0.18 0.16 1.12 1/200 4711\n"),
        ("proc/uptime", "86400.55 1.0\n"),
        (
            "proc/cpuinfo",
            "processor\t: 0\nmodel name\t: A CPU @ 2.00GHz\ncpu MHz\t\t: 2300.5\nphysical id\t: 0\ncpu cores\t: 2\nflags\t: fpu vmx\n\n\
             processor\t: 1\nphysical id\t: 1\ncpu MHz\t\t: 1.0\ncpu cores\t: 2\nflags\t: fpu vmx\n",
        ),
        ("proc/sys/kernel/ostype", "Linux\n"),
        ("proc/sys/kernel/osrelease", "6.1.0\n"),
        ("proc/sys/kernel/version", "#1 SMP Debian\n"),
        ("sys/kernel/mm/ksm/pages_sharing", "3\n"),
        ("sys/devices/system/node/node0/cpulist", "0\n"),
        ("sys/devices/system/node/node1/cpulist", "1\n"),
        ("sys/devices/system/node/online", "0-1\n"),
        ("sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0,2\n"),
        ("sys/class/net/bonding_masters", "\n"),
        ("sys/class/net/eth0/device/vendor", "1\n"),
        ("sys/class/net/eth0/statistics/rx_bytes", "1000\n"),
        ("sys/class/net/eth0/statistics/tx_bytes", "300\n"),
        ("sys/class/net/lo/statistics/rx_bytes", "7\n"),
        ("sys/class/net/lo/statistics/tx_bytes", "7\n"),
    ])
}

#[test]
fn the_kernel_tells_how_a_host_does() {
    let tree = a_host();
    let vitals = tree.host().vitals(&Meter::default(), || Ok(None)).unwrap();
    let memory = [vitals.memory_total, vitals.memory_free, vitals.memory_available, vitals.memory_buffers];
    assert_eq!(memory, [1000 << 10, 200 << 10, 600 << 10, 30 << 10]);
    assert_eq!((vitals.swap_total, vitals.swap_free, vitals.ksm_shared), (50 << 10, 40 << 10, 3 * 4096));
    assert_eq!((vitals.load_average, vitals.uptime_secs), ([0.18, 0.16, 1.12], 86400));
    let nic = |name: &str, physical, rx, tx| NicCounters { name: name.to_owned(), physical, rx, tx };
    assert_eq!(vitals.nics, [nic("eth0", true, 1000, 300), nic("lo", false, 7, 7)]);
    let Vitals { cpus, sockets, cores_per_socket, threads_per_core, numa_nodes, .. } = vitals;
    assert_eq!((cpus, sockets, cores_per_socket, threads_per_core, numa_nodes), (2, 2, 2, 2, 2));
    assert_eq!((vitals.cpu_model.as_str(), vitals.mhz, vitals.hvm), ("A CPU @ 2.00GHz", 2300.5, true));
    assert_eq!(vitals.kernel, "Linux 6.1.0 #1 SMP Debian");
    assert!(!vitals.machine.is_empty() && vitals.root_total >= vitals.root_used && vitals.root_total > 0);
    assert_eq!(vitals.cpu, CpuShares::default(), "a made-up host stands still");
}

#[test]
fn where_the_kernel_sees_a_part_the_hypervisor_tells() {
    let tree = a_host();
    let counted = HostUse { cpus: 64, threads_per_core: 1, busy: Duration::ZERO, memory: MiB(4096), free: MiB(1024) };
    let vitals = tree.host().vitals(&Meter::default(), || Ok(Some(counted))).unwrap();
    assert_eq!((vitals.cpus, vitals.threads_per_core, vitals.cpu.total), (64, 1, 0.0));
    assert_eq!((vitals.memory_total, vitals.memory_free, vitals.memory_available), (4 << 30, 1 << 30, 1 << 30));
}

#[test]
fn a_host_that_says_little_is_still_told_of() {
    let tree = Tree::of(&[("proc/stat", STAT), ("proc/meminfo", "MemTotal: 1000 kB\n")]);
    let vitals = tree.host().vitals(&Meter::default(), || Ok(None)).unwrap();
    assert!(vitals.cpus >= 1 && vitals.cores_per_socket >= 1);
    assert_eq!((vitals.sockets, vitals.numa_nodes, vitals.threads_per_core, vitals.hvm), (1, 1, 1, false));
    assert!(vitals.nics.is_empty() && vitals.kernel.is_empty() && vitals.mhz == 0.0);
    for missing in [&[("proc/stat", STAT)][..], &[("proc/meminfo", "MemTotal: 1000 kB\n")]] {
        let told = Tree::of(missing).host().vitals(&Meter::default(), || Ok(None));
        assert!(told.unwrap_err().to_string().contains("does not say how this host does"));
    }
}
