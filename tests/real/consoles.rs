//! A guest's screen in a browser: noVNC as its package is, behind a proxy with a prefix; by a ticket of the native API, and by the page that the
//! Proxmox-API names.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pengx::config::ProxmoxApi;
use pengx::hypervisor::{DomainType, FakeHypervisor, LibvirtHypervisor, LibvirtOptions};
use pengx::model::Format;
use serde_json::json;

use super::{add_storlink, add_template, new_vm, press, status, template_image, vm_body};
use crate::harness::app::Site;
use crate::harness::browser::{browse, scripts};
use crate::harness::guest::golden;
use crate::harness::libvirt::Libvirtd;
use crate::harness::proxy::{Proxy, Target};
use crate::harness::server::Place;
use crate::harness::wait::{BOOT, PATIENCE, wait_until};
use crate::proxmox_api::{Panel, Read, settings};

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

#[test]
fn the_page_of_the_proxmox_api_shows_a_guest_that_boots() {
    let libvirtd = Libvirtd::start("page");
    let options = LibvirtOptions { call_timeout: PATIENCE, domain_type: DomainType::Qemu, ..LibvirtOptions::default() };
    let libvirt = LibvirtHypervisor::new(&libvirtd.uri, options).unwrap();
    let server = Arc::default();
    let proxy = Proxy::new(vec![("/pengx", Target::Server(Arc::clone(&server)))]);
    let public_url = Some(format!("{}/pengx", proxy.url()).parse().unwrap());
    let pages = tempfile::tempdir().unwrap();
    let settings = ProxmoxApi { novnc: novnc(pages.path()), ..settings() };
    let app = Site::on(Arc::new(libvirt), FakeHypervisor::new()).start();
    let panel = Panel::found_at(public_url, "/px", app, settings);
    server.set(panel.http.address).unwrap();
    panel.app.template_of(panel.app.storlink(), Format::Qcow2, |path| {
        std::fs::copy(golden(), path).unwrap();
    });
    panel.form("POST", "/px/user", "username=bob&password=secret1").is_ok();
    let template = panel.get("/px/template").value()["host1"]["data"][0]["volid"].as_str().unwrap().to_owned();
    let made = panel.form("POST", "/px/container", &format!("username=bob&template={template}&memory=256"));
    assert_eq!(made.value()["id"], 100);

    let url = || panel.get("/px/utils/vnc?id=100").value()["url"].as_str().map(str::to_owned);
    wait_until("the machine has a screen", || Ok(url().is_some()));
    let url = url().unwrap();
    assert!(url.starts_with(&format!("{}/pengx/px/console/vnc.html?", proxy.url())), "{url}");
    let screenshot = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page.png");
    let given = json!({
        "off": format!("http://{}/px/manage/off?id=100", panel.http.address),
        "pictures": 5,
        "patience": BOOT.as_millis(),
        "screenshot": screenshot,
    });
    let seen = browse("proxmox.mjs", &url, &given);
    assert_eq!(seen["off"], 200, "{seen}");
    let status = &panel.get("/px/container?id=100").value()["host1"]["data"]["status"];
    assert_eq!(status, "stopped");
    panel.app.assert_at_rest();
}

/// What the setting `novnc` names: noVNC's own modules, below a page of ours. Or a whole noVNC that somebody wants to try, as
/// `PENGX_NOVNC=/usr/share/novnc`.
fn novnc(dir: &Path) -> PathBuf {
    if let Some(whole) = std::env::var_os("PENGX_NOVNC") {
        return whole.into();
    }
    let package = scripts().join("node_modules/@novnc/novnc");
    for part in ["core", "vendor"] {
        symlink(package.join(part), dir.join(part)).unwrap();
    }
    symlink(scripts().join("novnc/vnc.html"), dir.join("vnc.html")).unwrap();
    dir.to_owned()
}
