//! Two hosts of one site: neither commands what is the other's, and each sees what the other has written down.

use std::path::Path;

use pengx::error::{ErrorKind, Result};
use pengx::hypervisor::Hypervisor;
use pengx::model::{Format, MiB, PmId, PowerState, Seen, StorageCategory, StorlinkId, TemplateId, VmId};
use pengx::operations::disk::{self, CreateDisk, DeleteDisk};
use pengx::operations::nic::{self, CreateNic, DeleteNic, UpdateNic};
use pengx::operations::pm;
use pengx::operations::storlink::{DeleteStorlink, UpdateStorlink};
use pengx::operations::template::{
    self, DeleteTemplate, PoweroffTemplate, ShutdownTemplate, StartTemplate, UpdateTemplate,
};
use pengx::operations::vm::{self, DeleteVm, PoweroffVm, ShutdownVm, StartVm, find, list};
use pengx::store::{networks, pms, seen, storages};

use crate::harness::app::{App, Site};
use crate::harness::http::Served;
use crate::harness::postgres;
use crate::harness::wait::wait_until;
use crate::harness::world::World;

/// The message of a refusal that names the other host.
fn refusal<T: std::fmt::Debug>(outcome: Result<T>) -> String {
    let error = outcome.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WrongState { .. }), "{error:?}");
    error.to_string()
}

/// The state and the port that both reads show of a VM, once they agree: it may change between them.
fn shown(app: &App, vm: VmId) -> (PowerState, Option<u16>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut agreed = None;
    wait_until("both reads show the same", || {
        let one = runtime.block_on(find(&app.core, vm))?.observed;
        let all = runtime.block_on(list(&app.core))?.views(&app.core);
        let same = all.iter().any(|view| view.listing.vm.id == vm && view.observed == one);
        agreed = Some((one.state, one.vnc.map(|vnc| vnc.port)));
        Ok(same)
    });
    agreed.unwrap()
}

fn recorded(app: &App, pm: PmId, vm: VmId) -> Seen {
    let all = app.store().read(|c| seen::of_pm(c, pm)).unwrap();
    all.into_iter().find(|(id, _)| *id == vm).unwrap().1
}

#[test]
fn a_vm_of_another_host_is_shown_and_never_touched() {
    let mut app = App::new();
    let storlink = app.storlink();
    let vm = app.run(app.vm_of(storlink, None, "web1")).unwrap();
    app.run(StartVm { vm }).unwrap();
    let here = app.site.pm().id;
    let (disks, nics) = (disk::of_vm(&app.core, vm).unwrap(), nic::list(&app.core, vm).unwrap());
    wait_until("it is written down", || Ok(recorded(&app, here, vm).state == PowerState::Running));

    app.site.host += 1;
    let app = app.restart();
    let before = World::of(&app);
    assert_eq!(shown(&app, vm), (PowerState::Running, Some(5900)));
    let there = format!("vm web1 is on pm {here}; ask the server there");
    assert_eq!(refusal(app.run(StartVm { vm })), there);
    assert_eq!(refusal(app.run(ShutdownVm { vm })), there);
    assert_eq!(refusal(app.run(PoweroffVm { vm })), there);
    assert_eq!(refusal(app.run(DeleteVm { vm })), there);
    assert_eq!(refusal(vm::stats(&app.core, vm)), there);
    assert_eq!(refusal(vm::vcpu_use(&app.core, vm)), there);
    assert_eq!(refusal(vm::series(&app.core, vm)), there);
    assert_eq!(refusal(vm::addresses(&app.core, vm)), there);
    assert_eq!(refusal(vm::screenshot(&app.core, vm)), there);
    assert_eq!(refusal(vm::description(&app.core, vm)), there);
    let (disk, nic) = (disks[1].disk.id, nics[0].id);
    assert_eq!(disk::of_vm(&app.core, vm).unwrap(), disks);
    assert_eq!(nic::list(&app.core, vm).unwrap(), nics);
    let new_disk = CreateDisk { vm, storlink, size: MiB(1), format: None, desc: String::new() };
    assert_eq!(refusal(app.run(new_disk)), there);
    assert_eq!(refusal(app.run(DeleteDisk { vm, disk })), there);
    assert_eq!(refusal(app.run(CreateNic { vm, network: "0".to_owned(), ip: None })), there);
    assert_eq!(refusal(app.run(DeleteNic { vm, nic })), there);
    assert_eq!(refusal(app.run(UpdateNic { vm, nic, ip: "10.0.0.1".parse().unwrap() })), there);
    let create = refusal(app.run(app.vm_of(storlink, None, "web2")));
    assert!(create.starts_with(&format!("storlink store1 is on pm {here} and not shared")), "{create}");
    app.assert_at_rest();
    assert_eq!(World::of(&app), before);
}

/// Two servers at the same time, each on its own hypervisor, with one database.
fn two_hosts() -> (App, App) {
    let (mut first, mut second) = (Site::new(), Site::new());
    first.database_url = postgres::database();
    second.database_url.clone_from(&first.database_url);
    second.host += 1;
    (first.start(), second.start())
}

