//! Block jobs of a real libvirt: what is around them dies, hangs, fills up or lies.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use pengx::hypervisor::BlockJob;
use pengx::model::Layer;
use rustix::process::Signal;

use super::libvirt::{Stopped, domain_name, impatient, is_unavailable, kill, patiently};
use super::*;
use crate::harness::small::SmallDisk;
use crate::harness::tool::qemu_img;
use crate::harness::wait::wait_until;

/// Every file that a process has open.
fn open_files(pid: i32) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    entries.filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect()
}

/// What its header says that it is on, and nothing else of it.
fn lie(image: &Layer, about: &Layer) {
    let (image, about) = (file(image).to_str().unwrap(), file(about).to_str().unwrap());
    qemu_img(&["rebase", "-u", "-f", "qcow2", "-b", about, "-F", "qcow2", image]);
}

#[test]
fn what_a_header_says_is_not_followed() {
    let bench = Bench::libvirt();
    let foreign = bench.blank(Format::Qcow2);
    put(&foreign, 3, 9);
    let (chain, plugged, raw) = (bench.stack(3), bench.stack(2), bench.stack(1));
    // A guest may write anything to a disk of its own, also what looks like a header.
    let disguised = bench.overlay_on(&foreign);
    std::fs::copy(file(&disguised), file(&raw[0])).unwrap();
    std::fs::File::options().write(true).open(file(&raw[0])).unwrap().set_len(16 << 20).unwrap();
    [&chain[0], &chain[1], &plugged[0]].into_iter().for_each(|image| lie(image, &foreign));
    let spec = spec_on(&[&chain, &raw]);
    let vm = bench.vm_with(&spec);
    vm.start(Start::Paused);
    let pid = Libvirtd::shared().guest_pid(&domain_name(&vm));
    let assert_not_opened = |opened: &[&Layer]| {
        let files = open_files(pid);
        assert!(opened.iter().all(|image| files.iter().any(|open| open == file(image))), "{files:?}");
        assert!(files.iter().all(|open| open != file(&foreign)), "{files:?}");
    };
    assert_not_opened(&[&chain[0], &chain[1], &chain[2], &raw[0]]);
    bench.hypervisor.attach_disk(vm.id, &disk_on(2, &plugged)).unwrap();
    assert_not_opened(&[&plugged[0], &plugged[1]]);
    vm.assert_chain(2, &plugged);

    let overlay = bench.overlay_on(&plugged[0]);
    lie(&overlay, &foreign);
    bench.hypervisor.overlay_disks(vm.id, &[disk_on(2, &with(&overlay, &plugged))]).unwrap();
    assert_not_opened(&[&overlay]);
    vm.assert_chain(2, &with(&overlay, &plugged));

    let to = bench.blank(Format::Qcow2);
    lie(&to, &foreign);
    bench.hypervisor.start_block_job(vm.id, 0, &mirror(&to)).unwrap();
    vm.until_ready(0);
    assert_not_opened(&[&to]);
    bench.hypervisor.pivot(vm.id, 0).unwrap();
    vm.assert_chain(0, std::slice::from_ref(&to));
    assert_not_opened(&[&to]);
    // What is missing cannot have been looked into.
    bench.hypervisor.destroy(vm.id).unwrap();
    std::fs::remove_file(file(&foreign)).unwrap();
    bench.hypervisor.define(&spec).unwrap();
    vm.start(Start::Paused);
    vm.assert_chain(0, &chain);
}

/// Each kind of job on this chain of three, and one that has somewhere to go to.
fn jobs(chain: &[Layer], to: &Layer) -> [BlockJob; 3] {
    [mirror(to), commit(&chain[0], &chain[1]), commit(&chain[1], &chain[2])]
}

/// The chain that the guest is on after the job.
fn after(job: &BlockJob, chain: &[Layer]) -> Vec<Layer> {
    match job {
        BlockJob::Mirror { to } => vec![to.clone()],
        BlockJob::Commit { top, .. } => chain.iter().filter(|layer| layer.source != *top).cloned().collect(),
    }
}

