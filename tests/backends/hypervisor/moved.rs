//! A booted guest counts on its disks every 20 ms while they are moved under it: no number is ever missing.

use pengx::hypervisor::BlockJob;
use pengx::model::Layer;
use rustix::process::Signal;

use super::jobs::job_needs_pivot;
use super::libvirt::{domain_name, kill};
use super::*;
use crate::harness::counters::{Counter, at_one_moment};
use crate::harness::guest::golden;
use crate::harness::small::{SmallDisk, fill_up};
use crate::harness::wait::{BOOT, wait_within};

/// A guest with a system disk and another one.
struct Guest<'a> {
    bench: &'a Bench,
    libvirtd: &'a Libvirtd,
    /// Its jobs hardly move.
    slow: LibvirtHypervisor,
    vm: Vm<'a>,
    chains: [Vec<Layer>; 2],
    /// The last number that both disks are known to have.
    counted: u64,
}

impl<'a> Guest<'a> {
    fn boot(bench: &'a Bench, libvirtd: &'a Libvirtd) -> Self {
        let system = layer(bench.dir.path().join("system.qcow2"), Format::Qcow2);
        std::fs::copy(golden(), file(&system)).unwrap();
        let chains = [vec![system], vec![bench.blank(Format::Raw)]];
        let spec = DomainSpec { memory: MiB(160), max_memory: MiB(160), ..spec_on(&[&chains[0], &chains[1]]) };
        let slow = connect_slowly(&libvirtd.uri);
        let mut guest = Self { bench, libvirtd, slow, vm: bench.vm_with(&spec), chains, counted: 0 };
        guest.vm.start(Start::Running);
        guest.counts_on();
        guest
    }

    fn counters_of(images: [&Layer; 2]) -> [Counter; 2] {
        [Counter::system(file(images[0]), images[0].format), Counter::extra(file(images[1]), images[1].format)]
    }

    fn counters(&self) -> [Counter; 2] {
        Self::counters_of([&self.chains[0][0], &self.chains[1][0]])
    }

    /// It lives, and writes where it shall.
    fn counts_on(&mut self) {
        self.counts_on_at(&[0, 1]);
    }

    /// A number is on all disks before the next begins, so one disk tells of the other.
    fn counts_on_at(&mut self, readable: &[usize]) {
        let counters = self.counters();
        let now = readable.iter().map(|disk| counters[*disk].until_past(self.counted + 1)).min();
        self.counted = now.unwrap() - 1;
        assert_eq!(self.vm.state(), PowerState::Running);
        for (order, chain) in (0..).zip(&self.chains) {
            self.vm.assert_chain(order, chain);
        }
    }

    /// Both disks at one instant; what they held then.
    fn onto_overlays(&mut self) {
        let frozen = self.chains.clone();
        for chain in &mut self.chains {
            chain.insert(0, self.bench.overlay_on(&chain[0]));
        }
        let overlays = [disk_on(0, &self.chains[0]), disk_on(1, &self.chains[1])];
        self.bench.hypervisor.overlay_disks(self.vm.id, &overlays).unwrap();
        self.counts_on();
        let moment = at_one_moment(&Self::counters_of([&frozen[0][0], &frozen[1][0]])).unwrap();
        assert!(moment.iter().all(|count| count.last > 0), "{moment:?}");
    }

    /// The guest writes before the job has anything, while it moves, when it is ready, and afterwards.
    fn through(&mut self, order: u32, job: &BlockJob, after: Vec<Layer>) {
        self.slow.start_block_job(self.vm.id, order, job).unwrap();
        self.vm.assert_halfway(order);
        // QEMU lets nobody read an image while it is taken out of the middle.
        if matches!(job, BlockJob::Commit { .. }) {
            self.counts_on_at(&[1 - order as usize])
        } else {
            self.counts_on()
        }
        self.vm.assert_halfway(order);
        let target = ["vda", "vdb"][order as usize];
        self.libvirtd.virsh(&["blockjob", &domain_name(&self.vm), target, "--bandwidth", "0"]);
        let chain = &mut self.chains[order as usize];
        if job_needs_pivot(job, chain) {
            self.vm.until_ready(order);
            self.counts_on();
            self.bench.hypervisor.pivot(self.vm.id, order).unwrap();
        } else {
            self.vm.until_over(order);
        }
        self.chains[order as usize] = after;
        self.counts_on();
    }
}

#[test]
fn a_guest_counts_on_while_its_disks_are_moved_under_it() {
    let small = SmallDisk::mount("24m");
    let libvirtd = Libvirtd::start("moved");
    let bench = Bench::new(Arc::new(connect(&libvirtd.uri)));
    let mut guest = Guest::boot(&bench, &libvirtd);

    guest.onto_overlays();
    // More than two clusters of qcow2 hold, so that the lower overlay has something that the upper one has not.
    guest.counted += 300;
    guest.counts_on();
    guest.onto_overlays();
    let [system, extra] = guest.chains.clone();
    guest.through(0, &commit(&system[1], &system[2]), with(&system[0], &system[2..]));
    guest.through(1, &commit(&extra[1], &extra[2]), with(&extra[0], &extra[2..]));
    guest.through(0, &commit(&system[0], &system[2]), system[2..].to_vec());

    let to = bench.blank_like(&system[0], Format::Raw);
    guest.through(0, &mirror(&to), vec![to.clone()]);
    let to = bench.blank(Format::Qcow2);
    guest.through(1, &mirror(&to), vec![to.clone()]);
    guest.onto_overlays();
    for order in [1, 0] {
        let chain = guest.chains[order as usize].clone();
        guest.through(order, &commit(&chain[0], &chain[1]), chain[1..].to_vec());
    }
    full(&mut guest, &small);

    // The power goes while the next job has begun.
    let to = bench.blank_like(&guest.chains[0][0], Format::Qcow2);
    guest.slow.start_block_job(guest.vm.id, 0, &mirror(&to)).unwrap();
    guest.counts_on();
    let bell = Bell::on(&*bench.hypervisor);
    kill(libvirtd.guest_pid(&domain_name(&guest.vm)), Signal::KILL);
    bell.until("the guest died", || guest.vm.state() == PowerState::Crashed);
    let counts = at_one_moment(&guest.counters()).unwrap();
    for (count, counter) in counts.iter().zip(guest.counters()) {
        assert!(counter.numbers() >= guest.counted && count.filled_in() == 0, "{}, {counter:?}", guest.counted);
    }
}

/// A mirror that was ready has no more room for what the guest writes: the guest goes on without it.
fn full(guest: &mut Guest<'_>, small: &SmallDisk) {
    let to = guest.bench.blank_in(small.path(), Format::Raw);
    let (hypervisor, id) = (&guest.bench.hypervisor, guest.vm.id);
    hypervisor.start_block_job(id, 1, &mirror(&to)).unwrap();
    guest.vm.until_ready(1);
    fill_up(&small.filler());
    wait_within(BOOT, "the job is gone", || Ok(hypervisor.block_job(id, 1)?.is_none()));
    wrong_state(hypervisor.pivot(id, 1));
    guest.counts_on();
}
