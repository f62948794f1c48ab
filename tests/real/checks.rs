//! `pengx check` on a real libvirt: what somebody does behind our back is told, and repaired where that is safe.

use std::process::Output;

use super::{add_storlink, empty_vm, press};
use crate::harness::libvirt::Libvirtd;
use crate::harness::server::Place;

fn lines(done: &Output) -> (Option<i32>, Vec<String>) {
    let text = String::from_utf8(done.stdout.clone()).unwrap();
    (done.status.code(), text.lines().map(str::to_owned).collect())
}

fn define(libvirtd: &Libvirtd, place: &Place, name: &str) {
    let file = place.store_dir().with_file_name("domain.xml");
    let document = format!(
        "<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory><os><type arch='x86_64'>hvm</type></os></domain>"
    );
    std::fs::write(&file, document).unwrap();
    libvirtd.virsh(&["define", file.to_str().unwrap()]);
}

#[test]
fn a_check_tells_what_was_done_behind_our_back_and_repairs_what_is_safe() {
    let libvirtd = Libvirtd::start("checks");
    let place = Place::new(&libvirtd.uri, "");
    let server = place.serve();
    add_storlink(&server, &place);
    let (one, two) = (empty_vm(&server, "web1"), empty_vm(&server, "web2"));
    let check = |args: &[&str]| lines(&place.run("check", args));
    assert_eq!(check(&[]), (Some(0), Vec::new()));
    assert_eq!(press(&server, &one, "start").status, 200);
    assert_eq!(check(&[]), (Some(0), Vec::new()), "a guest that runs is in order");

    // Definitions alone: the guest that runs is not touched.
    libvirtd.virsh(&["setvcpus", &one, "2", "--config"]);
    libvirtd.virsh(&["undefine", &two]);
    define(&libvirtd, &place, "somebody-elses");
    define(&libvirtd, &place, "pengx-0f6a9c1e-0000-4000-8000-00000000ffff");
    let differs = "the domain of vm web1 is defined with 2 vCPUs, and its record says 1";
    let stranger = "domain pengx-0f6a9c1e-0000-4000-8000-00000000ffff is known to no record; \
                    a domain that is not known is left alone; undefine it by hand";
    let (status, mut said) = check(&[]);
    said.sort();
    let missing = "vm web2 has no domain on this host; pengx check --repair does something about it";
    let running = format!("{differs}; it runs; shut it down first");
    assert_eq!((status, said), (Some(1), vec![stranger.to_owned(), running, missing.to_owned()]));

    assert_eq!(press(&server, &one, "poweroff").status, 200);
    let refused = place.run("check", &["--repair"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    server.kill();
    let (status, said) = check(&["--repair"]);
    let did = |name: &str| format!("the domain of vm {name} is defined as its record says");
    assert_eq!(
        (status, said),
        (
            Some(1),
            vec![
                format!("repaired: {differs}: {}", did("web1")),
                format!("repaired: vm web2 has no domain on this host: {}", did("web2")),
                format!("left: {stranger}"),
            ]
        )
    );
    // They are as good as they were, and what is not ours is there.
    let server = place.serve();
    for vm in [&one, &two] {
        assert_eq!(press(&server, vm, "start").status, 200);
    }
    assert_eq!(libvirtd.virsh(&["vcpucount", &one, "--current", "--active"]).trim(), "1");
    let domains = libvirtd.virsh(&["list", "--all", "--name"]);
    assert!(domains.contains("somebody-elses") && domains.contains("pengx-0f6a9c1e"), "{domains}");
    libvirtd.virsh(&["undefine", "pengx-0f6a9c1e-0000-4000-8000-00000000ffff"]);
    assert_eq!(check(&[]), (Some(0), Vec::new()));
    for vm in [&one, &two] {
        assert_eq!(press(&server, vm, "poweroff").status, 200);
    }
    place.assert_at_rest();
}
