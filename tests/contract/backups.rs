//! Backups: made, listed, verified, proven, restored and deleted, whether their VM is there or not; and every refusal.

use pengx::hypervisor::Verb;
use pengx::model::*;
use pengx::store::{backups, disks, nics, snapshots, vms};

use super::{Api, NOBODY, Stock, file, vm};
use crate::harness::app::Site;
use crate::harness::http::Answer;
use crate::harness::images::images_of;
use crate::harness::wait::PATIENCE;
use crate::harness::world::World;

impl Api {
    fn back_up(&self, vm: &str, storlink: &str, name: &str) -> Answer {
        let body = format!("<vm><backup_name>{name}</backup_name><storlink>{storlink}</storlink></vm>");
        self.post(&format!("/vms/{vm}/backups/"), &body)
    }

    /// The id of a backup that is made now.
    fn backup(&self, vm: &str, storlink: &str, name: &str) -> String {
        let before = self.get("/backups/").ids("vmbackup");
        let made = self.back_up(vm, storlink, name);
        assert_eq!(made.status, 200, "{made:?}");
        let mut new = self.get("/backups/").ids("vmbackup");
        new.retain(|id| !before.contains(id));
        assert_eq!(new.len(), 1, "{new:?}");
        new.remove(0)
    }

    fn of_backup(&self, vm: &str, backup: &str, verb: &str) -> Answer {
        self.post(&format!("/vms/{vm}/backups/{backup}/{verb}"), "")
    }

    fn kept(&self, backup: &str) -> Backup {
        self.app.store().read(|c| backups::find(c, backup.parse().unwrap())).unwrap().unwrap()
    }

    /// Refused so, and the world is what it was.
    #[track_caller]
    fn stays(&self, status: u16, message: &str, call: impl FnOnce() -> Answer) {
        let before = World::of(&self.app);
        call().refused(status, message);
        self.app.assert_at_rest();
        assert_eq!(World::of(&self.app), before, "{message}");
    }
}

/// With two disks, made from a template, and two NICs.
fn full_vm(api: &Api, stock: &Stock, name: &str) -> String {
    let rest = format!(
        "<template>{}</template><extra_disk_size>2</extra_disk_size><maxmem>128</maxmem><desc>VM for something</desc>\
         <network><list-item>0</list-item><list-item>virbr0</list-item></network>",
        stock.template
    );
    let made = api.post("/vms/", &vm(name, stock, &rest));
    assert_eq!(made.status, 201, "{made:?}");
    api.vm_id(name)
}

