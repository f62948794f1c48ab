//! The hypervisor is away: reads say UNKNOWN, changes say 503 and leave nothing, and it comes back to the right states.

use super::{Api, vm};
use crate::harness::wait::wait_until;
use crate::harness::world::World;

const AWAY: &str = "the fake hypervisor does not answer";

#[test]
fn while_the_hypervisor_is_away_reads_answer_and_changes_leave_nothing() {
    let (api, stock) = Api::stocked();
    let (running, stopped, ended) = (api.vm(&stock, "running"), api.vm(&stock, "stopped"), api.vm(&stock, "ended"));
    for id in [&running, &ended] {
        assert_eq!(api.post(&format!("/vms/{id}/start/"), "").status, 200);
    }
    let before = World::of(&api.app);
    let fake = &api.app.site.fake;
    fake.set_reachable(false);
    for id in [&running, &stopped, &ended] {
        api.wait_status(id, "UNKNOWN");
    }
    let list = api.get("/vms/");
    assert_eq!((list.status, list.body.matches("<status>UNKNOWN</status>").count()), (200, 3), "{list:?}");
    assert_eq!(api.get(&format!("/vms/{running}/")).element("vnc_port"), "");
    for uri in ["/storlinks/", "/templates/", "/pms/", "/tasks/"] {
        assert_eq!(api.get(uri).status, 200, "{uri}");
    }
    for verb in ["start", "shutdown", "poweroff", "reboot", "reset", "resume", "suspend"] {
        api.post(&format!("/vms/{stopped}/{verb}/"), "").refused(503, AWAY);
        api.post(&format!("/vms/{running}/{verb}/"), "").refused(503, AWAY);
    }
    api.http.delete(&format!("/vms/{stopped}/")).refused(503, AWAY);
    let more = "<vm><maxmem>128</maxmem></vm>";
    api.http.send("PUT", &format!("/vms/{running}/update/"), more).refused(503, AWAY);
    api.http.send("PUT", &format!("/vms/{stopped}/update/"), more).refused(503, AWAY);
    api.http.send("PUT", &format!("/vms/{stopped}/edit/"), "<vm><name>other</name></vm>").refused(503, AWAY);
    // From a template, empty, with mapped and with looked-up bridges: nothing is left, not even until it is back.
    let template = format!("<template>{}</template>", stock.template);
    for rest in [
        template.clone(),
        format!("{template}<network>0</network>"),
        format!("{template}<network>virbr0</network>"),
        "<os_disk_size>4</os_disk_size><extra_disk_size>4</extra_disk_size>".to_owned(),
    ] {
        api.post("/vms/", &vm("new", &stock, &rest)).refused(503, AWAY);
        api.app.assert_at_rest();
        assert_eq!(std::fs::read_dir(api.app.site.store_dir()).unwrap().count(), before.files.len(), "{rest}");
    }

    // What happened meanwhile is seen afterwards.
    assert!(fake.power_off_inside(pengx_id(&ended)));
    fake.set_reachable(true);
    api.wait_status(&running, "RUNNING");
    api.wait_status(&stopped, "SHUTDOWN");
    api.wait_status(&ended, "SHUTDOWN");
    assert_eq!(api.get("/vms/").ids("vm").len(), 3);
    let mut after = World::of(&api.app);
    let mut expected = before;
    for world in [&mut after, &mut expected] {
        world.domains.retain(|line| !line.starts_with(&format!("{ended} ")));
        world.running.retain(|line| !line.contains(&ended));
    }
    assert_eq!(after, expected);
    api.post("/vms/", &vm("new", &stock, &template)).done(201, "vm new is created");
    api.http.delete(&format!("/vms/{stopped}/")).empty_204();
    api.app.assert_at_rest();
}

/// It goes away after the plan looked: what was begun is undone once it is back.
#[test]
fn a_create_that_loses_the_hypervisor_midway_is_undone() {
    let (api, stock) = Api::stocked();
    let before = World::of(&api.app);
    let fake = &api.app.site.fake;
    fake.hold(pengx::hypervisor::Verb::Define);
    let body = vm("new", &stock, &format!("<template>{}</template>", stock.template));
    std::thread::scope(|scope| {
        let create = scope.spawn(|| api.post("/vms/", &body));
        assert!(fake.wait_held(pengx::hypervisor::Verb::Define, 1, crate::harness::wait::PATIENCE));
        fake.set_reachable(false);
        fake.release(pengx::hypervisor::Verb::Define);
        create.join().unwrap().refused(503, AWAY);
    });
    assert_eq!(api.get("/vms/").ids("vm"), Vec::<String>::new());
    fake.set_reachable(true);
    api.app.assert_at_rest();
    wait_until("the world is as it was", || Ok(World::of(&api.app) == before));
    api.vm(&stock, "new");
    api.app.assert_at_rest();
}

fn pengx_id(id: &str) -> pengx::model::VmId {
    id.parse().unwrap()
}
