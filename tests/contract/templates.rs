//! Templates: made empty, installed, changed, looked at, deleted. Rows 13, 14, 16, 17, 18 and the power of a template.

use std::path::PathBuf;

use pengx::error::ErrorKind;
use pengx::hypervisor::{Answer, Verb};
use pengx::model::{DomainSpec, MiB, Os, PowerState, Template, VolumeSource};

use super::{Api, NOBODY, Stock, file, vm};
use crate::harness::wait::wait_until;
use crate::harness::world::World;

const GONE: &str = "there is no template 0f6a9c1e-0000-4000-8000-00000000ffff";

/// A site with a storlink and the manual's template of row 17; the URI of the template.
fn made() -> (Api, Stock, String) {
    let api = Api::new();
    let storlink = api.app.storlink().to_string();
    let template = new(&api, &storlink, "");
    let uri = format!("/templates/{template}/");
    (api, Stock { storlink, template }, uri)
}

/// The manual's body of row 17 and more; the id.
fn new(api: &Api, storlink: &str, more: &str) -> String {
    let body = file("contract/bodies/template-new.xml").replace(">11<", &format!(">{storlink}<"));
    let body = body.replace("</disk>", &format!("</disk>{more}"));
    api.post("/templates/add_new/", &body).done(201, "template debian 8 64bit template is created");
    api.get("/templates/").ids("template").pop().unwrap()
}

fn disc(api: &Api, name: &str) -> PathBuf {
    let path = api.app.site.store_dir().join(name);
    std::fs::write(&path, "an installer").unwrap();
    path
}

fn domain(stock: &Stock) -> pengx::model::VmId {
    Template::domain(stock.template.parse().unwrap())
}

fn running(api: &Api, stock: &Stock) -> DomainSpec {
    api.app.site.fake.running(domain(stock)).expect("it does not run")
}

#[test]
fn a_new_template_has_an_empty_disk_of_its_size_and_format() {
    let (api, stock, uri) = made();
    let shown = api.get(&uri);
    for (element, value) in [
        ("name", "debian 8 64bit template"),
        ("size", "102400"),
        ("os", "DEBIAN"),
        ("os_arch", "X64"),
        ("desc", "Debian 8 jessie 64bit template"),
        ("lock_status", "False"),
        ("state", "SHUTDOWN"),
        ("recent_booted_at", "None"),
        ("vnc_port", "None"),
        ("vnc_password", "None"),
    ] {
        assert_eq!(shown.element(element), value, "{element}");
    }
    let disks = api.get(&format!("{uri}disks/"));
    let disk = disks.ids("disk")[0].clone();
    assert_eq!(disks.ids("template"), [stock.template.as_str()]);
    let image = api.app.site.store_dir().join(format!("{disk}.qcow2"));
    let info = crate::harness::tool::qemu_img(&["info", "--output=json", image.to_str().unwrap()]);
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!((info["format"].as_str(), info["virtual-size"].as_u64()), (Some("qcow2"), Some(102_400 << 20)));
    // As a form, and raw.
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let body = format!("name=raw&os=OTHER&os_arch=X86&disk.storlink={}&disk.size=3&disk.format=raw", stock.storlink);
    api.http.ask("POST", "/templates/add_new/", &form, &body).done(201, "template raw is created");
    let files = std::fs::read_dir(api.app.site.store_dir()).unwrap();
    let sizes: Vec<u64> = files.map(|file| file.unwrap().metadata().unwrap().len()).collect();
    assert!(sizes.len() == 2 && sizes.contains(&(3 << 20)), "{sizes:?}");
    api.app.assert_at_rest();
}

#[test]
fn a_new_template_names_every_bad_field_and_leaves_nothing() {
    let (api, stock, _) = made();
    let before = World::of(&api.app);
    let ask = |rest: &str| api.post("/templates/add_new/", &format!("<t>{rest}</t>"));
    ask("").refused(
        400,
        "name: is required; os: is required; os_arch: is required; disk.storlink: is required; \
         disk.size: is required; disk.format: is required",
    );
    let words = "<os>OTHER</os><os_arch>X64</os_arch>";
    let disk =
        |storlink: &str| format!("<disk><storlink>{storlink}</storlink><size>1</size><format>qcow2</format></disk>");
    let here = disk(&stock.storlink);
    ask(&format!("<name>t</name>{words}{}", disk("4711"))).refused(404, "there is no storlink 4711");
    let absent = format!("<iso>{}/absent.iso</iso>", stock.storlink);
    let both = ask(&format!("{words}{here}{absent}"));
    assert_eq!(both.status, 400, "{both:?}");
    assert!(both.message().starts_with("name: is required; iso: "), "{both:?}");
    let alone = ask(&format!("<name>t</name>{words}{here}{absent}"));
    assert!(alone.status == 400 && alone.message().starts_with("iso: "), "{alone:?}");
    ask(&format!("<name>t</name>{words}{here}<iso>4711/a.iso</iso>")).refused(404, "there is no storlink 4711");
    let taken = "a template named debian 8 64bit template exists already";
    ask(&format!("<name>debian 8 64bit template</name>{words}{here}")).refused(400, taken);
    assert_eq!(World::of(&api.app), before);
    api.app.assert_at_rest();
}

