//! Two who want the same at once: both are served one after the other, or one is told why not.

use pengx::error::ErrorKind;

use super::*;
use crate::harness::wait::wait_until;

/// Both at once; what each was told.
fn at_once<A: Send, B: Send>(a: impl FnOnce() -> A + Send, b: impl FnOnce() -> B + Send) -> (A, B) {
    let barrier = std::sync::Barrier::new(2);
    std::thread::scope(|s| {
        let first = s.spawn(|| {
            barrier.wait();
            a()
        });
        barrier.wait();
        let second = b();
        (first.join().unwrap(), second)
    })
}

#[test]
fn two_backups_of_one_vm_are_made_one_after_the_other() {
    let shelf = Shelf::new();
    let shown = shelf.shown("before");
    shelf.start();
    let (a, b) = at_once(|| shelf.create(), || shelf.create());
    for backup in [a.unwrap(), b.unwrap()] {
        shelf.verify(backup).unwrap();
        shelf.assert_holds(backup, &shown);
    }
    shelf.assert_shows(&shown);
    shelf.app.assert_at_rest();
}

#[test]
fn a_backup_and_the_end_of_its_vm_leave_both_or_one() {
    for _ in 0..6 {
        let shelf = Shelf::new();
        let vm = shelf.vm;
        let (made, gone) = at_once(|| shelf.create(), || shelf.app.run(DeleteVm { vm }));
        gone.unwrap();
        shelf.app.assert_at_rest();
        match made {
            Ok(backup) => {
                shelf.verify(backup).unwrap();
                shelf.restore(backup).unwrap();
            }
            Err(late) => {
                assert!(matches!(late.kind(), ErrorKind::NotFound { what: "vm", .. }), "{late:?}");
                assert_eq!(World::of(&shelf.app).files.len(), 1, "the template's");
            }
        }
    }
}

#[test]
fn a_backup_that_is_read_is_not_deleted_meanwhile() {
    let readers: [fn(&Shelf, BackupId) -> Result<()>; 3] = [Shelf::verify, Shelf::prove, Shelf::restore];
    for read in readers {
        let shelf = Shelf::new();
        let backup = shelf.create().unwrap();
        let (read, deleted) = at_once(|| read(&shelf, backup), || shelf.delete(backup));
        deleted.unwrap();
        if let Err(late) = read {
            assert!(matches!(late.kind(), ErrorKind::NotFound { what: "backup", .. }), "{late:?}");
        }
        shelf.app.assert_at_rest();
        let files = World::of(&shelf.app).files;
        assert!(files.keys().all(|name| !name.ends_with(".json")), "{files:?}");
    }
}

/// Who looks at a backup keeps nobody from looking, and nobody from using the VM.
#[test]
fn reading_a_backup_holds_up_nobody_but_its_end() {
    let mut site = Site::new();
    site.settings.prove_timeout = PATIENCE;
    site.settings.tasks.lock_timeout = std::time::Duration::from_millis(50);
    let shelf = Shelf::on(site, Format::Qcow2);
    let backup = shelf.create().unwrap();
    let fake = shelf.app.site.fake.clone();
    fake.set_greeting("", false);
    std::thread::scope(|s| {
        let proving = s.spawn(|| shelf.prove(backup));
        wait_until("the guest is asked", || Ok(fake.calls(Verb::AgentAnswers) > 0));
        shelf.verify(backup).unwrap();
        shelf.start();
        shelf.app.run(PoweroffVm { vm: shelf.vm }).unwrap();
        shelf.create().unwrap();
        let busy = shelf.delete(backup).unwrap_err();
        assert!(matches!(busy.kind(), ErrorKind::Busy { .. }), "{busy:?}");
        assert!(busy.to_string().contains("backup.prove"), "{busy}");
        fake.set_greeting("", true);
        proving.join().unwrap().unwrap();
    });
    shelf.app.assert_at_rest();
}

#[test]
fn two_restores_of_one_deleted_vm_make_one_vm() {
    let shelf = Shelf::new();
    let backup = shelf.create().unwrap();
    shelf.app.run(DeleteVm { vm: shelf.vm }).unwrap();
    let (a, b) = at_once(|| shelf.restore(backup), || shelf.restore(backup));
    // The second one finds a VM that is off, and keeps what it finds.
    a.unwrap();
    b.unwrap();
    let kept = shelf.app.store().read(|c| snapshots::of_vm(c, shelf.vm)).unwrap();
    assert_eq!((kept.len(), shelf.app.disks(shelf.vm).len()), (1, 2));
    shelf.start();
    shelf.app.assert_at_rest();
}

/// A VM of that name comes while the disks are copied.
#[test]
fn a_name_that_is_taken_meanwhile_undoes_a_restore() {
    let shelf = Shelf::new();
    let backup = shelf.create().unwrap();
    shelf.app.run(DeleteVm { vm: shelf.vm }).unwrap();
    let fake = shelf.app.site.fake.clone();
    fake.hold(Verb::Define);
    let waiting = fake.calls(Verb::Define);
    let outcome = std::thread::scope(|s| {
        let restoring = s.spawn(|| shelf.restore(backup));
        assert!(fake.wait_held(Verb::Define, 1, PATIENCE), "{waiting}");
        let rival = s.spawn(|| shelf.app.run(shelf.app.vm_of(StorlinkId(1), None, "web1")));
        assert!(fake.wait_held(Verb::Define, 2, PATIENCE));
        fake.release(Verb::Define);
        (restoring.join().unwrap(), rival.join().unwrap())
    });
    let winners = [outcome.0.is_ok(), outcome.1.is_ok()].iter().filter(|won| **won).count();
    assert_eq!(winners, 1, "{outcome:?}");
    shelf.app.assert_at_rest();
    let world = World::of(&shelf.app);
    assert_eq!(world.domains.len(), 2, "one state, one definition: {world:#?}");
    assert_eq!(world.files.len(), 1 + 3 + 2, "the template's, the backup's, the winner's: {world:#?}");
}
