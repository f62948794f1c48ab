//! Ids: reserved, given, and never given twice.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use super::{Panel, Read};
use crate::harness::wait::wait_until;
use pengx::model::StorlinkId;

fn next(panel: &Panel) -> i64 {
    panel.get("/cluster/nextid").value()["data"].as_i64().unwrap()
}

#[test]
fn an_id_that_was_told_is_kept_for_a_minute() {
    let panel = Panel::new().stocked();
    assert_eq!([next(&panel), next(&panel), next(&panel)], [100, 101, 102]);
    assert_eq!(panel.container(""), 100, "the one that was reserved first");
    assert_eq!(panel.container("vmid=102"), 102, "the one that is named");
    assert_eq!(panel.container("id=101"), 101);
    assert_eq!(next(&panel), 103);
    panel.app.site.ahead.fetch_add(61, Ordering::SeqCst);
    assert_eq!(next(&panel), 103, "nobody came for it");
    assert_eq!(panel.container(""), 103);
    assert_eq!(panel.container(""), 104, "the smallest that is free");
    panel.app.assert_at_rest();
}

#[test]
fn an_id_of_another_machine_is_not_given() {
    let panel = Panel::new().stocked();
    assert_eq!(panel.container(""), 100);
    for (id, why) in
        [("100", "100 is another vm's"), ("99", "must be from 100 to 999999999"), ("x", "must be a whole number")]
    {
        let refused = panel.form("POST", "/container", &format!("username=bob&template={}&vmid={id}", panel.volid()));
        let said = format!("Parameter verification failed. - {{\"errors\":{{\"vmid\":\"{why}\"}},\"data\":null}}");
        assert_eq!((refused.status, refused.value()), (400, said.into()), "{id}");
    }
    assert_eq!(next(&panel), 101, "what failed keeps no id");
}

#[test]
fn two_at_once_get_two_ids() {
    let panel = Panel::new().stocked();
    next(&panel);
    let ids: BTreeSet<i64> = std::thread::scope(|scope| {
        let posts: Vec<_> = (0..4).map(|n| (n, scope.spawn(|| panel.container("memory=64")))).collect();
        posts.into_iter().map(|(_, post)| post.join().unwrap()).collect()
    });
    assert_eq!(ids, BTreeSet::from([100, 101, 102, 103]));
    let reserved: BTreeSet<i64> = std::thread::scope(|scope| {
        let asks: Vec<_> = (0..4).map(|_| scope.spawn(|| next(&panel))).collect();
        asks.into_iter().map(|ask| ask.join().unwrap()).collect()
    });
    assert_eq!(reserved, BTreeSet::from([104, 105, 106, 107]));
    panel.app.assert_at_rest();
}

#[test]
fn machines_of_other_front_doors_have_ids_in_the_order_in_which_they_were_made() {
    let panel = Panel::new().stocked();
    for name in ["web1", "web2"] {
        panel.app.run(panel.app.vm_of(StorlinkId(1), None, name)).unwrap();
    }
    assert_eq!(panel.data(101)["name"], "web2");
    assert_eq!(panel.data(100)["name"], "web1");
    assert_eq!(next(&panel), 102);
    panel.get("/container?username=bob").is(200, "application/json; charset=utf-8", "{}");
    let vm = panel.app.store().read(|c| pengx::store::vms::find_by_name(c, "web1")).unwrap().unwrap().id;
    panel.app.run(pengx::operations::vm::DeleteVm { vm }).unwrap();
    assert!(panel.get("/container?id=100").value()["host1"].is_string());
    assert_eq!(panel.data(101)["name"], "web2", "the others keep theirs");
    assert_eq!(next(&panel), 100, "free again");
}

#[test]
fn a_number_outlives_the_server() {
    let panel = Panel::new().stocked();
    assert_eq!(next(&panel), 100);
    let panel = panel.restarted();
    assert_eq!(next(&panel), 101, "the reservation too");
    assert_eq!(panel.container(""), 100);
    let panel = panel.restarted();
    wait_until("the inventory knows its domains", || Ok(panel.data(100)["status"] == "running"));
    assert_eq!(panel.machines("bob"), "100");
}