#[test]
fn single_reads_have_the_shape_of_their_prefix_under_both_names() {
    let (api, stock, uri) = made();
    let v2 = api.get(&uri);
    for prefix in ["", "/api", "/api/v2", "/apiv2", "/v2"] {
        for noun in ["templates", "template"] {
            assert_eq!(api.get(&format!("{prefix}/{noun}/{}/", stock.template)).body, v2.body, "{prefix} {noun}");
        }
    }
    let v1 = api.get(&format!("/v1{uri}"));
    assert_eq!(v1.body, api.get(&format!("/api/v1/template/{}/", stock.template)).body);
    let superset = v1.body.strip_suffix("</template>\n").unwrap();
    assert!(v2.body.starts_with(superset) && !v1.body.contains("lock_status"), "{v1:?}");
    // The list shows the same, two columns further in.
    let list = api.get("/v1/templates/").body;
    let inner: String = v1.body.lines().map(|line| format!("  {line}\n")).collect();
    assert_eq!(list, format!("<templates>\n{inner}</templates>\n"));
    for uri in ["/templates/", "/template/"].map(|noun| format!("{noun}{NOBODY}/")) {
        api.get(&uri).refused(404, GONE);
        api.put(&uri, "<t><name>x</name></t>").refused(404, GONE);
        api.http.delete(&uri).refused(404, GONE);
    }
    api.get(&format!("/templates/{NOBODY}/disks/")).refused(404, GONE);
    for verb in ["start", "shutdown", "poweroff"] {
        api.post(&format!("/templates/{NOBODY}/{verb}/"), "").refused(404, GONE);
    }
    api.app.assert_at_rest();
}

#[test]
fn a_template_is_changed_by_what_is_named() {
    let (api, stock, uri) = made();
    let is = |name: &str, os: &str, os_arch: &str, desc: &str| {
        let shown = api.get(&uri);
        let found = ["name", "os", "os_arch", "desc"].map(|element| shown.element(element).to_owned());
        assert_eq!(found, [name, os, os_arch, desc]);
    };
    api.put(&uri, "<t><name>other</name></t>").empty_204();
    is("other", "DEBIAN", "X64", "Debian 8 jessie 64bit template");
    api.put(&format!("/template/{}/", stock.template), "<t><os>RHEL</os><os_arch>X86</os_arch><desc/></t>").empty_204();
    is("other", "RHEL", "X86", "");
    api.put(&uri, "<t><os/><os_arch/></t>").empty_204();
    api.put(&uri, "").empty_204();
    is("other", "RHEL", "X86", "");
    api.put(&uri, &file("contract/bodies/template-update.xml")).empty_204();
    is("debian 8 64bit template", "DEBIAN", "X64", "Debian 8 jessie 64bit template");

    let second = api.post(
        "/templates/add_new/",
        &format!(
            "<t><name>second</name><os>OTHER</os><os_arch>X64</os_arch><disk><storlink>{}</storlink><size>1</size>\
             <format>raw</format></disk></t>",
            stock.storlink
        ),
    );
    second.done(201, "template second is created");
    let before = World::of(&api.app);
    api.put(&uri, "<t><name>second</name><os>ARCH</os></t>").refused(400, "a template named second exists already");
    api.put(&uri, "<t><name> </name><os>DOS</os><os_arch>X65</os_arch><iso>x</iso></t>").refused(
        400,
        "name: must not be empty; \
         os: must be one of ARCH, CENTOS, COREOS, DEBIAN, FEDORA, GENTOO, RHEL, UBUNTU, WINDOWS, OTHER; \
         os_arch: must be one of X86, X64; iso: must be STORLINK/FILE.iso, as in 2/debian.iso",
    );
    let absent = api.put(&uri, &format!("<t><iso>{}/absent.iso</iso></t>", stock.storlink));
    assert!(absent.status == 400 && absent.message().starts_with("iso: "), "{absent:?}");
    assert_eq!(World::of(&api.app), before);
    api.app.assert_at_rest();
}