#[test]
fn a_backup_is_made_listed_verified_proven_and_restored_and_outlives_its_vm() {
    let (api, stock) = Api::stocked();
    let id = full_vm(&api, &stock, "web1");
    let list = format!("/vms/{id}/backups/");
    assert_eq!(api.get(&list).body, "<vmbackups>\n</vmbackups>\n");
    assert_eq!(api.get("/backups/").body, "<vmbackups>\n</vmbackups>\n");
    let nics_before = api.app.store().read(|c| nics::of_vm(c, id.parse().unwrap())).unwrap();

    api.back_up(&id, &stock.storlink, "nightly").done(200, "backup nightly of vm web1 is made");
    let shown = api.get(&list);
    let bak = shown.ids("vmbackup")[0].clone();
    assert_eq!((shown.element("name"), shown.element("size")), ("nightly", "6"));
    assert_eq!(shown.ids("vm"), [id.as_str()]);
    assert_eq!(api.get("/backups/").body, shown.body);
    let copies = api.get(&format!("/vms/{id}/disks/backups/{bak}/"));
    assert_eq!((copies.ids("disk").len(), copies.element("format")), (2, "qcow2"));

    api.of_backup(&id, &bak, "verify/").done(200, "backup nightly of vm web1 is as it was made");
    api.of_backup(&id, &bak, "prove/").done(200, "backup nightly of vm web1 boots");
    let kept = api.kept(&bak);
    assert!(kept.verified_at.is_some() && kept.proven_at.is_some(), "{kept:?}");

    api.http.delete(&format!("/vms/{id}/")).empty_204();
    assert_eq!(api.get("/vms/").ids("vm"), [""; 0]);
    assert_eq!((api.get(&list).body, api.get("/backups/").body), (shown.body.clone(), shown.body.clone()));
    for verb in ["verify/", "prove/"] {
        assert_eq!(api.of_backup(&id, &bak, verb).status, 200, "{verb}");
    }
    api.of_backup(&id, &bak, "").done(201, "vm web1 is restored from backup nightly");
    let back = api.get(&format!("/vms/{id}/"));
    for (element, value) in [
        ("name", "web1"),
        ("status", "SHUTDOWN"),
        ("cpu_core", "1"),
        ("memory", "64"),
        ("maxmem", "128"),
        ("disk_size", "6"),
        ("os", "DEBIAN"),
        ("last_boot_time", "None"),
    ] {
        assert_eq!(back.element(element), value, "{element}");
    }
    let nics_now = api.app.store().read(|c| nics::of_vm(c, id.parse().unwrap())).unwrap();
    let told = |nics: &[Nic]| nics.iter().map(|n| (n.name.clone(), n.mac, n.switch.clone())).collect::<Vec<_>>();
    assert_eq!(told(&nics_now), told(&nics_before));
    assert_eq!(api.post(&format!("/vms/{id}/start/"), "").status, 200);
    api.http.delete(&format!("/vms/{id}/backups/{bak}/")).empty_204();
    assert_eq!(api.get(&list).body, "<vmbackups>\n</vmbackups>\n");
    assert_eq!(api.post(&format!("/vms/{id}/poweroff/"), "").status, 200);
    api.http.delete(&format!("/vms/{id}/")).empty_204();
    // Neither the VM nor a backup of it.
    api.get(&list).refused(404, &format!("there is no vm {id}"));
    assert_eq!(World::of(&api.app).files.len(), 1, "the template's");
    api.app.assert_at_rest();
}

#[test]
fn a_running_and_a_suspended_vm_are_backed_up_and_stay_as_they_are() {
    let (api, stock) = Api::stocked();
    let id = full_vm(&api, &stock, "web1");
    for (verb, state) in [("start", "RUNNING"), ("suspend", "PAUSED")] {
        assert_eq!(api.post(&format!("/vms/{id}/{verb}/"), "").status, 200);
        let before = World::of(&api.app);
        let bak = api.backup(&id, &stock.storlink, state);
        assert_eq!(api.status(&id), state);
        api.http.delete(&format!("/vms/{id}/backups/{bak}/")).empty_204();
        assert_eq!(World::of(&api.app), before, "{state}");
    }
    api.app.assert_at_rest();
}

#[test]
fn a_restore_puts_everything_back_and_keeps_what_was_there() {
    let (api, stock) = Api::stocked();
    let id = full_vm(&api, &stock, "web1");
    let bak = api.backup(&id, &stock.storlink, "b");
    let vm: VmId = id.parse().unwrap();
    let (macs, old) = api.app.store().read(|c| Ok((nics::of_vm(c, vm)?, disks::of_vm(c, vm)?))).unwrap();
    // Everything about it changes.
    let edit = "<vm><name>web2</name><desc>another</desc></vm>";
    api.put(&format!("/vms/{id}/edit/"), edit).empty_204();
    api.put(&format!("/vms/{id}/update/"), "<vm><cpu_core>3</cpu_core><maxmem>512</maxmem></vm>").empty_204();
    let disk = format!("<disk><size>7</size><storlink>{}</storlink></disk>", stock.storlink);
    assert_eq!(api.post(&format!("/vms/{id}/disks/"), &disk).status, 201);
    api.http.delete(&format!("/vms/{id}/interface/{}/", macs[0].id)).empty_204();
    let nic = "<v><interface_name>1</interface_name></v>";
    assert_eq!(api.post(&format!("/vms/{id}/interfaces/"), nic).status, 201);
    let added = api.app.store().read(|c| disks::of_vm(c, vm)).unwrap().remove(2);

    let restored = api.of_backup(&id, &bak, "");
    assert_eq!(restored.status, 201, "{restored:?}");
    let says = "vm web1 is restored from backup b; what it was before is kept as snapshot before-restore 20";
    assert!(restored.message().starts_with(says) && restored.message().ends_with(" UTC"), "{restored:?}");
    let (row, new, now, kept) = api
        .app
        .store()
        .read(|c| Ok((vms::find(c, vm)?.unwrap(), disks::of_vm(c, vm)?, nics::of_vm(c, vm)?, snapshots::of_vm(c, vm)?)))
        .unwrap();
    assert_eq!((row.name.as_str(), row.desc.as_str()), ("web1", "VM for something"));
    assert_eq!((row.cpu, row.memory, row.maxmem, row.snapshot), (1, MiB(64), MiB(128), None));
    assert!(now.iter().map(|nic| (&nic.name, nic.mac)).eq(macs.iter().map(|nic| (&nic.name, nic.mac))));
    assert!(new.iter().map(|d| (d.order, d.size, d.format)).eq(old.iter().map(|d| (d.order, d.size, d.format))));
    let [kept] = &kept[..] else { panic!("{kept:?}") };
    assert!(kept.name.starts_with("before-restore 20") && kept.desc == "kept when backup b was restored", "{kept:?}");
    assert_eq!((kept.kind, kept.parent), (SnapshotKind::Automatic, None));
    let frozen = api.app.store().read(|c| disks::of_snapshot(c, kept.id)).unwrap();
    assert!(frozen.iter().map(|d| d.id).eq(old.iter().chain([&added]).map(|d| d.id)));
    let definition = api.app.site.fake.definitions().into_iter().find(|spec| spec.id == vm).unwrap();
    assert_eq!((definition.title.as_str(), definition.vcpus, definition.nics.len()), ("web1", 1, 2));
    assert_eq!(images_of(&definition), api.app.images(&new));
    assert_eq!(api.post(&format!("/vms/{id}/start/"), "").status, 200);
    api.app.assert_at_rest();
}

