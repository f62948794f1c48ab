//! Images and rows that somebody has changed by hand: every operation on such a chain is refused in one sentence, and
//! nothing is touched; and what must not be a circle is none.

use std::os::unix::fs::symlink;
use std::path::Path;

use pengx::error::{ErrorKind, Result};
use pengx::store::disks;

use super::*;
use crate::harness::tool::qemu_img;
use crate::harness::world::World;

/// The image below, the one that the VM writes to, and a directory for what belongs to nobody.
type Tamper = fn(&Path, &Path, &Path);

fn rebase(image: &Path, onto: &Path, format: &str) {
    let (image, onto) = (image.to_str().unwrap(), onto.to_str().unwrap());
    qemu_img(&["rebase", "-q", "-u", "-f", "qcow2", "-F", format, "-b", onto, image]);
}

/// How it is broken, what, and what is said of it.
const CASES: &[(&str, Tamper, &str)] = &[
    (
        "another backing file",
        |below, leaf, elsewhere| {
            let other = elsewhere.join("other.qcow2");
            std::fs::copy(below, &other).unwrap();
            rebase(leaf, &other, "qcow2");
        },
        "the storage refused: volume {leaf} is on {elsewhere}/other.qcow2 (qcow2), and its record says {below} (qcow2); run pengx check",
    ),
    (
        "another format",
        |below, leaf, _| rebase(leaf, below, "raw"),
        "the storage refused: volume {leaf} is on {below} (raw), and its record says {below} (qcow2); run pengx check",
    ),
    (
        "a name that is not the whole path",
        |below, leaf, _| rebase(leaf, Path::new(below.file_name().unwrap()), "qcow2"),
        "and its record says {below} (qcow2); run pengx check",
    ),
    (
        "no backing file",
        |_, leaf, _| drop(qemu_img(&["rebase", "-q", "-u", "-f", "qcow2", "-b", "", leaf.to_str().unwrap()])),
        "the storage refused: volume {leaf} is on nothing, and its record says {below} (qcow2); run pengx check",
    ),
    (
        "a circle of headers",
        |below, leaf, _| rebase(below, leaf, "qcow2"),
        "is on {leaf path} (qcow2), and its record says nothing; run pengx check",
    ),
    ("a missing file", |below, _, _| std::fs::remove_file(below).unwrap(), " of vm web1 is not on storlink 1"),
    (
        "a missing overlay",
        |_, leaf, _| std::fs::remove_file(leaf).unwrap(),
        "storage refused: volume {leaf} of vm web1 is not on storlink 1",
    ),
    (
        "a symbolic link",
        |below, _, elsewhere| {
            let moved = elsewhere.join("moved.qcow2");
            std::fs::rename(below, &moved).unwrap();
            symlink(&moved, below).unwrap();
        },
        "the storage refused: {below} is a symbolic link; put the file itself there",
    ),
    (
        "a hard link",
        |below, _, elsewhere| std::fs::hard_link(below, elsewhere.join("linked.qcow2")).unwrap(),
        "the storage refused: {below} has other names too (hard links); copy it to a file of its own",
    ),
    ("another kind of file", |below, _, _| std::fs::write(below, "no image").unwrap(), "is not a qcow2 image"),
    (
        "another size",
        |below, _, _| drop(qemu_img(&["resize", "-q", "-f", "qcow2", below.to_str().unwrap(), "2M"])),
        "shows 2097152 bytes, and its record says 1048576; run pengx check",
    ),
    (
        "an external data file",
        |below, _, elsewhere| {
            let (raw, below) = (elsewhere.join("data.raw"), below.to_str().unwrap());
            let options = format!("data_file={},data_file_raw=on", raw.display());
            qemu_img(&["create", "-q", "-f", "qcow2", "-o", &options, below, "1M"]);
        },
        "keeps its data in another file",
    ),
];

