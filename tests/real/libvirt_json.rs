//! The libvirt JSON API beside what libvirt itself says of a guest.

use std::sync::Arc;

use pengx::hypervisor::{DomainType, FakeHypervisor, LibvirtHypervisor, LibvirtOptions};

use crate::harness::app::Site;
use crate::harness::http::ask_bytes;
use crate::harness::libvirt::Libvirtd;
use crate::harness::wait::PATIENCE;
use crate::libvirt_json::{Api, settings};

/// Width and height, as the header of the picture has them.
fn size(kind: &str, picture: &[u8]) -> (u32, u32) {
    match kind {
        "image/png" => {
            assert!(picture.starts_with(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), "{:?}", &picture[..24]);
            let number = |at: usize| u32::from_be_bytes(picture[at..at + 4].try_into().unwrap());
            (number(16), number(20))
        }
        "image/x-portable-pixmap" => {
            let head = String::from_utf8_lossy(&picture[..32]).into_owned();
            let mut words = head.split_ascii_whitespace();
            assert_eq!(words.next(), Some("P6"), "{head}");
            let mut number = || words.next().unwrap().parse().unwrap();
            (number(), number())
        }
        other => panic!("a picture of type {other}"),
    }
}

/// What stands between these in libvirt's document.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    text.split_once(before).unwrap_or_else(|| panic!("no {before} in {text}")).1.split_once(after).unwrap().0
}

#[test]
fn a_guest_is_told_of_as_libvirt_tells() {
    let libvirtd = Libvirtd::start("json");
    let options = LibvirtOptions {
        call_timeout: PATIENCE,
        power_timeout: PATIENCE * 2,
        domain_type: DomainType::Qemu,
        ..LibvirtOptions::default()
    };
    let libvirt = LibvirtHypervisor::new(&libvirtd.uri, options).unwrap();
    let api = Api::on(Site::on(Arc::new(libvirt), FakeHypervisor::new()), settings());
    let vm = api.vm("web 1").to_string();
    api.post("/vm_start?name=web%201").says(200, r#"{"status":true}"#);

    let xml = api.get("/vm_xmldesc?name=web%201");
    assert_eq!((xml.status, xml.header("content-type")), (200, Some("application/xml")));
    assert!(!xml.body.contains("passwd"), "{}", xml.body);
    assert_eq!(between(&xml.body, "<uuid>", "</uuid>"), vm);
    assert_eq!(xml.body.trim(), libvirtd.virsh(&["dumpxml", &vm]).trim());
    let number: i64 = between(&xml.body, " id='", "'").parse().unwrap();
    let listed = api.json("/vms?type=active")["vms"].clone();
    assert_eq!(listed, serde_json::json!([{ "name": "web 1", "state": "running", "id": number }]));

    let info = api.json("/vm_info?name=web%201");
    let memory: u64 = between(&xml.body, "<memory unit='KiB'>", "<").parse().unwrap();
    assert_eq!(
        (info["state"].as_u64(), info["max_mem"].as_u64(), info["vcpu"].as_u64()),
        (Some(1), Some(memory), Some(1))
    );
    assert_eq!(info["cur_mem"].as_u64(), Some(memory), "KiB");
    assert!(info["cputime"].as_u64() > Some(1_000_000), "ns: {info}");

    let viewer = api.json("/vm_viewer?name=web%201");
    let port: u64 = between(between(&xml.body, "<graphics type='vnc'", ">"), " port='", "'").parse().unwrap();
    assert_eq!((viewer["ip"].as_str(), viewer["port"].as_u64()), (Some("127.0.0.1"), Some(port)));
    // It has no agent, and QEMU's own network leases nothing that libvirt knows of.
    assert!(api.json("/vm_ip?name=web%201")["ips"].is_array());

    let (answer, picture) = ask_bytes(api.http.address, "GET", "/vm_screenshot?name=web%201", &[], "");
    assert_eq!(answer.status, 200, "{answer:?}");
    let (width, height) = size(answer.header("content-type").unwrap(), &picture);
    assert!(width >= 320 && height >= 200, "{width} x {height}");

    api.post("/vm_stop?name=web%201").says(200, r#"{"status":true}"#);
    api.get("/vm_state?name=web%201").says(200, r#"{"state":5}"#);
    assert_eq!(libvirtd.virsh(&["domstate", &vm]).trim(), "shut off");
    let off = api.json("/vm_info?name=web%201");
    assert_eq!((&off["state"], &off["max_mem"], &off["cputime"]), (&5.into(), &memory.into(), &0.into()));
    api.get("/vm_viewer?name=web%201").says(200, r#"{"ip":null,"port":null}"#);
    api.get("/vm_screenshot?name=web%201").details(400, "No VM named web 1");
    assert_eq!(api.get("/vm_xmldesc?name=web%201").body.trim(), libvirtd.virsh(&["dumpxml", &vm]).trim());
    api.app.assert_at_rest();
}