#[test]
fn a_body_is_judged_field_by_field() {
    let (api, stock) = Api::stocked();
    let id = api.vm(&stock, "web1");
    let uri = format!("/vms/{id}/backups/");
    api.stays(400, "backup_name: is required; storlink: is required", || api.post(&uri, ""));
    let bad = format!("<v><backup_name> </backup_name><storlink>x</storlink><desc>{}</desc></v>", "d".repeat(4097));
    let says = "backup_name: is required; storlink: must be a whole number; desc: must have at most 4096 characters";
    api.stays(400, says, || api.post(&uri, &bad));
    api.stays(404, "there is no storlink 4711", || api.back_up(&id, "4711", "b"));
    api.stays(404, &format!("there is no vm {NOBODY}"), || api.back_up(NOBODY, &stock.storlink, "b"));
}

/// As printed, with and without its media type; and as a form.
#[test]
fn the_manuals_body_is_taken() {
    let (api, stock) = Api::stocked();
    let id = api.vm(&stock, "web1");
    let form = &[("Content-Type", "application/x-www-form-urlencoded")][..];
    for (kind, headers) in [("xml", &[("Content-Type", "application/xml")][..]), ("xml", &[]), ("form", form)] {
        let body = file(&format!("contract/bodies/backup-create.{kind}"));
        let body = body.replace(">2<", &format!(">{}<", stock.storlink));
        let body = body.replace("=2&", &format!("={}&", stock.storlink));
        let made = api.http.ask("POST", &format!("/vms/{id}/backups/"), headers, &body);
        made.done(200, "backup $backup_name of vm web1 is made");
    }
    let all = api.app.store().read(backups::all).unwrap();
    assert!(all.len() == 3 && all.iter().all(|backup| backup.desc == "backup of vm_uuid"), "{all:?}");
    api.app.assert_at_rest();
}

#[test]
fn what_is_not_there_is_404_and_another_vms_backup_is_not_there() {
    let (api, stock) = Api::stocked();
    let (id, other) = (api.vm(&stock, "web1"), api.vm(&stock, "web2"));
    let bak = api.backup(&id, &stock.storlink, "b");
    for (vm, backup) in [(NOBODY, bak.as_str()), (&other, &bak), (&id, NOBODY)] {
        let says = format!("there is no backup {backup}");
        for verb in ["", "verify/", "prove/"] {
            api.stays(404, &says, || api.of_backup(vm, backup, verb));
        }
        api.stays(404, &says, || api.http.delete(&format!("/vms/{vm}/backups/{backup}/")));
    }
    api.get(&format!("/vms/{NOBODY}/backups/")).refused(404, &format!("there is no vm {NOBODY}"));
    assert_eq!(api.get(&format!("/vms/{other}/backups/")).body, "<vmbackups>\n</vmbackups>\n");
    for uri in [format!("/vms/{id}/backups/{bak}/verify/"), format!("/vms/{id}/backups/{bak}/prove/")] {
        assert_eq!(api.get(&uri).status, 405, "{uri}");
    }
}

