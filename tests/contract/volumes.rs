//! What lies on a storlink, with its owner; and what may be removed.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use pengx::model::*;
use pengx::store::{backups, disks, journal, snapshots, tasks};

use super::{Api, NOBODY, Stock, vm};
use crate::harness::app::{Site, make_image};
use crate::harness::postgres;
use crate::harness::world::World;

/// Of each file its kind of owner, the id and the text.
fn owners(api: &Api, stock: &Stock) -> BTreeMap<String, (String, String, String)> {
    let list = api.get(&format!("/storlinks/{}/volumes/", stock.storlink));
    assert_eq!(list.status, 200, "{list:?}");
    let between = |text: &str, from: &str, to: &str| {
        text.split_once(from).and_then(|(_, rest)| rest.split_once(to)).unwrap().0.to_owned()
    };
    let entries = list.body.split("  <volume id=").skip(1);
    let entry = |text: &str| {
        let owner = between(text, "<owner ", "</owner>");
        let of = (between(&owner, "kind=\"", "\""), between(&owner, "id=\"", "\""), between(&owner, "\">", "\n"));
        (between(text, "<name>", "</name>"), of)
    };
    entries.map(|text| entry(&text.replace("</owner>", "\n</owner>"))).collect()
}

fn is(kind: &str, id: impl ToString, by: &str) -> (String, String, String) {
    (kind.to_owned(), id.to_string(), by.to_owned())
}

fn time() -> chrono::NaiveDateTime {
    chrono::NaiveDate::from_ymd_opt(2017, 7, 26).unwrap().and_hms_opt(15, 4, 5).unwrap()
}

/// Gives the second disk of the VM to a snapshot, and a third one to a backup.
fn owners_of_all_kinds(api: &Api, vm: VmId, storlink: StorlinkId) -> (SnapshotId, BackupId, Vec<Disk>) {
    let (snapshot, backup) = (SnapshotId(uuid::Uuid::from_u128(0x51)), BackupId(uuid::Uuid::from_u128(0xba)));
    let store = api.app.store();
    let all = store.read(|c| disks::of_vm(c, vm)).unwrap();
    let copy = Disk {
        id: DiskId(uuid::Uuid::from_u128(0xd1)),
        owner: DiskOwner::Backup(backup),
        order: 0,
        volume: VolumeName::new(DiskId(uuid::Uuid::from_u128(0xd1)), Format::Qcow2),
        ..all[0].clone()
    };
    store
        .write_tx(|tx| {
            snapshots::insert(
                tx,
                &Snapshot {
                    id: snapshot,
                    vm,
                    name: "before".to_owned(),
                    kind: SnapshotKind::Saved,
                    parent: None,
                    desc: String::new(),
                    created_at: time(),
                },
            )?;
            disks::hand_over(tx, all[1].id, DiskOwner::Snapshot(snapshot), 0, None)?;
            backups::insert(
                tx,
                &Backup {
                    id: backup,
                    vm,
                    name: "monday".to_owned(),
                    storlink,
                    size: MiB(4),
                    desc: String::new(),
                    created_at: time(),
                    config: BackupConfig::default(),
                    manifest: String::new(),
                    verified_at: None,
                    proven_at: None,
                },
            )?;
            disks::insert(tx, &copy)
        })
        .unwrap();
    (snapshot, backup, [all, vec![copy]].concat())
}

