//! A guest that counts on its disks is in the middle of its move when something dies or fills up: it runs on from where it
//! was, or starts again from there, and no number is missing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pengx::error::Result;
use pengx::hypervisor::{BlockJob, DomainType, FakeHypervisor, LibvirtHypervisor, LibvirtOptions};
use pengx::model::*;
use pengx::operations::template::AddTemplate;
use pengx::operations::vm::{CreateVm, DeleteVm, PoweroffVm, SmigrateVm, StartVm};
use pengx::store::tasks;
use pengx::tasks::Fate;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::app::{App, Site};
use crate::harness::counters::{Counter, at_one_moment};
use crate::harness::guest::{golden, until_booted};
use crate::harness::images::text;
use crate::harness::libvirt::Libvirtd;
use crate::harness::wait::{PATIENCE, wait_until};

/// So many bytes a second: nothing is moved before a test lets it.
const SLOW: u64 = 1 << 14;

struct Scene {
    libvirtd: Libvirtd,
    small: Small,
    vm: VmId,
}

/// A storage of 256 MiB, for as long as this lives. A libvirtd that was started before does not see it.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap();
        tool("mount", &["-t", "tmpfs", "-o", "size=256m", "none", text(dir.path())]);
        Self(dir)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        tool("umount", &["-l", text(self.0.path())]);
    }
}

