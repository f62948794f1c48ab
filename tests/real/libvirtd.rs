//! libvirtd hangs, dies and comes back in the middle of things.

use std::sync::Barrier;
use std::time::Duration;

use pengx::model::{PowerState, TaskState};
use rustix::process::{Pid, Signal, kill_process};

use super::paused::Paused;
use super::{add_storlink, empty_vm, press, status};
use crate::harness::http::Served;
use crate::harness::libvirt::Libvirtd;
use crate::harness::server::{Place, Program};
use crate::harness::wait::wait_until;

fn send(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// libvirtd takes connections and answers nothing, until this is dropped.
struct Hung(i32);

impl Hung {
    fn new(libvirtd: &Libvirtd) -> Self {
        send(libvirtd.pid(), Signal::STOP);
        Self(libvirtd.pid())
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        send(self.0, Signal::CONT);
    }
}

#[test]
fn a_start_during_which_libvirtd_hangs_is_answered_and_undone() {
    let libvirtd = Libvirtd::disturbed();
    let hypervisor = Paused::new(&libvirtd.uri, Duration::from_secs(2), Duration::from_secs(3), Duration::from_secs(3));
    let app = hypervisor.clone().site().start();
    let storlink = app.storlink();
    let vm = app.run(app.vm_of(storlink, None, "web1")).unwrap();
    let served = Served::new(&app.core);
    let pid = libvirtd.pid();
    *hypervisor.before_start.lock().unwrap() = Some(Box::new(move || send(pid, Signal::STOP)));
    let hung = Hung(pid);
    let answer = served.post(&format!("/vms/{vm}/start/"), "");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.message().contains("libvirt") && answer.message().contains("does not answer"), "{answer:?}");
    wait_until("nobody pretends to know", || Ok(served.get("/vms/").element("status") == "UNKNOWN"));
    assert_eq!(served.get(&format!("/vms/{vm}/")).element("status"), "UNKNOWN");
    drop(hung);
    app.assert_at_rest();
    // Nobody waited for the start any more, so it did not begin: libvirt has never seen this domain run.
    assert_eq!(libvirtd.virsh(&["domstate", "--reason", &vm.to_string()]).trim(), "shut off (unknown)");
    let task = app.store().read(|c| pengx::store::tasks::recent(c, 1)).unwrap().remove(0);
    assert_eq!(task.state, TaskState::Failure);
    wait_until("the VM is as it was", || Ok(served.get("/vms/").element("status") == "SHUTDOWN"));
    assert_eq!(app.site.hypervisor.domain(vm).unwrap().map(|d| d.state), Some(PowerState::Shutdown));
    app.run(pengx::operations::vm::StartVm { vm }).unwrap();
    app.run(pengx::operations::vm::PoweroffVm { vm }).unwrap();
    app.run(pengx::operations::vm::DeleteVm { vm }).unwrap();
    app.assert_at_rest();
}

/// Reads go on; they say a state that libvirt has said, or that there is none to be had.
fn assert_reads(server: &Program, vm: &str, known: &str) {
    for state in [status(server, vm), server.get("/vms/").element("status").to_owned()] {
        assert!(state == known || state == "UNKNOWN", "{state}");
    }
    for uri in ["/storlinks/", "/templates/", "/pms/", "/tasks/"] {
        assert_eq!(server.get(uri).status, 200, "{uri}");
    }
}

#[test]
fn operations_end_properly_whatever_libvirtd_does() {
    let libvirtd = Libvirtd::disturbed();
    let place = Place::new(&libvirtd.uri, "shutdown_timeout = 100");
    let server = place.serve();
    add_storlink(&server, &place);
    let vm = empty_vm(&server, "web1");

    // It hangs: every change is refused in time, and nothing has happened.
    let hung = Hung::new(&libvirtd);
    for _ in 0..2 {
        let answer = press(&server, &vm, "start");
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_reads(&server, &vm, "SHUTDOWN");
    }
    let answer = server.delete(&format!("/vms/{vm}/"));
    assert_eq!(answer.status, 503, "{answer:?}");
    drop(hung);
    place.assert_at_rest();
    wait_until("libvirt is known to answer", || Ok(status(&server, &vm) == "SHUTDOWN"));
    assert_eq!(press(&server, &vm, "start").status, 200);
    assert_eq!(status(&server, &vm), "RUNNING");

    // It dies between two calls: guests run on, and the next server of libvirt is found.
    send(libvirtd.pid(), Signal::KILL);
    assert_reads(&server, &vm, "RUNNING");
    wait_until("it is gone", || Ok(press(&server, &vm, "poweroff").status == 503));
    assert_reads(&server, &vm, "RUNNING");
    libvirtd.restart();
    wait_until("the guest is known again", || Ok(status(&server, &vm) == "RUNNING"));
    assert_eq!(press(&server, &vm, "start").status, 400);

    // It restarts while a shutdown waits for a guest that does not listen; then the guest is off after all.
    std::thread::scope(|scope| {
        let shutdown = scope.spawn(|| press(&server, &vm, "shutdown"));
        wait_until("the shutdown runs", || {
            let task = place.last_task();
            Ok(task.kind == pengx::model::TaskKind::VmShutdown && task.state == TaskState::Running)
        });
        libvirtd.restart();
        assert_reads(&server, &vm, "RUNNING");
        libvirtd.virsh(&["destroy", &vm]);
        let answer = shutdown.join().unwrap();
        // A request that falls into the gap is an answer, too: nobody knows whether the guest has heard it.
        assert!([200, 503].contains(&answer.status), "{answer:?}");
    });
    wait_until("the VM is off", || Ok(status(&server, &vm) == "SHUTDOWN"));
    assert_eq!(server.delete(&format!("/vms/{vm}/")).status, 204);
    place.assert_at_rest();
    assert!(place.files().is_empty());
}

#[test]
fn a_vm_that_is_started_twice_at_once_runs_once() {
    let libvirtd = Libvirtd::start("twice");
    let place = Place::new(&libvirtd.uri, "");
    let server = place.serve();
    add_storlink(&server, &place);
    let vm = empty_vm(&server, "web1");
    for _ in 0..3 {
        let together = Barrier::new(2);
        let start = || {
            together.wait();
            press(&server, &vm, "start")
        };
        let mut answers = std::thread::scope(|scope| {
            let both = [scope.spawn(start), scope.spawn(start)];
            both.map(|one| one.join().unwrap())
        });
        answers.sort_by_key(|answer| answer.status);
        assert_eq!(answers.each_ref().map(|answer| answer.status), [200, 400], "{answers:?}");
        let why = answers[1].message();
        assert!(why.contains("it is started already") || why.contains("busy"), "{why}");
        assert_eq!(qemus(&vm), 1);
        assert_eq!(press(&server, &vm, "poweroff").status, 200);
        wait_until("its QEMU is gone", || Ok(qemus(&vm) == 0));
    }
    assert_eq!(server.delete(&format!("/vms/{vm}/")).status, 204);
    place.assert_at_rest();
}

/// Processes that run a VM.
fn qemus(vm: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.starts_with("/usr/bin/qemu-system") && line.contains(vm)).count()
}
