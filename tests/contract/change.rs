//! Rows 25 and 26: what of a VM is changed at once, what from its next start on, and what is refused.

use pengx::error::ErrorKind;
use pengx::hypervisor::{Answer as Fault, Hypervisor, Verb};
use pengx::model::{DomainSpec, MiB, VmId};

use super::{Api, NOBODY, Stock, file, vm};
use crate::harness::app::Site;
use crate::harness::http::Answer;
use crate::harness::postgres;
use crate::harness::world::World;

/// A VM of 2 vCPUs, 64 MiB and at most 128.
fn roomy(api: &Api, stock: &Stock, name: &str) -> String {
    let body = vm(name, stock, "<os_disk_size>4</os_disk_size><maxmem>128</maxmem><cpu_core>2</cpu_core>");
    api.post("/vms/", &body).done(201, &format!("vm {name} is created"));
    api.vm_id(name)
}

fn of(api: &Api, id: &str, verb: &str) {
    let answer = api.post(&format!("/vms/{id}/{verb}/"), "");
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn update(api: &Api, id: &str, fields: &str) -> Answer {
    api.http.send("PUT", &format!("/vms/{id}/update/"), &format!("<vm>{fields}</vm>"))
}

fn edit(api: &Api, id: &str, fields: &str) -> Answer {
    api.http.send("PUT", &format!("/vms/{id}/edit/"), &format!("<vm>{fields}</vm>"))
}

fn spec(cpu: u64, memory: u64, maxmem: u64) -> String {
    format!("<cpu_core>{cpu}</cpu_core><memory>{memory}</memory><maxmem>{maxmem}</maxmem>")
}

fn sizes(spec: &DomainSpec) -> (u32, u64, u64) {
    (spec.vcpus, spec.memory.0, spec.max_memory.0)
}

fn defined(api: &Api, id: &str) -> (u32, u64, u64) {
    sizes(api.app.site.fake.definitions().iter().find(|d| d.id.to_string() == id).unwrap())
}

fn running(api: &Api, id: &str) -> (u32, u64, u64) {
    sizes(&api.app.site.fake.running(id.parse::<VmId>().unwrap()).unwrap())
}

/// What the API shows.
fn shown(api: &Api, id: &str) -> (u32, u64, u64) {
    let vm = api.get(&format!("/vms/{id}/"));
    let number = |name: &str| vm.element(name).parse::<u64>().unwrap();
    (u32::try_from(number("cpu_core")).unwrap(), number("memory"), number("maxmem"))
}

/// Refused, and the world is what it was.
#[track_caller]
fn refused(api: &Api, status: u16, message: &str, call: impl FnOnce() -> Answer) {
    let before = World::of(&api.app);
    call().refused(status, message);
    api.app.assert_at_rest();
    assert_eq!(World::of(&api.app), before, "{message}");
}

/// The manual's own body, on a VM that runs with less: what can change now does, the rest comes with the next start.
fn manuals_update(site: Site, method: &str, uri: &str) {
    let api = Api::on(site);
    let stock = Stock { storlink: api.app.storlink().to_string(), template: String::new() };
    let rest = "<os_disk_size>4</os_disk_size><memory>512</memory><maxmem>512</maxmem>";
    api.post("/vms/", &vm("web1", &stock, rest)).done(201, "vm web1 is created");
    let id = api.vm_id("web1");
    of(&api, &id, "start");
    let body = file("contract/bodies/vm-update.xml").replace("$vm_uuid", &id);
    api.http.send(method, &format!("/vms/{id}/{uri}/"), &body).empty_204();
    assert_eq!(shown(&api, &id), (2, 1024, 2048));
    assert_eq!(defined(&api, &id), (2, 1024, 2048));
    assert_eq!(running(&api, &id), (2, 512, 512), "no more memory than it was started with");
    of(&api, &id, "reset");
    assert_eq!(running(&api, &id), (2, 1024, 2048));
    api.app.assert_at_rest();
}

#[test]
fn the_manuals_update_is_taken_as_printed() {
    manuals_update(Site::new(), "PUT", "update");
    manuals_update(Site::new(), "POST", "resize");
}

#[test]
fn the_manuals_update_is_taken_over_postgres() {
    let mut site = Site::new();
    site.database_url = postgres::database();
    manuals_update(site, "PUT", "resize");
}

#[test]
fn a_vm_that_is_off_takes_every_size() {
    let (api, stock) = Api::stocked();
    let id = roomy(&api, &stock, "web1");
    for (fields, expected) in [
        (spec(4, 100, 200), (4, 100, 200)),
        (spec(1, 10, 20), (1, 10, 20)),
        ("<cpu_core>200</cpu_core>".to_owned(), (200, 10, 20)),
        ("<memory>20</memory>".to_owned(), (200, 20, 20)),
        ("<maxmem>4096</maxmem>".to_owned(), (200, 20, 4096)),
        ("<cpu_core>1</cpu_core><unknown>x</unknown>".to_owned(), (1, 20, 4096)),
    ] {
        update(&api, &id, &fields).empty_204();
        assert_eq!((shown(&api, &id), defined(&api, &id)), (expected, expected), "{fields}");
    }
    of(&api, &id, "start");
    assert_eq!(running(&api, &id), (1, 20, 4096));
    api.app.assert_at_rest();
}

#[test]
fn memory_and_more_vcpus_change_while_it_runs_or_is_paused() {
    let (api, stock) = Api::stocked();
    let id = roomy(&api, &stock, "web1");
    of(&api, &id, "start");
    for (fields, row, has) in [
        ("<memory>128</memory>", (2, 128, 128), (2, 128, 128)),
        ("<memory>32</memory>", (2, 32, 128), (2, 32, 128)),
        ("<cpu_core>16</cpu_core>", (16, 32, 128), (16, 32, 128)),
        // For its next start, be it more or less.
        ("<maxmem>256</maxmem>", (16, 32, 256), (16, 32, 128)),
        ("<memory>200</memory>", (16, 200, 256), (16, 128, 128)),
        ("<memory>64</memory><maxmem>64</maxmem>", (16, 64, 64), (16, 64, 128)),
    ] {
        update(&api, &id, fields).empty_204();
        assert_eq!((shown(&api, &id), defined(&api, &id), running(&api, &id)), (row, row, has), "{fields}");
    }
    of(&api, &id, "suspend");
    update(&api, &id, "<memory>48</memory>").empty_204();
    assert_eq!(running(&api, &id), (16, 48, 128));
    refused(&api, 400, "cpu_core: vm web1 is PAUSED with 16; shut it down to take vCPUs away", || {
        update(&api, &id, "<cpu_core>1</cpu_core>")
    });
    api.app.assert_at_rest();
}

#[test]
fn fewer_vcpus_need_a_shutdown_and_then_nothing_of_the_request_happens() {
    let (api, stock) = Api::stocked();
    let id = roomy(&api, &stock, "web1");
    of(&api, &id, "start");
    refused(&api, 400, "cpu_core: vm web1 is RUNNING with 2; shut it down to take vCPUs away", || {
        update(&api, &id, &spec(1, 96, 256))
    });
    refused(&api, 400, "cpu_core: must be at most 16 while vm web1 is RUNNING; shut it down for more", || {
        update(&api, &id, "<cpu_core>17</cpu_core>")
    });
    of(&api, &id, "poweroff");
    update(&api, &id, &spec(1, 96, 256)).empty_204();
    assert_eq!(defined(&api, &id), (1, 96, 256));
    api.app.assert_at_rest();
}

#[test]
fn every_bad_size_is_named() {
    let (api, stock) = Api::stocked();
    let id = roomy(&api, &stock, "web1");
    for (fields, message) in [
        ("<memory>129</memory>", "memory: must be at most maxmem, 128"),
        ("<memory>64</memory><maxmem>32</maxmem>", "memory: must be at most maxmem, 32"),
        ("<maxmem>32</maxmem>", "maxmem: must be at least the memory of vm web1, 64"),
        (
            "<cpu_core>256</cpu_core><memory>500</memory>",
            "cpu_core: must be at most 255; memory: must be at most maxmem, 128",
        ),
        (
            "<cpu_core>0</cpu_core><memory>500</memory>",
            "cpu_core: must be from 1 to 1024; memory: must be at most maxmem, 128",
        ),
        ("<memory>many</memory><maxmem>9</maxmem>", "memory: must be a whole number"),
        ("<memory>9</memory><iso>a.iso</iso>", "iso: must be STORLINK/FILE.iso, as in 2/debian.iso"),
        ("<cpu_core><x/></cpu_core>", "cpu_core: must be text, not elements"),
    ] {
        refused(&api, 400, message, || update(&api, &id, fields));
    }
    refused(&api, 404, &format!("there is no vm {NOBODY}"), || update(&api, NOBODY, "<memory>64</memory>"));
    refused(&api, 404, &format!("there is no vm {NOBODY}"), || edit(&api, NOBODY, "<name>x</name>"));
}

#[test]
fn equal_values_and_an_empty_body_change_nothing() {
    let (api, stock) = Api::stocked();
    let id = roomy(&api, &stock, "web1");
    for start in [false, true] {
        if start {
            of(&api, &id, "start");
        }
        let (before, effects) = (World::of(&api.app), api.app.site.fake.effects());
        update(&api, &id, &spec(2, 64, 128)).empty_204();
        update(&api, &id, "<cpu_core/><memory/><maxmem/>").empty_204();
        api.http.send("PUT", &format!("/vms/{id}/update/"), "").empty_204();
        api.http.send("PUT", &format!("/vms/{id}/edit/"), "").empty_204();
        edit(&api, &id, "<name>web1</name>").empty_204();
        assert_eq!((World::of(&api.app), api.app.site.fake.effects()), (before, effects));
    }
    api.app.assert_at_rest();
}

#[test]
fn a_guest_that_does_not_follow_keeps_its_memory() {
    let (api, stock) = Api::stocked();
    let id = roomy(&api, &stock, "web1");
    of(&api, &id, "start");
    assert!(api.app.site.fake.set_deaf(id.parse().unwrap(), true));
    refused(&api, 400, "vm web1 did not take 32 MiB of memory in 0.6 s", || update(&api, &id, &spec(4, 96, 256)));
    refused(&api, 400, "vm web1 did not give up 32 MiB of memory in 0.6 s", || {
        update(&api, &id, "<memory>32</memory>")
    });
}

#[test]
fn what_the_hypervisor_cannot_do_live_is_said_before_anything_is_done() {
    let (api, stock) = Api::stocked();
    let id = roomy(&api, &stock, "web1");
    std::fs::write(api.app.site.store_dir().join("a.iso"), "x").unwrap();
    of(&api, &id, "start");
    let fake = &api.app.site.fake;
    let all = format!("{}<iso>1/a.iso</iso>", spec(4, 96, 256));
    fake.set_capabilities(|can| (can.live_memory, can.live_disc, can.live_vcpus) = (false, false, false));
    let says =
        |what: &str| format!("the hypervisor cannot change {what} of vm web1 while it is RUNNING; shut it down first");
    let effects = fake.effects();
    refused(&api, 400, &says("the memory and the disc and the vCPUs"), || update(&api, &id, &all));
    fake.set_capabilities(|can| (can.live_memory, can.live_disc) = (true, true));
    refused(&api, 400, &says("the vCPUs"), || update(&api, &id, &all));
    assert_eq!(fake.effects(), effects);
    update(&api, &id, "<maxmem>256</maxmem>").empty_204();
    of(&api, &id, "poweroff");
    update(&api, &id, &all).empty_204();
    api.app.assert_at_rest();
}

#[test]
fn a_refused_live_change_takes_the_others_back() {
    let (api, stock) = Api::stocked();
    let id = roomy(&api, &stock, "web1");
    std::fs::write(api.app.site.store_dir().join("a.iso"), "x").unwrap();
    of(&api, &id, "start");
    for verb in [Verb::Define, Verb::SetMemory, Verb::ChangeDisc, Verb::SetVcpus] {
        let (by, why) = ("libvirt".to_owned(), "not now".to_owned());
        api.app.site.fake.fail_next(verb, Fault::Refuse(ErrorKind::Refused { by, why }));
        refused(&api, 400, "libvirt refused: not now", || {
            update(&api, &id, &format!("{}<iso>1/a.iso</iso>", spec(4, 96, 256)))
        });
    }
}

/// vCPUs were plugged in and the row could not be written: it follows, so that nobody is told less than there is.
#[test]
fn vcpus_that_stay_are_adopted() {
    let (api, stock) = Api::stocked();
    let id = roomy(&api, &stock, "web1");
    of(&api, &id, "start");
    let lost = ErrorKind::Unavailable { what: "the fake hypervisor".to_owned() };
    api.app.site.fake.fail_next(Verb::SetVcpus, Fault::Lose(lost));
    update(&api, &id, &spec(4, 96, 128)).refused(503, "the fake hypervisor does not answer");
    api.app.assert_at_rest();
    assert_eq!(running(&api, &id), (4, 64, 128));
    assert_eq!((shown(&api, &id), defined(&api, &id)), ((4, 64, 128), (4, 64, 128)));
}

#[test]
fn a_vm_is_renamed_and_described_whatever_its_state() {
    let (api, stock) = Api::stocked();
    let id = roomy(&api, &stock, "web1");
    let title = || api.app.site.fake.definitions()[0].title.clone();
    let desc = || api.app.store().read(|c| pengx::store::vms::find(c, id.parse().unwrap())).unwrap().unwrap().desc;
    edit(&api, &id, "<name>웹 &amp; 하나</name><desc>first</desc>").empty_204();
    assert_eq!((api.vm_id("웹 &amp; 하나"), title(), desc()), (id.clone(), "웹 & 하나".to_owned(), "first".to_owned()));
    of(&api, &id, "start");
    let has = api.app.site.fake.running(id.parse().unwrap());
    edit(&api, &id, "<name>web2</name>").empty_204();
    assert_eq!((api.vm_id("web2"), title(), desc()), (id.clone(), "web2".to_owned(), "first".to_owned()));
    edit(&api, &id, "<desc/>").empty_204();
    assert_eq!((title(), desc()), ("web2".to_owned(), String::new()));
    assert_eq!(api.app.site.fake.running(id.parse().unwrap()), has, "the running domain is not touched");

    api.vm(&stock, "other");
    refused(&api, 400, "a vm named other exists already", || edit(&api, &id, "<name>other</name><desc>x</desc>"));
    refused(&api, 400, "name: must not be empty", || edit(&api, &id, "<name/><desc>x</desc>"));
    let long = format!("<name>{}</name><desc>{}</desc>", "n".repeat(256), "d".repeat(4097));
    let both = "name: must have at most 255 characters; desc: must have at most 4096 characters";
    refused(&api, 400, both, || edit(&api, &id, &long));
    // A description is ours alone.
    api.app.site.fake.set_reachable(false);
    edit(&api, &id, "<desc>while it is away</desc>").empty_204();
    api.app.site.fake.set_reachable(true);
    assert_eq!(desc(), "while it is away");
    api.app.assert_at_rest();
}

#[test]
fn the_manuals_edit_is_refused_where_it_is_misprinted_and_taken_as_it_is_meant() {
    let (api, stock) = Api::stocked();
    let id = api.vm(&stock, "web1");
    let body = file("contract/bodies/vm-edit.xml").replace("$vm_uuid", &id);
    let put = |body: &str| api.http.send("PUT", &format!("/vms/{id}/edit/"), body);
    let before = World::of(&api.app);
    let misprint = put(&body);
    assert_eq!((misprint.status, misprint.element("result")), (400, "failure"), "{misprint:?}");
    assert_eq!(World::of(&api.app), before);
    put(&body.replace("</cpu_core>", "</name>")).empty_204();
    assert_eq!(api.vm_id("test"), id);
    api.app.assert_at_rest();
}

/// Two updates at once, or an update and a delete: one after the other, and the world is whole.
#[test]
fn updates_and_deletes_take_turns() {
    let (api, stock) = Api::stocked();
    for round in 0..6_u64 {
        let id = roomy(&api, &stock, "web1");
        of(&api, &id, "start");
        let (a, b) = std::thread::scope(|s| {
            let a = s.spawn(|| update(&api, &id, &spec(4, 96, 256)));
            let b = s.spawn(|| update(&api, &id, &spec(4, 32, 512)));
            (a.join().unwrap(), b.join().unwrap())
        });
        a.empty_204();
        b.empty_204();
        let row = shown(&api, &id);
        assert!([(4, 96, 256), (4, 32, 512)].contains(&row), "{row:?}");
        assert_eq!((defined(&api, &id), running(&api, &id)), (row, (4, row.1, 128)));
        of(&api, &id, "poweroff");
        let (changed, deleted) = std::thread::scope(|s| {
            let change = s.spawn(|| update(&api, &id, &spec(1, 16, 16 + round)));
            let delete = s.spawn(|| api.http.delete(&format!("/vms/{id}/")));
            (change.join().unwrap(), delete.join().unwrap())
        });
        deleted.empty_204();
        assert!([204, 404].contains(&changed.status), "{changed:?}");
        api.app.assert_at_rest();
        assert_eq!(api.app.site.hypervisor.domains().unwrap(), []);
    }
}

/// Of two VMs that want one name, one gets it.
#[test]
fn a_name_goes_to_one() {
    let (api, stock) = Api::stocked();
    let (a, b) = (api.vm(&stock, "a"), api.vm(&stock, "b"));
    let mut answers = std::thread::scope(|s| {
        let calls = [&a, &b].map(|id| s.spawn(|| edit(&api, id, "<name>one</name>")));
        calls.map(|call| call.join().unwrap().status)
    });
    answers.sort_unstable();
    assert_eq!(answers, [204, 400]);
    let names: Vec<_> = api.app.site.fake.definitions().into_iter().map(|d| d.title).collect();
    assert_eq!(names.iter().filter(|name| *name == "one").count(), 1, "{names:?}");
    api.app.assert_at_rest();
}

/// The fake is what it says: the sizes of a guest are read back.
#[test]
fn a_guest_tells_its_size() {
    let (api, stock) = Api::stocked();
    let id = roomy(&api, &stock, "web1");
    let vm: VmId = id.parse().unwrap();
    let fake = &api.app.site.fake;
    assert_eq!(fake.size(vm).unwrap_err().kind().name(), "wrong_state");
    of(&api, &id, "start");
    update(&api, &id, &spec(3, 96, 256)).empty_204();
    let size = fake.size(vm).unwrap();
    assert_eq!((size.vcpus, size.max_memory, fake.memory(vm).unwrap()), (3, MiB(128), MiB(96)));
}