#[test]
fn a_chain_that_was_changed_by_hand_is_left_alone() {
    let cases = |running: bool| {
        for (case, tamper, said) in CASES {
            let (app, vm) = with_vm();
            let elsewhere = tempfile::tempdir().unwrap();
            write(&app, vm, 0, 0, 1);
            let first = take(&app, vm, "first");
            write(&app, vm, 0, 1, 2);
            if running {
                app.run(StartVm { vm }).unwrap();
            }
            let (below, leaf) = (&of_snapshot(&app, first.id)[0], &app.disks(vm)[0]);
            let (below_path, leaf_path) = (app.path(below), app.path(leaf));
            tamper(&below_path, &leaf_path, elsewhere.path());
            let said = said
                .replace("{below}", below_path.to_str().unwrap())
                .replace("{leaf path}", leaf_path.to_str().unwrap())
                .replace("{leaf}", leaf.volume.as_str())
                .replace("{elsewhere}", elsewhere.path().to_str().unwrap());
            let before = World::of(&app);
            let refused = |what: &str, outcome: Result<()>| {
                let error = outcome.unwrap_err();
                let case = format!("{case}: {what}: {error}");
                assert!(matches!(error.kind(), ErrorKind::Refused { .. }), "{case}");
                assert!(error.to_string().ends_with(&said) || error.to_string().contains(&said), "{case}\n{said}");
                app.assert_at_rest();
                assert_eq!(World::of(&app), before, "{case}");
            };
            let name = "second".parse().unwrap();
            let second = TakeSnapshot { vm, name, storlink: StorlinkId(1), desc: String::new() };
            refused("take", app.run(second).map(drop));
            refused("delete", app.run(DeleteSnapshot { vm, snapshot: first.id }));
            if !running {
                refused("restore", app.run(RestoreSnapshot { vm, snapshot: first.id }));
                refused("start", app.run(StartSnapshot { vm, snapshot: first.id }));
            }
        }
    };
    std::thread::scope(|scope| {
        let runs = [false, true].map(|running| scope.spawn(move || cases(running)));
        runs.into_iter().for_each(|run| run.join().unwrap());
    });
}

/// What is on an image that takes another's place is looked at too.
#[test]
fn a_branch_that_was_changed_by_hand_keeps_what_is_below_it() {
    let (app, vm) = with_vm();
    let first = take(&app, vm, "first");
    write(&app, vm, 0, 1, 2);
    restore(&app, vm, &first);
    let kept = snapshots_of(&app, vm).pop().unwrap();
    let second = take(&app, vm, "second");
    restore(&app, vm, &kept);
    write(&app, vm, 0, 2, 3);
    // The disk of `kept` takes the place of that of `first` once `second` is gone; this one is on it.
    delete(&app, vm, &second);
    let leaf = app.path(&app.disks(vm)[0]);
    qemu_img(&["rebase", "-q", "-u", "-f", "qcow2", "-b", "", leaf.to_str().unwrap()]);
    let before = World::of(&app);
    let refused = app.run(DeleteSnapshot { vm, snapshot: first.id }).unwrap_err();
    assert!(refused.to_string().contains("is on nothing, and its record says "), "{refused}");
    app.assert_at_rest();
    assert_eq!(World::of(&app), before);
}

/// A disk that nothing reads from needs nothing to go, whatever became of it.
#[test]
fn a_broken_snapshot_that_nobody_needs_can_be_deleted() {
    for broken in
        [|file: &Path| std::fs::remove_file(file).unwrap(), |file: &Path| std::fs::write(file, "no image").unwrap()]
    {
        let (app, vm) = with_vm();
        let first = take(&app, vm, "first");
        let second = take(&app, vm, "second");
        restore(&app, vm, &first);
        broken(&app.path(&of_snapshot(&app, second.id)[0]));
        delete(&app, vm, &second);
        assert_whole(&app);
        app.assert_at_rest();
    }
}

#[test]
fn rows_that_go_in_a_circle_are_refused_and_still_listed() {
    let (app, vm) = with_vm();
    let first = take(&app, vm, "first");
    let (below, leaf) = (of_snapshot(&app, first.id).remove(0), app.disks(vm).remove(0));
    app.store().write_tx(|c| disks::hand_over(c, below.id, below.owner, below.order, Some(leaf.id))).unwrap();
    let before = World::of(&app);
    let name = "second".parse().unwrap();
    let outcomes = [
        app.run(TakeSnapshot { vm, name, storlink: StorlinkId(1), desc: String::new() }).map(drop),
        app.run(RestoreSnapshot { vm, snapshot: first.id }),
        app.run(StartSnapshot { vm, snapshot: first.id }),
        app.run(DeleteSnapshot { vm, snapshot: first.id }),
    ];
    for outcome in outcomes {
        let refused = outcome.unwrap_err();
        assert_eq!(*refused.kind(), ErrorKind::Internal);
        assert!(refused.story().contains("go in a circle"), "{refused:?}");
    }
    app.assert_at_rest();
    assert_eq!(World::of(&app), before);
    assert_eq!(pengx::operations::snapshot::list(&app.core, vm).unwrap(), [first]);
}
