//! Numbers of VMs and their promises; tenants; deletions that are asked for.

use pengx::store::numbers::{self, Promise};
use pengx::store::{deletions, pms, tasks, tenants, vms};

use super::*;

fn kind<T: std::fmt::Debug>(result: pengx::error::Result<T>) -> &'static str {
    result.unwrap_err().kind().name()
}

/// Three VMs, the oldest first.
fn stocked(db: &Database) -> [Vm; 3] {
    let pm = pm(1);
    let all = [3, 1, 2].map(|n| Vm { created_at: at(i64::try_from(9 - n).unwrap()), ..vm(&pm, None, n) });
    db.write(|c| {
        pms::save(c, &pm)?;
        all.iter().try_for_each(|vm| vms::insert(c, vm))
    });
    let [a, b, c] = all;
    [a, c, b]
}

fn promise(number: i32, from: i64, to: i64, task: Option<TaskId>) -> Promise {
    Promise { number: VmNumber(number), promised_at: at(from), expires_at: at(to), task }
}

#[test]
fn a_number_is_one_vms_and_goes_with_it() {
    on_both(|db| {
        let [a, b, c] = stocked(db);
        assert_eq!(db.read(numbers::unnumbered), [a.id, b.id, c.id], "the oldest first");
        db.write(|tx| numbers::insert(tx, VmNumber(101), a.id).and_then(|()| numbers::insert(tx, VmNumber(100), b.id)));
        assert_eq!(db.read(numbers::all), [(VmNumber(100), b.id), (VmNumber(101), a.id)]);
        assert_eq!(db.read(numbers::unnumbered), [c.id]);
        assert_eq!(db.read(|tx| numbers::find(tx, VmNumber(101))), Some(a.id));
        assert_eq!(db.read(|tx| numbers::find(tx, VmNumber(102))), None);
        for (number, vm) in [(100, c.id), (102, a.id)] {
            assert_eq!(kind(db.store.write_tx(|tx| numbers::insert(tx, VmNumber(number), vm))), "exists");
        }
        let nobody = VmId(Uuid::from_u128(99));
        assert_eq!(kind(db.store.write_tx(|tx| numbers::insert(tx, VmNumber(102), nobody))), "in_use");
        db.write(|tx| vms::remove(tx, b.id));
        assert_eq!(db.read(numbers::all), [(VmNumber(101), a.id)]);
    });
}

#[test]
fn a_promise_holds_until_its_moment_or_while_its_task_runs() {
    on_both(|db| {
        let [a, ..] = stocked(db);
        let (made, done) = (task(&pm(1), 1), task(&pm(1), 2));
        db.write(|tx| tasks::insert(tx, &made).and_then(|()| tasks::insert(tx, &done)));
        db.write(|tx| tasks::finish(tx, done.id, TaskState::Interrupted, None, Some("it died"), at(1)));
        let all = [
            promise(102, 5, 60, None),
            promise(101, 7, 20, None),
            promise(100, 6, 6, Some(made.id)),
            promise(103, 8, 99, Some(done.id)),
        ];
        db.write(|tx| all.iter().try_for_each(|promise| numbers::promise(tx, promise)));
        let held = |now: i64| db.read(|tx| numbers::promises(tx, at(now)));
        assert_eq!(held(19), [all[0].clone(), all[2].clone(), all[1].clone()], "the first promised first");
        assert_eq!(held(20), [all[0].clone(), all[2].clone()]);
        assert_eq!(held(60), [all[2].clone()]);
        db.write(|tx| numbers::forget_broken(tx, at(20)));
        assert_eq!(held(0), [all[0].clone(), all[2].clone()]);
        db.write(|tx| numbers::promise(tx, &promise(102, 9, 70, None)));
        assert_eq!(held(60), [all[2].clone(), promise(102, 9, 70, None)], "instead of the older one");
        db.write(|tx| numbers::insert(tx, VmNumber(200), a.id));
        let taken = db.read(|tx| numbers::taken(tx, at(60)));
        assert_eq!(taken.into_iter().collect::<Vec<_>>(), [100, 102, 200].map(VmNumber));
        db.write(|tx| numbers::break_promise(tx, VmNumber(102)).and_then(|()| numbers::break_promise(tx, VmNumber(7))));
        assert_eq!(held(0), [all[2].clone()]);
    });
}

#[test]
fn a_kept_promise_is_none_any_more() {
    on_both(|db| {
        let [a, b, _] = stocked(db);
        db.write(|tx| numbers::promise(tx, &promise(100, 0, 60, None)));
        db.write(|tx| numbers::keep_promise(tx, VmNumber(100), a.id));
        assert_eq!(db.read(|tx| numbers::promises(tx, at(0))), []);
        assert_eq!(db.read(numbers::all), [(VmNumber(100), a.id)]);
        assert_eq!(kind(db.store.write_tx(|tx| numbers::keep_promise(tx, VmNumber(101), b.id))), "not_found");
    });
}

