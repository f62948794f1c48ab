//! The program beside a real server and without one: its lines, and its status.

use std::process::Output;

use crate::harness::server::Place;
use crate::harness::wait::wait_until;

fn lines(done: &Output) -> (Option<i32>, Vec<String>) {
    let text = String::from_utf8(done.stdout.clone()).unwrap();
    (done.status.code(), text.lines().map(str::to_owned).collect())
}

fn errors(done: &Output) -> (Option<i32>, String) {
    assert!(done.stdout.is_empty(), "{done:?}");
    (done.status.code(), String::from_utf8(done.stderr.clone()).unwrap())
}

const NOTE: &str = "note: the fake hypervisor is in the memory of its server; domains were not compared";

fn storlink(place: &Place, server: &crate::harness::server::Program) {
    let link = place.store_dir();
    let body = format!("<s><name>store1</name><link>{}</link><type>LO</type><level>FL</level></s>", link.display());
    assert_eq!(server.post("/storlinks/", &body).status, 201);
}

#[test]
fn beside_a_server_it_looks_and_repairs_nothing() {
    let place = Place::new("fake:///", "orphan_quarantine = 1\n");
    // Nothing was ever served here: nothing is made, and nothing could be looked at.
    let (status, said) = errors(&place.run("check", &[]));
    assert_eq!(status, Some(2), "{said}");
    assert!(!place.data_dir().join("pengx.db").exists() && !place.data_dir().join("pm-uuid").exists());

    let server = place.serve();
    storlink(&place, &server);
    let vm = "<vm><name>web1</name><storlink>1</storlink><cpu_core>1</cpu_core><memory>64</memory>\
              <os_disk_size>4</os_disk_size></vm>";
    assert_eq!(server.post("/vms/", vm).status, 201);
    assert_eq!(lines(&place.run("check", &[])), (Some(0), vec![NOTE.to_owned()]));

    // An orphan: the volume stays, its VM was never recorded.
    let volume = place.files().into_iter().find(|name| name.ends_with(".qcow2")).unwrap();
    place
        .store()
        .write_tx(|tx| {
            let all = pengx::store::disks::all(tx)?;
            all.iter().try_for_each(|disk| pengx::store::disks::remove(tx, disk.id))
        })
        .unwrap();
    let (status, said) = lines(&place.run("check", &[]));
    assert_eq!((status, said.len(), said[0].as_str()), (Some(1), 2, NOTE));
    assert!(said[1].starts_with(&format!("storlink store1: {volume} (")), "{said:?}");

    // Its quarantine is over in a moment; the server has the database all the same.
    wait_until("the quarantine is over", || {
        Ok(lines(&place.run("check", &[])).1[1].ends_with("; pengx check --repair does something about it"))
    });
    let (status, said) = errors(&place.run("check", &["--repair"]));
    assert_eq!(status, Some(2));
    assert!(said.contains("another pengx is running on it; a repair needs that no server runs: stop it"), "{said}");
    assert!(place.files().contains(&volume));
    server.kill();
    // Where the hypervisor is in the memory of a server, nobody can tell what its domains use.
    let (status, said) = lines(&place.run("check", &["--repair"]));
    assert_eq!((status, said.len(), said[1].as_str()), (Some(0), 2, NOTE), "{said:?}");
    assert!(said[0].starts_with("repaired: storlink store1: ") && said[0].contains("is removed from storlink store1"));
    assert!(!place.files().contains(&volume));
    assert_eq!(lines(&place.run("check", &[])), (Some(0), vec![NOTE.to_owned()]));
    place.assert_at_rest();
}

#[test]
fn without_a_hypervisor_it_could_not_look() {
    let place = Place::new("fake:///", "");
    let server = place.serve();
    storlink(&place, &server);
    server.kill();
    let (status, said) = lines(&place.run("check", &["--hypervisor", "qemu+unix:///system?socket=/nowhere/libvirt"]));
    assert_eq!(status, Some(2), "{said:?}");
    assert!(said[0].starts_with("not looked at: domains were not looked at: "), "{said:?}");
}

#[test]
fn its_options_are_those_of_the_server() {
    let place = Place::new("fake:///", "");
    let (status, said) = errors(&place.run("check", &["--data-dir", "/nowhere/at/all"]));
    assert_eq!(status, Some(2));
    assert!(said.contains("/nowhere/at/all"), "{said}");
    let (status, said) = errors(&place.run("check", &["--hypervisor", "nonsense"]));
    assert_eq!(status, Some(2), "{said}");
}
