//! What guests use, where they are reached, how their screens look, and how they are described.

use std::collections::HashMap;
use std::net::IpAddr;

use pengx::model::{DomainStats, GuestAddress, Screenshot};
use quick_xml::Reader;
use quick_xml::events::Event;

use super::*;
use crate::harness::guest::golden;
use crate::harness::wait::{BOOT, wait_until, wait_within};

fn stats(bench: &Bench, vm: &Vm<'_>) -> Option<DomainStats> {
    let mut all = bench.hypervisor.stats().unwrap().into_iter().filter(|stats| stats.id == vm.id);
    let its = all.next();
    assert_eq!(all.next(), None, "it is told of once");
    its
}

/// All its vCPUs together, in nanoseconds.
fn worked(stats: &DomainStats) -> u64 {
    stats.vcpu_nanos.iter().sum()
}

pub(super) fn what_a_guest_uses_is_told_while_it_is_on(bench: &Bench) {
    let vm = bench.vm_with(&DomainSpec { vcpus: 2, ..spec(&[bench.disk()]) });
    assert_eq!((stats(bench, &vm), vm.status().number), (None, None));
    vm.start(Start::Paused);
    let first = stats(bench, &vm).expect("it is on");
    assert_eq!(first.vcpu_nanos.len(), 2);
    assert!((1..=64 << 10).contains(&first.memory_kib), "{first:?}");
    assert!((first.memory_kib..=65 << 10).contains(&first.max_memory_kib), "{first:?}");
    let number = vm.status().number.expect("a number");
    bench.hypervisor.unpause(vm.id).unwrap();
    if let Some(fake) = &bench.fake {
        fake.let_pass(Duration::from_secs(10));
    }
    // A PV guest has no firmware, and ours only waits.
    let works = !bench.xen || bench.emulated;
    let mut now = first.clone();
    wait_until("its firmware works", || {
        now = stats(bench, &vm).expect("it runs");
        if !works {
            return Ok(true);
        }
        // More than it takes to make the threads of its vCPUs, however busy this machine is.
        Ok(now.cpu_nanos > first.cpu_nanos && worked(&now) > worked(&first) + 50_000_000)
    });
    assert!(now.disk_read >= first.disk_read && now.disk_written >= first.disk_written);
    assert_eq!(vm.status().number, Some(number), "one run");
    bench.hypervisor.destroy(vm.id).unwrap();
    assert_eq!((stats(bench, &vm), vm.status().number), (None, None));
    vm.start(Start::Paused);
    assert!(vm.status().number.is_some_and(|now| now != number), "another run");
    let anew = stats(bench, &vm).expect("it is on");
    assert!(!works || worked(&anew) < worked(&now), "it begins anew");
}

pub(super) fn nobody_knows_where_a_silent_guest_is_reached(bench: &Bench) {
    let mut spec = spec(&[]);
    spec.nics = vec![nic(1, bench.link())];
    let vm = bench.vm_with(&spec);
    let reached = |id| bench.hypervisor.addresses(id).unwrap();
    assert_eq!((reached(vm.id), reached(VmId(Uuid::new_v4()))), (vec![], vec![]));
    for how in [Start::Paused, Start::Running] {
        vm.start(how);
        assert_eq!(reached(vm.id), []);
        bench.hypervisor.destroy(vm.id).unwrap();
    }
}

