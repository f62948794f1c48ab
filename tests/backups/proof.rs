//! A proof: what is booted, by what it is told to have come up, and that nothing of it stays.

use std::time::Duration;

use pengx::error::ErrorKind;

use super::*;
use crate::harness::wait::wait_until;

/// The sign is the guest's console.
fn console(shown: &str) -> Site {
    let mut site = Site::new();
    site.settings.prove_wait = format!("console:{shown}").parse().unwrap();
    site
}

/// Refused or not, the world is what it was but for the backup's own row.
fn without_backups(world: &World) -> World {
    let mut world = world.clone();
    world.rows.retain(|row| !row.starts_with("Backup {"));
    world
}

#[test]
fn a_guest_that_comes_up_proves_its_backup() {
    for (site, greeting, agent) in
        [(Site::new(), "", true), (console("login: "), "boot\r\nweb1 login: ", false), (console("é"), "é", true)]
    {
        let shelf = Shelf::on(site, Format::Qcow2);
        let backup = shelf.create().unwrap();
        shelf.app.site.fake.set_greeting(greeting, agent);
        let before = World::of(&shelf.app);
        shelf.prove(backup).unwrap();
        shelf.app.assert_at_rest();
        assert!(shelf.row(backup).proven_at.is_some());
        assert_eq!(without_backups(&World::of(&shelf.app)), without_backups(&before));
        assert_eq!(shelf.app.site.fake.calls(Verb::Start), 1);
    }
}

#[test]
fn a_guest_that_gives_no_sign_in_time_proves_nothing() {
    for (site, greeting, says) in [
        (Site::new(), "login: ", "backup nightly of vm web1 was booted, and its guest agent did not answer in 0.6 s"),
        (
            console("login: "),
            "logi",
            "backup nightly of vm web1 was booted, and its console did not show \"login: \" in 0.6 s",
        ),
    ] {
        let shelf = Shelf::on(site, Format::Qcow2);
        let backup = shelf.create().unwrap();
        shelf.app.site.fake.set_greeting(greeting, false);
        let before = World::of(&shelf.app);
        let error = shelf.prove(backup).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Timeout { .. }), "{error:?}");
        assert_eq!(error.to_string(), says);
        shelf.app.assert_at_rest();
        assert_eq!(World::of(&shelf.app), before);
        // Once it was proven, that stays known.
        shelf.app.site.fake.set_greeting("login: ", true);
        shelf.prove(backup).unwrap();
        shelf.app.site.fake.set_greeting("", false);
        shelf.prove(backup).unwrap_err();
        assert!(shelf.row(backup).proven_at.is_some());
    }
}

/// A proof that waits for its guest, and the guest's domain.
fn while_waiting(shelf: &Shelf, backup: BackupId, act: impl FnOnce(VmId)) -> Result<()> {
    let fake = shelf.app.site.fake.clone();
    fake.set_greeting("", false);
    let looks = fake.calls(Verb::AgentAnswers);
    std::thread::scope(|s| {
        let proving = s.spawn(|| shelf.prove(backup));
        wait_until("the guest is asked", || Ok(fake.calls(Verb::AgentAnswers) > looks));
        let (domain, _) = fake.states().into_iter().find(|(id, _)| *id != shelf.vm).unwrap();
        act(domain);
        proving.join().unwrap()
    })
}

fn patient() -> Site {
    let mut site = Site::new();
    site.settings.prove_timeout = Duration::from_secs(60);
    site
}

#[test]
fn what_is_booted_has_the_vms_size_no_network_and_overlays_on_the_backup() {
    let shelf = Shelf::on(patient(), Format::Qcow2);
    let backup = shelf.create().unwrap();
    let copies = shelf.copies(backup);
    let fake = shelf.app.site.fake.clone();
    while_waiting(&shelf, backup, |domain| {
        let spec = fake.running(domain).unwrap();
        // As the template says, of the VM too.
        let systems: Vec<_> = fake.definitions().iter().map(|spec| spec.os).collect();
        assert_eq!(systems, [Some(Os::Debian); 2]);
        assert_eq!(spec.title, "proof of backup nightly of vm web1");
        assert_eq!((spec.vcpus, spec.memory, spec.disc, spec.console), (1, MiB(64), None, None));
        let macs: Vec<Mac> = shelf.row(backup).config.nics.iter().map(|nic| nic.mac).collect();
        assert!(spec.nics.iter().map(|nic| nic.mac).eq(macs));
        assert!(spec.nics.iter().all(|nic| nic.link == NicLink::Unplugged));
        assert_eq!(spec.disks.len(), 2);
        for (disk, copy) in spec.disks.iter().zip(&copies) {
            let below = VolumeSource::File(shelf.app.path(copy));
            assert_eq!(disk.backing, [Layer { source: below, format: Format::Qcow2 }]);
            assert_eq!(disk.order, copy.order);
        }
        // It is no VM.
        let listed = shelf.app.store().read(pengx::store::vms::listing).unwrap();
        assert_eq!(listed.len(), 1);
        let told = shelf.app.run(StartVm { vm: domain }).unwrap_err();
        assert_eq!(told.to_string(), format!("there is no vm {domain}"));
        fake.set_greeting("", true);
    })
    .unwrap();
    shelf.app.assert_at_rest();
}