#[test]
fn each_host_shows_what_the_other_sees() {
    let (one, two) = two_hosts();
    let storlink = one.storlink();
    let vm = one.run(one.vm_of(storlink, None, "web1")).unwrap();
    assert_eq!(shown(&two, vm), (PowerState::Shutdown, None));
    one.run(StartVm { vm }).unwrap();
    wait_until("it is seen to run", || Ok(shown(&two, vm) == (PowerState::Running, Some(5900))));
    // Not through an operation.
    one.site.fake.pause(vm).unwrap();
    wait_until("it is seen to be paused", || Ok(shown(&two, vm).0 == PowerState::Paused));
    one.run(PoweroffVm { vm }).unwrap();
    wait_until("it is seen to be off", || Ok(shown(&two, vm) == (PowerState::Shutdown, None)));

    // What a host cannot see, others cannot either.
    one.run(StartVm { vm }).unwrap();
    wait_until("it is seen to run", || Ok(shown(&two, vm).0 == PowerState::Running));
    one.site.fake.set_reachable(false);
    wait_until("it is unknown", || Ok(shown(&two, vm).0 == PowerState::Unknown));
    one.site.fake.set_reachable(true);
    wait_until("it is seen to run again", || Ok(shown(&two, vm).0 == PowerState::Running));

    // A host that is down says nothing, and what it said is old.
    let (id, long_ago) = (one.site.pm().id, one.site.pm().heartbeat_at - chrono::Duration::minutes(2));
    two.store().note_tx(|tx| pms::heartbeat(tx, id, long_ago)).unwrap();
    wait_until("its host is down", || Ok(shown(&two, vm).0 == PowerState::Unknown));
    assert_eq!(shown(&one, vm).0, PowerState::Running, "it asks its own hypervisor");
    pm::heartbeat(&one.core).unwrap();
    wait_until("its host is back", || Ok(shown(&two, vm).0 == PowerState::Running));
    one.assert_at_rest();
}

/// A file below a made-up root; `-> x` is a symbolic link.
fn put(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    match content.strip_prefix("-> ") {
        Some(to) => std::os::unix::fs::symlink(to, path).unwrap(),
        None => std::fs::write(path, content).unwrap(),
    }
}

#[test]
fn each_host_writes_its_own_facts_and_shows_those_of_all() {
    let mut site = Site::new();
    let root = site.dir.path().join("root");
    for (path, content) in [
        ("sys/class/net/eno1/device/virtfn0", "-> ../0000:03:10.0"),
        ("sys/class/net/eno1/address", "52:54:00:00:00:0a\n"),
        ("etc/resolv.conf", "nameserver 10.0.0.53\n"),
        ("etc/ocfs2/cluster.conf", "node:\n\tip_address = 10.0.0.2\n\tnumber = 1\n\tname = host9\n"),
        (
            "proc/self/mountinfo",
            "40 27 8:64 / /cluster rw - ocfs2 /dev/sde rw\n41 27 0:44 / /nfs rw - nfs4 filer:/vms rw,addr=10.0.0.5\n",
        ),
        ("cluster/volume", ""),
    ] {
        put(&root, path, content);
    }
    site.root.clone_from(&root);
    let app = site.start();
    let (store, id) = (app.store(), app.site.pm().id);
    let facts = || {
        store
            .read(|c| {
                let (networks, dns) = (networks::of_pm(c, id)?, networks::dns_of_pm(c, id)?.unwrap());
                let (sriov, storages) = (networks::sriov_of_pm(c, id)?, storages::of_pm(c, id)?);
                Ok((networks, dns, sriov, storages, storages::peers_of_pm(c, id)?))
            })
            .unwrap()
    };
    let (networks, dns, sriov, mounts, peers) = facts();
    assert_eq!(networks.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["eno1"]);
    assert_eq!((dns.first, dns.second), ("10.0.0.53".parse().ok(), None));
    assert_eq!((sriov[0].pf.as_str(), sriov[0].vf.as_str()), ("eno1", "0000:03:10.0"));
    assert_eq!(peers.iter().map(|p| (p.name.as_str(), p.number)).collect::<Vec<_>>(), [("host9", 1)]);
    let categories: Vec<_> = mounts.iter().map(|s| (s.category, s.usage)).collect();
    assert_eq!(
        categories,
        [(StorageCategory::Ocfs2, None), (StorageCategory::Nfs, None)],
        "no mount is asked at start"
    );

    // What answers is measured, what is not there stays as it was; and changes are noticed.
    put(&root, "sys/class/net/xenbr0/bridge/bridge_id", "8000\n");
    pm::heartbeat(&app.core).unwrap();
    let (networks, _, _, mounts, peers) = facts();
    assert_eq!(networks.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["eno1", "xenbr0"]);
    assert!(mounts[0].usage.is_some_and(|usage| usage.size.0 > 0), "{mounts:?}");
    assert_eq!((mounts[1].usage, peers.len()), (None, 1));

    // Started again, it still knows; another host shows its facts beside its own.
    let mut app = app.restart();
    assert_eq!(facts().3, mounts);
    app.site.host += 1;
    app.site.root = app.site.dir.path().join("bare");
    let app = app.restart();
    let http = Served::new(&app.core);
    let all = http.get("/pms/all/");
    assert_eq!(all.ids("pm"), [id.to_string(), app.site.pm().id.to_string()]);
    let interfaces = |body: &str| body.matches("<interface>").count();
    let (first, second) = all.body.split_once("</pm>").unwrap();
    assert_eq!((interfaces(first), interfaces(second)), (2, 0));
    let other = http.get(&format!("/pms/{id}/"));
    assert_eq!((interfaces(&other.body), other.element("mac")), (2, "52:54:00:00:00:0a"));
    assert_eq!(interfaces(&http.get("/pms/").body), 0);
    assert_eq!(http.get("/pmpperf/").status, 400, "its /proc is empty");
}

