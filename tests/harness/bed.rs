//! A site on a ground of its own with two storlinks, and VMs of the golden image that count on two disks.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use pengx::hypervisor::{DomainType, FakeHypervisor, Hypervisor, LibvirtHypervisor, LibvirtOptions};
use pengx::model::*;
use pengx::operations::Settings;
use pengx::operations::disk::CreateDisk;
use pengx::operations::template::AddTemplate;
use pengx::operations::vm::{CreateVm, StartVm};
use pengx::store::tasks;
use rustix::process::{Pid, Signal, kill_process};

use super::app::{App, Site};
use super::counters::{Count, Counter, at_one_moment};
use super::guest::{SYSTEM, golden, next_beat, until_booted};
use super::libvirt::Libvirtd;
use super::wait::{BOOT, PATIENCE, wait_until};
use super::whole::{self, Domains, Leaks};
use super::xen::is_too_slow;

pub const HERE: StorlinkId = StorlinkId(1);
pub const THERE: StorlinkId = StorlinkId(2);

/// Of the second disk of every VM.
const EXTRA: MiB = MiB(128);

pub struct Bed<G> {
    pub ground: Arc<G>,
    app: Option<App>,
    template: TemplateId,
}

/// What the VMs run on.
pub trait Ground: Domains + Send + Sync {
    /// `rate`: the most bytes per second that a block job moves; 0 is no limit.
    fn hypervisor(&self, rate: u64) -> Arc<dyn Hypervisor>;

    /// What a server here needs to know.
    fn adapt(&self, settings: &mut Settings);

    /// Whether QEMU has begun to move the data of a disk, and has not ended.
    fn is_moving(&self, vm: VmId, order: u32) -> bool;

    /// The job of a disk goes as fast as it can; none is fine.
    fn let_go(&self, vm: VmId, order: u32);

    /// The process that serves the disks of a guest.
    fn qemu(&self, vm: VmId) -> Pid;

    /// Whoever is asked about guests answers no more, and guests go on.
    fn silence(&self);

    /// It answers again.
    fn mend(&self);
}

impl Ground for Libvirtd {
    fn hypervisor(&self, rate: u64) -> Arc<dyn Hypervisor> {
        let options = LibvirtOptions {
            call_timeout: PATIENCE,
            power_timeout: PATIENCE * 2,
            device_timeout: BOOT,
            block_timeout: PATIENCE * 2,
            block_rate: rate,
            domain_type: DomainType::Qemu,
        };
        Arc::new(LibvirtHypervisor::new(&self.uri, options).unwrap())
    }

    fn adapt(&self, _: &mut Settings) {}

    fn is_moving(&self, vm: VmId, order: u32) -> bool {
        let job = self.hypervisor(0).block_job(vm, order).unwrap();
        job.is_some_and(|job| job.done > 0 && !job.ready)
    }

    fn let_go(&self, vm: VmId, order: u32) {
        Self::let_go(self, &vm.to_string(), ["vda", "vdb"][order as usize]);
    }

    fn qemu(&self, vm: VmId) -> Pid {
        Pid::from_raw(self.guest_pid(&format!("pengx-{vm}"))).unwrap()
    }

    fn silence(&self) {
        kill_process(Pid::from_raw(self.pid()).unwrap(), Signal::KILL).unwrap();
    }

    fn mend(&self) {
        self.restart();
    }
}

impl<G: Ground> Bed<G> {
    pub fn new(ground: G) -> Self {
        let mut site = Site::on(ground.hypervisor(0), FakeHypervisor::new());
        site.settings.prove_timeout = BOOT;
        ground.adapt(&mut site.settings);
        let app = site.start();
        assert_eq!((app.storlink(), app.second_storlink()), (HERE, THERE));

        let disk = DiskId(uuid::Uuid::from_u128(0x601d));
        let volume = VolumeName::new(disk, Format::Qcow2);
        std::fs::copy(golden(), app.site.store_dir().join(volume.as_str())).unwrap();
        let (name, desc) = ("golden".parse().unwrap(), String::new());
        let (os, os_arch, format) = (Os::Other, OsArch::X64, Format::Qcow2);
        let template = app.run(AddTemplate { name, os, os_arch, desc, storlink: HERE, disk, format }).unwrap();
        Self { ground: Arc::new(ground), app: Some(app), template }
    }

    pub fn app(&self) -> &App {
        self.app.as_ref().unwrap()
    }

    /// The next server, in the place of one that ends in order or is dead; its block jobs go at this rate.
    pub fn restart(&mut self, rate: u64) {
        let app = self.app.take().unwrap();
        app.core.stop(PATIENCE);
        let App { mut site, core, .. } = app;
        drop(core);
        site.hypervisor = self.ground.hypervisor(rate);
        self.app = Some(site.start());
    }

