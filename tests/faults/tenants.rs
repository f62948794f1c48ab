//! What is made for a tenant: the VM, its number, whose it is and that it runs come and go together.

use pengx::model::*;
use pengx::operations::tenant::{self, CreateForTenant};
use pengx::store::{numbers, tenants};

use super::{Scenario, state, vm_is_whole};
use crate::harness::app::App;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario {
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
        done: is_bobs,
    }]
}

fn is_bobs(app: &App, _: Option<VmId>) -> bool {
    let (numbers, tenancies) = app.store().read(|c| Ok((numbers::all(c)?, tenants::tenancies(c)?))).unwrap();
    let ([(VmNumber(100), vm)], [tenancy]) = (&numbers[..], &tenancies[..]) else { return false };
    tenancy.vm == *vm
        && tenancy.swap == MiB(7)
        && vm_is_whole(app)
        && state(app, Some(*vm)) == Some(PowerState::Running)
}
