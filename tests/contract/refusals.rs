//! Each documented failure of each served row: in words that say what is wrong and what to do.

use pengx::hypervisor::Hypervisor;

use super::{Api, NOBODY, vm};
use crate::harness::app::make_image;
use crate::harness::tool::qemu_img;
use crate::harness::world::World;

#[test]
fn storlink_create_names_every_bad_field_and_refuses_what_cannot_be_used() {
    let api = Api::new();
    let dir = api.app.site.store_dir();
    let link = dir.to_str().unwrap();
    let body = |name: &str, link: &str, rest: &str| {
        format!("<storlink><name>{name}</name><link>{link}</link><level>FL</level>{rest}</storlink>")
    };
    let local = "<type>LO</type>";
    api.post("/storlinks/", "")
        .refused(400, "name: is required; link: is required; type: is required; level: is required");
    let all = "<s><name> </name><link>/a/../b</link><type>XX</type><level>FL</level><shared>maybe</shared></s>";
    api.post("/storlinks/create/", all).refused(
        400,
        "name: is required; type: must be one of LO, FC, ISC, NFS, CEP; shared: must be one of True, False; \
         link: must be an absolute path without `..`",
    );
    let nfs = "<s><name>a</name><link>vg</link><type>NFS</type><level>BL</level></s>";
    api.post("/storlinks/", nfs).refused(400, "level: must be FL for the type NFS");
    let file = dir.join("a-file");
    std::fs::write(&file, "").unwrap();
    for bad in [dir.join("absent"), file] {
        let answer = api.post("/storlinks/", &body("s", bad.to_str().unwrap(), local));
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.message().starts_with("link: "), "{answer:?}");
    }
    let nowhere = dir.join("absent");
    let both = api.post("/storlinks/", &body(" ", nowhere.to_str().unwrap(), local));
    assert_eq!(both.status, 400, "{both:?}");
    assert!(both.message().starts_with("name: is required; link: "), "{both:?}");
    assert_eq!(api.get("/storlinks/").body, "<storlinks>\n</storlinks>\n");
    api.post("/storlinks/", &body("s", link, local)).done(201, "storlink s is registered");
    api.post("/storlinks/", &body("s", link, local)).refused(400, "a storlink named s exists already");
    assert_eq!(api.get("/storlinks/").ids("storlink").len(), 1);
    api.app.assert_at_rest();
}

#[test]
fn template_add_names_every_bad_field_and_refuses_images_that_lead_elsewhere() {
    let (api, stock) = Api::stocked();
    let dir = api.app.site.store_dir();
    let body = |name: &str, storlink: &str, n: u128, format: &str| {
        let disk = uuid::Uuid::from_u128(n);
        format!(
            "<t><name>{name}</name><os>DEBIAN</os><os_arch>X64</os_arch><disk><storlink>{storlink}</storlink>\
             <uuid>{disk}</uuid><format>{format}</format></disk></t>"
        )
    };
    let path = |n: u128| dir.join(uuid::Uuid::from_u128(n).to_string());
    api.post("/templates/add/", "<t/>").refused(
        400,
        "name: is required; os: is required; os_arch: is required; disk.storlink: is required; \
         disk.uuid: is required; disk.format: is required",
    );
    let bad = "<t><name>t</name><os>DOS</os><os_arch>X65</os_arch><disk><storlink>a</storlink><uuid>b</uuid>\
               <format>vdi</format></disk></t>";
    api.post("/templates/add/", bad).refused(
        400,
        "os: must be one of ARCH, CENTOS, COREOS, DEBIAN, FEDORA, GENTOO, RHEL, UBUNTU, WINDOWS, OTHER; \
         os_arch: must be one of X86, X64; disk.storlink: must be a whole number; disk.uuid: must be a uuid; \
         disk.format: must be one of qcow2, raw",
    );
    make_image(&path(1), pengx::model::Format::Qcow2, 1);
    let before = World::of(&api.app);
    api.post("/templates/add/", &body("t", "4711", 1, "qcow2")).refused(404, "there is no storlink 4711");
    let absent = format!("disk.uuid: storlink store1 has no image {}.qcow2", uuid::Uuid::from_u128(2));
    api.post("/templates/add/", &body("t", &stock.storlink, 2, "qcow2")).refused(400, &absent);
    let both = format!("name: is required; {absent}");
    api.post("/templates/add/", &body("", &stock.storlink, 2, "qcow2")).refused(400, &both);
    let taken = "a template named debian 8 64bit template exists already";
    api.post("/templates/add/", &body("debian 8 64bit template", &stock.storlink, 1, "qcow2")).refused(400, taken);
    let used = api.post("/templates/add/", &body("t", &stock.storlink, 0xbed0_5d84, "qcow2"));
    assert_eq!(used.status, 400, "{used:?}");
    assert!(used.message().ends_with(&format!("is in use by template {}", stock.template)), "{used:?}");
    // A qcow2 file declared raw would show the host's files to whoever boots it.
    let declared = api.post("/templates/add/", &body("t", &stock.storlink, 1, "raw"));
    assert!(declared.status == 400 && declared.message().starts_with("disk: "), "{declared:?}");
    assert_eq!(World::of(&api.app), before);
    let image = path(3);
    let backing = path(1);
    qemu_img(&["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", backing.to_str().unwrap(), image.to_str().unwrap()]);
    let backed = api.post("/templates/add/", &body("t", &stock.storlink, 3, "qcow2"));
    assert!(backed.status == 400 && backed.message().contains("backing"), "{backed:?}");
    assert_eq!(api.get("/templates/").ids("template").len(), 1);
    api.app.assert_at_rest();
}