#[test]
fn a_restore_is_refused_before_anything_is_touched() {
    let (api, stock) = Api::stocked();
    let id = full_vm(&api, &stock, "web1");
    let bak = api.backup(&id, &stock.storlink, "b");
    let restore = || api.of_backup(&id, &bak, "");
    for (verb, state) in [("start", "RUNNING"), ("suspend", "PAUSED")] {
        assert_eq!(api.post(&format!("/vms/{id}/{verb}/"), "").status, 200);
        api.stays(400, &format!("vm web1 is {state}; shut it down before restoring it"), restore);
    }
    assert_eq!(api.post(&format!("/vms/{id}/poweroff/"), "").status, 200);
    // Its name is another's by now.
    api.put(&format!("/vms/{id}/edit/"), "<vm><name>old</name></vm>").empty_204();
    let other = api.vm(&stock, "web1");
    api.stays(400, "a vm named web1 exists already", restore);
    api.http.delete(&format!("/vms/{other}/")).empty_204();
    // A bridge is gone.
    api.app.site.fake.set_bridges(&["xenbr0"]);
    let says = "pengx refused: backup b of vm web1: network: bridge virbr0 neither exists on this host nor is mapped in [bridges]";
    api.stays(400, says, restore);
    api.app.site.fake.set_bridges(&["virbr0"]);
    // Deleted, and somebody defined a domain of its uuid.
    api.http.delete(&format!("/vms/{id}/")).empty_204();
    let mut foreign = outline();
    foreign.id = id.parse().unwrap();
    api.app.site.hypervisor.define(&foreign).unwrap();
    let says = format!("vm {id} is known to the hypervisor, and not to pengx; undefine its domain first");
    api.stays(400, &says, restore);
    api.app.site.hypervisor.undefine(foreign.id).unwrap();
    restore().done(201, "vm web1 is restored from backup b");
    api.app.assert_at_rest();
}

fn outline() -> DomainSpec {
    DomainSpec {
        id: VmId(uuid::Uuid::nil()),
        title: "foreign".to_owned(),
        os: None,
        vcpus: 1,
        max_vcpus: 1,
        memory: MiB(64),
        max_memory: MiB(64),
        disks: Vec::new(),
        nics: Vec::new(),
        pci: None,
        disc: None,
        console: None,
        vnc_password: Secret::new(String::new()),
    }
}

#[test]
fn a_deleted_vm_gets_other_mac_addresses_where_its_own_are_taken_and_no_template_that_is_gone() {
    let (api, stock) = Api::stocked();
    let id = full_vm(&api, &stock, "web1");
    let bak = api.backup(&id, &stock.storlink, "b");
    let taken = api.app.store().read(|c| nics::of_vm(c, id.parse().unwrap())).unwrap();
    api.http.delete(&format!("/vms/{id}/")).empty_204();
    let other = api.vm(&stock, "web2");
    let thief = nics::NewNic {
        uuid: uuid::Uuid::from_u128(1),
        vm: other.parse().unwrap(),
        name: "eth0".to_owned(),
        mac: taken[0].mac,
        switch: "xenbr0".to_owned(),
        ip: None,
    };
    api.app.store().write_tx(|tx| nics::insert(tx, &thief)).unwrap();
    api.http.delete(&format!("/templates/{}/", stock.template)).empty_204();
    api.of_backup(&id, &bak, "").done(201, "vm web1 is restored from backup b");
    let back = api.app.store().read(|c| nics::of_vm(c, id.parse().unwrap())).unwrap();
    assert_ne!(back[0].mac, taken[0].mac);
    assert!(back[0].mac.to_string().starts_with("00:16:3e:"), "{back:?}");
    assert_eq!((back[1].mac, back[0].name.as_str(), back[0].switch.as_str()), (taken[1].mac, "eth0", "xenbr0"));
    assert_eq!(api.get(&format!("/vms/{id}/")).element("os"), "");
    api.app.assert_at_rest();
}

