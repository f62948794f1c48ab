//! Copies of a VM, templates made of one, and moves to another storlink: rows 12, 19 and 24.

use std::path::{Path, PathBuf};

use pengx::hypervisor::Verb;
use pengx::model::*;
use pengx::operations::vm::SuspendVm;
use pengx::store::{pms, snapshots, storlinks};

use super::{Api, NOBODY, Stock, file};
use crate::harness::http::Answer;
use crate::harness::images::assert_same;
use crate::harness::wait::PATIENCE;
use crate::harness::world::World;

/// A site with two storlinks and a VM with data on two disks, made from the template.
struct Scene {
    api: Api,
    stock: Stock,
    vm: VmId,
}

impl Scene {
    fn new() -> Self {
        let (api, stock) = Api::stocked();
        assert_eq!(api.app.second_storlink(), StorlinkId(2));
        let more = format!(
            "<template>{}</template><extra_disk_size>2</extra_disk_size><desc>a &lt; b</desc>\
             <network><list-item>0</list-item><list-item>virbr0</list-item></network>",
            stock.template
        );
        assert_eq!(api.post("/vms/", &super::vm("web1", &stock, &more)).status, 201);
        let vm: VmId = api.vm_id("web1").parse().unwrap();
        let scene = Self { api, stock, vm };
        for disk in scene.disks() {
            scene.api.app.fill(&disk, 0x5a, 64, 512);
            scene.api.app.flat(&disk, &scene.expected(disk.order));
        }
        scene
    }

    fn running() -> Self {
        let scene = Self::new();
        scene.press("start");
        scene
    }

    fn disks(&self) -> Vec<Disk> {
        self.api.app.disks(self.vm)
    }

    /// What the guest sees of a disk.
    fn expected(&self, order: u32) -> PathBuf {
        self.api.app.site.dir.path().join(format!("expected-{order}.raw"))
    }

