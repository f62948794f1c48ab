//! Two hosts of one site, one after the other on the same rows: neither commands what is the other's.

use pengx::error::{ErrorKind, Result};
use pengx::model::{MiB, PowerState};
use pengx::operations::disk::{self, CreateDisk, DeleteDisk};
use pengx::operations::nic::{self, CreateNic, DeleteNic, UpdateNic};
use pengx::operations::vm::{DeleteVm, PoweroffVm, ShutdownVm, StartVm, find, list};

use crate::harness::app::App;
use crate::harness::world::World;

/// The message of a refusal that names the other host.
fn refusal<T: std::fmt::Debug>(outcome: Result<T>) -> String {
    let error = outcome.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WrongState { .. }), "{error:?}");
    error.to_string()
}

#[test]
fn a_vm_of_another_host_is_shown_and_never_touched() {
    let mut app = App::new();
    let storlink = app.storlink();
    let vm = app.run(app.vm_of(storlink, None, "web1")).unwrap();
    app.run(StartVm { vm }).unwrap();
    let here = app.site.pm().id;
    let (disks, nics) = (disk::of_vm(&app.core, vm).unwrap(), nic::list(&app.core, vm).unwrap());

    app.site.host += 1;
    let app = app.restart();
    let before = World::of(&app);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    assert_eq!(runtime.block_on(find(&app.core, vm)).unwrap().observed.state, PowerState::Unknown);
    assert_eq!(runtime.block_on(list(&app.core)).unwrap()[0].observed.state, PowerState::Unknown);
    let there = format!("vm web1 is on pm {here}; ask the server there");
    assert_eq!(refusal(app.run(StartVm { vm })), there);
    assert_eq!(refusal(app.run(ShutdownVm { vm })), there);
    assert_eq!(refusal(app.run(PoweroffVm { vm })), there);
    assert_eq!(refusal(app.run(DeleteVm { vm })), there);
    let (disk, nic) = (disks[1].disk.id, nics[0].id);
    assert_eq!(disk::of_vm(&app.core, vm).unwrap(), disks);
    assert_eq!(nic::list(&app.core, vm).unwrap(), nics);
    let new_disk = CreateDisk { vm, storlink, size: MiB(1), format: None, desc: String::new() };
    assert_eq!(refusal(app.run(new_disk)), there);
    assert_eq!(refusal(app.run(DeleteDisk { vm, disk })), there);
    assert_eq!(refusal(app.run(CreateNic { vm, network: "0".to_owned(), ip: None })), there);
    assert_eq!(refusal(app.run(DeleteNic { vm, nic })), there);
    assert_eq!(refusal(app.run(UpdateNic { vm, nic, ip: "10.0.0.1".parse().unwrap() })), there);
    let create = refusal(app.run(app.vm_of(storlink, None, "web2")));
    assert!(create.starts_with(&format!("storlink store1 is on pm {here} and not shared")), "{create}");
    app.assert_at_rest();
    assert_eq!(World::of(&app), before);
}
