//! What is told of a VM that runs, and of this host, through the core.

use std::time::Duration;

use pengx::error::ErrorKind;
use pengx::host::Host;
use pengx::hypervisor::Verb;
use pengx::model::{GuestAddress, MiB, Network, PowerState, VmId};
use pengx::operations::vm::{self, PoweroffVm, StartVm, SuspendVm};
use pengx::operations::{inventory::Observed, pm};
use uuid::Uuid;

use crate::harness::app::App;
use crate::harness::wait::wait_until;

/// A VM of two vCPUs and two disks, off.
fn one(app: &App) -> VmId {
    let storlink = app.storlink();
    let create = vm::CreateVm { cpu: 2, maxmem: MiB(128), ..app.vm_of(storlink, None, "web1") };
    app.run(create).unwrap()
}

fn observed(app: &App, id: VmId) -> Observed {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(vm::find(&app.core, id)).unwrap().observed
}

#[test]
fn a_vm_tells_what_it_uses_while_it_is_on() {
    let app = App::new();
    let (id, core, fake) = (one(&app), &app.core, &app.site.fake);
    assert_eq!((vm::stats(core, id).unwrap(), vm::vcpu_use(core, id).unwrap()), (None, vec![0.0, 0.0]));
    assert_eq!(observed(&app, id).number, None);
    app.run(StartVm { vm: id }).unwrap();
    let first = vm::stats(core, id).unwrap().expect("it runs");
    assert_eq!((first.id, first.vcpu_nanos.len(), first.memory_kib), (id, 2, 64 << 10));
    assert!(observed(&app, id).number.is_some());
    fake.let_pass(Duration::from_secs(100));
    wait_until("the next look", || {
        Ok(vm::stats(core, id)?.expect("it runs").cpu_nanos >= first.cpu_nanos + 50_000_000_000)
    });
    // Each vCPU of the fake's guests works a quarter of the time.
    let is_a_quarter = |shares: Vec<f64>| shares.len() == 2 && shares.iter().all(|share| (24.0..26.0).contains(share));
    wait_until("its vCPUs work a quarter of the time", || Ok(is_a_quarter(vm::vcpu_use(core, id)?)));
    app.run(SuspendVm { vm: id }).unwrap();
    wait_until("its vCPUs stand still", || Ok(vm::vcpu_use(core, id)? == [0.0, 0.0]));
    assert!(vm::stats(core, id).unwrap().is_some(), "paused is on");
    app.run(PoweroffVm { vm: id }).unwrap();
    assert_eq!((vm::stats(core, id).unwrap(), vm::vcpu_use(core, id).unwrap()), (None, vec![0.0, 0.0]));
}

#[test]
fn a_series_begins_with_the_first_minute() {
    let app = App::new();
    let id = one(&app);
    wait_until("the first look", || Ok(app.site.fake.calls(Verb::Stats) > 0));
    assert_eq!(vm::series(&app.core, id).unwrap(), []);
}

#[test]
fn a_vm_is_reached_pictured_and_described() {
    let app = App::new();
    let (id, core, fake) = (one(&app), &app.core, &app.site.fake);
    assert_eq!(vm::addresses(core, id).unwrap(), []);
    let off = vm::screenshot(core, id).unwrap_err();
    assert!(matches!(off.kind(), ErrorKind::WrongState { .. }), "{off:?}");
    assert!(vm::description(core, id).unwrap().contains(&format!("<uuid>{id}</uuid>")));
    app.run(StartVm { vm: id }).unwrap();
    // One that the agent told, and one that the host knows without its network.
    let address =
        |ip: &str, prefix| GuestAddress { interface: "eth0".to_owned(), mac: None, ip: ip.parse().unwrap(), prefix };
    fake.set_addresses(id, vec![address("10.0.0.7", 8), address("203.0.113.9", 0)]);
    assert_eq!(vm::addresses(core, id).unwrap(), [address("10.0.0.7", 8), address("203.0.113.9", 32)]);
    assert_eq!(vm::screenshot(core, id).unwrap().media_type, "image/png");
    let described = vm::description(core, id).unwrap();
    assert!(described.contains("<title>web1</title>") && described.contains(" id='"), "{described}");

    let nobody = VmId(Uuid::new_v4());
    for refusal in [
        vm::stats(core, nobody).map(drop),
        vm::vcpu_use(core, nobody).map(drop),
        vm::series(core, nobody).map(drop),
        vm::addresses(core, nobody).map(drop),
        vm::screenshot(core, nobody).map(drop),
        vm::description(core, nobody).map(drop),
    ] {
        assert!(matches!(refusal.unwrap_err().kind(), ErrorKind::NotFound { what: "vm", .. }));
    }
}

#[test]
fn while_the_hypervisor_is_away_nothing_is_made_up() {
    let app = App::new();
    let (id, core, fake) = (one(&app), &app.core, &app.site.fake);
    app.run(StartVm { vm: id }).unwrap();
    fake.set_reachable(false);
    wait_until("it is known to be away", || Ok(observed(&app, id).state == PowerState::Unknown));
    let away = |refusal: pengx::error::Error| matches!(refusal.kind(), ErrorKind::Unavailable { .. });
    wait_until("no look is recent", || Ok(vm::stats(core, id).is_err_and(away)));
    wait_until("no two looks are recent", || Ok(vm::vcpu_use(core, id).is_err_and(away)));
    assert!(away(vm::addresses(core, id).unwrap_err()) && away(vm::screenshot(core, id).unwrap_err()));
    fake.set_reachable(true);
    wait_until("it is told again", || Ok(vm::stats(core, id).is_ok_and(|stats| stats.is_some())));
}

#[test]
fn this_very_host_tells_how_it_does() {
    let app = App::new();
    let vitals = pm::vitals(&app.core).unwrap();
    assert!(vitals.memory_total > vitals.memory_available && vitals.root_total >= vitals.root_used, "{vitals:?}");
    assert!(vitals.kernel.starts_with("Linux ") && vitals.uptime_secs > 0 && vitals.cpus > 0, "{vitals:?}");
    let cpu = vitals.cpu;
    for share in [cpu.user, cpu.system, cpu.steal, cpu.iowait, cpu.irq, cpu.total] {
        assert!((0.0..=100.0).contains(&share), "{cpu:?}");
    }
    let known: Vec<Network> = Host::this().networks();
    let counted = |name: &str| vitals.nics.iter().any(|nic| nic.name == name);
    assert!(counted("lo") && known.iter().all(|network| counted(&network.name)), "{:?}", vitals.nics);
}
