//! The main walk over each database: storlink, template, create, start, read, shut down, delete.

use pengx::model::Format;

use super::{Api, file};
use crate::harness::app::{Site, make_image};
use crate::harness::postgres;
use crate::harness::world::World;

fn walk(site: Site) {
    let api = Api::on(site);
    let dir = api.app.site.store_dir();
    let body = file("contract/bodies/storlink-create.xml").replace("/data1", dir.to_str().unwrap());
    api.post("/storlinks/create/", &body).done(201, "storlink store1 is registered");
    let storlink = api.get("/storlinks/").ids("storlink")[0].clone();
    make_image(&dir.join("bed05d84-7c44-4720-9588-57cbd8ecef8c.qcow2"), Format::Qcow2, 4);
    let body = file("contract/bodies/template-add.xml").replace("<storlink>11<", &format!("<storlink>{storlink}<"));
    api.post("/templates/add/", &body).done(201, "template debian 8 64bit template is added");
    let template = api.get("/templates/").ids("template")[0].clone();
    let before = World::of(&api.app);

    let body = file("contract/bodies/vm-create.xml");
    let body = body.replace("$template_uuid", &template).replace("$storlink_id", &storlink);
    api.post("/vms/", &body).done(201, "vm test_vm is created");
    let id = api.vm_id("test_vm");
    let of = |verb: &str| api.post(&format!("/vms/{id}/{verb}/"), "");
    assert_eq!(api.status(&id), "SHUTDOWN");
    of("start").done(200, "vm test_vm is started");
    let shown = api.get(&format!("/vms/{id}/"));
    assert_eq!((shown.element("status"), shown.element("vnc_port")), ("RUNNING", "5900"));
    assert_ne!(shown.element("last_boot_time"), "None");
    let list = api.get("/vms/");
    assert_eq!((list.element("status"), list.ids("vm")), ("RUNNING", vec![id.clone()]));
    of("shutdown").done(200, "vm test_vm is shut down");
    assert_eq!(api.status(&id), "SHUTDOWN");
    of("start").done(200, "vm test_vm is started");
    of("poweroff").done(200, "vm test_vm is powered off");
    assert_eq!(api.get("/vms/").element("status"), "SHUTDOWN");
    api.http.delete(&format!("/vms/{id}/")).empty_204();
    assert_eq!(api.get("/vms/").body, "<vms>\n</vms>\n");
    api.get(&format!("/vms/{id}/")).refused(404, &format!("there is no vm {id}"));

    let tasks = api.get("/tasks/");
    let kinds: Vec<&str> = tasks.body.split("<kind>").skip(1).map(|t| t.split('<').next().unwrap()).collect();
    let walked = [
        "vm.delete",
        "vm.poweroff",
        "vm.start",
        "vm.shutdown",
        "vm.start",
        "vm.create",
        "template.add",
        "storlink.create",
    ];
    assert_eq!(kinds, walked);
    assert_eq!(tasks.body.matches("<state>success</state>").count(), walked.len());
    assert_eq!(World::of(&api.app), before);
    api.app.assert_at_rest();
}

#[test]
fn the_main_walk_over_sqlite() {
    walk(Site::new());
}

#[test]
fn the_main_walk_over_postgres() {
    let mut site = Site::new();
    site.database_url = postgres::database();
    walk(site);
}