fn tool(program: &str, args: &[&str]) {
    let done = std::process::Command::new(program).args(args).output().unwrap();
    assert!(done.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A guest that has booted on the first of two storlinks, and whose disks move slowly.
fn counting(name: &str) -> (Scene, App) {
    let small = Small::mount();
    let libvirtd = Libvirtd::start(name);
    let options = LibvirtOptions {
        call_timeout: PATIENCE,
        power_timeout: PATIENCE * 2,
        block_timeout: PATIENCE * 2,
        block_rate: SLOW,
        domain_type: DomainType::Qemu,
        ..LibvirtOptions::default()
    };
    let libvirt = LibvirtHypervisor::new(&libvirtd.uri, options).unwrap();
    let app = Site::on(Arc::new(libvirt), FakeHypervisor::new()).start();
    let storlink = app.storlink();
    app.second_storlink();
    let disk = DiskId(uuid::Uuid::from_u128(0x601d));
    std::fs::copy(golden(), app.site.store_dir().join(VolumeName::new(disk, Format::Qcow2).as_str())).unwrap();
    let (name, desc) = ("golden".parse().unwrap(), String::new());
    let (os, os_arch, format) = (Os::Other, OsArch::X64, Format::Qcow2);
    let template = app.run(AddTemplate { name, os, os_arch, desc, storlink, disk, format }).unwrap();
    let (size, extra_disk_size) = (MiB(128), Some(MiB(32)));
    let wish = app.vm_of(storlink, Some(template), "web1");
    let vm = app.run(CreateVm { memory: size, maxmem: size, extra_disk_size, ..wish }).unwrap();
    app.run(StartVm { vm }).unwrap();
    let scene = Scene { libvirtd, small, vm };
    scene.counts_past(&app, 100);
    (scene, app)
}

impl Scene {
    fn images(&self, app: &App) -> Vec<PathBuf> {
        app.disks(self.vm).iter().map(|disk| app.path(disk)).collect()
    }

    fn counters(&self, app: &App) -> Vec<Counter> {
        let images = self.images(app);
        vec![Counter::system(&images[0], Format::Qcow2), Counter::extra(&images[1], Format::Qcow2)]
    }

    fn counts_past(&self, app: &App, number: u64) -> u64 {
        let lasts: Vec<u64> = self.counters(app).iter().map(|disk| disk.until_past(number)).collect();
        lasts[0]
    }

    /// Its jobs run at full speed from now on. One that is gone needs it no more.
    fn let_go(&self) {
        for disk in ["vda", "vdb"] {
            let args = ["-q", "-c", &self.libvirtd.uri, "blockjob", &self.vm.to_string(), disk, "--bandwidth", "0"];
            drop(std::process::Command::new("virsh").args(args).output().unwrap());
        }
    }

    /// Moves, while `disaster` strikes in the middle.
    fn moves(&self, app: &App, storlink: StorlinkId, disaster: impl FnOnce()) -> Result<()> {
        std::thread::scope(|scope| {
            let moving = scope.spawn(|| app.run(SmigrateVm { vm: self.vm, storlink }));
            let copied = || app.site.hypervisor.block_job(self.vm, 1).ok().flatten().is_some();
            wait_until("it is copied, or will not be", || Ok(moving.is_finished() || copied()));
            if !moving.is_finished() {
                disaster();
            }
            moving.join().unwrap()
        })
    }

    /// Whatever came between, it is on the first storlink and writes on there; nothing of the move is left.
    fn is_where_it_was(&self, app: &App) {
        app.assert_at_rest();
        assert!(app.disks(self.vm).iter().all(|disk| disk.storlink == StorlinkId(1)));
        assert_eq!(std::fs::read_dir(app.site.second_dir()).unwrap().count(), 0);
        let now = self.counts_past(app, 0);
        self.counts_past(app, now + 20);
    }
}

/// Its QEMU lives through it.
#[test]
fn a_move_may_be_given_up_any_number_of_times() {
    let (scene, app) = counting("given-up");
    let vm = scene.vm;
    for n in 0..120 {
        let order = n % 2;
        let file = app.site.second_dir().join("to.qcow2");
        let size = app.disks(vm)[order].size;
        tool("qemu-img", &["create", "-q", "-f", "qcow2", text(&file), &format!("{size}M")]);
        let to = Layer { source: VolumeSource::File(file.clone()), format: Format::Qcow2 };
        let order = u32::try_from(order).unwrap();
        app.site.hypervisor.start_block_job(vm, order, &BlockJob::Mirror { to }).unwrap();
        // Another number of writes of the guest comes in between each time.
        std::thread::sleep(Duration::from_millis(n as u64 * 37 % 300));
        app.site.hypervisor.abort_block_job(vm, order).unwrap();
        std::fs::remove_file(file).unwrap();
    }
    scene.is_where_it_was(&app);
}

#[test]
fn a_move_that_is_cut_off_in_the_middle_loses_nothing() {
    let (scene, app) = counting("cut");
    let vm = scene.vm;

    // The server dies while its guest is copied, and the guest goes on.
    app.fuse.arm(&[]);
    let started = started(&app, vm);
    app.fuse.arm(&[(started, Fate::Die)]);
    app.run(SmigrateVm { vm, storlink: StorlinkId(2) }).unwrap_err();
    let jobs = [0, 1].map(|order| app.site.hypervisor.block_job(vm, order).unwrap());
    assert!(jobs.iter().all(Option::is_some), "{jobs:?}");
    let app = app.restart();
    scene.is_where_it_was(&app);

    // libvirtd dies, and comes back. The move may outlive it.
    let outcome = scene.moves(&app, StorlinkId(2), || {
        scene.libvirtd.restart();
        scene.let_go();
    });
    app.assert_at_rest();
    if outcome.is_ok() {
        scene.moves(&app, StorlinkId(1), || scene.let_go()).unwrap();
    }
    println!("a move during which libvirtd died: {outcome:?}");
    scene.is_where_it_was(&app);

    // The storage that it moves to fills up.
    let small = scene.small.0.path();
    let third = app.storlink_at("small", small);
    let full = scene.moves(&app, third, || {
        let ballast = std::fs::File::create(small.join("ballast")).unwrap();
        let mut at = 0;
        while rustix::fs::fallocate(&ballast, rustix::fs::FallocateFlags::empty(), at, 64 << 10).is_ok() {
            at += 64 << 10;
        }
        scene.let_go();
    });
    let says = full.unwrap_err().to_string();
    assert!(says.contains("of vm web1 to storlink small ended early; 0 MiB are free there"), "{says}");
    scene.is_where_it_was(&app);
    assert_eq!(std::fs::read_dir(small).unwrap().count(), 1, "the ballast");
    until_booted(&scene.images(&app)[0], Format::Qcow2, 1);

    // Its QEMU dies.
    let pid = scene.libvirtd.guest_pid(&format!("pengx-{vm}"));
    let killed = scene.moves(&app, StorlinkId(2), || kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap());
    let says = killed.unwrap_err().to_string();
    app.assert_at_rest();
    println!("a move during which QEMU died: {says}");
    assert!(app.disks(vm).iter().all(|disk| disk.storlink == StorlinkId(1)));
    let counts = at_one_moment(&scene.counters(&app)).unwrap();
    assert!(counts.iter().all(|count| count.first == 1 && count.filled_in() == 0), "{counts:?}");

    // It starts from there, and moves at last.
    wait_until("its death is known", || Ok(!state(&app, vm).is_active()));
    app.run(StartVm { vm }).unwrap();
    until_booted(&scene.images(&app)[0], Format::Qcow2, 2);
    let before = scene.counts_past(&app, counts[0].last + 20);
    scene.moves(&app, StorlinkId(2), || scene.let_go()).unwrap();
    assert!(app.disks(vm).iter().all(|disk| disk.storlink == StorlinkId(2)));
    scene.counts_past(&app, before + 20);
    app.run(PoweroffVm { vm }).unwrap();
    at_one_moment(&scene.counters(&app)).unwrap();
    app.run(DeleteVm { vm }).unwrap();
    app.assert_at_rest();
    assert_eq!(std::fs::read_dir(app.site.second_dir()).unwrap().count(), 0);
}

/// The number of the point right after the last copy has begun.
fn started(app: &App, vm: VmId) -> usize {
    let count = app.disks(vm).len();
    // Begin; then for each disk its volume and its job, three points each.
    1 + 3 * 2 * count
}

fn state(app: &App, vm: VmId) -> PowerState {
    app.site.hypervisor.domain(vm).unwrap().map_or(PowerState::Shutdown, |domain| domain.state)
}

/// A guest that lives through a copy and through a move that fail, or whose server dies, at one point after the other.
#[test]
fn a_living_guest_outlives_every_failure_of_its_copies_and_moves() {
    let (scene, mut app) = counting("outlives");
    let vm = scene.vm;
    let every = if std::env::var_os("PENGX_TEST_LONG").is_some() { 1 } else { 5 };
    let mut points = 0;
    for fate in [Fate::Fail, Fate::Die] {
        let mut n = 1;
        loop {
            app.fuse.arm(&[(n, fate)]);
            let to = if app.disks(vm)[0].storlink == StorlinkId(1) { StorlinkId(2) } else { StorlinkId(1) };
            let outcome = std::thread::scope(|scope| {
                let moving = scope.spawn(|| app.run(SmigrateVm { vm, storlink: to }));
                while !moving.is_finished() {
                    scene.let_go();
                }
                moving.join().unwrap()
            });
            let broken = app.fuse.blown.load(std::sync::atomic::Ordering::SeqCst);
            app.fuse.arm(&[]);
            if fate == Fate::Die {
                app = app.restart();
            }
            app.assert_at_rest();
            let last = app.store().read(|c| tasks::recent(c, 1)).unwrap().remove(0);
            let case = format!("{fate:?} at point {n}: {} ({})", last.state, last.message);
            assert_eq!(state(&app, vm), PowerState::Running, "{case}");
            // Its guest is on the disks that its rows name, and there are no others.
            let images = scene.images(&app);
            for (order, image) in (0..).zip(&images) {
                let on = app.site.hypervisor.chain(vm, order).unwrap();
                assert_eq!(on, [VolumeSource::File(image.clone())], "{case}");
            }
            let files = |dir: PathBuf| std::fs::read_dir(dir).unwrap().count();
            // The template's image is there, too.
            assert_eq!(files(app.site.store_dir()) + files(app.site.second_dir()), 3, "{case}");
            let now = scene.counts_past(&app, 0);
            scene.counts_past(&app, now + 2);
            if !broken {
                outcome.unwrap();
                break;
            }
            points += 1;
            n += every;
        }
    }
    println!("a counting guest outlived {points} moves that were broken");
    assert!(points >= 8);
    until_booted(&scene.images(&app)[0], Format::Qcow2, 1);
    app.run(PoweroffVm { vm }).unwrap();
    let counts = at_one_moment(&scene.counters(&app)).unwrap();
    assert!(counts.iter().all(|count| count.first == 1 && count.filled_in() == 0), "{counts:?}");
}
