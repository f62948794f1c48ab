//! Every operation that a guest which never runs can be part of, the world it needs, and how one sees that it is done.

use pengx::error::Result;
use pengx::model::*;
use pengx::operations::check::{Remedy, Repair};
use pengx::operations::disk::{CreateDisk, DeleteDisk};
use pengx::operations::ledger::DeleteVolume;
use pengx::operations::nic::CreateNic;
use pengx::operations::template::{NewTemplate, PoweroffTemplate, StartTemplate};
use pengx::operations::vm::{Changes, CreateVm, DeleteVm, EditVm, ResetVm, StartVm, UpdateVm};
use pengx::store::{disks, nics, templates, vms};

use super::{DISC, state};
use crate::harness::app::App;
use crate::harness::world::World;

pub(super) type Subject = Option<VmId>;

pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// What it is about and what is there already: a VM, or a template by its domain.
    pub(super) prepare: fn(&App) -> Subject,
    pub(super) run: fn(&App, Subject) -> Result<()>,
    pub(super) done: fn(&App, Subject) -> bool,
}

pub(super) fn all() -> Vec<Scenario> {
    let mut all = of_vms_and_templates();
    all.extend(super::backups::scenarios());
    all.extend(super::copies::scenarios());
    all
}

fn of_vms_and_templates() -> Vec<Scenario> {
    let scenario = |name, prepare, run, done| Scenario { name, prepare, run, done };
    vec![
        scenario("vm.create from a template", nothing, create_from_template, |app, _| vm_is_whole(app)),
        scenario("vm.create with an empty disk", nothing, create_empty, |app, _| vm_is_whole(app)),
        scenario("vm.start", off, start, |app, vm| is(app, vm, PowerState::Paused)),
        scenario("vm.delete", off, delete, |app, vm| {
            let gone = app.store().read(|c| vms::find(c, vm.unwrap())).unwrap().is_none();
            gone && state(app, vm.unwrap()).is_none() && volumes(app) == 1
        }),
        scenario("vm.edit of one that is paused", paused, edit, |app, vm| row(app, vm).name == "web2"),
        scenario("vm.reset", paused, reset, |app, vm| is(app, vm, PowerState::Paused)),
        scenario("vm.update of one that is off", off, enlarge, is_larger),
        scenario("vm.update of one that is paused", paused, enlarge, is_larger),
        scenario("disk.create on a VM that is off", off, create_disk, has_disks::<3>),
        scenario("disk.create on a VM that is paused", paused, create_disk, has_disks::<3>),
        // One that is paused cannot let go of a disk.
        scenario("disk.delete on a VM that is off", off, delete_disk, has_disks::<1>),
        scenario("nic.create on a VM that is off", off, create_nic, has_nics::<3>),
        scenario("nic.create on a VM that is paused", paused, create_nic, has_nics::<3>),
        scenario("template.new", nothing, |app, _| app.run(new_template()).map(drop), |app, _| volumes(app) == 2),
        scenario("template.start", template, start_template, |app, vm| {
            let found = app.store().read(|c| templates::find(c, of_domain(vm))).unwrap().unwrap();
            found.vnc_password.is_some() && found.iso.is_some() && is(app, vm, PowerState::Paused)
        }),
        scenario("volume.delete", orphan, delete_orphan, |app, _| volumes(app) == 1),
        scenario("site.repair of a domain", undefined, repair_domain, |app, vm| is(app, vm, PowerState::Shutdown)),
        scenario(
            "template.poweroff",
            started_template,
            |app, vm| app.run(PoweroffTemplate { template: of_domain(vm) }),
            |app, vm| state(app, vm.unwrap()).is_none_or(|state| state == PowerState::Shutdown),
        ),
    ]
}

fn nothing(_: &App) -> Subject {
    None
}

fn create_from_template(app: &App, _: Subject) -> Result<()> {
    let template = app.store().read(templates::all)?[0].id;
    app.run(app.vm_of(StorlinkId(1), Some(template), "web1")).map(drop)
}

fn create_empty(app: &App, _: Subject) -> Result<()> {
    app.run(app.vm_of(StorlinkId(1), None, "web1")).map(drop)
}

pub(super) fn off(app: &App) -> Subject {
    let vm = CreateVm { maxmem: MiB(128), ..app.vm_of(StorlinkId(1), None, "web1") };
    Some(app.run(vm).unwrap())
}

pub(super) fn paused(app: &App) -> Subject {
    let vm = off(app);
    start(app, vm).unwrap();
    vm
}

pub(in crate::real) fn start(app: &App, vm: Subject) -> Result<()> {
    app.run(StartVm { vm: vm.unwrap() })
}

pub(super) fn delete(app: &App, vm: Subject) -> Result<()> {
    app.run(DeleteVm { vm: vm.unwrap() })
}

fn reset(app: &App, vm: Subject) -> Result<()> {
    app.run(ResetVm { vm: vm.unwrap() })
}

fn edit(app: &App, vm: Subject) -> Result<()> {
    let name = Some("web2".parse().unwrap());
    app.run(EditVm { vm: vm.unwrap(), name, desc: Some("another".to_owned()) })
}