/// Images whose user was killed: nothing is lost, though some space may be.
#[track_caller]
fn assert_survived(chain: &[Layer]) {
    assert_eq!(units(&chain[0]), [1, 2, 3, 0]);
    for (n, image) in chain.iter().enumerate().filter(|(_, image)| image.format == Format::Qcow2) {
        assert_on(image, chain.get(n + 1));
        let check = std::process::Command::new("qemu-img").args(["check", "-f", "qcow2"]).arg(file(image)).output();
        let check = check.unwrap();
        assert!([Some(0), Some(3)].contains(&check.status.code()), "{}", String::from_utf8_lossy(&check.stdout));
    }
}

/// Lets the job come to its end, with its effect.
fn finish(vm: &Vm<'_>, job: &BlockJob, chain: &[Layer]) {
    if job_needs_pivot(job, chain) {
        vm.until_ready(0);
        vm.hypervisor.pivot(vm.id, 0).unwrap();
    } else {
        vm.until_over(0);
    }
    vm.assert_chain(0, &after(job, chain));
}

pub(super) fn job_needs_pivot(job: &BlockJob, chain: &[Layer]) -> bool {
    match job {
        BlockJob::Mirror { .. } => true,
        BlockJob::Commit { top, .. } => *top == chain[0].source,
    }
}

#[test]
fn a_guest_that_is_killed_in_the_middle_of_a_job_loses_nothing() {
    let bench = Bench::libvirt();
    let slow = bench.slow();
    for n in 0..3 {
        let (chain, to) = (bench.stack(3), bench.blank(Format::Qcow2));
        let vm = bench.vm_with(&spec_on(&[&chain]));
        let job = &jobs(&chain, &to)[n];
        let readiness: &[bool] = if job_needs_pivot(job, &chain) { &[false, true] } else { &[false] };
        for ready in readiness {
            vm.start(Start::Paused);
            slow.start_block_job(vm.id, 0, job).unwrap();
            if *ready {
                bench.let_go(&vm, "vda");
                vm.until_ready(0);
            } else {
                vm.assert_halfway(0);
            }
            let bell = Bell::on(&*bench.hypervisor);
            kill(Libvirtd::shared().guest_pid(&domain_name(&vm)), Signal::KILL);
            bell.until("the guest died", || vm.state() == PowerState::Crashed);
            wrong_state(bench.hypervisor.block_job(vm.id, 0).map(drop));
            wrong_state(bench.hypervisor.pivot(vm.id, 0));
            bench.hypervisor.abort_block_job(vm.id, 0).unwrap();
            assert_survived(&chain);
        }
        // What was moved so far does not stand in the way of doing it again.
        let to = bench.blank(Format::Raw);
        let again = if matches!(job, BlockJob::Mirror { .. }) { mirror(&to) } else { job.clone() };
        vm.start(Start::Paused);
        vm.assert_chain(0, &chain);
        bench.hypervisor.start_block_job(vm.id, 0, &again).unwrap();
        finish(&vm, &again, &chain);
        bench.hypervisor.destroy(vm.id).unwrap();
        assert_survived(&after(&again, &chain));
    }
}

/// Two hypervisors over a libvirtd that may be killed, the second with slow jobs.
fn disturbed(libvirtd: &Libvirtd) -> (Bench, LibvirtHypervisor) {
    (Bench::new(Arc::new(connect(&libvirtd.uri))), connect_slowly(&libvirtd.uri))
}

