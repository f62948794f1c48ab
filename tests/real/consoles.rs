//! A guest's screen in a browser: noVNC as its package is, behind a proxy with a prefix.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::{add_storlink, add_template, new_vm, press, status, template_image, vm_body};
use crate::harness::browser::{browse, scripts};
use crate::harness::guest::golden;
use crate::harness::libvirt::Libvirtd;
use crate::harness::proxy::{Proxy, Target};
use crate::harness::server::Place;
use crate::harness::wait::BOOT;

const PAGE: &str = "<!doctype html><title>console</title><div id='screen' style='width: 800px; height: 600px'></div>";

#[test]
fn novnc_shows_a_guest_that_boots() {
    let libvirtd = Libvirtd::start("consoles");
    let server = Arc::default();
    let proxy = Proxy::new(vec![
        ("/pengx", Target::Server(Arc::clone(&server))),
        ("/novnc/", Target::Directory(scripts().join("node_modules/@novnc/novnc"))),
        ("/", Target::Page(PAGE)),
    ]);
    let sections = format!("[libvirt]\ndomain_type = 'qemu'\n[api]\npublic_url = '{}/pengx'\n", proxy.url());
    let place = Place::with(&libvirtd.uri, "[bridges]\nxenbr0 = 'user'\nxenbr1 = 'user'", &sections);
    let program = place.serve();
    server.set(program.address).unwrap();
    std::fs::copy(golden(), template_image(&place, "qcow2")).unwrap();
    add_storlink(&program, &place);
    let template = add_template(&program, "qcow2");
    let made = program.post("/vms/", &vm_body("seen", &template, "", "", "qcow2"));
    assert_eq!(made.status, 201, "{made:?}");
    let vm = new_vm(&program, &[]);
    assert_eq!(press(&program, &vm, "start").status, 200);

    let screenshot = Path::new(env!("CARGO_TARGET_TMPDIR")).join("console.png");
    let given = json!({
        "vm": format!("{}/pengx/vms/{vm}/", proxy.url()),
        // The firmware, the boot loader, and what the guest then says of itself now and then.
        "pictures": 5,
        "patience": BOOT.as_millis(),
        "screenshot": screenshot,
    });
    let seen = browse("console.mjs", &format!("{}/", proxy.url()), &given);
    let url = seen["url"].as_str().unwrap();
    assert!(url.starts_with(&format!("ws://{}/pengx/vms/{vm}/console/?ticket=", proxy.address)), "{seen}");
    assert!(seen["size"][0].as_u64() >= Some(640) && seen["size"][1].as_u64() >= Some(400), "{seen}");
    assert!(screenshot.metadata().unwrap().len() > 0);
    assert_eq!(seen["off"], 200);
    let words: Vec<_> = seen["told"].as_array().unwrap().iter().map(|event| event["what"].as_str().unwrap()).collect();
    assert_eq!(words, ["connect", "disconnect"], "{seen}");
    assert_eq!(status(&program, &vm), "SHUTDOWN");
    assert!(program.log().contains("a console was opened") && !program.log().contains(url.split('=').nth(1).unwrap()));
    assert_eq!(program.delete(&format!("/vms/{vm}/")).status, 204);
    place.assert_at_rest();
}
