//! The manual's example bodies, accepted as printed; and the same as forms.

use pengx::model::Format;

use super::{Api, file};
use crate::harness::app::make_image;

const XML: &[(&str, &str)] = &[("Content-Type", "application/xml")];
const FORM: &[(&str, &str)] = &[("Content-Type", "application/x-www-form-urlencoded")];

/// Storlink, template and VM from the manual's bodies; what they say must be what is there.
fn walk(headers: &[(&str, &str)], kind: &str, coded: impl Fn(&str) -> String) {
    let api = Api::new();
    let send = |uri: &str, body: &str| {
        let answer = api.http.ask("POST", uri, headers, body);
        assert_eq!(answer.status, 201, "{uri} {headers:?} {body}: {answer:?}");
    };
    let dir = api.app.site.store_dir();
    let link = dir.to_str().unwrap();
    send(
        "/storlinks/create/",
        &file(&format!("contract/bodies/storlink-create.{kind}")).replace("/data1", &coded(link)),
    );
    let storlinks = api.get("/storlinks/");
    for (element, value) in
        [("name", "store1"), ("link", link), ("desc", "VM store1"), ("type", "LO"), ("level", "FL"), ("shared", "True")]
    {
        assert_eq!(storlinks.element(element), value);
    }

    // The manual's site has at least eleven storlinks, this one has its first.
    let body = file(&format!("contract/bodies/template-add.{kind}"));
    let body = body.replace(">11<", ">1<").replace("storlink=11&", "storlink=1&");
    make_image(&dir.join("bed05d84-7c44-4720-9588-57cbd8ecef8c"), Format::Qcow2, 4);
    send("/templates/add/", &body);
    let templates = api.get("/templates/");
    for (element, value) in [
        ("name", "debian 8 64bit template"),
        ("size", "4"),
        ("os", "DEBIAN"),
        ("os_arch", "X64"),
        ("desc", "Debian 8 jessie 64bit template"),
    ] {
        assert_eq!(templates.element(element), value);
    }

    let template = templates.ids("template")[0].clone();
    let body = file(&format!("contract/bodies/vm-create.{kind}"));
    send("/vms/", &body.replace("$template_uuid", &template).replace("$storlink_id", "1"));
    let vm = api.get(&format!("/vms/{}/", api.vm_id("test_vm")));
    for (element, value) in [
        ("status", "SHUTDOWN"),
        ("cpu_core", "1"),
        ("memory", "512"),
        ("maxmem", "512"),
        ("disk_size", "4"),
        ("os", "DEBIAN"),
        ("os_type", "X64"),
        ("last_boot_time", "None"),
    ] {
        assert_eq!(vm.element(element), value);
    }
    let networks: Vec<&str> = vm.body.split("<network>").skip(1).map(|n| n.split('<').next().unwrap()).collect();
    assert_eq!(networks, ["xenbr0", "xenbr1"]);
    assert_eq!(api.app.site.fake.definitions()[0].disks[0].format, Format::Qcow2);
    api.app.assert_at_rest();
}

#[test]
fn the_manuals_bodies_are_taken_as_printed() {
    walk(XML, "xml", str::to_owned);
}

#[test]
fn the_manuals_bodies_are_taken_without_a_media_type_and_as_curl_sends_them() {
    walk(&[], "xml", str::to_owned);
    walk(FORM, "xml", str::to_owned);
}

#[test]
fn forms_have_the_same_fields() {
    walk(FORM, "form", |path| path.replace('/', "%2F"));
}

#[test]
fn multipart_forms_have_the_same_fields() {
    let api = Api::new();
    let link = api.app.site.store_dir();
    let fields = [("name", "store1"), ("link", link.to_str().unwrap()), ("type", "IO"), ("level", "FL")];
    let part = |(name, value)| format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    let body = fields.map(part).concat() + "--B--\r\n";
    let headers = [("Content-Type", "multipart/form-data; boundary=B")];
    api.http.ask("POST", "/storlinks/", &headers, &body).done(201, "storlink store1 is registered");
    assert_eq!(api.get("/storlinks/").element("shared"), "False");
    api.app.assert_at_rest();
}

#[test]
fn an_empty_element_is_a_value_that_was_not_given() {
    let (api, stock) = Api::stocked();
    let (storlink, template) = (&stock.storlink, &stock.template);
    let body = format!(
        "<vm id='ignored'><desc/><network><list-item/></network><disk_format></disk_format><maxmem> </maxmem>\
         <os_disk_size/><extra_disk_size/><unknown>x</unknown><template>{}</template><name>first</name>\
         <name> last </name><memory>64</memory><cpu_core>1</cpu_core><storlink>{storlink}</storlink></vm>",
        template.replace('-', "").to_uppercase()
    );
    api.post("/vms/", &body).done(201, "vm last is created");
    let vm = api.get(&format!("/vms/{}/", api.vm_id("last")));
    assert_eq!((vm.element("maxmem"), vm.element("disk_size"), vm.element("nics")), ("64", "4", "\n  "));
    api.app.assert_at_rest();
}
