//! What is made for a tenant: the VM, its number and whose it is come and go together, and it runs as soon as it is there.

use pengx::model::*;
use pengx::operations::tenant::{self, CreateForTenant};
use pengx::store::{disks, numbers, tenants};
use pengx::tasks::Fate;

use super::{Scenario, state};
use crate::harness::app::App;
use crate::harness::wait::wait_until;
use crate::harness::world::World;

const CREATE: Scenario = Scenario {
    name: "vm.create for a tenant",
    prepare: |app| {
        app.storlink();
        tenant::add(&app.core, "bob", &Secret::new("secret1".to_owned())).unwrap();
        None
    },
    run: |app, _| {
        app.run(CreateForTenant {
            tenant: "bob".to_owned(),
            hostname: Some("web1".parse().unwrap()),
            number: None,
            swap: MiB(7),
            vm: app.vm_of(StorlinkId(1), None, "unnamed"),
        })
        .map(drop)
    },
    done: |app, _| bobs(app).is_some(),
};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![CREATE]
}

/// A start that the hypervisor refuses is no reason to take the VM away again.
fn bobs(app: &App) -> Option<VmId> {
    let read = app.store().read(|c| Ok((numbers::all(c)?, tenants::tenancies(c)?))).unwrap();
    let ([(VmNumber(100), vm)], [tenancy]) = (&read.0[..], &read.1[..]) else { return None };
    let disks = app.store().read(|c| disks::of_vm(c, *vm)).unwrap();
    let files = World::of(app).files;
    let whole = disks.len() == 2 && disks.iter().all(|disk| files.contains_key(disk.volume.as_str()));
    let defined = state(app, Some(*vm)).is_some();
    (tenancy.vm == *vm && tenancy.swap == MiB(7) && whole && defined).then_some(*vm)
}

/// Of all that the server may die of, this leaves the most to be made good: the client was not answered, and nobody else will
/// start the VM.
#[test]
fn what_was_made_before_the_server_died_is_started_by_the_next_one() {
    let app = App::new();
    (CREATE.prepare)(&app);
    app.fuse.arm(&[]);
    (CREATE.run)(&app, None).unwrap();
    let settled = app.fuse.names().iter().position(|name| *name == "settled").unwrap() + 1;

    let app = App::new();
    (CREATE.prepare)(&app);
    app.fuse.arm(&[(settled, Fate::Die)]);
    drop((CREATE.run)(&app, None));
    let vm = bobs(&app).unwrap();
    assert_eq!(state(&app, Some(vm)), Some(PowerState::Shutdown));
    let app = app.restart();
    wait_until("it runs", || Ok(state(&app, Some(vm)) == Some(PowerState::Running)));
    app.assert_at_rest();
    assert_eq!(bobs(&app), Some(vm));
}
