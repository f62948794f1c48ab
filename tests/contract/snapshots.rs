//! Snapshots over HTTP: what is answered, what is refused and in which words, and what a refusal leaves as it was.

use pengx::error::ErrorKind;
use pengx::hypervisor::{Answer as Reply, Verb};
use pengx::store::vms;

use super::{Api, NOBODY, Stock, file};
use crate::harness::app::Site;
use crate::harness::http::Answer;
use crate::harness::images::{assert_whole, contents, of_snapshot, write};
use crate::harness::world::World;

impl Api {
    fn take(&self, vm: &str, storlink: &str, name: &str) -> Answer {
        let body = format!("<snapshot><name>{name}</name><storlink>{storlink}</storlink></snapshot>");
        self.post(&format!("/vms/{vm}/snapshots/"), &body)
    }

    /// The id of a new one.
    fn taken(&self, vm: &str, stock: &Stock, name: &str) -> String {
        let answer = self.take(vm, &stock.storlink, name);
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.ids("snapshot")[0].clone()
    }

    fn restored(&self, vm: &str, snapshot: &str) -> Answer {
        self.post(&format!("/vms/{vm}/snapshots/{snapshot}/"), "")
    }

    fn started(&self, vm: &str, snapshot: &str) -> Answer {
        self.post(&format!("/vms/{vm}/start/snapshots/{snapshot}/"), "")
    }

    fn dropped(&self, vm: &str, snapshot: &str) -> Answer {
        self.http.delete(&format!("/vms/{vm}/snapshots/{snapshot}/"))
    }

    /// Behind the API: the guest writes.
    fn mark(&self, vm: &str, block: usize, byte: u8) {
        write(&self.app, vm.parse().unwrap(), 0, block, byte);
    }
}

#[test]
fn snapshots_are_taken_listed_restored_started_and_deleted() {
    let (api, stock) = Api::stocked();
    let vm = api.vm(&stock, "web1");
    let uri = format!("/vms/{vm}/snapshots/");
    assert_eq!(api.get(&uri).body, "<snapshots>\n</snapshots>\n");
    api.mark(&vm, 0, 1);
    let first = api.take(&vm, &stock.storlink, "a &amp; b");
    assert_eq!((first.status, first.element("name"), first.element("type")), (201, "a &amp; b", "SAVED"));
    assert_eq!((first.element("parent"), first.element("desc")), ("None", ""));
    let first = first.ids("snapshot")[0].clone();
    // While it runs, under the same name.
    api.power(&vm, "start");
    api.mark(&vm, 0, 2);
    let second = api.take(&vm, &stock.storlink, "a &amp; b");
    assert_eq!((second.status, second.element("parent")), (201, first.as_str()));
    let second = second.ids("snapshot")[0].clone();
    assert_eq!(api.get(&uri).ids("snapshot"), [first.as_str(), &second]);
    let disks = api.get(&format!("/vms/{vm}/disks/snapshots/{first}/"));
    assert_eq!((disks.status, disks.ids("snapshot"), disks.element("order")), (200, vec![first.clone()], "0"));
    assert_whole(&api.app);

    api.mark(&vm, 0, 3);
    api.power(&vm, "poweroff");
    let back = api.restored(&vm, &first);
    assert_eq!((back.status, back.element("result")), (201, "success"), "{back:?}");
    let message = "vm web1 is restored to snapshot a &amp; b; what it was before is kept as snapshot before-restore 2";
    assert!(back.message().starts_with(message), "{back:?}");
    let all = api.get(&uri).ids("snapshot");
    assert_eq!((all.len(), api.listed(&uri, "name")[2].starts_with("before-restore 2")), (3, true));
    api.restored(&vm, &first).done(201, "vm web1 is restored to snapshot a &amp; b");
    api.started(&vm, &second).done(200, "vm web1 is started from snapshot a &amp; b");
    assert_eq!(api.status(&vm), "RUNNING");
    assert_eq!(contents(&api.app, &api.app.disks(vm.parse().unwrap()))[0].1[0], 2);
    assert_eq!(contents(&api.app, &of_snapshot(&api.app, all[2].parse().unwrap()))[0].1[0], 3);

    api.dropped(&vm, &second).empty_204();
    api.dropped(&vm, &first).empty_204();
    assert_whole(&api.app);
    assert_eq!(api.get(&uri).ids("snapshot"), [all[2].as_str()]);
    assert_eq!(contents(&api.app, &api.app.disks(vm.parse().unwrap()))[0].1[0], 2);
    assert_eq!(contents(&api.app, &of_snapshot(&api.app, all[2].parse().unwrap()))[0].1[0], 3);
    api.power(&vm, "poweroff");
    api.http.delete(&format!("/vms/{vm}/")).empty_204();
    api.get(&uri).refused(404, &format!("there is no vm {vm}"));
    api.app.assert_at_rest();
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let (api, stock) = Api::stocked();
    let (vm, other) = (api.vm(&stock, "web1"), api.vm(&stock, "web2"));
    let (mine, foreign) = (api.taken(&vm, &stock, "s1"), api.taken(&other, &stock, "s2"));
    let uri = format!("/vms/{vm}/snapshots/");
    api.nothing_changes(400, "name: is required; storlink: is required", || api.post(&uri, ""));
    api.nothing_changes(400, "storlink: must be a whole number", || api.take(&vm, "x", "s"));
    api.nothing_changes(404, "there is no storlink 4711", || api.take(&vm, "4711", "s"));
    let no_vm = format!("there is no vm {NOBODY}");
    api.get(&format!("/vms/{NOBODY}/snapshots/")).refused(404, &no_vm);
    api.nothing_changes(404, &no_vm, || api.take(NOBODY, &stock.storlink, "s"));
    api.nothing_changes(404, &no_vm, || api.restored(NOBODY, &mine));
    api.nothing_changes(404, &no_vm, || api.started(NOBODY, &mine));
    api.nothing_changes(404, &no_vm, || api.dropped(NOBODY, &mine));
    for snapshot in [foreign.as_str(), NOBODY] {
        let none = format!("there is no snapshot {snapshot}");
        api.nothing_changes(404, &none, || api.restored(&vm, snapshot));
        api.nothing_changes(404, &none, || api.started(&vm, snapshot));
        api.nothing_changes(404, &none, || api.dropped(&vm, snapshot));
        api.get(&format!("/vms/{vm}/disks/snapshots/{snapshot}/")).refused(404, &none);
    }
    // Off, or its guest would find another disk under itself.
    for (verb, state) in [("start", "RUNNING"), ("suspend", "PAUSED")] {
        api.power(&vm, verb);
        let off = format!("vm web1 is {state}; shut it down before restoring a snapshot");
        api.nothing_changes(400, &off, || api.restored(&vm, &mine));
        api.nothing_changes(400, &off, || api.started(&vm, &mine));
        let first = format!("vm web1 is {state}; shut it down before deleting it");
        api.nothing_changes(400, &first, || api.http.delete(&format!("/vms/{vm}/")));
    }
    let fake = &api.app.site.fake;
    fake.set_capabilities(|can| can.live_chains = false);
    let cannot = "this hypervisor cannot copy the disks of vm web1 while it runs; shut it down first";
    api.nothing_changes(400, cannot, || api.take(&vm, &stock.storlink, "s"));
    api.nothing_changes(400, cannot, || api.dropped(&vm, &mine));
    assert_eq!((fake.calls(Verb::OverlayDisks), fake.calls(Verb::StartBlockJob)), (0, 0));
    api.power(&vm, "poweroff");
    // Another one was taken on it.
    let child = api.taken(&vm, &stock, "s &amp; 3");
    let is_parent = "snapshot s1 is the parent of s &amp; 3; delete what was taken on it first";
    api.nothing_changes(400, is_parent, || api.dropped(&vm, &mine));
    api.restored(&vm, &mine).done(201, "vm web1 is restored to snapshot s1");
    let second = api.taken(&vm, &stock, "s4");
    let are = "snapshot s1 is the parent of s &amp; 3, s4; delete what was taken on it first";
    api.nothing_changes(400, are, || api.dropped(&vm, &mine));
    for snapshot in [&second, &child, &mine] {
        api.dropped(&vm, snapshot).empty_204();
    }
    assert_whole(&api.app);
    api.app.assert_at_rest();
}