#[test]
fn vm_create_names_every_bad_field_at_once() {
    let (api, stock) = Api::stocked();
    let template = format!("<template>{}</template>", stock.template);
    let before = World::of(&api.app);
    let create = |rest: &str| api.post("/vms/", &vm("web1", &stock, rest));
    api.post("/vms/", "").refused(
        400,
        "name: is required; storlink: is required; cpu_core: is required; memory: is required; \
         os_disk_size: is required without a template",
    );
    let bad = "<vm><name>a&#10;b</name><storlink>x</storlink><cpu_core>0</cpu_core><memory>many</memory>\
               <maxmem>0</maxmem><template>nope</template><os_disk_size>-1</os_disk_size>\
               <extra_disk_size>1.5</extra_disk_size><disk_format>vdi</disk_format><network>a/b</network>\
               <desc><x/></desc></vm>";
    let answer = api.post("/vms/", bad);
    assert_eq!(answer.status, 400);
    let message = answer.message().replace("&quot;", "\"");
    let problems: Vec<&str> = message.split("; ").collect();
    let fields = [
        "name",
        "template",
        "storlink",
        "cpu_core",
        "memory",
        "maxmem",
        "os_disk_size",
        "extra_disk_size",
        "disk_format",
        "network",
        "desc",
    ];
    assert_eq!(problems.len(), fields.len(), "{problems:?}");
    for (problem, field) in problems.iter().zip(fields) {
        assert!(problem.starts_with(&format!("{field}: ")), "{problems:?}");
    }
    create(&format!("{template}<maxmem>32</maxmem>")).refused(400, "memory: must be at most maxmem, 32");
    // What only the site can know is told together too.
    create(&format!("{template}<os_disk_size>3</os_disk_size><network>9</network><cpu_core>1000</cpu_core>")).refused(
        400,
        "cpu_core: must be at most 255; os_disk_size: must be at least 4 MiB, the size of the template&#39;s disk; \
         network: bridge xenbr9 neither exists on this host nor is mapped in [bridges]",
    );
    // And together with what can be told from the body alone.
    create(&format!("{template}<name/><os_disk_size>3</os_disk_size><network>9</network><memory>lots</memory>"))
        .refused(
            400,
            "name: is required; memory: must be a whole number; \
         os_disk_size: must be at least 4 MiB, the size of the template&#39;s disk; \
         network: bridge xenbr9 neither exists on this host nor is mapped in [bridges]",
        );
    create(&format!("<template>{NOBODY}</template>")).refused(404, &format!("there is no template {NOBODY}"));
    let elsewhere = super::Stock { storlink: "4711".to_owned(), template: String::new() };
    api.post("/vms/", &vm("web1", &elsewhere, &template)).refused(404, "there is no storlink 4711");
    assert_eq!(World::of(&api.app), before);

    api.vm(&stock, "web1");
    let before = World::of(&api.app);
    create(&template).refused(400, "a vm named web1 exists already");
    assert_eq!(World::of(&api.app), before);
    api.app.assert_at_rest();
}

#[test]
fn an_image_that_is_gone_is_refused_and_nothing_is_left() {
    let (api, stock) = Api::stocked();
    let dir = api.app.site.store_dir();
    for entry in std::fs::read_dir(&dir).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let before = World::of(&api.app);
    let answer = api.post("/vms/", &vm("web1", &stock, &format!("<template>{}</template>", stock.template)));
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.message().contains("is gone from storlink store1"), "{answer:?}");
    assert_eq!(World::of(&api.app), before);
    api.app.assert_at_rest();
}

