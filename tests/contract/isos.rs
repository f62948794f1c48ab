//! ISO images: listed on their storlink, in the drive from a create on, put in and taken out by an update.

use pengx::model::{DomainSpec, VmId, VolumeSource};

use super::{Api, NOBODY, Stock, vm};
use crate::harness::world::World;

fn put(api: &Api, name: &str, bytes: u64) -> std::path::PathBuf {
    let path = api.app.site.store_dir().join(name);
    std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
    path
}

fn with_disc(api: &Api, stock: &Stock, name: &str, iso: &str) -> String {
    let body = vm(name, stock, &format!("<os_disk_size>4</os_disk_size><iso>{iso}</iso>"));
    api.post("/vms/", &body).done(201, &format!("vm {name} is created"));
    api.vm_id(name)
}

fn defined(api: &Api, id: &str) -> DomainSpec {
    api.app.site.fake.definitions().into_iter().find(|d| d.id.to_string() == id).unwrap()
}

fn running(api: &Api, id: &str) -> Option<VolumeSource> {
    api.app.site.fake.running(id.parse::<VmId>().unwrap()).unwrap().disc
}

fn update(api: &Api, id: &str, iso: &str) -> crate::harness::http::Answer {
    api.http.send("PUT", &format!("/vms/{id}/update/"), &format!("<vm><iso>{iso}</iso></vm>"))
}

#[test]
fn the_images_of_a_storlink_are_listed() {
    let (api, stock) = Api::stocked();
    let uri = format!("/storlinks/{}/isos/", stock.storlink);
    assert_eq!(api.get(&uri).body, "<isos>\n</isos>\n");
    put(&api, "b & c.iso", (1 << 20) + 1);
    put(&api, "a.iso", 0);
    std::os::unix::fs::symlink("a.iso", api.app.site.store_dir().join("link.iso")).unwrap();
    let answer = api.get(&uri);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/xml; charset=utf-8")));
    assert_eq!(
        answer.body,
        r#"<isos>
  <iso id="1/a.iso">
    <name>a.iso</name>
    <size>0</size>
    <storlink>1</storlink>
  </iso>
  <iso id="1/b &amp; c.iso">
    <name>b &amp; c.iso</name>
    <size>2</size>
    <storlink>1</storlink>
  </iso>
</isos>
"#
    );
    api.get("/storlinks/4711/isos/").refused(404, "there is no storlink 4711");
    std::fs::rename(api.app.site.store_dir(), api.app.site.dir.path().join("away")).unwrap();
    let gone = api.get(&uri);
    assert!(gone.status == 400 && gone.message().contains("is gone; mount it or make it"), "{gone:?}");
    api.app.assert_at_rest();
}

#[test]
fn a_vm_is_created_with_a_disc_or_an_empty_drive() {
    let (api, stock) = Api::stocked();
    let path = put(&api, "debian 12.iso", 5);
    let id = with_disc(&api, &stock, "web1", "1/debian 12.iso");
    assert_eq!(defined(&api, &id).disc, Some(VolumeSource::File(path)));
    let empty = with_disc(&api, &stock, "web2", "");
    assert_eq!(defined(&api, &empty).disc, None);
    let before = World::of(&api.app);
    let create =
        |iso: &str| api.post("/vms/", &vm("web3", &stock, &format!("<os_disk_size>4</os_disk_size><iso>{iso}</iso>")));
    create("debian.iso").refused(400, "iso: must be STORLINK/FILE.iso, as in 2/debian.iso");
    create("1/../debian.iso").refused(400, "iso: the name of the file must be the plain name of a file");
    create("1/debian.img").refused(400, "iso: the name of the file must end in .iso");
    create("4711/debian.iso").refused(404, "there is no storlink 4711");
    let absent = format!("iso: {} is not there", api.app.site.store_dir().join("x.iso").display());
    create("1/x.iso").refused(400, &absent);
    // Together with what else is wrong.
    let answer =
        api.post("/vms/", &vm("", &stock, "<os_disk_size>4</os_disk_size><network>9</network><iso>1/x.iso</iso>"));
    let network = "network: bridge xenbr9 neither exists on this host nor is mapped in [bridges]";
    answer.refused(400, &format!("name: is required; {network}; {absent}"));
    assert_eq!(World::of(&api.app), before);
    api.app.assert_at_rest();
}