#[test]
fn too_little_room_is_told_with_need_and_free_before_the_first_byte() {
    let mut site = Site::new();
    // All of the storlink is to stay free.
    site.settings.low_water = [("kept".to_owned(), 100)].into();
    let api = Api::on(site);
    let storlink = api.app.storlink().to_string();
    let dir = api.app.site.dir.path().join("kept");
    std::fs::create_dir(&dir).unwrap();
    let link = dir.to_str().unwrap();
    let body = format!("<s><name>kept</name><link>{link}</link><type>LO</type><level>FL</level></s>");
    assert_eq!(api.post("/storlinks/", &body).status, 201);
    let stock = Stock { storlink, template: String::new() };
    let id = api.vm(&stock, "web1");
    let refused = api.back_up(&id, "2", "b");
    assert_eq!(refused.status, 400, "{refused:?}");
    let message = refused.message();
    assert!(message.starts_with("storlink kept has too little room: "), "{message}");
    assert!(message.contains(" MiB needed, ") && message.ends_with(" MiB free"), "{message}");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    assert_eq!(api.app.store().read(pengx::store::reservations::all).unwrap(), []);
    api.app.assert_at_rest();
}

#[test]
fn a_hypervisor_that_cannot_or_does_not_answer_is_told_so() {
    let (api, stock) = Api::stocked();
    let id = api.vm(&stock, "web1");
    let bak = api.backup(&id, &stock.storlink, "b");
    assert_eq!(api.post(&format!("/vms/{id}/start/"), "").status, 200);
    let fake = api.app.site.fake.clone();
    fake.set_capabilities(|can| can.live_chains = false);
    let says = "this hypervisor cannot copy the disks of vm web1 while it runs; shut it down first";
    api.stays(400, says, || api.back_up(&id, &stock.storlink, "c"));
    fake.set_capabilities(|can| can.live_chains = true);
    assert_eq!(api.post(&format!("/vms/{id}/poweroff/"), "").status, 200);
    fake.set_reachable(false);
    let away = "the fake hypervisor does not answer";
    api.back_up(&id, &stock.storlink, "c").refused(503, away);
    api.of_backup(&id, &bak, "").refused(503, away);
    api.of_backup(&id, &bak, "prove/").refused(503, away);
    // What needs none goes on.
    assert_eq!(api.get(&format!("/vms/{id}/backups/")).ids("vmbackup"), [bak.as_str()]);
    api.of_backup(&id, &bak, "verify/").done(200, "backup b of vm web1 is as it was made");
    api.http.delete(&format!("/vms/{id}/backups/{bak}/")).empty_204();
    fake.set_reachable(true);
    api.wait_status(&id, "SHUTDOWN");
    assert_eq!(World::of(&api.app).files.len(), 2, "a template's and a disk's");
    api.app.assert_at_rest();
}

#[test]
fn who_prefers_not_to_wait_gets_a_task_that_can_be_cancelled() {
    let (api, stock) = Api::stocked();
    let id = api.vm(&stock, "web1");
    assert_eq!(api.post(&format!("/vms/{id}/start/"), "").status, 200);
    let before = World::of(&api.app);
    let fake = api.app.site.fake.clone();
    fake.hold(Verb::OverlayDisks);
    let headers = [("Prefer", "respond-async"), ("Content-Type", "application/xml")];
    let body = format!("<v><backup_name>b</backup_name><storlink>{}</storlink></v>", stock.storlink);
    let accepted = api.http.ask("POST", &format!("/vms/{id}/backups/"), &headers, &body);
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let task = accepted.header("location").unwrap().to_owned();
    assert!(fake.wait_held(Verb::OverlayDisks, 1, PATIENCE));
    assert_eq!(api.http.delete(&task).status, 200);
    fake.release(Verb::OverlayDisks);
    let ended = api.get(&format!("{task}?wait"));
    assert_eq!((ended.element("state"), ended.element("kind")), ("failure", "backup.create"), "{ended:?}");
    assert!(ended.element("message").ends_with("was cancelled"), "{ended:?}");
    api.app.assert_at_rest();
    assert_eq!(World::of(&api.app), before);
}