#[test]
fn a_vm_whose_volume_is_gone_does_not_start_and_says_which_it_is() {
    let (api, stock) = Api::stocked();
    let id = api.vm(&stock, "web1");
    let disk = api.app.store().read(|c| pengx::store::disks::of_vm(c, id.parse().unwrap())).unwrap().remove(0);
    std::fs::remove_file(api.app.site.store_dir().join(disk.volume.as_str())).unwrap();
    let before = World::of(&api.app);
    let message = format!("storage refused: volume {} of vm web1 is not on storlink 1", disk.volume);
    api.post(&format!("/vms/{id}/start/"), "").refused(400, &message);
    api.app.assert_at_rest();
    assert_eq!(World::of(&api.app), before);
    api.http.delete(&format!("/vms/{id}/")).empty_204();
}

#[test]
fn a_vm_that_is_not_there_is_404_for_every_row() {
    let (api, stock) = Api::stocked();
    api.vm(&stock, "web1");
    let message = format!("there is no vm {NOBODY}");
    api.get(&format!("/vms/{NOBODY}/")).refused(404, &message);
    api.http.delete(&format!("/vms/{NOBODY}/")).refused(404, &message);
    for verb in ["start", "shutdown", "poweroff"] {
        api.post(&format!("/vms/{NOBODY}/{verb}/"), "").refused(404, &message);
        // Named in any way a uuid may be written.
        let odd = NOBODY.replace('-', "").to_uppercase();
        api.post(&format!("/vms/{odd}/{verb}/"), "").refused(404, &message);
    }
    assert_eq!(api.get("/vms/").ids("vm").len(), 1);
    api.app.assert_at_rest();
}

#[test]
fn a_wrong_state_is_told_with_what_to_do() {
    let (api, stock) = Api::stocked();
    let id = api.vm(&stock, "web1");
    let of = |verb: &str| api.post(&format!("/vms/{id}/{verb}/"), "");
    let delete = || api.http.delete(&format!("/vms/{id}/"));
    of("shutdown").refused(400, "vm web1 is SHUTDOWN; it is not running");
    of("poweroff").refused(400, "vm web1 is SHUTDOWN; it is off already");
    of("start").done(200, "vm web1 is started");
    let running = World::of(&api.app);
    of("start").refused(400, "vm web1 is RUNNING; it is started already");
    delete().refused(400, "vm web1 is RUNNING; shut it down before deleting it");
    assert_eq!(World::of(&api.app), running);

    let fake = &api.app.site.fake;
    fake.pause(id.parse().unwrap()).unwrap();
    api.wait_status(&id, "PAUSED");
    of("start").refused(400, "vm web1 is PAUSED; it is started already");
    of("shutdown").refused(400, "vm web1 is PAUSED; resume it first");
    delete().refused(400, "vm web1 is PAUSED; shut it down before deleting it");
    fake.unpause(id.parse().unwrap()).unwrap();
    api.wait_status(&id, "RUNNING");

    // A guest that does not listen is asked again and again, and then left alone.
    assert!(fake.set_deaf(id.parse().unwrap(), true));
    let asked = fake.calls(pengx::hypervisor::Verb::RequestShutdown);
    of("shutdown").refused(400, "vm web1 did not power off in 0.6 s");
    assert!(fake.calls(pengx::hypervisor::Verb::RequestShutdown) >= asked + 2);
    assert_eq!(api.status(&id), "RUNNING");
    of("poweroff").done(200, "vm web1 is powered off");

    assert!(fake.set_deaf(id.parse().unwrap(), false));
    of("start").done(200, "vm web1 is started");
    assert!(fake.crash(id.parse().unwrap()));
    api.wait_status(&id, "CRASHED");
    of("start").done(200, "vm web1 is started");
    assert!(fake.crash(id.parse().unwrap()));
    api.wait_status(&id, "CRASHED");
    delete().empty_204();
    delete().refused(404, &format!("there is no vm {id}"));
    api.app.assert_at_rest();
}

#[test]
fn the_hypervisors_own_refusal_is_a_400_with_its_reason() {
    use pengx::error::ErrorKind;
    use pengx::hypervisor::{Answer, Verb};
    let (api, stock) = Api::stocked();
    let id = api.vm(&stock, "web1");
    let no = || {
        let (by, why) = ("libvirt".to_owned(), "cannot set up guest memory".to_owned());
        Answer::Refuse(ErrorKind::Refused { by, why })
    };
    let message = "libvirt refused: cannot set up guest memory";
    let before = World::of(&api.app);
    let fake = &api.app.site.fake;
    fake.fail_next(Verb::Start, no());
    api.post(&format!("/vms/{id}/start/"), "").refused(400, message);
    fake.fail_next(Verb::Define, no());
    api.post("/vms/", &vm("web2", &stock, "<os_disk_size>1</os_disk_size>")).refused(400, message);
    fake.fail_next(Verb::Undefine, no());
    api.http.delete(&format!("/vms/{id}/")).refused(400, message);
    api.app.assert_at_rest();
    assert_eq!(World::of(&api.app), before);
}