fn orphan(app: &App) -> Subject {
    app.orphan(StorlinkId(1), Format::Qcow2);
    None
}

/// The one volume that no row has.
fn delete_orphan(app: &App, _: Subject) -> Result<()> {
    let listed = app.driver(StorlinkId(1)).list()?;
    let rows = app.store().read(disks::all)?;
    let orphan = listed.iter().find(|volume| rows.iter().all(|disk| disk.volume != **volume)).unwrap();
    app.run(DeleteVolume { storlink: StorlinkId(1), name: orphan.as_str().parse().unwrap() })
}

fn undefined(app: &App) -> Subject {
    let vm = off(app);
    app.site.hypervisor.undefine(vm.unwrap()).unwrap();
    vm
}

fn repair_domain(app: &App, vm: Subject) -> Result<()> {
    app.run(Repair(Remedy::Define(vm.unwrap())))
}

fn disc() -> Iso {
    format!("1/{DISC}").parse().unwrap()
}

fn enlarge(app: &App, vm: Subject) -> Result<()> {
    let changes = Changes { cpu: Some(2), memory: Some(MiB(96)), maxmem: Some(MiB(256)), iso: Some(Some(disc())) };
    app.run(UpdateVm { vm: vm.unwrap(), changes })
}

fn is_larger(app: &App, vm: Subject) -> bool {
    let row = row(app, vm);
    (row.cpu, row.memory, row.maxmem, row.iso) == (2, MiB(96), MiB(256), Some(disc()))
}

pub(in crate::real) fn create_disk(app: &App, vm: Subject) -> Result<()> {
    let size = MiB(3);
    let disk = CreateDisk { vm: vm.unwrap(), storlink: StorlinkId(1), size, format: None, desc: String::new() };
    app.run(disk).map(drop)
}

pub(in crate::real) fn delete_disk(app: &App, vm: Subject) -> Result<()> {
    let vm = vm.unwrap();
    let disks = app.store().read(|c| disks::of_vm(c, vm))?;
    app.run(DeleteDisk { vm, disk: disks.iter().find(|disk| disk.order == 1).unwrap().id })
}

pub(in crate::real) fn create_nic(app: &App, vm: Subject) -> Result<()> {
    app.run(CreateNic { vm: vm.unwrap(), network: "1".to_owned(), ip: None }).map(drop)
}

/// Rows and volumes, beside one for each template.
pub(in crate::real) fn has_disks<const N: usize>(app: &App, vm: Subject) -> bool {
    let (disks, templates) = app.store().read(|c| Ok((disks::of_vm(c, vm.unwrap())?, templates::all(c)?))).unwrap();
    disks.len() == N && volumes(app) == N + templates.len()
}

pub(in crate::real) fn has_nics<const N: usize>(app: &App, vm: Subject) -> bool {
    app.store().read(|c| nics::of_vm(c, vm.unwrap())).unwrap().len() == N
}

fn new_template() -> NewTemplate {
    NewTemplate {
        name: "t".parse().unwrap(),
        os: Os::Other,
        os_arch: OsArch::X64,
        desc: String::new(),
        storlink: StorlinkId(1),
        size: MiB(4),
        format: Format::Qcow2,
        iso: None,
    }
}

fn template(app: &App) -> Subject {
    Some(Template::domain(app.run(new_template()).unwrap()))
}

fn started_template(app: &App) -> Subject {
    let domain = template(app);
    start_template(app, domain).unwrap();
    domain
}

fn start_template(app: &App, vm: Subject) -> Result<()> {
    let (iso, networks) = (Some(Some(disc())), vec!["0".to_owned()]);
    app.run(StartTemplate { template: of_domain(vm), iso, cpu: 1, memory: MiB(64), networks })
}

fn of_domain(vm: Subject) -> TemplateId {
    TemplateId(vm.unwrap().0)
}

fn row(app: &App, vm: Subject) -> Vm {
    app.store().read(|c| vms::find(c, vm.unwrap())).unwrap().unwrap()
}

pub(super) fn is(app: &App, vm: Subject, expected: PowerState) -> bool {
    state(app, vm.unwrap()) == Some(expected)
}

/// How many there are; nothing else is on the storlink but the disc.
pub(super) fn volumes(app: &App) -> usize {
    let mut files = World::of(app).files;
    files.remove(DISC);
    assert!(files.keys().all(|name| name.parse::<VolumeName>().is_ok()), "{files:?}");
    files.len()
}

/// Rows, volumes and domain of the one VM agree.
fn vm_is_whole(app: &App) -> bool {
    let store = app.store();
    let all = store.read(vms::listing).unwrap();
    let [listing] = &all[..] else { return false };
    let disks = store.read(|c| disks::of_vm(c, listing.vm.id)).unwrap();
    let files = World::of(app).files;
    disks.len() == 2
        && volumes(app) == 3
        && disks.iter().all(|disk| files.contains_key(disk.volume.as_str()))
        && state(app, listing.vm.id) == Some(PowerState::Shutdown)
}