#[test]
fn a_template_is_installed_from_a_disc_in_a_domain_of_its_own() {
    let (api, stock, uri) = made();
    let image = disc(&api, "debian 12.iso");
    let body = format!(
        "<t><iso>{}/debian 12.iso</iso><cpu_core>2</cpu_core><memory>512</memory>\
         <network><list-item>0</list-item><list-item>virbr0</list-item></network></t>",
        stock.storlink
    );
    api.post(&format!("{uri}start/"), &body).done(200, "template debian 8 64bit template is started");
    let spec = running(&api, &stock);
    assert_eq!((spec.title.as_str(), spec.vcpus, spec.memory), ("debian 8 64bit template", 2, MiB(512)));
    assert_eq!(spec.os, Some(Os::Debian));
    assert_eq!((spec.max_memory, spec.nics.len(), spec.disks.len()), (MiB(512), 2, 1));
    assert_eq!(spec.disc, Some(VolumeSource::File(image.canonicalize().unwrap())));
    let shown = api.get(&uri);
    assert_eq!((shown.element("state"), shown.element("vnc_port")), ("RUNNING", "5900"));
    assert_eq!(shown.element("vnc_password"), spec.vnc_password.reveal());
    assert_eq!(shown.element("vnc_password").len(), 8);
    assert_ne!(shown.element("recent_booted_at"), "None");
    assert_eq!(api.get("/templates/").element("state"), "RUNNING");
    // No VM came of it.
    assert_eq!(api.get("/vms/").body, "<vms>\n</vms>\n");

    // While it writes to its disk, nothing is made of it, and it stays.
    let busy = World::of(&api.app);
    let is = "template debian 8 64bit template is RUNNING;";
    let from = vm("web1", &stock, &format!("<template>{}</template>", stock.template));
    api.post("/vms/", &from).refused(400, &format!("{is} shut it down before making vms from it"));
    api.post(&format!("{uri}start/"), "").refused(400, &format!("{is} it is started already"));
    api.http.delete(&uri).refused(400, &format!("{is} shut it down before deleting it"));
    api.put(&uri, "<t><iso/></t>").refused(400, &format!("{is} shut it down before changing its disc"));
    let storlink = format!("/storlinks/{}/", stock.storlink);
    let used = api.http.delete(&storlink);
    let by = "a disk of template debian 8 64bit template, and by a disc of template debian 8 64bit template";
    used.refused(400, &format!("storlink store1 is in use by {by}"));
    assert_eq!(World::of(&api.app), busy);
    api.put(&uri, "<t><desc>installing</desc></t>").empty_204();

    api.post(&format!("{uri}shutdown/"), "").done(200, "template debian 8 64bit template is shut down");
    assert!(api.app.site.fake.definitions().is_empty());
    assert_eq!(api.get(&uri).element("state"), "SHUTDOWN");
    // The disc stays in the drive, and the password is kept; NICs are made anew.
    api.post(&format!("{uri}start/"), "").done(200, "template debian 8 64bit template is started");
    let again = running(&api, &stock);
    assert_eq!((again.vcpus, again.memory, again.nics.len()), (1, MiB(1024), 0));
    assert_eq!((again.disc, again.vnc_password), (spec.disc, spec.vnc_password));
    api.post(&format!("{uri}poweroff/"), "").done(200, "template debian 8 64bit template is powered off");
    api.post(&format!("{uri}start/"), "<t><iso/></t>").done(200, "template debian 8 64bit template is started");
    assert_eq!(running(&api, &stock).disc, None);
    api.post(&format!("{uri}poweroff/"), "").done(200, "template debian 8 64bit template is powered off");
    api.post("/vms/", &from).done(201, "vm web1 is created");
    api.app.assert_at_rest();
}

