//! By what one sees that a guest has come up, and a guest without a cable.

use std::net::TcpListener;

use super::*;
use crate::harness::guest::golden;
use crate::harness::wait::{BOOT, wait_within};

pub(super) fn an_agent_that_is_not_there_does_not_answer(bench: &Bench) {
    let vm = bench.vm(&[bench.disk()]);
    let asked = |id| bench.hypervisor.agent_answers(id).map(drop);
    let nobody = VmId(Uuid::new_v4());
    not_found(asked(nobody), nobody);
    wrong_state(asked(vm.id));
    if let Some(fake) = &bench.fake {
        fake.set_greeting("", false);
    }
    for how in [Start::Paused, Start::Running] {
        vm.start(how);
        assert!(!bench.hypervisor.agent_answers(vm.id).unwrap());
        bench.hypervisor.destroy(vm.id).unwrap();
    }
}

pub(super) fn a_nic_without_a_cable_is_there_and_a_console_has_its_file(bench: &Bench) {
    let console = bench.disk();
    let mut spec = spec(&[bench.disk()]);
    spec.nics = vec![nic(1, NicLink::Unplugged), nic(2, NicLink::User)];
    spec.console = Some(VolumeSource::File(console.clone()));
    let vm = bench.vm_with(&spec);
    vm.start(Start::Paused);
    if bench.fake.is_none() {
        let link = |n: usize| {
            let mac = spec.nics[n].mac.to_string();
            Libvirtd::shared().virsh(&["domif-getlink", &vm.id.to_string(), &mac])
        };
        assert!(link(0).trim().ends_with(" down"), "{}", link(0));
        assert!(link(1).trim().ends_with(" up"), "{}", link(1));
    }
    let length = std::fs::metadata(&console).unwrap().len();
    assert!(length < 1 << 20, "it is emptied: {length}");
    bench.hypervisor.destroy(vm.id).unwrap();
    let missing = bench.dir.path().join("not there").join("console");
    spec.console = Some(VolumeSource::File(missing.clone()));
    bench.hypervisor.define(&spec).unwrap();
    let why = refused(bench.hypervisor.start(vm.id, Start::Paused));
    assert!(why.contains(missing.to_str().unwrap()), "{why}");
    assert_eq!(vm.state(), PowerState::Shutdown);
}

/// What the guest says when it runs a shell command through its agent; `None` when the command fails.
fn inside(vm: &Vm<'_>, command: &str) -> Option<String> {
    let id = vm.id.to_string();
    let ask = |request: serde_json::Value| {
        let patience = BOOT.as_secs().to_string();
        let said = Libvirtd::shared().virsh(&["qemu-agent-command", "--timeout", &patience, &id, &request.to_string()]);
        serde_json::from_str::<serde_json::Value>(&said).unwrap()["return"].clone()
    };
    let arguments = serde_json::json!({"path": "/bin/sh", "arg": ["-c", command], "capture-output": true});
    let begun = ask(serde_json::json!({"execute": "guest-exec", "arguments": arguments}));
    let mut ended = serde_json::Value::Null;
    wait_within(BOOT, command, || {
        ended = ask(serde_json::json!({"execute": "guest-exec-status", "arguments": {"pid": begun["pid"]}}));
        Ok(ended["exited"] == true)
    });
    let output = ended["out-data"].as_str().unwrap_or_default();
    let decoded =
        std::process::Command::new("sh").args(["-c", "printf %s \"$0\" | base64 -d", output]).output().unwrap();
    (ended["exitcode"] == 0).then(|| String::from_utf8(decoded.stdout).unwrap())
}

/// Debian's kernel, emulated. The same attempt reaches this host once the cable is plugged in.
#[test]
fn a_guest_without_a_cable_reaches_its_console_and_its_agent_and_nobody_else() {
    let bench = Bench::new(Arc::new(connect_with(&Libvirtd::shared().uri, BOOT)));
    let (image, console) = (bench.dir.path().join("system.qcow2"), bench.disk());
    std::fs::copy(golden(), &image).unwrap();
    let mut spec = spec(std::slice::from_ref(&image));
    spec.disks[0].format = Format::Qcow2;
    (spec.memory, spec.max_memory) = (MiB(160), MiB(160));
    spec.nics = vec![nic(1, NicLink::Unplugged)];
    spec.console = Some(VolumeSource::File(console.clone()));
    let vm = bench.vm_with(&spec);
    vm.start(Start::Running);
    assert!(!bench.hypervisor.agent_answers(vm.id).unwrap(), "it has not booted yet");
    wait_within(BOOT, "the guest's agent", || bench.hypervisor.agent_answers(vm.id));
    let said = || String::from_utf8_lossy(&std::fs::read(&console).unwrap()).into_owned();
    wait_within(BOOT, "its console tells that it is ready", || Ok(said().contains("PENGX-GUEST-READY boots=1")));

    let host = TcpListener::bind("127.0.0.1:0").unwrap();
    host.set_nonblocking(true).unwrap();
    let port = host.local_addr().unwrap().port();
    let call = format!(
        "ip link set eth0 up && ifconfig eth0 10.0.2.15 netmask 255.255.255.0 && echo hello | timeout 10 nc -w 5 10.0.2.2 {port}"
    );
    // A NIC that is not up yet tells nothing of its cable.
    let cable = "ip link set eth0 up && cat /sys/class/net/eth0/carrier";
    assert_eq!(inside(&vm, cable).as_deref(), Some("0\n"));
    for _ in 0..2 {
        assert_eq!(inside(&vm, &call), None, "nobody answers");
    }
    assert!(host.accept().is_err(), "nobody was called");
    assert_eq!(inside(&vm, cable).as_deref(), Some("0\n"));

    let mac = spec.nics[0].mac.to_string();
    Libvirtd::shared().virsh(&["domif-setlink", &vm.id.to_string(), &mac, "up"]);
    wait_within(BOOT, "a call of the guest", || {
        inside(&vm, &call);
        Ok(host.accept().is_ok())
    });
    bench.hypervisor.pause(vm.id).unwrap();
    assert!(!bench.hypervisor.agent_answers(vm.id).unwrap(), "one that is paused says nothing");
}
