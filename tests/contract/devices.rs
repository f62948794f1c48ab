//! Disks and interfaces of VMs: what is made, plugged in, pulled out and shown; and every refusal.

use pengx::hypervisor::{Hypervisor, Verb};
use pengx::model::*;
use pengx::store::{backups, disks as disk_rows, nics as nic_rows, snapshots};

use super::{Api, NOBODY, file};
use crate::harness::app::make_image;
use crate::harness::http::Answer;
use crate::harness::world::World;

impl Api {
    fn disk(&self, vm: &str, storlink: &str, size: u32) -> Answer {
        let body = format!("<disk><size>{size}</size><storlink>{storlink}</storlink></disk>");
        self.post(&format!("/vms/{vm}/disks/"), &body)
    }

    fn interface(&self, vm: &str, name: &str) -> Answer {
        let body = format!("<vms><interface_name>{name}</interface_name></vms>");
        self.post(&format!("/vms/{vm}/interfaces/"), &body)
    }

    pub(super) fn power(&self, vm: &str, verb: &str) {
        let answer = self.post(&format!("/vms/{vm}/{verb}/"), "");
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Each text of this element in a list.
    pub(super) fn listed(&self, uri: &str, element: &str) -> Vec<String> {
        let list = self.get(uri);
        assert_eq!(list.status, 200, "{list:?}");
        let open = format!("<{element}>");
        list.body.split(&open).skip(1).map(|part| part.split('<').next().unwrap().to_owned()).collect()
    }

    pub(super) fn definition(&self, vm: &str) -> DomainSpec {
        let definitions = self.app.site.fake.definitions();
        definitions.into_iter().find(|spec| spec.id.to_string() == vm).unwrap()
    }

    pub(super) fn running(&self, vm: &str) -> DomainSpec {
        self.app.site.fake.running(vm.parse().unwrap()).expect("it runs")
    }

    /// The call is refused so, and the world is what it was.
    #[track_caller]
    pub(super) fn nothing_changes(&self, status: u16, message: &str, call: impl FnOnce() -> Answer) {
        let before = World::of(&self.app);
        call().refused(status, message);
        self.app.assert_at_rest();
        assert_eq!(World::of(&self.app), before, "{message}");
    }
}

fn orders(spec: &DomainSpec) -> Vec<u32> {
    spec.disks.iter().map(|disk| disk.order).collect()
}

#[test]
fn disks_are_made_plugged_in_pulled_out_and_keep_their_order() {
    let (api, stock) = Api::stocked();
    let vm = api.vm(&stock, "web1");
    let uri = format!("/vms/{vm}/disks/");
    let made = api.disk(&vm, &stock.storlink, 7);
    assert_eq!(made.status, 201, "{made:?}");
    let first = made.ids("disk")[0].clone();
    assert_eq!((made.element("name"), made.element("size"), made.element("format")), (first.as_str(), "7", "qcow2"));
    assert_eq!((made.element("type"), made.element("storlink")), ("FL", stock.storlink.as_str()));
    assert_eq!(orders(&api.definition(&vm)), [0, 1]);
    assert!(api.app.site.store_dir().join(format!("{first}.qcow2")).is_file());

    // Into a guest that runs, at once; another format; a description.
    api.power(&vm, "start");
    let body = format!(
        "<d><size>2</size><storlink>{}</storlink><format>raw</format><desc> a &amp; b </desc></d>",
        stock.storlink
    );
    let second = api.post(&uri, &body);
    assert_eq!((second.status, second.element("format"), second.element("desc")), (201, "raw", "a &amp; b"));
    let second = second.ids("disk")[0].clone();
    let raw = api.app.site.store_dir().join(format!("{second}.raw"));
    assert_eq!(std::fs::metadata(&raw).unwrap().len(), 2 << 20);
    assert_eq!((orders(&api.definition(&vm)), orders(&api.running(&vm))), (vec![0, 1, 2], vec![0, 1, 2]));
    assert_eq!(api.running(&vm).disks[2].source, VolumeSource::File(raw.clone()));
    assert_eq!((api.listed(&uri, "order"), api.listed(&uri, "size")), (words("0 1 2"), words("4 7 2")));
    assert_eq!(api.get(&format!("/vms/{vm}/")).element("disk_size"), "13");

    // Out of it; the others stay where they are, and the next one takes the gap.
    api.http.delete(&format!("{uri}{first}/")).empty_204();
    assert_eq!((orders(&api.definition(&vm)), orders(&api.running(&vm))), (vec![0, 2], vec![0, 2]));
    assert_eq!(api.listed(&uri, "order"), words("0 2"));
    assert!(!api.app.site.store_dir().join(format!("{first}.qcow2")).exists());
    assert_eq!(api.disk(&vm, &stock.storlink, 1).status, 201);
    assert_eq!(api.listed(&uri, "order"), words("0 1 2"));
    let mut plugged = orders(&api.running(&vm));
    plugged.sort_unstable();
    assert_eq!((orders(&api.definition(&vm)), plugged), (vec![0, 1, 2], vec![0, 1, 2]));

    // A paused guest can be given a disk.
    api.app.site.fake.pause(vm.parse().unwrap()).unwrap();
    assert_eq!(api.disk(&vm, &stock.storlink, 1).status, 201);
    assert_eq!(api.running(&vm).disks.len(), 4);

    // It starts again with what it has, and is deleted with all of it.
    api.power(&vm, "poweroff");
    api.http.delete(&format!("{uri}{second}/")).empty_204();
    assert!(!raw.exists());
    api.power(&vm, "start");
    assert_eq!(orders(&api.running(&vm)), [0, 1, 3]);
    api.power(&vm, "poweroff");
    api.http.delete(&format!("/vms/{vm}/")).empty_204();
    // The template's image.
    assert_eq!(std::fs::read_dir(api.app.site.store_dir()).unwrap().count(), 1);
    api.app.assert_at_rest();
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn a_disk_can_be_asked_for_without_waiting() {
    let (api, stock) = Api::stocked();
    let vm = api.vm(&stock, "web1");
    let body = format!("<d><size>1</size><storlink>{}</storlink></d>", stock.storlink);
    let headers = [("Content-Type", "text/xml"), ("Prefer", "respond-async")];
    let accepted = api.http.ask("POST", &format!("/vms/{vm}/disks/"), &headers, &body);
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let over = api.get(&format!("{}?wait", accepted.header("location").unwrap()));
    assert_eq!((over.element("kind"), over.element("subject")), ("disk.create", "vm web1"));
    assert_eq!((over.element("state"), over.message()), ("success", "disk 1 of vm web1 is created"));
    api.app.assert_at_rest();
}

#[test]
fn disk_create_names_every_bad_field_and_refuses_what_the_site_cannot_serve() {
    let (api, stock) = Api::stocked();
    let vm = api.vm(&stock, "web1");
    let create = |body: &str| api.post(&format!("/vms/{vm}/disks/"), body);
    api.nothing_changes(400, "size: is required; storlink: is required", || create(""));
    api.nothing_changes(
        400,
        "size: must be a whole number; storlink: must be a whole number; desc: must be text, not elements; \
         format: must be one of qcow2, raw",
        || create("<d><size>big</size><storlink>x</storlink><desc><b/></desc><format>vdi</format></d>"),
    );
    for size in ["0", "-1", "1073741825"] {
        let body = format!("<d><size>{size}</size><storlink>1</storlink></d>");
        api.nothing_changes(400, "size: must be from 1 to 1073741824", || create(&body));
    }
    api.nothing_changes(404, "there is no storlink 4711", || api.disk(&vm, "4711", 1));
    api.nothing_changes(404, &format!("there is no vm {NOBODY}"), || api.disk(NOBODY, &stock.storlink, 1));
    // A hypervisor that changes nothing of a running domain.
    let fake = &api.app.site.fake;
    fake.set_capabilities(|can| (can.live_disks, can.live_nics) = (false, false));
    api.power(&vm, "start");
    let cannot = "this hypervisor cannot plug a disk into vm web1 while it runs; shut it down first";
    api.nothing_changes(400, cannot, || api.disk(&vm, &stock.storlink, 1));
    assert_eq!((fake.calls(Verb::AttachDisk), fake.calls(Verb::DetachDisk)), (0, 0));
    api.power(&vm, "poweroff");
    let made = api.disk(&vm, &stock.storlink, 1);
    assert_eq!(made.status, 201, "{made:?}");
    api.power(&vm, "start");
    let cannot = "this hypervisor cannot pull a disk out of vm web1 while it runs; shut it down first";
    let uri = format!("/vms/{vm}/disks/{}/", made.ids("disk")[0]);
    api.nothing_changes(400, cannot, || api.http.delete(&uri));
}

#[test]
fn a_vm_has_no_more_disks_and_interfaces_than_its_hypervisor_allows() {
    let (api, stock) = Api::stocked();
    let vm = api.vm(&stock, "web1");
    let id: VmId = vm.parse().unwrap();
    let first = api.app.store().read(|c| disk_rows::of_vm(c, id)).unwrap().remove(0);
    let fill = |c: &mut pengx::store::Conn| {
        for order in 1..64 {
            let disk = DiskId(uuid::Uuid::new_v4());
            let volume = VolumeName::new(disk, Format::Raw);
            std::fs::write(api.app.site.store_dir().join(volume.as_str()), "").unwrap();
            disk_rows::insert(c, &Disk { id: disk, order, volume, format: Format::Raw, ..first.clone() })?;
        }
        for n in 0..32_u8 {
            let name = format!("eth{n}");
            let (uuid, mac) = (uuid::Uuid::new_v4(), Mac([0, 0x16, 0x3e, 0, 0, n]));
            let nic = nic_rows::NewNic { uuid, vm: id, name, mac, switch: "xenbr0".to_owned(), ip: None };
            nic_rows::insert(c, &nic)?;
        }
        Ok(())
    };
    api.app.store().write_tx(fill).unwrap();
    let many = "this hypervisor cannot give vm web1 more than 64 disks";
    api.nothing_changes(400, many, || api.disk(&vm, &stock.storlink, 1));
    let many = "this hypervisor cannot give vm web1 more than 32 interfaces";
    api.nothing_changes(400, many, || api.interface(&vm, "0"));
    // One less is room for one more.
    let last = api.get(&format!("/vms/{vm}/interfaces/")).ids("interface").pop().unwrap();
    api.http.delete(&format!("/vms/{vm}/interface/{last}/")).empty_204();
    api.interface(&vm, "0").done(201, "interface eth31 of vm web1 is created");
    api.app.assert_at_rest();
}

/// Somebody has plugged it in past pengx, and the guest may be using it.
#[test]
fn a_disk_of_somebody_else_stays_plugged_in_where_ours_should_go() {
    let (api, stock) = Api::stocked();
    let vm = api.vm(&stock, "web1");
    api.power(&vm, "start");
    let mut theirs = api.running(&vm).disks[0].clone();
    let file = api.app.site.dir.path().join("theirs.qcow2");
    make_image(&file, Format::Qcow2, 1);
    (theirs.order, theirs.source) = (1, VolumeSource::File(file));
    api.app.site.fake.attach_disk(vm.parse().unwrap(), &theirs).unwrap();
    let why = format!("vm {vm} is running with another disk in place 1; pull that one out first");
    api.nothing_changes(400, &why, || api.disk(&vm, &stock.storlink, 1));
    assert_eq!(api.running(&vm).disks[1], theirs);
}

#[test]
fn disk_delete_refuses_the_boot_disk_a_paused_guest_and_what_is_not_the_vms() {
    let (api, stock) = Api::stocked();
    let (vm, other) = (api.vm(&stock, "web1"), api.vm(&stock, "web2"));
    let boot = api.get(&format!("/vms/{vm}/disks/")).ids("disk")[0].clone();
    let foreign = api.disk(&other, &stock.storlink, 1).ids("disk")[0].clone();
    let data = api.disk(&vm, &stock.storlink, 1).ids("disk")[0].clone();
    let delete = |vm: &str, disk: &str| api.http.delete(&format!("/vms/{vm}/disks/{disk}/"));
    let boots = format!("disk {boot} is the one that vm web1 boots from; it goes only with its vm");
    api.nothing_changes(400, &boots, || delete(&vm, &boot));
    api.nothing_changes(404, &format!("there is no disk {foreign}"), || delete(&vm, &foreign));
    api.nothing_changes(404, &format!("there is no disk {NOBODY}"), || delete(&vm, NOBODY));
    api.nothing_changes(404, &format!("there is no vm {NOBODY}"), || delete(NOBODY, &data));
    let template = api.app.store().read(|c| disk_rows::of_template(c, stock.template.parse().unwrap())).unwrap();
    let template = template[0].id.to_string();
    api.nothing_changes(404, &format!("there is no disk {template}"), || delete(&vm, &template));

    api.power(&vm, "start");
    let fake = &api.app.site.fake;
    let id = vm.parse().unwrap();
    fake.pause(id).unwrap();
    let paused = "vm web1 is PAUSED; resume it first, so that its guest can let go of the disk";
    api.nothing_changes(400, paused, || delete(&vm, &data));
    assert_eq!(fake.calls(Verb::DetachDisk), 0);
    fake.unpause(id).unwrap();
    assert!(fake.set_deaf(id, true));
    api.nothing_changes(400, "the guest of vm web1 did not let go of disk 1 in 5 s", || delete(&vm, &data));
    assert!(fake.set_deaf(id, false));
    delete(&vm, &data).empty_204();
    api.nothing_changes(404, &format!("there is no disk {data}"), || delete(&vm, &data));
}

#[test]
fn disks_of_snapshots_and_backups_are_shown_to_their_own_vm() {
    let (api, stock) = Api::stocked();
    let (vm, other) = (api.vm(&stock, "web1"), api.vm(&stock, "web2"));
    let id: VmId = vm.parse().unwrap();
    let model = api.app.store().read(|c| disk_rows::of_vm(c, id)).unwrap().remove(0);
    let (snap, bak) = (SnapshotId(uuid::Uuid::from_u128(0x51)), BackupId(uuid::Uuid::from_u128(0xb1)));
    let disk = |n: u128, owner: DiskOwner, order: u32| {
        let id = DiskId(uuid::Uuid::from_u128(n));
        Disk { id, owner, order, volume: VolumeName::new(id, model.format), ..model.clone() }
    };
    let insert = |c: &mut pengx::store::Conn| {
        let (name, desc) = ("s".to_owned(), String::new());
        let (kind, created_at) = (SnapshotKind::Saved, model.created_at);
        snapshots::insert(c, &Snapshot { id: snap, vm: id, name, kind, parent: None, desc, created_at })?;
        let (name, desc) = ("b".to_owned(), String::new());
        backups::insert(
            c,
            &Backup {
                id: bak,
                vm: id,
                name,
                storlink: model.storlink,
                size: MiB(8),
                desc,
                created_at,
                config: BackupConfig::default(),
                manifest: String::new(),
                verified_at: None,
                proven_at: None,
            },
        )?;
        disk_rows::insert(c, &disk(2, DiskOwner::Snapshot(snap), 1))?;
        disk_rows::insert(c, &disk(1, DiskOwner::Snapshot(snap), 0))?;
        disk_rows::insert(c, &disk(3, DiskOwner::Backup(bak), 0))
    };
    api.app.store().write_tx(insert).unwrap();
    for colon in ["/", "", ":"] {
        let frozen = api.get(&format!("/vms/{vm}/disks/snapshots{colon}{snap}/"));
        assert_eq!((frozen.status, frozen.ids("snapshot")), (200, vec![snap.to_string(); 2]), "{frozen:?}");
        assert_eq!(frozen.ids("disk"), [1, 2].map(|n| uuid::Uuid::from_u128(n).to_string()), "by order");
        assert!(frozen.ids("vm").is_empty() && frozen.ids("backup").is_empty());
        let copied = api.get(&format!("/vms/{vm}/disks/backups{colon}{bak}/"));
        assert_eq!((copied.status, copied.ids("backup")), (200, vec![bak.to_string()]), "{copied:?}");
        assert!(copied.ids("vm").is_empty() && copied.ids("snapshot").is_empty());
    }
    // What the VM runs on is neither.
    assert_eq!(api.get(&format!("/vms/{vm}/disks/")).ids("disk"), [model.id.to_string()]);
    let no_snapshot = |id: &dyn std::fmt::Display| format!("there is no snapshot {id}");
    let no_backup = |id: &dyn std::fmt::Display| format!("there is no backup {id}");
    api.get(&format!("/vms/{other}/disks/snapshots/{snap}/")).refused(404, &no_snapshot(&snap));
    api.get(&format!("/vms/{other}/disks/backups/{bak}/")).refused(404, &no_backup(&bak));
    api.get(&format!("/vms/{vm}/disks/snapshots/{NOBODY}/")).refused(404, &no_snapshot(&NOBODY));
    api.get(&format!("/vms/{vm}/disks/backups/{NOBODY}/")).refused(404, &no_backup(&NOBODY));
    api.get(&format!("/vms/{NOBODY}/disks/")).refused(404, &format!("there is no vm {NOBODY}"));
    api.get(&format!("/vms/{NOBODY}/disks/snapshots/{snap}/")).refused(404, &format!("there is no vm {NOBODY}"));

    // The snapshot goes with its VM, the backup stays.
    api.app
        .store()
        .write_tx(|c| {
            disk_rows::remove(c, disk(1, model.owner, 0).id)?;
            disk_rows::remove(c, disk(2, model.owner, 0).id)?;
            snapshots::remove(c, snap)
        })
        .unwrap();
    api.http.delete(&format!("/vms/{vm}/")).empty_204();
    api.get(&format!("/vms/{vm}/disks/")).refused(404, &format!("there is no vm {vm}"));
    let copied = api.get(&format!("/vms/{vm}/disks/backups/{bak}/"));
    assert_eq!((copied.status, copied.ids("backup")), (200, vec![bak.to_string()]), "{copied:?}");
    api.app.assert_at_rest();
}

#[test]
fn interfaces_are_made_plugged_in_changed_and_never_pulled_out() {
    let (api, stock) = Api::stocked();
    let vm = api.vm(&stock, "web1");
    let uri = format!("/vms/{vm}/interfaces/");
    assert_eq!(api.get(&uri).body, "<interfaces>\n</interfaces>\n");
    api.interface(&vm, "0").done(201, "interface eth0 of vm web1 is created");
    api.interface(&vm, "virbr0").done(201, "interface eth1 of vm web1 is created");
    let nics = api.definition(&vm).nics;
    assert_eq!(
        nics.iter().map(|nic| &nic.link).collect::<Vec<_>>(),
        [&NicLink::User, &NicLink::Bridge("virbr0".to_owned())]
    );
    let macs: Vec<_> = nics.iter().map(|nic| nic.mac.to_string()).collect();
    assert!(macs[0] != macs[1] && macs.iter().all(|mac| mac.starts_with("00:16:3e:")), "{macs:?}");
    assert_eq!((api.listed(&uri, "mac"), api.listed(&uri, "name")), (macs, words("eth0 eth1")));
    assert_eq!(api.listed(&uri, "ip"), ["", ""]);

    api.power(&vm, "start");
    let body = "<vms><interface_name>xenbr1</interface_name><ipaddress>FE80:0:0::1</ipaddress></vms>";
    api.post(&uri, body).done(201, "interface eth2 of vm web1 is created");
    assert_eq!((api.running(&vm).nics.len(), api.definition(&vm).nics.len()), (3, 3));
    assert_eq!(api.listed(&uri, "ip"), ["", "", "fe80::1"]);
    let networks: Vec<String> = api.listed(&format!("/vms/{vm}/"), "network");
    assert_eq!(networks, words("xenbr0 virbr0 xenbr1"));

    // Row and definition follow, the guest does not hear of it; whatever the body says.
    let ids = api.get(&uri).ids("interface");
    let xml = [("Content-Type", "application/xml")];
    let odd =
        api.http.ask("DELETE", &format!("/vms/{vm}/interface/{}/", ids[0]), &xml, "<vms><interface_name>x</oops>");
    odd.empty_204();
    api.http.delete(&format!("{uri}{}/", ids[1])).empty_204();
    assert_eq!((api.running(&vm).nics.len(), api.definition(&vm).nics.len()), (3, 1));
    assert_eq!(api.app.site.fake.calls(Verb::DetachNic), 0);
    assert_eq!(api.listed(&uri, "name"), ["eth2"]);
    for (path, ip) in [("interface", "192.168.0.1"), ("interfaces", "192.168.0.2")] {
        let body = format!("<vms><ipaddress>{ip}</ipaddress></vms>");
        api.http.send("PUT", &format!("/vms/{vm}/{path}/{}/update/", ids[2]), &body).empty_204();
        assert_eq!(api.listed(&uri, "ip"), [ip]);
    }
    // The first free name, and at its next start the guest has what the rows say.
    api.interface(&vm, "1").done(201, "interface eth0 of vm web1 is created");
    assert_eq!(api.running(&vm).nics.len(), 4);
    api.power(&vm, "poweroff");
    api.power(&vm, "start");
    let macs: Vec<_> = api.running(&vm).nics.iter().map(|nic| nic.mac.to_string()).collect();
    assert_eq!(macs, api.listed(&uri, "mac"));
    assert_eq!(macs.len(), 2);
    api.power(&vm, "poweroff");
    api.http.delete(&format!("/vms/{vm}/")).empty_204();
    api.app.assert_at_rest();
}

#[test]
fn interfaces_refuse_what_cannot_be_in_clear_words() {
    let (api, stock) = Api::stocked();
    let (vm, other) = (api.vm(&stock, "web1"), api.vm(&stock, "web2"));
    assert_eq!(api.interface(&vm, "0").status, 201);
    assert_eq!(api.interface(&other, "0").status, 201);
    let id_of = |vm: &str| api.get(&format!("/vms/{vm}/interfaces/")).ids("interface")[0].clone();
    let (own, foreign) = (id_of(&vm), id_of(&other));
    let uri = format!("/vms/{vm}/interfaces/");
    api.nothing_changes(400, "interface_name: is required", || api.post(&uri, ""));
    let no_bridge = "bridge xenbr9 neither exists on this host nor is mapped in [bridges]";
    api.nothing_changes(400, &format!("interface_name: {no_bridge}"), || api.interface(&vm, "9"));
    api.nothing_changes(
        400,
        &format!("ipaddress: must be an IPv4 or IPv6 address; interface_name: {no_bridge}"),
        || api.post(&uri, "<v><interface_name>xenbr9</interface_name><ipaddress>1.2.3</ipaddress></v>"),
    );
    api.nothing_changes(
        400,
        "interface_name: &quot;a/b&quot; is neither a number nor the name of a bridge; \
         ipaddress: must be an IPv4 or IPv6 address",
        || api.post(&uri, "<v><interface_name>a/b</interface_name><ipaddress>x</ipaddress></v>"),
    );
    let no_vm = format!("there is no vm {NOBODY}");
    api.get(&format!("/vms/{NOBODY}/interfaces/")).refused(404, &no_vm);
    api.nothing_changes(404, &no_vm, || api.interface(NOBODY, "0"));
    let address = "<vms><ipaddress>10.0.0.1</ipaddress></vms>";
    for path in ["interface", "interfaces"] {
        let delete = |vm: &str, nic: &str| api.http.delete(&format!("/vms/{vm}/{path}/{nic}/"));
        let update =
            |vm: &str, nic: &str, body: &str| api.http.send("PUT", &format!("/vms/{vm}/{path}/{nic}/update/"), body);
        for nic in [foreign.as_str(), "4711"] {
            let none = format!("there is no interface {nic}");
            api.nothing_changes(404, &none, || delete(&vm, nic));
            api.nothing_changes(404, &none, || update(&vm, nic, address));
        }
        api.nothing_changes(404, &no_vm, || delete(NOBODY, &own));
        api.nothing_changes(404, &no_vm, || update(NOBODY, &own, address));
        for empty in ["", "<vms/>", "<vms><ipaddress></ipaddress></vms>"] {
            api.nothing_changes(400, "ipaddress: is required", || update(&vm, &own, empty));
        }
        let bad = "<vms><ipaddress>10.0.0.1/8</ipaddress></vms>";
        api.nothing_changes(400, "ipaddress: must be an IPv4 or IPv6 address", || update(&vm, &own, bad));
    }
    let fake = &api.app.site.fake;
    fake.set_capabilities(|can| (can.live_disks, can.live_nics) = (false, false));
    api.power(&vm, "start");
    let cannot = "this hypervisor cannot plug an interface into vm web1 while it runs; shut it down first";
    api.nothing_changes(400, cannot, || api.interface(&vm, "0"));
    assert_eq!(fake.calls(Verb::AttachNic), 0);
}

#[test]
fn while_the_hypervisor_is_away_devices_are_shown_and_not_changed() {
    let (api, stock) = Api::stocked();
    let vm = api.vm(&stock, "web1");
    assert_eq!(api.interface(&vm, "0").status, 201);
    let disk = api.disk(&vm, &stock.storlink, 1).ids("disk")[0].clone();
    let nic = api.get(&format!("/vms/{vm}/interfaces/")).ids("interface")[0].clone();
    let before = World::of(&api.app);
    api.app.site.fake.set_reachable(false);
    let away = "the fake hypervisor does not answer";
    api.disk(&vm, &stock.storlink, 1).refused(503, away);
    api.http.delete(&format!("/vms/{vm}/disks/{disk}/")).refused(503, away);
    api.interface(&vm, "0").refused(503, away);
    api.http.delete(&format!("/vms/{vm}/interface/{nic}/")).refused(503, away);
    assert_eq!(api.get(&format!("/vms/{vm}/disks/")).ids("disk").len(), 2);
    assert_eq!(api.get(&format!("/vms/{vm}/interfaces/")).ids("interface").len(), 1);
    // A record, which is no matter of the hypervisor.
    let address = "<vms><ipaddress>10.0.0.1</ipaddress></vms>";
    api.http.send("PUT", &format!("/vms/{vm}/interface/{nic}/update/"), address).empty_204();
    api.app.site.fake.set_reachable(true);
    api.app.assert_at_rest();
    let after = World::of(&api.app);
    assert_eq!((after.files, after.domains), (before.files, before.domains));
}

/// A volume that somebody removed by hand.
#[test]
fn a_vm_without_one_of_its_volumes_says_so_and_can_be_rid_of_it() {
    let (api, stock) = Api::stocked();
    let vm = api.vm(&stock, "web1");
    let disk = api.disk(&vm, &stock.storlink, 1).ids("disk")[0].clone();
    std::fs::remove_file(api.app.site.store_dir().join(format!("{disk}.qcow2"))).unwrap();
    let gone = format!("storage refused: volume {disk}.qcow2 of vm web1 is not on storlink 1");
    api.nothing_changes(400, &gone, || api.post(&format!("/vms/{vm}/start/"), ""));
    api.nothing_changes(400, &gone, || api.interface(&vm, "0"));
    api.http.delete(&format!("/vms/{vm}/disks/{disk}/")).empty_204();
    api.power(&vm, "start");
    assert_eq!(orders(&api.running(&vm)), [0]);
    api.app.assert_at_rest();
}

/// The manual's bodies as printed, with its variables filled; and as forms.
fn bodies(headers: &[(&str, &str)], kind: &str) {
    let (api, stock) = Api::stocked();
    let vm = api.vm(&stock, "web1");
    let send = |method: &str, uri: &str, name: &str, status: u16| {
        let body = file(&format!("contract/bodies/{name}.{kind}"));
        let body = body.replace("$storlink", &stock.storlink).replace("$desc", "data");
        let answer = api.http.ask(method, &format!("/vms/{vm}/{uri}"), headers, &body);
        assert_eq!(answer.status, status, "{uri} {headers:?} {body}: {answer:?}");
        answer
    };
    let disk = send("POST", "disks/", "disk-create", 201);
    assert_eq!((disk.element("size"), disk.element("desc"), disk.element("format")), ("1024", "data", "qcow2"));
    send("POST", "interfaces/", "interface-create", 201);
    send("POST", "interfaces/", "interface-create-v2", 201);
    let uri = format!("/vms/{vm}/interfaces/");
    assert_eq!(api.listed(&uri, "ip"), ["", "192.168.0.1"]);
    let nics = api.get(&uri).ids("interface");
    send("PUT", &format!("interface/{}/update/", nics[0]), "interface-update", 204);
    assert_eq!(api.listed(&uri, "ip"), ["192.168.0.1", "192.168.0.1"]);
    // The manual prints a body for this one too.
    send("DELETE", &format!("interface/{}/", nics[0]), "interface-create", 204);
    assert_eq!(api.listed(&uri, "name"), ["eth1"]);
    api.app.assert_at_rest();
}

#[test]
fn the_manuals_device_bodies_are_taken_as_printed_and_as_forms() {
    bodies(&[("Content-Type", "application/xml")], "xml");
    bodies(&[], "xml");
    bodies(&[("Content-Type", "application/x-www-form-urlencoded")], "form");
}

#[test]
fn a_storlink_that_is_gone_holds_no_new_disk() {
    let (api, stock) = Api::stocked();
    let vm = api.vm(&stock, "web1");
    let (here, away) = (api.app.site.store_dir(), api.app.site.dir.path().join("away"));
    std::fs::rename(&here, &away).unwrap();
    let refused = api.disk(&vm, &stock.storlink, 1);
    assert!(refused.status == 400 && refused.message().contains("is gone; mount it or make it"), "{refused:?}");
    std::fs::rename(&away, &here).unwrap();
    api.app.assert_at_rest();
    assert_eq!(api.disk(&vm, &stock.storlink, 1).status, 201);
}