#[test]
fn a_disc_is_put_in_and_taken_out_whether_the_vm_runs_or_not() {
    let (api, stock) = Api::stocked();
    let (a, b) = (put(&api, "a.iso", 1), put(&api, "b.iso", 1));
    let (a, b) = (Some(VolumeSource::File(a)), Some(VolumeSource::File(b)));
    let id = api.vm(&stock, "web1");
    update(&api, &id, "1/a.iso").empty_204();
    assert_eq!(defined(&api, &id).disc, a);
    for paused in [false, true] {
        api.post(&format!("/vms/{id}/start/"), "").done(200, "vm web1 is started");
        if paused {
            api.post(&format!("/vms/{id}/suspend/"), "").done(200, "vm web1 is suspended");
        }
        assert_eq!(running(&api, &id), a);
        update(&api, &id, "1/b.iso").empty_204();
        assert_eq!((running(&api, &id), defined(&api, &id).disc), (b.clone(), b.clone()));
        update(&api, &id, "").empty_204();
        assert_eq!((running(&api, &id), defined(&api, &id).disc), (None, None));
        // Another change leaves the drive alone.
        update(&api, &id, "1/a.iso").empty_204();
        api.http.send("PUT", &format!("/vms/{id}/update/"), "<vm><maxmem>512</maxmem></vm>").empty_204();
        assert_eq!((running(&api, &id), defined(&api, &id).disc), (a.clone(), a.clone()));
        api.post(&format!("/vms/{id}/poweroff/"), "").done(200, "vm web1 is powered off");
    }
    let before = World::of(&api.app);
    update(&api, &id, "4711/a.iso").refused(404, "there is no storlink 4711");
    std::os::unix::fs::symlink("a.iso", api.app.site.store_dir().join("link.iso")).unwrap();
    let link = update(&api, &id, "1/link.iso");
    assert!(
        link.status == 400 && link.message().ends_with("is a symbolic link; put the file itself there"),
        "{link:?}"
    );
    std::fs::remove_file(api.app.site.store_dir().join("link.iso")).unwrap();
    update(&api, NOBODY, "1/a.iso").refused(404, &format!("there is no vm {NOBODY}"));
    assert_eq!(World::of(&api.app), before);
    api.app.assert_at_rest();
}

#[test]
fn a_vm_whose_disc_has_vanished_starts_once_it_is_ejected() {
    let (api, stock) = Api::stocked();
    let path = put(&api, "a.iso", 1);
    let id = with_disc(&api, &stock, "web1", "1/a.iso");
    std::fs::remove_file(&path).unwrap();
    let start = || api.post(&format!("/vms/{id}/start/"), "");
    start().refused(
        400,
        &format!(
            "storage refused: the disc 1/a.iso of vm web1 cannot be used ({} is not there); \
             eject it with an update whose iso is empty",
            path.display()
        ),
    );
    api.app.assert_at_rest();
    // All else goes on: it is renamed, and its row still says which disc it is.
    api.http.send("PUT", &format!("/vms/{id}/edit/"), "<vm><name>web2</name></vm>").empty_204();
    put(&api, "a.iso", 1);
    start().done(200, "vm web2 is started");
    assert_eq!(running(&api, &id), Some(VolumeSource::File(path.clone())));
    std::fs::remove_file(&path).unwrap();
    let reset = api.post(&format!("/vms/{id}/reset/"), "");
    assert!(reset.status == 400 && reset.message().contains("eject it"), "{reset:?}");
    assert_eq!(api.status(&id), "RUNNING");
    update(&api, &id, "").empty_204();
    assert_eq!(running(&api, &id), None);
    api.post(&format!("/vms/{id}/reset/"), "").done(200, "vm web2 is reset");
    api.app.assert_at_rest();
}

#[test]
fn a_storage_that_does_not_answer_is_a_503_and_its_disc_can_be_ejected() {
    let (api, stock) = Api::stocked();
    put(&api, "a.iso", 1);
    let id = with_disc(&api, &stock, "web1", "1/a.iso");
    let before = World::of(&api.app);
    api.app.site.storage.hide_isos(true);
    let away = "the storage at /nfs does not answer";
    api.get("/storlinks/1/isos/").refused(503, away);
    api.post(&format!("/vms/{id}/start/"), "").refused(503, away);
    api.http.send("PUT", &format!("/vms/{id}/update/"), "<vm><cpu_core>2</cpu_core></vm>").refused(503, away);
    api.post("/vms/", &vm("web2", &stock, "<os_disk_size>4</os_disk_size><iso>1/a.iso</iso>")).refused(503, away);
    api.app.assert_at_rest();
    assert_eq!(World::of(&api.app), before);
    update(&api, &id, "").empty_204();
    api.post(&format!("/vms/{id}/start/"), "").done(200, "vm web1 is started");
    update(&api, &id, "1/a.iso").refused(503, away);
    api.app.site.storage.hide_isos(false);
    update(&api, &id, "1/a.iso").empty_204();
    api.app.assert_at_rest();
}
