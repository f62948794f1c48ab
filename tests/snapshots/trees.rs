//! A tree of snapshots with branches, deleted in every order that there is, under a VM that is off and one that runs.

use super::*;
use crate::harness::images::assert_agreed;

/// Five that were asked for and two that were not:
///
/// ```text
/// a ─ b ─ c
/// │   ├─ d ─ e
/// │   └─ (kept)
/// └─ (kept)      the VM is on d
/// ```
struct Tree {
    app: App,
    vm: VmId,
    /// What each showed when it was taken.
    all: Vec<(Snapshot, Vec<(u32, Vec<u8>)>)>,
    leaf: Vec<(u32, Vec<u8>)>,
}

impl Tree {
    fn grown() -> Self {
        let app = App::new();
        let storlink = app.storlink();
        let wish = CreateVm { os_disk_size: Some(MiB(1)), extra_disk_size: None, ..app.vm_of(storlink, None, "web1") };
        let vm = app.run(wish).unwrap();
        let mut tree = Self { app, vm, all: Vec::new(), leaf: Vec::new() };
        let mut byte = 0;
        let mut write_all = |tree: &Tree| {
            byte += 1;
            // One block of its own, and one that all write to.
            write(&tree.app, vm, 0, usize::from(byte), byte);
            write(&tree.app, vm, 0, 15, byte);
        };
        for (name, on) in [("a", None), ("b", None), ("c", None), ("d", Some("b")), ("e", None)] {
            if let Some(on) = on {
                tree.restore(on);
            }
            write_all(&tree);
            tree.take(name);
        }
        // What was written is kept when another one is restored.
        for on in ["b", "a", "d"] {
            tree.restore(on);
            write_all(&tree);
        }
        tree.leaf = contents(&tree.app, &tree.app.disks(vm));
        assert_eq!(tree.all.len(), 7);
        tree
    }

    fn take(&mut self, name: &str) {
        let shows = contents(&self.app, &self.app.disks(self.vm));
        let taken = take(&self.app, self.vm, name);
        self.all.push((taken, shows));
    }

    fn named(&self, name: &str) -> Snapshot {
        self.all.iter().find(|(snapshot, _)| snapshot.name == name).unwrap().0.clone()
    }

    fn restore(&mut self, name: &str) {
        let shows = contents(&self.app, &self.app.disks(self.vm));
        let before = snapshots_of(&self.app, self.vm);
        restore(&self.app, self.vm, &self.named(name));
        let after = snapshots_of(&self.app, self.vm);
        self.all
            .extend(after.into_iter().filter(|snapshot| !before.contains(snapshot)).map(|kept| (kept, shows.clone())));
    }

    /// Every one that is left shows what it showed, and so does the VM.
    fn assert_shows(&self) {
        assert_agreed(&self.app);
        let left = snapshots_of(&self.app, self.vm);
        assert_eq!(left.len(), self.all.len());
        for (snapshot, shows) in &self.all {
            assert_eq!(&contents(&self.app, &of_snapshot(&self.app, snapshot.id)), shows, "{snapshot:?}");
        }
        assert_eq!(contents(&self.app, &self.app.disks(self.vm)), self.leaf);
    }
}

/// Every order in which children that were asked for go before their parents.
fn orders(left: &[(&'static str, Option<&'static str>)]) -> Vec<Vec<&'static str>> {
    if left.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (name, _) in left.iter().filter(|(name, _)| left.iter().all(|(_, parent)| *parent != Some(name))) {
        let rest: Vec<_> = left.iter().filter(|(other, _)| other != name).copied().collect();
        all.extend(orders(&rest).into_iter().map(|order| [vec![*name], order].concat()));
    }
    all
}

fn deleted_in_every_order(running: bool) {
    let all = orders(&[("a", None), ("b", Some("a")), ("c", Some("b")), ("d", Some("b")), ("e", Some("d"))]);
    assert_eq!(all.len(), 3);
    std::thread::scope(|scope| {
        let all: Vec<_> = all.iter().map(|order| scope.spawn(|| deleted(order, running))).collect();
        all.into_iter().for_each(|one| one.join().unwrap());
    });
}

fn deleted(order: &[&str], running: bool) {
    let mut tree = Tree::grown();
    tree.assert_shows();
    if running {
        tree.app.run(StartVm { vm: tree.vm }).unwrap();
    }
    for name in order {
        let gone = tree.named(name);
        delete(&tree.app, tree.vm, &gone);
        tree.all.retain(|(snapshot, _)| snapshot.id != gone.id);
        tree.assert_shows();
    }
    // Those that nobody asked for are left, each on its own.
    assert!(tree.all.iter().all(|(kept, _)| kept.kind == SnapshotKind::Automatic) && tree.all.len() == 2);
    assert_eq!(runs_on(&tree.app, tree.vm), None);
    assert_whole(&tree.app);
    tree.app.assert_at_rest();
}

#[test]
fn a_tree_is_deleted_in_every_order_while_its_vm_is_off() {
    deleted_in_every_order(false);
}

#[test]
fn a_tree_is_deleted_in_every_order_while_its_vm_runs() {
    deleted_in_every_order(true);
}