    fn press(&self, verb: &str) {
        let answer = self.api.post(&format!("/vms/{}/{verb}/", self.vm), "");
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    fn copy(&self, name: &str, storlink: &str) -> Answer {
        let body = format!("<vm><name>{name}</name><storlink>{storlink}</storlink></vm>");
        self.api.post(&format!("/vms/{}/copy/", self.vm), &body)
    }

    fn template(&self, name: &str, storlink: &str) -> Answer {
        let body = format!("<t><name>{name}</name><storlink>{storlink}</storlink><desc>of web1</desc></t>");
        self.api.post(&format!("/templates/create/vms/{}/", self.vm), &body)
    }

    fn smigrate(&self, storlink: &str) -> Answer {
        self.api.post(&format!("/vms/{}/smigrate/", self.vm), &format!("<vm><storlink>{storlink}</storlink></vm>"))
    }

    /// The calls under their names; each would succeed with storlink 2.
    fn each(&self) -> [(&'static str, Box<dyn Fn(&str) -> Answer + '_>); 3] {
        [
            ("copy", Box::new(|storlink| self.copy("web2", storlink))),
            ("template", Box::new(|storlink| self.template("t", storlink))),
            ("smigrate", Box::new(|storlink| self.smigrate(storlink))),
        ]
    }

    /// Each of the calls is refused so, and the world is what it was.
    #[track_caller]
    fn all_refused(&self, storlink: &str, status: u16, message: &str) {
        for (name, call) in self.each() {
            let before = World::of(&self.api.app);
            let answer = call(storlink);
            assert_eq!((answer.status, answer.message()), (status, message), "{name}");
            self.api.app.assert_at_rest();
            assert_eq!(World::of(&self.api.app), before, "{name}");
        }
    }

    /// These are flat, of the formats of the VM's disks, and hold what its guest sees.
    fn are_copies(&self, copies: &[Disk]) {
        assert!(copies.iter().map(|disk| disk.order).eq([0, 1]), "{copies:?}");
        for copy in copies {
            assert_eq!((copy.storlink, copy.backing), (StorlinkId(2), None));
            assert_same((&self.expected(copy.order), Format::Raw), (&self.api.app.path(copy), copy.format));
        }
    }
}

fn names(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

#[test]
fn a_copy_is_another_vm_with_the_same_disks() {
    for runs in [false, true] {
        let scene = if runs { Scene::running() } else { Scene::new() };
        let api = &scene.api;
        let (source, before) = (api.get(&format!("/vms/{}/", scene.vm)), World::of(&api.app));
        scene.copy("copied &amp; kept", "2").done(201, "vm web1 is copied as vm copied &amp; kept");
        api.app.assert_at_rest();
        let id = api.vm_id("copied &amp; kept");
        let copy = api.get(&format!("/vms/{id}/"));
        for element in ["cpu_core", "memory", "maxmem", "disk_size", "os", "os_type"] {
            assert_eq!(copy.element(element), source.element(element), "{element}");
        }
        assert_eq!((copy.element("status"), copy.element("last_boot_time")), ("SHUTDOWN", "None"));
        assert_ne!(copy.element("vnc_password"), source.element("vnc_password"));
        let nics = |answer: &Answer, element: &str| -> Vec<String> {
            let open = format!("<{element}>");
            answer.body.split(&open).skip(1).map(|part| part.split('<').next().unwrap().to_owned()).collect()
        };
        assert_eq!(nics(&copy, "network"), ["xenbr0", "virbr0"]);
        assert!(nics(&copy, "mac").iter().all(|mac| mac.starts_with("00:16:3e:") && !source.body.contains(mac)));
        let copies = api.app.disks(id.parse().unwrap());
        scene.are_copies(&copies);
        assert!(copies.iter().zip(scene.disks()).all(|(copy, disk)| copy.format == disk.format && copy.id != disk.id));
        // The source is as it was, and the copy is a VM of its own.
        let mut after = World::of(&api.app);
        after.files.retain(|name, _| !name.starts_with("store2/"));
        after.rows.retain(|row| !row.contains(&id));
        after.domains.retain(|domain| !domain.contains(&id));
        assert_eq!(after, before);
        assert_eq!(api.post(&format!("/vms/{id}/start/"), "").status, 200);
        assert_eq!(api.post(&format!("/vms/{id}/poweroff/"), "").status, 200);
        api.http.delete(&format!("/vms/{id}/")).empty_204();
        assert_eq!(names(&api.app.site.second_dir()), 0);
        api.app.assert_at_rest();
    }
}

#[test]
fn a_template_of_a_vm_makes_vms_like_it() {
    for runs in [false, true] {
        let scene = if runs { Scene::running() } else { Scene::new() };
        let api = &scene.api;
        let made = scene.template("like web1", "2");
        assert_eq!(made.status, 201, "{made:?}");
        let id = made.ids("template")[0].clone();
        assert_eq!((made.element("name"), made.element("size"), made.element("desc")), ("like web1", "6", "of web1"));
        let shown = api.get(&format!("/templates/{id}/"));
        // As the template that its VM was made from.
        for (element, value) in [("os", "DEBIAN"), ("os_arch", "X64"), ("size", "6"), ("state", "SHUTDOWN")] {
            assert_eq!(shown.element(element), value, "{element}");
        }
        let disks = api.get(&format!("/templates/{id}/disks/"));
        assert_eq!(disks.ids("disk").len(), 2);
        let made = api.post("/vms/", &super::vm("web2", &scene.stock, &format!("<template>{id}</template>")));
        assert_eq!(made.status, 201, "{made:?}");
        for disk in api.app.disks(api.vm_id("web2").parse().unwrap()) {
            assert_same((&scene.expected(disk.order), Format::Raw), (&api.app.path(&disk), disk.format));
        }
        let used = "template like web1 is in use by vm web2";
        api.http.delete(&format!("/templates/{id}/")).refused(400, used);
        api.http.delete(&format!("/vms/{}/", api.vm_id("web2"))).empty_204();
        api.http.delete(&format!("/templates/{id}/")).empty_204();
        assert_eq!(names(&api.app.site.second_dir()), 0);
        api.app.assert_at_rest();
    }
}

#[test]
fn of_a_vm_without_template_nobody_knows_what_runs_in_it() {
    let (api, stock) = Api::stocked();
    let vm = api.vm(&stock, "web1");
    let body = "<t><name>t</name><storlink>1</storlink></t>";
    let made = api.post(&format!("/templates/create/vms/{vm}/"), body);
    assert_eq!((made.status, made.element("desc")), (201, ""), "{made:?}");
    let shown = api.get(&format!("/templates/{}/", made.ids("template")[0]));
    assert_eq!((shown.element("os"), shown.element("os_arch")), ("OTHER", "X64"));
    api.app.assert_at_rest();
}

#[test]
fn a_vm_moves_with_its_disks_and_runs_on() {
    for state in ["SHUTDOWN", "RUNNING", "PAUSED"] {
        let scene = if state == "SHUTDOWN" { Scene::new() } else { Scene::running() };
        let api = &scene.api;
        if state == "PAUSED" {
            api.app.run(SuspendVm { vm: scene.vm }).unwrap();
        }
        let (old, before) = (scene.disks(), api.get(&format!("/vms/{}/", scene.vm)));
        scene.smigrate("2").done(201, "vm web1 is moved to storlink store2");
        api.app.assert_at_rest();
        let new = scene.disks();
        scene.are_copies(&new);
        assert!(new.iter().zip(&old).all(|(new, old)| new.id != old.id && new.format == old.format), "{new:?}");
        assert!(old.iter().all(|disk| !api.app.path(disk).exists()));
        assert_eq!(names(&api.app.site.second_dir()), 2);
        let after = api.get(&format!("/vms/{}/", scene.vm));
        assert_eq!(api.status(&scene.vm.to_string()), state);
        for element in ["name", "memory", "disk_size", "nics", "vnc_port", "vnc_password", "last_boot_time"] {
            assert_eq!(after.element(element), before.element(element), "{element}");
        }
        let files = |spec: &DomainSpec| spec.disks.iter().map(|disk| disk.source.clone()).collect::<Vec<_>>();
        let there: Vec<_> = new.iter().map(|disk| VolumeSource::File(api.app.path(disk))).collect();
        let definition = api.app.site.fake.definitions().into_iter().find(|spec| spec.id == scene.vm).unwrap();
        assert_eq!(files(&definition), there);
        assert!(api.app.site.fake.running(scene.vm).is_none_or(|spec| files(&spec) == there));
        // Back again, and the first storlink has only the template's image.
        scene.smigrate("1").done(201, "vm web1 is moved to storlink store1");
        assert_eq!(names(&api.app.site.second_dir()), 0);
        api.app.assert_at_rest();
    }
}

#[test]
fn a_move_makes_the_vm_new_and_leaves_its_snapshots_where_they_are() {
    let scene = Scene::new();
    let (api, frozen) = (&scene.api, scene.disks());
    let snap = api.app.freeze(scene.vm, "s1");
    let made = |vm: VmId| api.app.store().read(|c| pengx::store::vms::find(c, vm)).unwrap().unwrap();
    let before = made(scene.vm);
    scene.smigrate("2").done(201, "vm web1 is moved to storlink store2");
    let after = made(scene.vm);
    assert!(after.created_at > before.created_at, "{after:?}");
    assert_eq!(after.snapshot, Some(snap), "it is still what it runs on");
    scene.are_copies(&scene.disks());
    let listed = api.get(&format!("/vms/{}/disks/snapshots/{snap}/", scene.vm));
    assert_eq!(listed.ids("disk"), frozen.iter().map(|disk| disk.id.to_string()).collect::<Vec<_>>());
    assert!(frozen.iter().all(|disk| api.app.path(disk).exists()));
    assert!(api.app.store().read(|c| snapshots::find(c, snap)).unwrap().is_some());
    api.app.assert_at_rest();
}

/// What is there already stays: its own disks there, and none of its data elsewhere.
#[test]
fn a_move_takes_along_only_what_is_elsewhere() {
    let scene = Scene::new();
    let api = &scene.api;
    scene.all_refused_here();
    let made = api.post(&format!("/vms/{}/disks/", scene.vm), "<d><size>1</size><storlink>2</storlink></d>");
    assert_eq!(made.status, 201);
    let third = made.ids("disk")[0].clone();
    scene.smigrate("2").done(201, "vm web1 is moved to storlink store2");
    let disks = scene.disks();
    scene.are_copies(&disks[..2]);
    assert_eq!(disks[2].id.to_string(), third);
    // A leaf that reads from a snapshot elsewhere moves; one whose whole chain is there does not.
    api.app.freeze(scene.vm, "s1");
    let leaves = scene.disks();
    scene.smigrate("2").refused(400, "vm web1 is on storlink store2 already; name another one");
    assert_eq!(scene.disks(), leaves);
    scene.smigrate("1").done(201, "vm web1 is moved to storlink store1");
    assert!(scene.disks().iter().all(|disk| disk.storlink == StorlinkId(1) && disk.backing.is_none()));
    assert_eq!(names(&api.app.site.second_dir()), 3, "what the snapshot has frozen");
    api.app.assert_at_rest();
}

impl Scene {
    fn all_refused_here(&self) {
        for runs in [false, true] {
            if runs {
                self.press("start");
            }
            let before = World::of(&self.api.app);
            self.smigrate("1").refused(400, "vm web1 is on storlink store1 already; name another one");
            self.api.app.assert_at_rest();
            assert_eq!(World::of(&self.api.app), before);
        }
        self.press("poweroff");
    }
}

#[test]
fn every_refusal_names_what_is_wrong_and_leaves_all_as_it_was() {
    for runs in [false, true] {
        let scene = if runs { Scene::running() } else { Scene::new() };
        let (api, app) = (&scene.api, &scene.api.app);
        scene.all_refused("4711", 404, "there is no storlink 4711");
        scene.all_refused("x", 400, "storlink: must be a whole number");
        scene.all_refused("", 400, "storlink: is required");
        let before = World::of(app);
        for (uri, fields) in [
            (format!("/vms/{NOBODY}/copy/"), "name: is required; storlink: is required"),
            (format!("/templates/create/vms/{NOBODY}/"), "name: is required; storlink: is required"),
            (format!("/vms/{NOBODY}/smigrate/"), "storlink: is required"),
        ] {
            api.post(&uri, "<vm/>").refused(400, fields);
            let gone = format!("there is no vm {NOBODY}");
            api.post(&uri, "<vm><name>a</name><storlink>2</storlink></vm>").refused(404, &gone);
        }
        scene.copy("web1", "2").refused(400, "a vm named web1 exists already");
        let taken = "a template named debian 8 64bit template exists already";
        scene.template("debian 8 64bit template", "2").refused(400, taken);
        app.assert_at_rest();
        assert_eq!(World::of(app), before);

        let away = app.site.dir.path().join("away");
        let dir = app.site.second_dir();
        std::fs::rename(&dir, &away).unwrap();
        let gone = format!("the storage refused: storlink directory {} is gone; mount it or make it", dir.display());
        for (_, call) in scene.each() {
            call("2").refused(400, &gone);
            app.assert_at_rest();
        }
        std::fs::rename(&away, &dir).unwrap();
        assert_eq!(World::of(app), before);

        // Another host's, and not shared.
        let other = Pm { id: PmId(uuid::Uuid::from_u128(9)), name: "host2".to_owned(), ..app.site.pm() };
        let theirs = |c: &mut pengx::store::Conn| {
            pms::save(c, &other)?;
            let Storlink { link, kind, level, usage, desc, shared, .. } = storlinks::find(c, StorlinkId(2))?.unwrap();
            let (uuid, pm, name) = (other.id.0, other.id, "theirs".to_owned());
            storlinks::insert(c, &storlinks::NewStorlink { uuid, pm, name, link, kind, level, usage, desc, shared })
        };
        let id = app.store().write_tx(theirs).unwrap().to_string();
        let says =
            format!("storlink theirs is on pm {} and not shared; use one of this host, or a shared one", other.id);
        scene.all_refused(&id, 400, &says);
    }
}

#[test]
fn a_hypervisor_that_is_away_copies_nothing() {
    let scene = Scene::running();
    let (app, before) = (&scene.api.app, World::of(&scene.api.app));
    app.site.fake.set_reachable(false);
    for (_, call) in scene.each() {
        call("2").refused(503, "the fake hypervisor does not answer");
        app.assert_at_rest();
    }
    app.site.fake.set_reachable(true);
    assert_eq!(World::of(app), before);
}

#[test]
fn a_guest_that_runs_is_left_alone_where_its_disks_cannot_be_moved_under_it() {
    let scene = Scene::running();
    scene.api.app.site.fake.set_capabilities(|can| can.live_chains = false);
    let says = "this hypervisor cannot copy the disks of vm web1 while it runs; shut it down first";
    scene.all_refused("2", 400, says);
    scene.press("poweroff");
    for (name, call) in scene.each() {
        assert_eq!(call("2").status, 201, "{name}");
    }
    scene.api.app.assert_at_rest();
}

#[test]
fn a_vm_is_busy_while_it_is_copied() {
    let mut site = crate::harness::app::Site::new();
    site.settings.tasks.lock_timeout = std::time::Duration::from_millis(200);
    let api = Api::on(site);
    let storlink = api.app.storlink().to_string();
    api.app.second_storlink();
    let vm = api.vm(&Stock { storlink, template: String::new() }, "web1");
    let fake = &api.app.site.fake;
    fake.hold(Verb::Define);
    let body = "<vm><name>web2</name><storlink>2</storlink></vm>";
    std::thread::scope(|scope| {
        let copying = scope.spawn(|| api.post(&format!("/vms/{vm}/copy/"), body));
        assert!(fake.wait_held(Verb::Define, 1, PATIENCE));
        let busy = |answer: &Answer, what: &str| {
            let says = answer.message();
            assert!(says.starts_with(&format!("{what} is busy: vm.copy since ")), "{answer:?}");
        };
        busy(&api.post(&format!("/vms/{vm}/start/"), ""), "vm web1");
        busy(&api.http.delete(&format!("/vms/{vm}/")), "vm web1");
        busy(&api.post(&format!("/vms/{vm}/smigrate/"), "<vm><storlink>2</storlink></vm>"), "vm web1");
        // The name is taken, too.
        let other = super::vm(
            "web2",
            &Stock { storlink: "1".to_owned(), template: String::new() },
            "<os_disk_size>1</os_disk_size>",
        );
        busy(&api.post("/vms/", &other), "vm web2");
        fake.release(Verb::Define);
        copying.join().unwrap().done(201, "vm web1 is copied as vm web2");
    });
    api.app.assert_at_rest();
}

/// The manual's bodies as printed, and as forms.
#[test]
fn the_manuals_bodies_are_taken_as_printed_and_as_forms() {
    for (kind, headers) in [
        ("xml", &[("Content-Type", "application/xml")][..]),
        ("xml", &[]),
        ("form", &[("Content-Type", "application/x-www-form-urlencoded")]),
    ] {
        let scene = Scene::new();
        let send = |uri: &str, name: &str| {
            let body = file(&format!("contract/bodies/{name}.{kind}"));
            let body = body.replace("$template_name", "t").replace("$desc", "d");
            let answer = scene.api.http.ask("POST", uri, headers, &body);
            assert_eq!(answer.status, 201, "{uri} {headers:?} {body}: {answer:?}");
            answer
        };
        let vm = scene.vm;
        send(&format!("/vms/{vm}/copy/"), "vm-copy");
        assert_eq!(scene.api.status(&scene.api.vm_id("copied_vm")), "SHUTDOWN");
        let template = send(&format!("/templates/create/vms/{vm}/"), "template-create");
        assert_eq!((template.element("name"), template.element("desc")), ("t", "d"));
        send(&format!("/vms/{vm}/smigrate/"), "vm-smigrate");
        scene.api.app.assert_at_rest();
    }
}