#[test]
fn a_start_that_cannot_be_names_every_bad_field_and_leaves_nothing() {
    let (api, stock, uri) = made();
    let before = World::of(&api.app);
    let start = |body: &str| api.post(&format!("{uri}start/"), body);
    start("<t><iso>x</iso><cpu_core>0</cpu_core><memory>lots</memory><network>9</network></t>").refused(
        400,
        "iso: must be STORLINK/FILE.iso, as in 2/debian.iso; cpu_core: must be from 1 to 1024; \
         memory: must be a whole number; \
         network: bridge xenbr9 neither exists on this host nor is mapped in [bridges]",
    );
    start("<t><cpu_core>1000</cpu_core><network>9</network></t>").refused(
        400,
        "cpu_core: must be at most 255; \
         network: bridge xenbr9 neither exists on this host nor is mapped in [bridges]",
    );
    start("<t><iso>4711/a.iso</iso></t>").refused(404, "there is no storlink 4711");
    let absent = start(&format!("<t><iso>{}/absent.iso</iso></t>", stock.storlink));
    assert!(absent.status == 400 && absent.message().starts_with("iso: "), "{absent:?}");
    let off = |verb: &str| api.post(&format!("{uri}{verb}/"), "");
    off("shutdown").refused(400, "template debian 8 64bit template is SHUTDOWN; it is not running");
    off("poweroff").refused(400, "template debian 8 64bit template is SHUTDOWN; it is off already");
    assert_eq!(World::of(&api.app), before);
    // A volume that is gone.
    let disk = api.get(&format!("{uri}disks/")).ids("disk")[0].clone();
    std::fs::remove_file(api.app.site.store_dir().join(format!("{disk}.qcow2"))).unwrap();
    let gone = start("");
    assert!(gone.status == 400 && gone.message().contains("is not on storlink"), "{gone:?}");
    assert!(api.app.site.fake.definitions().is_empty());
    api.app.assert_at_rest();
}

#[test]
fn a_guest_that_does_not_listen_is_asked_again_and_then_left_alone() {
    let (api, stock, uri) = made();
    api.post(&format!("{uri}start/"), "").done(200, "template debian 8 64bit template is started");
    let fake = &api.app.site.fake;
    assert!(fake.set_deaf(domain(&stock), true));
    let asked = fake.calls(Verb::RequestShutdown);
    api.post(&format!("{uri}shutdown/"), "")
        .refused(400, "template debian 8 64bit template did not power off in 0.6 s");
    assert!(fake.calls(Verb::RequestShutdown) >= asked + 2);
    assert_eq!(api.get(&uri).element("state"), "RUNNING");
    api.post(&format!("{uri}poweroff/"), "").done(200, "template debian 8 64bit template is powered off");
    assert!(fake.definitions().is_empty());
    api.app.assert_at_rest();
}

#[test]
fn a_guest_that_switched_itself_off_can_be_started_and_deleted() {
    let (api, stock, uri) = made();
    let start = || api.post(&format!("{uri}start/"), "").done(200, "template debian 8 64bit template is started");
    let ends = || {
        assert!(api.app.site.fake.power_off_inside(domain(&stock)));
        wait_until("it is off", || Ok(api.get(&uri).element("state") == "SHUTDOWN"));
        assert_eq!(api.app.site.fake.definitions().len(), 1);
    };
    start();
    ends();
    start();
    ends();
    api.http.delete(&uri).empty_204();
    api.app.assert_at_rest();
    assert!(api.app.site.fake.definitions().is_empty());
    assert!(World::of(&api.app).files.is_empty());
}

#[test]
fn a_definition_that_could_not_be_dropped_does_not_wait_for_a_template_that_runs_again() {
    let (api, stock, uri) = made();
    api.post(&format!("{uri}start/"), "").done(200, "template debian 8 64bit template is started");
    let (by, why) = ("libvirt".to_owned(), "no".to_owned());
    api.app.site.fake.fail_every(Verb::Undefine, Answer::Refuse(ErrorKind::Refused { by, why }));
    api.post(&format!("{uri}poweroff/"), "").done(200, "template debian 8 64bit template is powered off");
    api.post(&format!("{uri}start/"), "").done(200, "template debian 8 64bit template is started");
    api.app.site.fake.heal();
    api.app.assert_at_rest();
    assert!(api.app.site.fake.running(domain(&stock)).is_some());
    api.post(&format!("{uri}poweroff/"), "").done(200, "template debian 8 64bit template is powered off");
    assert!(api.app.site.fake.definitions().is_empty());
}

#[test]
fn a_template_runs_on_while_pengx_is_started_anew() {
    let (api, stock, uri) = made();
    api.post(&format!("{uri}start/"), "").done(200, "template debian 8 64bit template is started");
    let before = World::of(&api.app);
    let password = api.get(&uri).element("vnc_password").to_owned();
    let api = api.restarted();
    wait_until("its state is known", || Ok(api.get(&uri).element("state") == "RUNNING"));
    let shown = api.get(&uri);
    assert_eq!((shown.element("vnc_port"), shown.element("vnc_password")), ("5900", password.as_str()));
    assert_eq!(World::of(&api.app), before);
    assert_eq!(api.app.site.fake.states(), [(domain(&stock), PowerState::Running)]);
    api.post(&format!("{uri}shutdown/"), "").done(200, "template debian 8 64bit template is shut down");
    api.http.delete(&uri).empty_204();
    api.app.assert_at_rest();
}

