//! What removes orphans and repairs.

use pengx::hypervisor::Hypervisor;
use pengx::model::*;
use pengx::operations::check::{Remedy, Repair};
use pengx::operations::ledger::DeleteVolume;

use super::{Scenario, made};
use crate::harness::app::App;
use crate::harness::world::World;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "volume.delete",
            prepare: |app| Some(with_orphan(app)),
            run: |app, _| app.run(DeleteVolume { storlink: StorlinkId(1), name: orphan(app) }),
            done: |app, _| World::of(app).files.len() == 2,
        },
        Scenario {
            name: "site.repair of an orphan",
            prepare: |app| Some(with_orphan(app)),
            run: |app, _| app.run(Repair(Remedy::Remove { storlink: StorlinkId(1), name: orphan(app) })),
            done: |app, _| World::of(app).files.len() == 2,
        },
        Scenario {
            name: "site.repair of a domain",
            prepare: |app| {
                let vm = made(app);
                app.site.fake.undefine(vm).unwrap();
                Some(vm)
            },
            run: |app, vm| app.run(Repair(Remedy::Define(vm.unwrap()))),
            done: |app, _| matches!(&app.site.fake.definitions()[..], [one] if one.disks.len() == 2 && one.vcpus == 1),
        },
    ]
}

/// A VM with two disks, and an orphan that may go.
fn with_orphan(app: &App) -> VmId {
    let vm = made(app);
    app.orphan(StorlinkId(1), Format::Qcow2);
    app.wait_out_quarantine();
    vm
}

/// The one file that no row has; or a name of nothing, once it is gone.
fn orphan(app: &App) -> FileName {
    let rows = app.store().read(pengx::store::disks::all).unwrap();
    let is_orphan = |name: &&String| rows.iter().all(|disk| disk.volume.as_str() != name.as_str());
    World::of(app).files.keys().find(is_orphan).unwrap().parse().unwrap()
}