#[test]
fn a_chain_grows_no_longer_than_it_may() {
    let mut site = Site::new();
    site.settings.max_chain = 3;
    let api = Api::on(site);
    let storlink = api.app.storlink();
    let stock = Stock { storlink: storlink.to_string(), template: String::new() };
    let vm = api.vm(&stock, "web1");
    let first = api.taken(&vm, &stock, "s1");
    let second = api.taken(&vm, &stock, "s2");
    let long = "vm web1 is on chains of 3 images, and 3 are allowed; delete a snapshot first";
    api.nothing_changes(400, long, || api.take(&vm, &stock.storlink, "s3"));
    api.power(&vm, "start");
    api.nothing_changes(400, long, || api.take(&vm, &stock.storlink, "s3"));
    api.power(&vm, "poweroff");
    // As long as it was is not longer.
    assert_eq!(api.restored(&vm, &second).status, 201);
    let Api { http, mut app } = api;
    drop(http);
    app.site.settings.max_chain = 2;
    let app = app.restart();
    let api = Api { http: crate::harness::http::Served::new(&app.core), app };
    let long = "vm web1 is on chains of 2 images, and 2 are allowed; delete a snapshot first";
    api.nothing_changes(400, long, || api.restored(&vm, &second));
    api.nothing_changes(400, long, || api.started(&vm, &second));
    assert_eq!(api.restored(&vm, &first).status, 201);
    api.app.assert_at_rest();
}

#[test]
fn no_room_is_told_before_the_first_byte() {
    let (api, stock) = Api::stocked();
    let vm = api.vm(&stock, "web1");
    api.mark(&vm, 0, 1);
    let first = api.taken(&vm, &stock, "s1");
    api.mark(&vm, 1, 2);
    let Api { http, mut app } = api;
    drop(http);
    app.site.settings.low_water_default = 100;
    let app = app.restart();
    let api = Api { http: crate::harness::http::Served::new(&app.core), app };
    let before = World::of(&api.app);
    for refused in [api.take(&vm, &stock.storlink, "s2"), api.restored(&vm, &first), api.dropped(&vm, &first)] {
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(refused.message().starts_with("storlink store1 has too little room: "), "{refused:?}");
    }
    api.app.assert_at_rest();
    assert_eq!(World::of(&api.app), before);
}

