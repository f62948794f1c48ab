//! The bed that `make test-xen` makes is sound: Xen answers, and each of its three guests does what other tests take for
//! granted. Without a word of pengx in it, so that what fails here is not pengx; and then pengx on it.

mod bios;
mod life;
mod many;
mod migration;
mod server;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use pengx::model::Format;
use uuid::Uuid;

use crate::harness::counters::Counter;
use crate::harness::guest::{beat, golden, next_beat, until_booted, until_seen};
use crate::harness::wait::{BOOT, wait_within};
use crate::harness::xen::{shared, try_xl, xl};

/// Where the guest that counts by its BIOS has its heartbeat.
const SECTOR_1: u64 = 512;

/// It has booted for the n-th time, and counts.
fn until_counts(image: &Path, format: Format, boots: u64) {
    wait_within(BOOT, &format!("boot {boots} of the guest of {}", image.display()), || {
        Ok(beat(image, format, SECTOR_1).is_some_and(|beat| beat.boots >= boots))
    });
    assert_eq!(next_beat(image, format, SECTOR_1).boots, boots);
}

/// It looks at sector 2 of its raw image for that.
fn tell_to_reboot(image: &Path) {
    let file = std::fs::OpenOptions::new().write(true).open(image).unwrap();
    file.write_all_at(b"R", 2 * SECTOR_1).unwrap();
}

/// A domain with a directory of its own, and an end.
struct Guest {
    name: String,
    dir: tempfile::TempDir,
}

impl Guest {
    /// It is off; these are lines of its configuration.
    fn new(lines: impl Fn(&Path) -> String) -> Self {
        let (name, dir) = (Uuid::new_v4().to_string(), tempfile::tempdir().unwrap());
        let text = format!("name = '{name}'\n{}", lines(dir.path()));
        std::fs::write(dir.path().join("cfg"), text).unwrap();
        Self { name, dir }
    }

    fn create(&self) {
        xl(&["create", "-q", self.file("cfg").to_str().unwrap()]);
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn is_there(&self) -> bool {
        xl(&["list"]).contains(&self.name)
    }

    fn until_gone(&self) {
        wait_within(BOOT, "the domain's end", || Ok(!self.is_there()));
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Most have ended already.
        drop(try_xl(60, &["destroy", &self.name]));
    }
}

/// A guest without drivers: it answers nothing.
fn stub() -> Guest {
    Guest::new(|_| format!("type = 'pv'\nkernel = '{}'\nmemory = 4\n", shared("stub").display()))
}

#[test]
#[ignore = "needs a Xen control domain: make test-xen"]
fn xen_answers_in_its_control_domain() {
    assert!(xl(&["info", "xen_version"]).starts_with("4.17."));
    let domains: serde_json::Value = serde_json::from_str(&xl(&["list", "-l"])).unwrap();
    let ids: Vec<_> = domains.as_array().unwrap().iter().map(|domain| domain["domid"].as_u64().unwrap()).collect();
    assert!(ids.contains(&0), "{ids:?}");
}

#[test]
#[ignore = "needs a Xen control domain: make test-xen"]
fn the_golden_guest_lives_under_xen_and_shuts_down() {
    let guest = Guest::new(|dir| {
        let image = dir.join("system.qcow2");
        std::fs::copy(golden(), &image).unwrap();
        format!(
            "type = 'pv'\nkernel = '{}'\nramdisk = '{}'\nextra = 'console=hvc0 quiet'\nmemory = 128\n\
             disk = ['format=qcow2,vdev=xvda,access=rw,target={}']\nvif = ['bridge=xenbr0']\n",
            shared("vmlinux").display(),
            shared("initrd").display(),
            image.display()
        )
    });
    let image = guest.file("system.qcow2");
    let counter = Counter::system(&image, Format::Qcow2);
    for boot in 1..=2 {
        let before = if boot == 1 { 0 } else { counter.numbers() };
        guest.create();
        until_booted(&image, Format::Qcow2, boot);
        until_seen(&image, Format::Qcow2, "its disk and NIC", |it| it.disks == ["xvda"] && it.nics == 1);
        let counted = counter.until_past(before);
        xl(&["shutdown", &guest.name]);
        guest.until_gone();
        assert!(counter.numbers() >= counted);
    }
}

#[test]
#[ignore = "needs a Xen control domain: make test-xen"]
fn the_stub_guest_runs_and_answers_nothing() {
    let guest = stub();
    guest.create();
    let asked = try_xl(10, &["shutdown", &guest.name]);
    assert_eq!(asked.status.code(), Some(124), "xl goes on waiting for it: {asked:?}");
    assert!(guest.is_there());
    xl(&["destroy", &guest.name]);
    assert!(!guest.is_there());
}

#[test]
#[ignore = "needs a Xen control domain, and too long for make test-xen: make test-xen-long"]
fn the_bios_guest_counts_and_obeys() {
    let guest = Guest::new(|dir| {
        let image = dir.join("system.raw");
        std::fs::copy(shared("hvm-counter.img"), &image).unwrap();
        // By default a file would go through a loop device, and scripts that are slow where all is emulated.
        let disk = format!("format=raw,vdev=hda,access=rw,backendtype=qdisk,target={}", image.display());
        format!("type = 'hvm'\nmemory = 64\nvnc = 1\ndisk = ['{disk}']\n")
    });
    let image = guest.file("system.raw");
    guest.create();
    until_counts(&image, Format::Raw, 1);
    let first = xl(&["domid", &guest.name]);
    tell_to_reboot(&image);
    until_counts(&image, Format::Raw, 2);
    assert_ne!(xl(&["domid", &guest.name]), first);
    let refused = try_xl(60, &["shutdown", &guest.name]);
    assert_eq!(refused.status.code(), Some(1), "it has no driver for Xen: {refused:?}");
    next_beat(&image, Format::Raw, SECTOR_1);
    xl(&["shutdown", "-F", &guest.name]);
    guest.until_gone();
}
