//! Whatever people do in whatever order: a model in memory says what each disk shows, and so do the images.
//! `PENGX_TEST_LONG=1` tries longer.

use std::collections::BTreeMap;

use pengx::error::ErrorKind;
use pengx::operations::disk::{CreateDisk, DeleteDisk};
use pengx::operations::vm::DeleteVm;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

#[derive(Debug, Clone, Copy)]
enum Op {
    /// To the n-th disk that there is.
    Write(usize, usize),
    Take,
    Restore(usize),
    Start(usize),
    Delete(usize),
    PowerOn,
    PowerOff,
    AddDisk,
    DropDisk,
}

fn op() -> impl Strategy<Value = Op> {
    let any = 0..100_usize;
    prop_oneof![
        6 => (0..3_usize, 0..16_usize).prop_map(|(disk, block)| Op::Write(disk, block)),
        4 => Just(Op::Take),
        4 => any.clone().prop_map(Op::Restore),
        1 => any.clone().prop_map(Op::Start),
        4 => any.prop_map(Op::Delete),
        2 => Just(Op::PowerOn),
        2 => Just(Op::PowerOff),
        1 => Just(Op::AddDisk),
        1 => Just(Op::DropDisk),
    ]
}

type Disks = BTreeMap<u32, Vec<u8>>;

struct Frozen {
    id: SnapshotId,
    parent: Option<SnapshotId>,
    asked_for: bool,
    disks: Disks,
}

struct Model {
    app: App,
    vm: VmId,
    running: bool,
    disks: Disks,
    frozen: Vec<Frozen>,
    on: Option<SnapshotId>,
    byte: u8,
}

impl Model {
    fn new() -> Self {
        let app = App::new();
        let storlink = app.storlink();
        let wish = app.vm_of(storlink, None, "web1");
        let vm = app.run(CreateVm { os_disk_size: Some(MiB(1)), extra_disk_size: None, ..wish }).unwrap();
        let disks = Disks::from([(0, blocks(&[]))]);
        Self { app, vm, running: false, disks, frozen: Vec::new(), on: None, byte: 0 }
    }

    fn do_it(&mut self, op: Op) {
        let (app, vm) = (&self.app, self.vm);
        match op {
            Op::Write(disk, block) => {
                let order = *self.disks.keys().nth(disk % self.disks.len()).unwrap();
                self.byte = self.byte % 250 + 1;
                write(app, vm, order, block, self.byte);
                self.disks.get_mut(&order).unwrap()[block] = self.byte;
            }
            Op::Take => {
                let id = take(app, vm, "one").id;
                self.frozen.push(Frozen { id, parent: self.on, asked_for: true, disks: self.disks.clone() });
                self.on = Some(id);
            }
            Op::Restore(n) => self.restore(n, false),
            Op::Start(n) => self.restore(n, true),
            Op::Delete(n) => self.delete(n),
            Op::PowerOn if !self.running => {
                app.run(StartVm { vm }).unwrap();
                self.running = true;
            }
            Op::PowerOff if self.running => {
                app.run(PoweroffVm { vm }).unwrap();
                self.running = false;
            }
            Op::AddDisk if self.disks.len() < 3 => {
                let format = if self.byte.is_multiple_of(2) { Format::Raw } else { Format::Qcow2 };
                let (storlink, desc) = (StorlinkId(1), String::new());
                let made = app.run(CreateDisk { vm, storlink, size: MiB(1), format: Some(format), desc }).unwrap();
                assert_eq!(self.disks.insert(made.disk.order, blocks(&[])), None);
            }
            Op::DropDisk if self.disks.len() > 1 => {
                let last = app.disks(vm).pop().unwrap();
                app.run(DeleteDisk { vm, disk: last.id }).unwrap();
                self.disks.remove(&last.order);
            }
            Op::PowerOn | Op::PowerOff | Op::AddDisk | Op::DropDisk => {}
        }
    }