    /// Off, with a copy of the golden image and an empty raw disk.
    pub fn vm(&self, name: &str) -> VmId {
        let size = MiB(128);
        let wish = self.app().vm_of(HERE, Some(self.template), name);
        let vm = self.app().run(CreateVm { memory: size, maxmem: size, extra_disk_size: None, ..wish }).unwrap();
        let (format, desc) = (Some(Format::Raw), String::new());
        self.app().run(CreateDisk { vm, storlink: HERE, size: EXTRA, format, desc }).unwrap();
        vm
    }

    /// Where the numbers of these disks are.
    pub fn counters(&self, disks: &[Disk]) -> Vec<Counter> {
        disks.iter().map(|disk| counter(&self.app().path(disk), disk.order)).collect()
    }

    /// What the VM counts on, as its rows say.
    pub fn disks(&self, vm: VmId) -> Vec<Counter> {
        self.counters(&self.app().disks(vm))
    }

    /// The image that the VM boots from.
    fn system(&self, vm: VmId) -> PathBuf {
        self.app().path(&self.app().disks(vm)[0])
    }

    /// Starts it, for the n-th time in the eyes of its guest, and waits until that counts.
    pub fn boot(&self, vm: VmId, n: u64) {
        wait_until("it starts", || match self.app().run(StartVm { vm }) {
            Err(late) if is_too_slow(&late) => Err(late),
            done => done.map(|()| true).map_err(|why| panic!("{why}")),
        });
        self.until_up(vm, n);
    }

    pub fn until_up(&self, vm: VmId, n: u64) {
        until_booted(&self.system(vm), Format::Qcow2, n);
        self.counts_on(vm);
    }

    /// The guest writes to all images that its rows name, and has lost nothing of what it wrote to them before; a number that
    /// it has written.
    pub fn counts_on(&self, vm: VmId) -> u64 {
        let disks = self.disks(vm);
        let mut last = disks[0].until_past(0);
        for disk in &disks {
            last = disk.until_past(last);
            wait_until("the first number", || Ok(disk.so_far().is_some_and(|count| count.first == 1)));
        }
        last
    }

    /// How often its guest has booted. It lives.
    pub fn boots(&self, vm: VmId) -> u64 {
        next_beat(&self.system(vm), Format::Qcow2, SYSTEM).boots
    }

    /// See [`whole::assert_whole`].
    pub fn assert_whole(&self, leaks: Leaks) -> u64 {
        whole::assert_whole(&self.app().store(), &*self.ground, leaks)
    }

    pub fn last_task(&self) -> Task {
        self.app().store().read(|c| tasks::recent(c, 1)).unwrap().remove(0)
    }
}

/// Where the numbers are on an image of a VM's disk.
pub fn counter(image: &Path, order: u32) -> Counter {
    let format = image.extension().unwrap().to_str().unwrap().parse().unwrap();
    if order == 0 { Counter::system(image, format) } else { Counter::extra(image, format) }
}

/// What disks hold that nobody writes to: all numbers from the first on, of one moment.
#[track_caller]
pub fn whole_count(disks: &[Counter]) -> Vec<Count> {
    let counts = at_one_moment(disks).unwrap_or_else(|why| panic!("{why}"));
    assert!(counts.iter().all(|count| count.first == 1), "{disks:?}");
    counts
}

/// Of what qemu-io has in its memory at once.
const PIECE: u64 = 64;

/// Puts so many MiB of a byte into an image that nobody uses, behind all numbers.
pub fn fill(image: &Path, format: Format, mib: u64, byte: u8) {
    in_pieces(&["-f", format.word()], "write", mib, byte, image);
}

/// What was so put is there.
pub fn assert_filled(image: &Path, format: Format, mib: u64, byte: u8) {
    in_pieces(&["-r", "-U", "-f", format.word()], "read", mib, byte, image);
}

fn in_pieces(args: &[&str], verb: &str, mib: u64, byte: u8, image: &Path) {
    for from in (0..mib).step_by(PIECE as usize) {
        let piece = format!("{verb} -q -P {byte} {}M {}M", 64 + from, PIECE.min(mib - from));
        qemu_io(&[args, &["-c", &piece]].concat(), image);
    }
}

fn qemu_io(args: &[&str], image: &Path) {
    let done = Command::new("qemu-io").args(args).arg(image).output().unwrap();
    // It says so if it reads something else.
    assert!(done.status.success() && done.stdout.is_empty(), "{args:?} {}: {done:?}", image.display());
}