fn every_file_has_its_owner(site: Site) {
    let api = Api::on(site);
    let storlink = api.app.storlink();
    let template = api.app.template(storlink, Format::Qcow2);
    let stock = Stock { storlink: storlink.to_string(), template: template.to_string() };
    let made = vm("web1", &stock, "<os_disk_size>4</os_disk_size><extra_disk_size>2</extra_disk_size>");
    api.post("/vms/", &made).done(201, "vm web1 is created");
    let id: VmId = api.vm_id("web1").parse().unwrap();
    let (snapshot, backup, rows) = owners_of_all_kinds(&api, id, storlink);
    let dir = api.app.site.store_dir();
    let put = |name: &str| std::fs::write(dir.join(name), "x").unwrap();
    put(rows[2].volume.as_str());
    put(&format!("{backup}.json"));
    put(&format!("{backup}.json.part"));
    put("debian 12.iso");
    put("notes & more.txt");
    put(&format!("{NOBODY}.qcow2"));
    put(&format!("{}.deleted", rows[0].volume));
    let orphan = api.app.orphan(storlink, Format::Raw);
    let other = api.app.orphan(storlink, Format::Qcow2);
    std::fs::rename(dir.join(other.as_str()), dir.join(format!("{other}.part"))).unwrap();
    // A task that is over and has something left to do, in whatever way its journal says it.
    let claimed = api.app.orphan(storlink, Format::Qcow2);
    let folded = OverlayOf { disk: rows[0].id, storlink, volume: claimed.clone() };
    let task = api.app.pending_elsewhere(&Compensation::FoldOverlays { vm: id, overlays: vec![folded], paused: false });
    let seen = owners(&api, &stock);
    let refused = api.http.delete(&format!("/storlinks/{storlink}/volumes/{claimed}/"));
    refused.refused(400, &format!("volume {claimed} is in use by task {task} (vm.create: vm web1)"));
    api.app.store().note_tx(|tx| journal::remove(tx, task, 0)).unwrap();

    let image = "00000000-0000-0000-0000-0000bed05d84.qcow2".to_owned();
    let expected = [
        (image, is("template", template, "template debian 8 64bit template")),
        (rows[0].volume.to_string(), is("disk", rows[0].id, "vm web1")),
        (format!("{}.deleted", rows[0].volume), is("disk", rows[0].id, "vm web1")),
        (rows[1].volume.to_string(), is("snapshot", snapshot, "snapshot before of vm web1")),
        (rows[2].volume.to_string(), is("backup", backup, "backup monday of vm web1")),
        (format!("{backup}.json"), is("backup", backup, "backup monday of vm web1")),
        (format!("{backup}.json.part"), is("backup", backup, "backup monday of vm web1")),
        ("debian 12.iso".to_owned(), is("iso", format!("{storlink}/debian 12.iso"), "")),
        ("notes &amp; more.txt".to_owned(), is("foreign", "", "")),
        (format!("{NOBODY}.qcow2"), is("foreign", "", "")),
        (orphan.to_string(), is("orphan", "", "")),
        (format!("{other}.part"), is("orphan", "", "")),
        (claimed.to_string(), is("task", task, "vm.create: vm web1")),
    ];
    assert_eq!(seen, expected.into());

    let uri = |name: &str| format!("/storlinks/{storlink}/volumes/{name}/");
    let before = World::of(&api.app);
    for (name, by) in [
        (rows[0].volume.to_string(), format!("disk {} of vm web1", rows[0].id)),
        (rows[1].volume.to_string(), "snapshot before of vm web1".to_owned()),
        (format!("{backup}.json"), "backup monday of vm web1".to_owned()),
        ("00000000-0000-0000-0000-0000bed05d84.qcow2".to_owned(), "template debian 8 64bit template".to_owned()),
    ] {
        api.http.delete(&uri(&name)).refused(400, &format!("volume {name} is in use by {by}"));
    }
    for name in ["debian%2012.iso".to_owned(), format!("{NOBODY}.qcow2")] {
        let plain = name.replace("%20", " ");
        let why = format!("pengx refused: volume {plain} was not made by this site; who put it there may remove it");
        api.http.delete(&uri(&name)).refused(400, &why);
    }
    assert_eq!(World::of(&api.app), before);
    api.app.assert_at_rest();
}

#[test]
fn every_file_has_its_owner_over_sqlite() {
    every_file_has_its_owner(Site::new());
}

#[test]
fn every_file_has_its_owner_over_postgres() {
    let mut site = Site::new();
    site.database_url = postgres::database();
    every_file_has_its_owner(site);
}

#[test]
fn totals_are_of_each_kind() {
    let (api, stock) = Api::stocked();
    let storlink: StorlinkId = stock.storlink.parse().unwrap();
    let uri = format!("/storlinks/{storlink}/volumes/");
    api.app.orphan(storlink, Format::Raw);
    api.app.orphan(storlink, Format::Raw);
    let list = api.get(&uri);
    let total = |kind: &str| {
        let part = list.body.split(&format!("<total kind=\"{kind}\">")).nth(1)?;
        Some(part.split_once("</total>").unwrap().0.to_owned())
    };
    assert!(total("orphan").unwrap().contains("<count>2</count>\n    <size>2</size><!-- unit: MB -->"), "{list:?}");
    assert!(total("template").unwrap().contains("<count>1</count>"));
    assert_eq!(total("disk"), None);
    assert_eq!(list.element("unlisted"), "0");
    assert_eq!(list.ids("volume").len(), 3);
    api.get("/storlinks/4711/volumes/").refused(404, "there is no storlink 4711");
}

#[test]
fn an_orphan_goes_after_its_quarantine_and_only_once() {
    let (api, stock) = Api::stocked();
    let storlink: StorlinkId = stock.storlink.parse().unwrap();
    let before = World::of(&api.app);
    let orphan = api.app.orphan(storlink, Format::Qcow2);
    let uri = format!("/storlinks/{storlink}/volumes/{orphan}/");
    let young = api.http.delete(&uri);
    let says = format!("volume {orphan} is an orphan that changed last at 20");
    assert!(young.status == 400 && young.message().starts_with(&says), "{young:?}");
    assert!(young.message().contains(" UTC; it may be removed from 20"), "{young:?}");
    // One second too early, by the clock of the server.
    let list = api.get(&format!("/storlinks/{storlink}/volumes/"));
    let deletable = list.body.split("<deletable>20").nth(1).unwrap().split_once('<').unwrap().0;
    assert!(young.message().contains(&format!("from 20{deletable} UTC on")), "{young:?} {list:?}");
    api.app.site.ahead.store(86_400 - 60, Ordering::SeqCst);
    assert_eq!(api.http.delete(&uri).status, 400);
    // Whatever is done to it begins it anew: to the quarantine it has just been touched.
    api.app.site.ahead.store(86_400 + 60, Ordering::SeqCst);
    api.http.delete(&uri).empty_204();
    assert_eq!(World::of(&api.app), before);
    api.http.delete(&uri).refused(404, &format!("there is no volume {orphan}"));
    let task = api.app.store().read(|c| tasks::recent(c, 2)).unwrap().remove(1);
    assert_eq!((task.kind, task.state), (TaskKind::VolumeDelete, TaskState::Success));
    assert_eq!(task.subject, format!("volume {orphan} of storlink store1"));
    api.app.assert_at_rest();
}