/// Width and height, as its header says.
fn size(picture: &Screenshot) -> (u32, u32) {
    let bytes = &picture.bytes;
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    match picture.media_type.as_str() {
        "image/png" => {
            assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR") && bytes.ends_with(b"IEND\xaeB`\x82"));
            (number(16), number(20))
        }
        "image/x-portable-pixmap" => {
            let head = String::from_utf8_lossy(&bytes[..20]).into_owned();
            let words: Vec<&str> = head.split_ascii_whitespace().collect();
            assert_eq!(words[0], "P6");
            (words[1].parse().unwrap(), words[2].parse().unwrap())
        }
        other => panic!("a picture as {other}"),
    }
}

pub(super) fn a_screen_is_a_picture_while_it_is_on(bench: &Bench) {
    let (vm, absent) = (bench.vm(&[]), VmId(Uuid::new_v4()));
    let picture = |id| bench.hypervisor.screenshot(id);
    wrong_state(picture(vm.id).map(drop));
    not_found(picture(absent).map(drop), absent);
    for how in [Start::Paused, Start::Running] {
        vm.start(how);
        if bench.xen && !bench.emulated {
            unsupported(picture(vm.id).map(drop));
        } else {
            let (width, height) = size(&picture(vm.id).unwrap());
            assert!(width > 0 && height > 0);
        }
        bench.hypervisor.destroy(vm.id).unwrap();
    }
    wrong_state(picture(vm.id).map(drop));
}

/// Attributes and texts by the way to them: `domain@id`, `domain/uuid`; where there are several, the first.
fn read(document: &str) -> HashMap<String, String> {
    let mut reader = Reader::from_str(document);
    reader.config_mut().expand_empty_elements = true;
    let (mut way, mut found): (Vec<String>, HashMap<String, String>) = Default::default();
    loop {
        match reader.read_event().unwrap() {
            Event::Start(tag) => {
                way.push(tag.name().as_ref().to_owned());
                for attribute in tag.attributes() {
                    let attribute = attribute.unwrap();
                    let key = format!("{}@{}", way.join("/"), attribute.key.as_ref());
                    let value = attribute.normalized_value(quick_xml::XmlVersion::Implicit1_0).unwrap().into_owned();
                    found.entry(key).or_insert(value);
                }
            }
            Event::Text(text) => {
                found.entry(way.join("/")).or_default().push_str(text.as_ref());
            }
            Event::End(_) => drop(way.pop()),
            Event::Eof => break,
            _ => {}
        }
    }
    assert!(way.is_empty(), "{document}");
    found
}

pub(super) fn a_description_is_a_document_without_secrets(bench: &Bench) {
    let absent = VmId(Uuid::new_v4());
    assert_eq!(bench.hypervisor.description(absent).unwrap(), None);
    let file = bench.dir.path().join("<it's>&system.raw");
    std::fs::copy(bench.disk(), &file).unwrap();
    let mut spec = spec(std::slice::from_ref(&file));
    spec.nics = vec![nic(1, bench.link())];
    let vm = bench.vm_with(&spec);
    let described = || {
        let document = bench.hypervisor.description(vm.id).unwrap().expect("it is known");
        assert!(!document.contains("passwd") && !document.contains(">12345678<"), "{document}");
        read(&document)
    };
    let off = described();
    let is = |said: &HashMap<String, String>, key: &str| said.get(key).cloned();
    assert_eq!(is(&off, "domain@id"), None);
    vm.start(Start::Paused);
    let on = described();
    let status = vm.status();
    assert_eq!(is(&on, "domain@id"), status.number.map(|number| number.to_string()));
    if let Some(screen) = &status.vnc {
        assert_eq!(is(&on, "domain/devices/graphics@port"), Some(screen.port.to_string()));
    }
    for said in [&off, &on] {
        let disk = is(said, "domain/devices/disk/source@file");
        let expected = [
            ("domain/name", format!("pengx-{}", vm.id)),
            ("domain/uuid", vm.id.to_string()),
            ("domain/memory", (64 << 10).to_string()),
            ("domain/vcpu", "2".to_owned()),
            ("domain/vcpu@current", "1".to_owned()),
            ("domain/devices/interface/mac@address", spec.nics[0].mac.to_string()),
            ("domain/devices/graphics@type", "vnc".to_owned()),
        ];
        for (key, value) in expected {
            assert_eq!(is(said, key), Some(value), "{key}");
        }
        assert_eq!(disk.as_deref(), file.to_str());
        assert!(["hvm", "xen", "xenpvh"].contains(&is(said, "domain/os/type").unwrap().as_str()));
    }
    bench.hypervisor.destroy(vm.id).unwrap();
    assert_eq!(is(&described(), "domain@id"), None);
}

#[test]
fn the_fake_is_reached_where_a_test_says() {
    let bench = Bench::fake();
    let (vm, fake) = (bench.vm(&[]), bench.fake.as_ref().unwrap());
    let ip: IpAddr = "10.0.0.7".parse().unwrap();
    let address = GuestAddress { interface: "eth0".to_owned(), mac: None, ip, prefix: 8 };
    fake.set_addresses(vm.id, vec![address.clone()]);
    assert_eq!(bench.hypervisor.addresses(vm.id).unwrap(), []);
    vm.start(Start::Running);
    assert_eq!(bench.hypervisor.addresses(vm.id).unwrap(), [address]);
}

/// Debian's kernel, emulated, with the agent and a balloon.
#[test]
fn a_booted_guest_tells_its_addresses_and_its_memory_and_shows_its_screen() {
    let bench = Bench::new(Arc::new(connect_with(&Libvirtd::shared().uri, BOOT)));
    let image = bench.dir.path().join("system.qcow2");
    std::fs::copy(golden(), &image).unwrap();
    let mut spec = spec(std::slice::from_ref(&image));
    spec.disks[0].format = Format::Qcow2;
    (spec.memory, spec.max_memory) = (MiB(160), MiB(160));
    spec.nics = vec![nic(1, NicLink::User)];
    let vm = bench.vm_with(&spec);
    vm.start(Start::Running);
    let before = stats(&bench, &vm).expect("it runs");
    let dark = bench.hypervisor.screenshot(vm.id).unwrap();

    let mut addresses = Vec::new();
    let mac = spec.nics[0].mac;
    wait_within(BOOT, "its agent tells that QEMU gave it an address", || {
        addresses = bench.hypervisor.addresses(vm.id)?;
        Ok(addresses.iter().any(|address| address.mac == Some(mac) && address.ip.is_ipv4()))
    });
    let said: Vec<_> = addresses.iter().map(|a| format!("{} {}/{}", a.interface, a.ip, a.prefix)).collect();
    for expected in ["lo 127.0.0.1/8", "eth0 10.0.2.15/24"] {
        assert!(said.iter().any(|said| said == expected), "{said:?}");
    }

    let mut now = before.clone();
    wait_within(BOOT, "its balloon tells of its memory", || {
        now = stats(&bench, &vm).expect("it runs");
        Ok(now.memory_used_kib.is_some())
    });
    assert!(now.memory_used_kib.is_some_and(|used| (1..160 << 10).contains(&used)), "{now:?}");
    assert!(now.cpu_nanos > before.cpu_nanos && now.vcpu_nanos[0] > before.vcpu_nanos[0], "{before:?} {now:?}");
    assert!(now.disk_read > before.disk_read && now.disk_written > before.disk_written, "{before:?} {now:?}");
    wait_within(
        BOOT,
        "its screen shows something else",
        || Ok(bench.hypervisor.screenshot(vm.id)?.bytes != dark.bytes),
    );

    bench.hypervisor.pause(vm.id).unwrap();
    assert_eq!(bench.hypervisor.addresses(vm.id).unwrap(), [], "one that is paused is not asked");
    assert!(stats(&bench, &vm).is_some());
    size(&bench.hypervisor.screenshot(vm.id).unwrap());
}

/// Its QEMU answers nobody: that costs one answer, and the others are told of afterwards.
#[test]
fn a_guest_that_hangs_is_told_of_in_part_and_holds_up_one_call() {
    let libvirtd = Libvirtd::disturbed();
    let bench = libvirt::impatient(&libvirtd);
    let (hung, well) = (bench.vm(&[]), bench.vm(&[]));
    hung.start(Start::Paused);
    well.start(Start::Paused);
    let stopped = libvirt::Stopped::new(libvirtd.guest_pid(&libvirt::domain_name(&hung)));
    assert!(libvirt::is_unavailable(&bench.hypervisor.stats()), "libvirt waits for it");
    let all = libvirt::patiently(|| bench.hypervisor.stats());
    for vm in [&hung, &well] {
        let told = all.iter().find(|stats| stats.id == vm.id).expect("it is on");
        assert_eq!((told.vcpu_nanos.len(), told.memory_kib), (1, 64 << 10), "{told:?}");
    }
    drop(stopped);
    libvirt::patiently(|| bench.hypervisor.screenshot(hung.id));
}