fn tenant(n: u128, name: &str) -> Tenant {
    Tenant {
        id: ShortId::new(Uuid::from_u128(n)),
        name: name.to_owned(),
        password: Secret::new("secret1".to_owned()),
        created_at: at(i64::try_from(n).unwrap()),
        had_vms: false,
    }
}

#[test]
fn tenants_and_their_vms() {
    on_both(|db| {
        let [a, b, c] = stocked(db);
        let (bob, ann) = (tenant(1, "bob"), tenant(2, "ann"));
        db.write(|tx| tenants::insert(tx, &ann).and_then(|()| tenants::insert(tx, &bob)));
        assert_eq!(db.read(tenants::all), [bob.clone(), ann.clone()]);
        assert_eq!(db.read(|tx| tenants::named(tx, "ann")), Some(ann.clone()));
        assert_eq!(db.read(|tx| tenants::named(tx, "Ann")), None);
        assert_eq!(kind(db.store.write_tx(|tx| tenants::insert(tx, &tenant(3, "bob")))), "exists");
        db.write(|tx| tenants::set_password(tx, &ann.id, &Secret::new("other".to_owned())));
        assert_eq!(db.read(|tx| tenants::named(tx, "ann")).unwrap().password.reveal(), "other");
        let nobody = tenant(9, "eve").id;
        assert_eq!(kind(db.store.write_tx(|tx| tenants::set_password(tx, &nobody, &bob.password))), "not_found");
        assert_eq!(kind(db.store.write_tx(|tx| tenants::remove(tx, &nobody))), "not_found");

        let of = |vm: &Vm, tenant: &Tenant, since: i64| Tenancy {
            vm: vm.id,
            tenant: tenant.id.clone(),
            swap: MiB(512),
            since: at(since),
        };
        let all = [of(&b, &bob, 1), of(&a, &bob, 2), of(&c, &ann, 3)];
        db.write(|tx| all.iter().rev().try_for_each(|tenancy| tenants::begin_tenancy(tx, tenancy)));
        assert_eq!(db.read(tenants::tenancies), all);
        assert!(db.read(|tx| tenants::named(tx, "bob")).unwrap().had_vms);
        assert_eq!(kind(db.store.write_tx(|tx| tenants::begin_tenancy(tx, &of(&b, &ann, 4)))), "exists");
        assert!(db.write(|tx| tenants::set_swap(tx, a.id, MiB(7))));
        assert_eq!(db.read(|tx| tenants::tenancy_of(tx, a.id)).unwrap().swap, MiB(7));
        db.write(|tx| tenants::end_tenancy(tx, b.id));
        assert_eq!(db.read(|tx| tenants::tenancy_of(tx, b.id)), None);
        assert!(!db.write(|tx| tenants::set_swap(tx, b.id, MiB(7))));
        db.write(|tx| vms::remove(tx, a.id));
        assert_eq!(db.read(tenants::tenancies), [all[2].clone()], "it goes with its vm");
        assert!(db.read(|tx| tenants::named(tx, "bob")).unwrap().had_vms, "which is remembered");
        db.write(|tx| tenants::remove(tx, &ann.id));
        assert_eq!(db.read(tenants::tenancies), [], "and with its tenant");
        assert!(db.read(|tx| vms::find(tx, c.id)).is_some());
    });
}

#[test]
fn a_deletion_is_asked_for_once_and_goes_with_its_vm() {
    on_both(|db| {
        let [a, b, _] = stocked(db);
        let id = |n| ShortId::new(Uuid::from_u128(n));
        db.write(|tx| numbers::insert(tx, VmNumber(100), a.id).and_then(|()| numbers::insert(tx, VmNumber(101), b.id)));
        db.write(|tx| deletions::ask(tx, b.id, &id(2), at(1)).and_then(|()| deletions::ask(tx, a.id, &id(1), at(2))));
        db.write(|tx| deletions::ask(tx, b.id, &id(3), at(9)));
        let deletion = |vm: &Vm, n: u128, number, asked, task| Deletion {
            id: id(n),
            vm: vm.id,
            number: VmNumber(number),
            asked_at: at(asked),
            task,
        };
        assert_eq!(db.read(deletions::all), [deletion(&b, 2, 101, 1, None), deletion(&a, 1, 100, 2, None)]);
        assert!(db.read(|tx| deletions::is_asked(tx, a.id)));

        let task = task(&pm(1), 1);
        db.write(|tx| tasks::insert(tx, &task).and_then(|()| deletions::set_task(tx, b.id, task.id)));
        assert_eq!(db.read(deletions::all)[0].task, Some(task.id));
        db.write(|tx| tasks::finish(tx, task.id, TaskState::Failure, Some("refused"), Some("no"), at(9)));
        assert_eq!(db.read(deletions::all)[0].task, None, "nobody does it any more");
        db.write(|tx| vms::remove(tx, b.id));
        assert_eq!(db.read(deletions::all), [deletion(&a, 1, 100, 2, None)]);
        assert!(!db.read(|tx| deletions::is_asked(tx, b.id)));
        db.write(|tx| deletions::set_task(tx, b.id, task.id));
    });
}