fn unshare(storlink: StorlinkId, shared: bool) -> UpdateStorlink {
    UpdateStorlink { storlink, name: None, link: None, kind: None, level: None, desc: None, shared: Some(shared) }
}

fn renamed(template: TemplateId) -> UpdateTemplate {
    let name = Some("renamed".parse().unwrap());
    UpdateTemplate { template, name, os: None, os_arch: None, desc: None, iso: None }
}

#[test]
fn a_template_and_a_storlink_of_another_host_stay_as_they_are() {
    let mut app = App::new();
    let storlink = app.storlink();
    let template = app.template(storlink, Format::Qcow2);
    let here = app.site.pm().id;

    app.site.host += 1;
    let app = app.restart();
    let before = World::of(&app);
    assert_eq!(
        template::find(&app.core, template).unwrap().observed.state,
        PowerState::Shutdown,
        "as that host saw it"
    );
    let there = format!("template debian 8 64bit template is on pm {here}; ask the server there");
    assert_eq!(refusal(app.run(renamed(template))), there);
    assert_eq!(refusal(app.run(DeleteTemplate { template })), there);
    let start = StartTemplate { template, iso: None, cpu: 1, memory: MiB(64), networks: Vec::new() };
    assert_eq!(refusal(app.run(start)), there);
    assert_eq!(refusal(app.run(ShutdownTemplate { template })), there);
    assert_eq!(refusal(app.run(PoweroffTemplate { template })), there);
    let there = format!("storlink store1 is on pm {here} and not shared; use one of this host, or a shared one");
    assert_eq!(refusal(app.run(DeleteStorlink { storlink })), there);
    assert_eq!(refusal(app.run(unshare(storlink, true))), there);
    app.assert_at_rest();
    assert_eq!(World::of(&app), before);
}

#[test]
fn no_host_makes_a_vm_from_a_template_that_may_be_running_on_another() {
    let (one, two) = two_hosts();
    let storlink = one.storlink();
    one.run(unshare(storlink, true)).unwrap();
    let template = one.template(storlink, Format::Qcow2);
    let start = StartTemplate { template, iso: None, cpu: 1, memory: MiB(64), networks: Vec::new() };
    one.run(start).unwrap();
    // At once, not when somebody has noticed that it runs.
    let make = || two.run(two.vm_of(storlink, Some(template), "web1"));
    let runs = "template debian 8 64bit template is RUNNING; shut it down before making vms from it";
    assert_eq!(refusal(make()), runs);
    one.site.fake.set_reachable(false);
    let seen = |state| {
        wait_until("it is seen", || {
            let row = two.store().read(|c| pengx::store::templates::find(c, template))?;
            Ok(row.is_some_and(|row| row.seen.state == state))
        });
    };
    seen(PowerState::Unknown);
    let unknown = "template debian 8 64bit template is UNKNOWN; nobody can tell whether it is off";
    assert_eq!(refusal(make()), unknown);
    one.site.fake.set_reachable(true);
    seen(PowerState::Running);
    one.run(PoweroffTemplate { template }).unwrap();
    seen(PowerState::Shutdown);
    make().unwrap();
    one.assert_at_rest();
}

#[test]
fn a_storlink_stays_shared_while_another_host_uses_it() {
    let mut app = App::new();
    let storlink = app.storlink();
    app.template(storlink, Format::Qcow2);
    app.run(unshare(storlink, true)).unwrap();
    app.site.host += 1;
    let app = app.restart();
    let vm = app.run(app.vm_of(storlink, None, "web1")).unwrap();
    let before = World::of(&app);
    let why = app.run(unshare(storlink, false)).unwrap_err().to_string();
    let by = "2 disks, the first of vm web1";
    assert_eq!(why, format!("shared: must stay True while the storlink is in use on another pm by {by}"));
    assert_eq!(World::of(&app), before);
    app.run(DeleteVm { vm }).unwrap();
    app.run(unshare(storlink, false)).unwrap();
    app.assert_at_rest();
}