#[test]
fn a_job_outlives_libvirtd_and_can_be_ended_either_way() {
    let libvirtd = Libvirtd::disturbed();
    let (bench, slow) = disturbed(&libvirtd);
    let guests: Vec<_> = (0..6).map(|n| (n, bench.stack(3), bench.blank(Format::Qcow2))).collect();
    let vms: Vec<_> = guests.iter().map(|(_, chain, _)| bench.vm_with(&spec_on(&[chain]))).collect();
    for (vm, (n, chain, to)) in vms.iter().zip(&guests) {
        vm.start(Start::Paused);
        slow.start_block_job(vm.id, 0, &jobs(chain, to)[n % 3]).unwrap();
        vm.assert_halfway(0);
    }
    kill(libvirtd.pid(), Signal::KILL);
    libvirtd.restart();
    for (vm, (n, chain, to)) in vms.iter().zip(&guests) {
        let job = &jobs(chain, to)[n % 3];
        let seen = patiently(|| bench.hypervisor.block_job(vm.id, 0)).expect("a job");
        assert!(!seen.ready && seen.done < seen.total, "{seen:?}");
        patiently(|| bench.hypervisor.chain(vm.id, 0));
        vm.assert_chain(0, chain);
        wrong_state(bench.hypervisor.start_block_job(vm.id, 0, &mirror(to)));
        let now = if *n < 3 {
            libvirtd.virsh(&["blockjob", &domain_name(vm), "vda", "--bandwidth", "0"]);
            finish(vm, job, chain);
            after(job, chain)
        } else {
            bench.hypervisor.abort_block_job(vm.id, 0).unwrap();
            vm.assert_chain(0, chain);
            chain.clone()
        };
        bench.hypervisor.destroy(vm.id).unwrap();
        assert_survived(&now);
    }
}

/// QEMU's own monitor, which is libvirtd's while there is one.
struct Monitor(BufReader<UnixStream>);

