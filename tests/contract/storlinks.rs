//! Storlinks that change and go: rows 7, 9 and 10.

use super::{Api, file, vm};
use crate::harness::world::World;

fn body(name: &str, link: &str, rest: &str) -> String {
    format!("<s><name>{name}</name><link>{link}</link><type>LO</type><level>FL</level>{rest}</s>")
}

/// An empty directory beside the site's storlink.
fn place(api: &Api, name: &str) -> String {
    let path = api.app.site.dir.path().join(name);
    std::fs::create_dir(&path).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Registers a storlink; its number.
fn storlink(api: &Api, name: &str, link: &str, rest: &str) -> String {
    api.post("/storlinks/", &body(name, link, rest)).done(201, &format!("storlink {name} is registered"));
    api.get("/storlinks/").ids("storlink").pop().unwrap()
}

/// What the list shows of the storlink of this number.
fn shown(api: &Api, id: &str) -> String {
    let list = api.get("/storlinks/").body;
    let part = list.split("  <storlink id=").find(|part| part.starts_with(&format!("\"{id}\"")));
    part.unwrap_or_else(|| panic!("no storlink {id} in {list}")).to_owned()
}

#[test]
fn a_storlink_goes_and_its_files_stay() {
    let api = Api::new();
    let link = place(&api, "data2");
    std::fs::write(format!("{link}/notes.txt"), "mine").unwrap();
    let id = storlink(&api, "store2", &link, "");
    api.http.delete(&format!("/storlinks/{id}/")).empty_204();
    assert_eq!(api.get("/storlinks/").body, "<storlinks>\n</storlinks>\n");
    assert_eq!(std::fs::read_to_string(format!("{link}/notes.txt")).unwrap(), "mine");
    let gone = format!("there is no storlink {id}");
    api.http.delete(&format!("/storlinks/{id}/")).refused(404, &gone);
    api.put(&format!("/storlinks/{id}/"), "<s><name>x</name></s>").refused(404, &gone);
    // A number is never given twice: nothing that remembers the old one can mean the new one.
    assert_ne!(storlink(&api, "store2", &link, ""), id);
    api.app.assert_at_rest();
}

#[test]
fn a_storlink_in_use_does_not_go_and_says_by_what() {
    let (api, stock) = Api::stocked();
    let uri = format!("/storlinks/{}/", stock.storlink);
    let used = |by: &str| format!("storlink store1 is in use by {by}");
    let template = "a disk of template debian 8 64bit template";
    let before = World::of(&api.app);
    api.http.delete(&uri).refused(400, &used(template));
    assert_eq!(World::of(&api.app), before);
    let id = api.vm(&stock, "web1");
    let two = "2 disks, the first of template debian 8 64bit template";
    api.http.delete(&uri).refused(400, &used(two));
    api.http.delete(&format!("/vms/{id}/")).empty_204();
    api.http.delete(&uri).refused(400, &used(template));
    api.http.delete(&format!("/templates/{}/", stock.template)).empty_204();

    // A disc alone keeps it too.
    let elsewhere = storlink(&api, "store2", &place(&api, "data2"), "");
    std::fs::write(api.app.site.store_dir().join("debian.iso"), "iso").unwrap();
    let iso = format!("<os_disk_size>1</os_disk_size><iso>{}/debian.iso</iso>", stock.storlink);
    let there = super::Stock { storlink: elsewhere, template: String::new() };
    api.post("/vms/", &vm("web2", &there, &iso)).done(201, "vm web2 is created");
    api.http.delete(&uri).refused(400, &used("a disc of vm web2"));
    api.http.delete(&format!("/vms/{}/", api.vm_id("web2"))).empty_204();
    api.http.delete(&uri).empty_204();
    api.app.assert_at_rest();
}

/// Its rows are gone and its volumes are not yet: the storlink is needed until they are.
#[test]
fn a_storlink_stays_until_the_last_volume_of_a_deleted_vm_is_gone() {
    let api = Api::new();
    let stock = super::Stock { storlink: api.app.storlink().to_string(), template: String::new() };
    let id = api.vm(&stock, "web1");
    // The first effect of the delete sets the volume aside, the second removes it.
    api.app.site.storage.fail_effect(2, false);
    let uri = format!("/storlinks/{}/", stock.storlink);
    drop(api.http.delete(&format!("/vms/{id}/")));
    api.app.assert_at_rest();
    assert!(World::of(&api.app).files.is_empty());
    api.http.delete(&uri).empty_204();
    api.app.assert_at_rest();
}

#[test]
fn what_is_named_changes_and_all_else_stays() {
    let api = Api::new();
    let (first, second) = (place(&api, "data1"), place(&api, "data2"));
    let id = storlink(&api, "store1", &first, "<desc>one</desc>");
    let uri = format!("/storlinks/{id}/");
    let is = |name: &str, link: &str, kind: &str, desc: &str, shared: &str| {
        let shown = shown(&api, &id);
        for (element, value) in
            [("name", name), ("link", link), ("type", kind), ("level", "FL"), ("desc", desc), ("shared", shared)]
        {
            assert!(shown.contains(&format!("    <{element}>{value}</{element}>\n")), "{element} {value}: {shown}");
        }
    };
    is("store1", &first, "LO", "one", "False");
    api.put(&uri, "<s><desc>two &amp; more</desc></s>").empty_204();
    is("store1", &first, "LO", "two &amp; more", "False");
    api.put(&uri, "<s><name>renamed</name><shared>True</shared></s>").empty_204();
    is("renamed", &first, "LO", "two &amp; more", "True");
    api.put(&uri, &format!("<s><link>{second}</link><type>NFS</type><desc/></s>")).empty_204();
    is("renamed", &second, "NFS", "", "True");
    // Empty numbers and words are not given; nothing at all is no change.
    api.put(&uri, "<s><type/><level/><shared/></s>").empty_204();
    api.put(&uri, "").empty_204();
    is("renamed", &second, "NFS", "", "True");
    api.put(&uri, "<s><type>IO</type><shared>no</shared></s>").empty_204();
    is("renamed", &second, "LO", "", "False");
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    api.http.ask("PUT", &uri, &form, "name=by+form").empty_204();
    is("by form", &second, "LO", "", "False");
    api.app.assert_at_rest();
}

#[test]
fn a_change_names_every_bad_field_and_changes_nothing() {
    let api = Api::new();
    let (first, second) = (place(&api, "data1"), place(&api, "data2"));
    let id = storlink(&api, "store1", &first, "");
    storlink(&api, "store2", &second, "");
    let uri = format!("/storlinks/{id}/");
    let before = World::of(&api.app);
    let all = "<s><name/><link/><type>XX</type><level>YY</level><desc><x/></desc><shared>maybe</shared></s>";
    api.put(&uri, all).refused(
        400,
        "name: must not be empty; link: must not be empty; type: must be one of LO, FC, ISC, NFS, CEP; \
         level: must be one of FL, BL, OB; desc: must be text, not elements; shared: must be one of True, False",
    );
    // Against what the row has, where the body is silent.
    api.put(&uri, "<s><type>CEP</type></s>").refused(400, "level: must be OB for the type CEP");
    api.put(&uri, "<s><link>data</link></s>").refused(400, "link: must be an absolute path without `..`");
    let absent = api.put(&uri, &format!("<s><link>{first}/absent</link></s>"));
    assert!(absent.status == 400 && absent.message().starts_with("link: "), "{absent:?}");
    api.put(&uri, "<s><name>store2</name></s>").refused(400, "a storlink named store2 exists already");
    api.put(&uri, "<s><name>store1</name></s>").empty_204();
    assert_eq!(World::of(&api.app), before);
    api.app.assert_at_rest();
}

/// The manual's example makes a block storlink of it, which this release does not have.
#[test]
fn the_manuals_body_is_understood_and_refused_for_what_is_missing() {
    let api = Api::new();
    let id = storlink(&api, "store1", &place(&api, "data1"), "");
    let before = World::of(&api.app);
    let printed = file("contract/bodies/storlink-update.xml");
    api.put(&format!("/storlinks/{id}/"), &printed).refused(
        400,
        "a storlink of type LO and level BL cannot hold volumes; use type LO, NFS, FC or ISC with level FL",
    );
    assert_eq!(World::of(&api.app), before);
    let body = printed.replace("/data2", &place(&api, "data2")).replace("BL", "FL");
    api.put(&format!("/storlinks/{id}/"), &body).empty_204();
    let shown = shown(&api, &id);
    for text in ["<name>store2</name>", "/data2</link>", "<desc>VM store2</desc>", "<shared>False</shared>"] {
        assert!(shown.contains(text), "{shown}");
    }
    api.app.assert_at_rest();
}

#[test]
fn a_storlink_in_use_stays_where_and_what_it_is() {
    let (api, stock) = Api::stocked();
    let uri = format!("/storlinks/{}/", stock.storlink);
    let link = api.app.site.store_dir();
    let before = World::of(&api.app);
    let why = "cannot change while the storlink is in use by a disk of template debian 8 64bit template";
    api.put(&uri, "<s><name>x</name><link>/tmp</link><type>NFS</type><level>BL</level></s>")
        .refused(400, &format!("link: {why}; type: {why}; level: {why}"));
    assert_eq!(World::of(&api.app), before);
    // What is equal does not change.
    let same = format!("<s><name>renamed</name><link>{}</link><type>LO</type><level>FL</level></s>", link.display());
    api.put(&uri, &same).empty_204();
    api.put(&uri, "<s><desc>x</desc><shared>True</shared></s>").empty_204();
    api.put(&uri, "<s><shared>False</shared></s>").empty_204();
    assert!(shown(&api, &stock.storlink).contains("<name>renamed</name>"));
    api.app.assert_at_rest();
}

#[test]
fn the_list_with_pms_is_the_list_with_their_names() {
    let api = Api::new();
    assert_eq!(api.get("/storlinks/all/").body, "<storlinks>\n</storlinks>\n");
    storlink(&api, "a", &place(&api, "a"), "");
    storlink(&api, "b", &place(&api, "b"), "<shared>True</shared>");
    // How full the file system is may change between the two.
    let still = |text: String| {
        let lines = text.lines().filter(|line| !line.contains("<free>"));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    let all = api.get("/v2/storlinks/all/");
    assert_eq!(all.body.matches("    <pm_name>host1</pm_name>\n").count(), 2);
    let without = all.body.replace("    <pm_name>host1</pm_name>\n", "");
    assert_eq!(still(without), still(api.get("/storlinks/").body));
    api.app.assert_at_rest();
}