    fn restore(&mut self, n: usize, start: bool) {
        if self.frozen.is_empty() {
            return;
        }
        let (app, vm, n) = (&self.app, self.vm, n % self.frozen.len());
        let snapshot = self.frozen[n].id;
        let before = snapshots_of(app, vm);
        let done =
            if start { app.run(StartSnapshot { vm, snapshot }) } else { app.run(RestoreSnapshot { vm, snapshot }) };
        if self.running {
            assert!(matches!(done.unwrap_err().kind(), ErrorKind::WrongState { .. }));
            return;
        }
        done.unwrap();
        let kept: Vec<_> = snapshots_of(app, vm).into_iter().filter(|s| before.iter().all(|b| b.id != s.id)).collect();
        let replaced = self.disks.clone();
        match &kept[..] {
            [kept] => {
                assert_eq!(kept.parent, self.on);
                self.frozen.push(Frozen { id: kept.id, parent: self.on, asked_for: false, disks: replaced });
            }
            // What was dropped is there as what it was on.
            _ => {
                let on = self.frozen.iter().find(|frozen| Some(frozen.id) == self.on).unwrap();
                assert!(replaced.iter().all(|(order, shows)| on.disks.get(order) == Some(shows)));
            }
        }
        self.disks = self.frozen[n].disks.clone();
        self.on = Some(snapshot);
        self.running = start;
    }

    fn delete(&mut self, n: usize) {
        if self.frozen.is_empty() {
            return;
        }
        let n = n % self.frozen.len();
        let (snapshot, parent) = (self.frozen[n].id, self.frozen[n].parent);
        let done = self.app.run(DeleteSnapshot { vm: self.vm, snapshot });
        if self.frozen.iter().any(|child| child.parent == Some(snapshot) && child.asked_for) {
            assert!(matches!(done.unwrap_err().kind(), ErrorKind::WrongState { .. }));
            return;
        }
        done.unwrap();
        self.frozen.remove(n);
        for child in self.frozen.iter_mut().filter(|child| child.parent == Some(snapshot)) {
            child.parent = parent;
        }
        if self.on == Some(snapshot) {
            self.on = parent;
        }
    }

    fn judge(self) {
        let Self { app, vm, .. } = &self;
        app.assert_at_rest();
        assert_whole(app);
        let shown = |disks: &[Disk]| contents(app, disks).into_iter().collect::<Disks>();
        assert_eq!((shown(&app.disks(*vm)), runs_on(app, *vm)), (self.disks.clone(), self.on));
        let all = snapshots_of(app, *vm);
        assert_eq!(all.len(), self.frozen.len());
        for frozen in &self.frozen {
            let row = all.iter().find(|snapshot| snapshot.id == frozen.id).unwrap();
            assert_eq!((row.parent, row.kind == SnapshotKind::Saved), (frozen.parent, frozen.asked_for));
            assert_eq!(shown(&of_snapshot(app, frozen.id)), frozen.disks);
        }
        if self.running {
            app.run(PoweroffVm { vm: *vm }).unwrap();
        }
        app.run(DeleteVm { vm: *vm }).unwrap();
        app.assert_at_rest();
        assert_whole(app);
    }
}

#[test]
fn every_disk_shows_what_the_model_says() {
    let long = std::env::var("PENGX_TEST_LONG").is_ok_and(|v| v == "1");
    let (cases, most) = if long { (200, 60) } else { (8, 30) };
    let config = Config { cases, max_shrink_iters: 100, failure_persistence: None, ..Config::default() };
    let ops = proptest::collection::vec(op(), most / 2..most);
    let done = TestRunner::new(config).run(&ops, |ops| {
        let mut model = Model::new();
        ops.into_iter().for_each(|op| model.do_it(op));
        model.judge();
        Ok(())
    });
    done.unwrap_or_else(|why| panic!("{why}"));
}