#[test]
fn a_template_goes_with_its_image_unless_a_vm_is_made_from_it() {
    let (api, stock) = Api::stocked();
    let uri = format!("/template/{}/", stock.template);
    let from = format!("<template>{}</template>", stock.template);
    let is = "template debian 8 64bit template is in use by";
    for (n, by) in [
        (1, "vm web1"),
        (2, "the vms web1, web2"),
        (3, "the vms web1, web2, web3"),
        (4, "4 vms, the first web1, web2, web3"),
    ] {
        let name = format!("web{n}");
        api.post("/vms/", &vm(&name, &stock, &from)).done(201, &format!("vm {name} is created"));
        let before = World::of(&api.app);
        api.http.delete(&uri).refused(400, &format!("{is} {by}"));
        assert_eq!(World::of(&api.app), before);
    }
    for id in api.get("/vms/").ids("vm") {
        api.http.delete(&format!("/vms/{id}/")).empty_204();
    }
    // The image that somebody brought goes too.
    assert_eq!(World::of(&api.app).files.len(), 1);
    api.http.delete(&uri).empty_204();
    assert!(World::of(&api.app).files.is_empty());
    assert_eq!(api.get("/templates/").body, "<templates>\n</templates>\n");
    api.http.delete(&uri).refused(404, &format!("there is no template {}", stock.template));
    api.app.assert_at_rest();
}

#[test]
fn an_image_under_its_bare_uuid_goes_with_its_template() {
    let api = Api::new();
    let storlink = api.app.storlink();
    let path = api.app.site.store_dir().join("bed05d84-7c44-4720-9588-57cbd8ecef8c");
    crate::harness::app::make_image(&path, pengx::model::Format::Qcow2, 1);
    let body = file("contract/bodies/template-add.xml").replace(">11<", &format!(">{storlink}<"));
    api.post("/templates/add/", &body).done(201, "template debian 8 64bit template is added");
    let id = api.get("/templates/").ids("template").pop().unwrap();
    api.http.delete(&format!("/templates/{id}/")).empty_204();
    assert!(!path.exists() && World::of(&api.app).files.is_empty());
    api.app.assert_at_rest();
}

#[test]
fn while_the_hypervisor_is_away_a_template_is_unknown_and_its_changes_leave_nothing() {
    let (api, _, uri) = made();
    let start = || api.post(&format!("{uri}start/"), "");
    start().done(200, "template debian 8 64bit template is started");
    let before = World::of(&api.app);
    let fake = &api.app.site.fake;
    fake.set_reachable(false);
    wait_until("its state is unknown", || Ok(api.get(&uri).element("state") == "UNKNOWN"));
    assert_eq!(api.get(&uri).element("vnc_port"), "None");
    let away = "the fake hypervisor does not answer";
    start().refused(503, away);
    for verb in ["shutdown", "poweroff"] {
        api.post(&format!("{uri}{verb}/"), "").refused(503, away);
    }
    api.http.delete(&uri).refused(503, away);
    fake.set_reachable(true);
    wait_until("it runs", || Ok(api.get(&uri).element("state") == "RUNNING"));
    api.app.assert_at_rest();
    assert_eq!(World::of(&api.app), before);
}

/// A template that is just being started is not copied: the create waits its turn, and is then told.
#[test]
fn no_vm_is_made_from_a_template_that_is_being_started() {
    let (api, stock, uri) = made();
    let fake = &api.app.site.fake;
    fake.hold(Verb::Start);
    let behind = [("Prefer", "respond-async"), ("Content-Type", "application/xml")];
    let task = |answer: &crate::harness::http::Answer| {
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.header("location").unwrap().to_owned()
    };
    let start = task(&api.http.ask("POST", &format!("{uri}start/"), &behind, ""));
    assert!(fake.wait_held(Verb::Start, 1, crate::harness::wait::PATIENCE));
    assert_eq!(api.get(&uri).element("lock_status"), "True");
    let from = vm("web1", &stock, &format!("<template>{}</template>", stock.template));
    let create = task(&api.http.ask("POST", "/vms/", &behind, &from));
    assert_eq!(api.get(&create).element("state"), "queued");
    fake.release(Verb::Start);
    let started = api.get(&format!("{start}?wait"));
    assert_eq!((started.element("kind"), started.element("state")), ("template.start", "success"));
    let created = api.get(&format!("{create}?wait"));
    let why = "template debian 8 64bit template is RUNNING; shut it down before making vms from it";
    assert_eq!((created.element("state"), created.message()), ("failure", why));
    assert_eq!(api.get(&uri).element("lock_status"), "False");
    api.app.assert_at_rest();
}