impl Monitor {
    fn of(libvirtd: &Libvirtd, vm: &Vm<'_>) -> Self {
        let stream = UnixStream::connect(libvirtd.monitor(&domain_name(vm))).unwrap();
        stream.set_read_timeout(Some(NEVER)).unwrap();
        let mut monitor = Self(BufReader::new(stream));
        monitor.ask(r#"{"execute": "qmp_capabilities"}"#);
        monitor
    }

    /// The answer; events are passed over.
    fn ask(&mut self, command: &str) -> String {
        self.0.get_mut().write_all(command.as_bytes()).unwrap();
        loop {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "QEMU has closed its monitor");
            if line.starts_with(r#"{"return""#) {
                return line;
            }
            assert!(!line.starts_with(r#"{"error""#), "{command}: {line}");
        }
    }

    fn jobs(&mut self) -> String {
        self.ask(r#"{"execute": "query-block-jobs"}"#)
    }

    /// Lets the one job go as fast as it can, and waits until it has nothing more to do.
    fn let_go(&mut self) {
        let jobs = self.jobs();
        let device = jobs.split(r#""device": ""#).nth(1).and_then(|rest| rest.split('"').next()).expect("a job");
        let speed =
            format!(r#"{{"execute": "block-job-set-speed", "arguments": {{"device": "{device}", "speed": 0}}}}"#);
        self.ask(&speed);
        wait_until("QEMU has done its job", || {
            let jobs = self.jobs();
            Ok(jobs.contains(r#""ready": true"#) || jobs.contains(r#""status": "concluded""#))
        });
    }
}

#[test]
fn what_a_job_came_to_while_libvirtd_was_away_is_known() {
    let libvirtd = Libvirtd::disturbed();
    let (bench, slow) = disturbed(&libvirtd);
    let guests: Vec<_> = (0..3).map(|n| (n, bench.stack(3), bench.blank(Format::Qcow2))).collect();
    let vms: Vec<_> = guests.iter().map(|(_, chain, _)| bench.vm_with(&spec_on(&[chain]))).collect();
    for (vm, (n, chain, to)) in vms.iter().zip(&guests) {
        vm.start(Start::Paused);
        slow.start_block_job(vm.id, 0, &jobs(chain, to)[*n]).unwrap();
    }
    kill(libvirtd.pid(), Signal::KILL);
    wait_until("nobody else has the monitors", || Ok(is_unavailable(&bench.hypervisor.info())));
    for vm in &vms {
        Monitor::of(&libvirtd, vm).let_go();
    }
    libvirtd.restart();
    for (vm, (n, chain, to)) in vms.iter().zip(&guests) {
        let job = &jobs(chain, to)[*n];
        patiently(|| bench.hypervisor.chain(vm.id, 0));
        patiently(|| bench.hypervisor.block_job(vm.id, 0));
        finish(vm, job, chain);
        bench.hypervisor.destroy(vm.id).unwrap();
        assert_survived(&after(job, chain));
    }
}

/// The guest itself is paused here; `moved.rs` has one that goes on.
#[test]
fn a_job_that_runs_out_of_space_is_gone_and_has_changed_nothing() {
    // Less than a unit needs.
    let small = SmallDisk::mount("2m");
    // It has a view of its own of what is mounted, from before it began.
    let libvirtd = Libvirtd::start("full");
    let bench = Bench::new(Arc::new(connect(&libvirtd.uri)));
    let mut vms = Vec::new();
    // To a mirror; down into a base, from the leaf and from the middle.
    for format in [Format::Raw, Format::Qcow2] {
        let chain = bench.stack(3);
        vms.push((mirror(&bench.blank_in(small.path(), format)), chain));
    }
    for tops in [1, 2] {
        let mut chain = vec![bench.blank_in(small.path(), Format::Qcow2)];
        for n in 0..tops {
            let over = bench.overlay_on(&chain[0]);
            put(&over, n, n as u8 + 1);
            chain.insert(0, over);
        }
        vms.push((commit(&chain[tops - 1], &chain[tops]), chain));
    }

    for (job, chain) in &vms {
        let before = units(&chain[0]);
        let vm = bench.vm_with(&spec_on(&[chain]));
        vm.start(Start::Paused);
        bench.hypervisor.start_block_job(vm.id, 0, job).unwrap();
        vm.until_over(0);
        vm.assert_chain(0, chain);
        assert_eq!(vm.state(), PowerState::Paused);
        wrong_state(bench.hypervisor.pivot(vm.id, 0));
        bench.hypervisor.destroy(vm.id).unwrap();
        assert_eq!(units(&chain[0]), before, "{job:?}");
        for (n, image) in chain.iter().enumerate().filter(|(_, image)| image.format == Format::Qcow2) {
            assert_on(image, chain.get(n + 1));
        }
        // What it wrote so far is in the way of the next one.
        if let BlockJob::Mirror { to } = job {
            std::fs::remove_file(file(to)).unwrap();
        }
    }
}

#[test]
fn a_hung_guest_holds_up_nobody_who_looks_or_moves_others() {
    let libvirtd = Libvirtd::disturbed();
    let bench = impatient(&libvirtd);
    let slow = connect_slowly(&libvirtd.uri);
    let hypervisor = &bench.hypervisor;
    let (chain, other_chain, to) = (bench.stack(2), bench.stack(2), bench.blank(Format::Raw));
    let (vm, other) = (bench.vm_with(&spec_on(&[&chain])), bench.vm_with(&spec_on(&[&other_chain])));
    vm.start(Start::Paused);
    other.start(Start::Paused);
    slow.start_block_job(vm.id, 0, &mirror(&to)).unwrap();
    let hung = Stopped::new(libvirtd.guest_pid(&domain_name(&vm)));
    assert!(is_unavailable(&hypervisor.block_job(vm.id, 0)));
    assert!(is_unavailable(&hypervisor.abort_block_job(vm.id, 0)));
    // What libvirt itself knows it tells at once, and again and again.
    for _ in 0..10 {
        assert_eq!(patiently(|| hypervisor.chain(vm.id, 0)), sources(&chain));
        assert_eq!(patiently(|| hypervisor.domains()).len(), 2);
    }
    let done_before = |done: Result<()>| match done {
        Err(error) if matches!(error.kind(), ErrorKind::WrongState { .. }) => Ok(()),
        other => other,
    };
    let job = commit(&other_chain[0], &other_chain[1]);
    patiently(|| done_before(hypervisor.start_block_job(other.id, 0, &job)));
    wait_until("the other job is ready", || Ok(patiently(|| hypervisor.block_job(other.id, 0)).unwrap().ready));
    patiently(|| done_before(hypervisor.pivot(other.id, 0)));
    assert_eq!(patiently(|| hypervisor.chain(other.id, 0)), sources(&other_chain[1..]));
    drop(hung);
    // It may have heard that it shall end the job.
    patiently(|| hypervisor.abort_block_job(vm.id, 0));
    assert_eq!(patiently(|| hypervisor.block_job(vm.id, 0)), None);
    assert_eq!(patiently(|| hypervisor.chain(vm.id, 0)), sources(&chain));
}