#[test]
fn what_is_booted_has_copies_where_no_guest_runs_on_what_zstd_made_smaller() {
    let shelf = Shelf::on(patient(), Format::Qcow2);
    let backup = shelf.create().unwrap();
    let copies = shelf.copies(backup);
    let fake = shelf.app.site.fake.clone();
    fake.set_capabilities(|can| can.zstd = false);
    while_waiting(&shelf, backup, |domain| {
        let spec = fake.running(domain).unwrap();
        for (disk, copy) in spec.disks.iter().zip(&copies) {
            let VolumeSource::File(image) = &disk.source;
            assert!(disk.backing.is_empty());
            assert!(same((image, disk.format), (&shelf.app.path(copy), copy.format)));
        }
        fake.set_greeting("", true);
    })
    .unwrap();
    shelf.app.assert_at_rest();
}

#[test]
fn a_guest_that_powers_off_or_dies_proves_nothing() {
    let says = "pengx refused: backup nightly of vm web1 does not boot: its guest powered off before it had come up";
    for dies in [false, true] {
        let shelf = Shelf::on(patient(), Format::Qcow2);
        let backup = shelf.create().unwrap();
        let before = World::of(&shelf.app);
        let fake = shelf.app.site.fake.clone();
        let outcome = while_waiting(&shelf, backup, |domain| {
            assert!(if dies { fake.crash(domain) } else { fake.power_off_inside(domain) });
        });
        assert_eq!(outcome.unwrap_err().to_string(), says);
        shelf.app.assert_at_rest();
        assert_eq!(World::of(&shelf.app), before);
    }
}

#[test]
fn a_proof_can_be_cancelled_and_a_hypervisor_may_be_away_for_a_moment() {
    let shelf = Shelf::on(patient(), Format::Qcow2);
    let backup = shelf.create().unwrap();
    let before = World::of(&shelf.app);
    let outcome = while_waiting(&shelf, backup, |_| {
        let task = shelf.app.store().read(|c| pengx::store::tasks::recent(c, 1)).unwrap()[0].id;
        pengx::operations::task::cancel(&shelf.app.core, task).unwrap();
    });
    assert!(matches!(outcome.unwrap_err().kind(), ErrorKind::Cancelled { .. }));
    shelf.app.assert_at_rest();
    assert_eq!(World::of(&shelf.app), before);

    let fake = shelf.app.site.fake.clone();
    while_waiting(&shelf, backup, |_| {
        fake.set_reachable(false);
        let looks = fake.calls(Verb::Domain);
        wait_until("it is looked at again", || Ok(fake.calls(Verb::Domain) > looks));
        fake.set_greeting("", true);
        fake.set_reachable(true);
    })
    .unwrap();
    shelf.app.assert_at_rest();
}

#[test]
fn a_console_that_is_flooded_ends_the_proof() {
    let shelf = Shelf::on(console("login: "), Format::Qcow2);
    let backup = shelf.create().unwrap();
    let before = World::of(&shelf.app);
    shelf.app.site.fake.set_greeting(&"spam ".repeat(1 << 20), false);
    let told = shelf.prove(backup).unwrap_err().to_string();
    assert!(told.ends_with("does not boot: its guest floods its console"), "{told}");
    shelf.app.assert_at_rest();
    assert_eq!(World::of(&shelf.app), before);
}

/// A daemon that logs for the hypervisor sets aside what became too long.
#[test]
fn what_was_set_aside_of_a_console_goes_too() {
    let shelf = Shelf::on(console("login: "), Format::Qcow2);
    let backup = shelf.create().unwrap();
    let before = World::of(&shelf.app);
    shelf.app.site.fake.set_greeting("nothing", false);
    let dir = shelf.app.site.store_dir();
    let starts = shelf.app.site.fake.calls(Verb::Start);
    std::thread::scope(|s| {
        let proving = s.spawn(|| shelf.prove(backup));
        wait_until("it is started", || Ok(shelf.app.site.fake.calls(Verb::Start) > starts));
        let names = World::of(&shelf.app).files;
        let log = names.keys().find(|name| name.ends_with(".log")).unwrap().clone();
        for n in [0, 1, 10] {
            std::fs::write(dir.join(format!("{log}.{n}")), "older").unwrap();
        }
        proving.join().unwrap().unwrap_err();
    });
    shelf.app.assert_at_rest();
    assert_eq!(World::of(&shelf.app), before);
}