#[test]
fn names_in_the_uri_are_plain_names_of_files() {
    let (api, stock) = Api::stocked();
    let volumes = format!("/storlinks/{}/volumes", stock.storlink);
    std::fs::write(api.app.site.dir.path().join("secret"), "mine").unwrap();
    std::fs::write(api.app.site.store_dir().join("a b.xml"), "mine").unwrap();
    let before = World::of(&api.app);
    for name in ["..", "%2e%2e", ".", "../secret", "..%2fsecret", "%2e%2e%2Fsecret", "a/b", "a%2fb", "a%00", "%0a", ""]
    {
        let answer = api.http.delete(&format!("{volumes}/{name}/"));
        assert!([404, 405].contains(&answer.status), "{name}: {answer:?}");
    }
    // Decoded once: these are names, of nothing that there is.
    for (name, plain) in
        [("%252e%252e", "%2e%2e"), ("...", "..."), ("a%5Cb", "a\\b"), ("-rf", "-rf"), ("%EA%B0%80", "가")]
    {
        api.http.delete(&format!("{volumes}/{name}/")).refused(404, &format!("there is no volume {plain}"));
    }
    // `.xml` is no suffix here.
    let foreign = "pengx refused: volume a b.xml was not made by this site; who put it there may remove it";
    for name in ["a%20b.xml/", "a%20b.xml"] {
        api.http.delete(&format!("{volumes}/{name}")).refused(400, foreign);
    }
    assert_eq!(api.get(&format!("{volumes}/x/")).status, 405);
    assert_eq!(api.http.delete(&format!("{volumes}/")).status, 405);
    assert_eq!(World::of(&api.app), before);
    assert!(api.app.site.dir.path().join("secret").exists());
    api.app.assert_at_rest();
}

#[test]
fn an_orphan_that_somebody_uses_stays() {
    let (api, stock) = Api::stocked();
    let storlink: StorlinkId = stock.storlink.parse().unwrap();
    let id: VmId = api.vm(&stock, "web1").parse().unwrap();
    let (base, named) = (api.app.orphan(storlink, Format::Raw), api.app.orphan(storlink, Format::Raw));
    let dir = api.app.site.store_dir();
    // An image of ours reads from it, whatever its record says; and a domain names it.
    let disk = api.app.store().read(|c| disks::of_vm(c, id)).unwrap().remove(0);
    crate::harness::tool::qemu_img(&[
        "rebase",
        "-u",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "-b",
        dir.join(base.as_str()).to_str().unwrap(),
        dir.join(disk.volume.as_str()).to_str().unwrap(),
    ]);
    let fake = &api.app.site.fake;
    let mut spec = fake.definitions().remove(0);
    spec.disks[0].source = VolumeSource::File(dir.join(named.as_str()));
    pengx::hypervisor::Hypervisor::define(fake, &spec).unwrap();
    api.app.wait_out_quarantine();
    let before = World::of(&api.app);
    let uri = |name: &VolumeName| format!("/storlinks/{storlink}/volumes/{name}/");
    api.http.delete(&uri(&base)).refused(
        400,
        &format!("volume {base} is in use by volume {} of storlink store1, which reads from it", disk.volume),
    );
    api.http.delete(&uri(&named)).refused(400, &format!("volume {named} is in use by domain pengx-{id}"));
    // Nobody can tell while the hypervisor is away.
    fake.set_reachable(false);
    assert_eq!(api.http.delete(&uri(&base)).status, 503);
    fake.set_reachable(true);
    assert_eq!(World::of(&api.app), before);
    api.app.assert_at_rest();
}

/// A template is made of a file that nobody owned: from then on it has an owner.
#[test]
fn an_orphan_that_becomes_a_template_stays() {
    let (api, stock) = Api::stocked();
    let storlink: StorlinkId = stock.storlink.parse().unwrap();
    let orphan = api.app.orphan(storlink, Format::Raw);
    make_image(&api.app.site.store_dir().join(orphan.as_str()), Format::Raw, 1);
    api.app.wait_out_quarantine();
    let disk = orphan.as_str().strip_suffix(".raw").unwrap();
    let body = format!(
        "<t><name>found</name><os>OTHER</os><os_arch>X64</os_arch>\
         <disk><storlink>{storlink}</storlink><uuid>{disk}</uuid><format>raw</format></disk></t>"
    );
    api.post("/templates/add/", &body).done(201, "template found is added");
    let uri = format!("/storlinks/{storlink}/volumes/{orphan}/");
    api.http.delete(&uri).refused(400, &format!("volume {orphan} is in use by template found"));
    api.app.assert_at_rest();
}