#[test]
fn the_vm_goes_on_where_it_is_told_and_goes_back_to_where_it_was() {
    let (api, stock) = Api::stocked();
    let vm = api.vm(&stock, "web1");
    let there = api.app.second_storlink().to_string();
    api.mark(&vm, 0, 1);
    let first = api.take(&vm, &there, "s1").ids("snapshot")[0].clone();
    let places = |uri: &str| api.listed(uri, "storlink");
    let (disks, frozen) = (format!("/vms/{vm}/disks/"), format!("/vms/{vm}/disks/snapshots/{first}/"));
    assert_eq!((places(&disks), places(&frozen)), (vec![there.clone()], vec![stock.storlink.clone()]));
    // The template is on the first one too.
    let other = api.app.store().read(|c| vms::find(c, vm.parse().unwrap())).unwrap().unwrap();
    assert_eq!(other.template, None);
    api.http.delete(&format!("/templates/{}/", stock.template)).empty_204();
    // Only what is frozen is there, and is in the way.
    let used = "storlink store1 is in use by a disk of snapshot s1";
    api.nothing_changes(400, used, || api.http.delete(&format!("/storlinks/{}/", stock.storlink)));
    api.mark(&vm, 0, 2);
    assert_eq!(api.restored(&vm, &first).status, 201);
    assert_eq!(places(&disks), std::slice::from_ref(&there));
    // Down into the image that the VM was made with, on the other storlink.
    api.dropped(&vm, &first).empty_204();
    assert_eq!(places(&disks), std::slice::from_ref(&stock.storlink));
    assert_whole(&api.app);
    assert_eq!(contents(&api.app, &api.app.disks(vm.parse().unwrap()))[0].1[0], 1);
    api.app.assert_at_rest();
}

#[test]
fn while_something_is_away_it_is_said_and_nothing_changes() {
    let (api, stock) = Api::stocked();
    let vm = api.vm(&stock, "web1");
    let first = api.taken(&vm, &stock, "s1");
    let before = World::of(&api.app);
    api.app.site.fake.set_reachable(false);
    let away = "the fake hypervisor does not answer";
    api.take(&vm, &stock.storlink, "s2").refused(503, away);
    api.restored(&vm, &first).refused(503, away);
    api.started(&vm, &first).refused(503, away);
    api.dropped(&vm, &first).refused(503, away);
    assert_eq!(api.get(&format!("/vms/{vm}/snapshots/")).ids("snapshot"), [first.as_str()]);
    api.app.site.fake.set_reachable(true);
    api.app.assert_at_rest();
    assert_eq!(World::of(&api.app), before);

    let (here, elsewhere) = (api.app.site.store_dir(), api.app.site.dir.path().join("away"));
    std::fs::rename(&here, &elsewhere).unwrap();
    let gone = format!("the storage refused: storlink directory {} is gone; mount it or make it", here.display());
    api.take(&vm, &stock.storlink, "s2").refused(400, &gone);
    api.restored(&vm, &first).refused(400, &gone);
    api.dropped(&vm, &first).refused(400, &gone);
    std::fs::rename(&elsewhere, &here).unwrap();
    api.app.assert_at_rest();
    assert_eq!(World::of(&api.app), before);
}

#[test]
fn a_refused_start_is_told_and_nothing_is_restored() {
    let (api, stock) = Api::stocked();
    let vm = api.vm(&stock, "web1");
    let first = api.taken(&vm, &stock, "s1");
    api.mark(&vm, 0, 1);
    let refusal = ErrorKind::Refused { by: "the hypervisor".to_owned(), why: "no memory".to_owned() };
    api.app.site.fake.fail_next(Verb::Start, Reply::Refuse(refusal));
    api.nothing_changes(400, "the hypervisor refused: no memory", || api.started(&vm, &first));
}

/// The manual's body as printed, with its variables filled; and as a form.
#[test]
fn the_manuals_body_is_taken() {
    let (api, stock) = Api::stocked();
    let vm = api.vm(&stock, "web1");
    for (headers, kind) in [
        (&[("Content-Type", "application/xml")][..], "xml"),
        (&[], "xml"),
        (&[("Content-Type", "application/x-www-form-urlencoded")], "form"),
    ] {
        let body = file(&format!("contract/bodies/snapshot-take.{kind}")).replace("$storlink_id", &stock.storlink);
        let body = body.replace("$snapshot_name", "s1").replace("$snapshot_desc", "data");
        let answer = api.http.ask("POST", &format!("/vms/{vm}/snapshots/"), headers, &body);
        assert_eq!((answer.status, answer.element("name"), answer.element("desc")), (201, "s1", "data"), "{answer:?}");
    }
    assert_whole(&api.app);
    api.app.assert_at_rest();
}
