//! Makes an empty disk for a VM, and plugs it in at once if the VM runs.

use crate::error::{Error, Result};
use crate::hypervisor::Capabilities;
use crate::model::{
    Access, Compensation, Disk, DiskId, DiskOwner, DomainSpec, Format, Lock, MiB, Resource, Storlink, StorlinkId,
    TaskKind, VmId, VolumeName,
};
use crate::operations::domain::{Machine, disk_spec};
use crate::operations::vm::{noun, state_now, unless_off};
use crate::operations::{Core, Operation, guard};
use crate::storage::{Content, Control, NewVolume, VolumeDriver};
use crate::store::disks;
use crate::tasks::Work;

use super::DiskView;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateDisk {
    pub vm: VmId,
    pub storlink: StorlinkId,
    pub size: MiB,
    /// The storlink's own without it.
    pub format: Option<Format>,
    pub desc: String,
}

impl Operation for CreateDisk {
    const KIND: TaskKind = TaskKind::DiskCreate;
    type Output = DiskView;

    fn subject(&self, core: &Core) -> Result<String> {
        noun(core, self.vm)
    }

    fn locks(&self) -> Vec<Lock> {
        vec![
            Lock { resource: Resource::Vm(self.vm), access: Access::Changes },
            Lock { resource: Resource::Storlink(self.storlink), access: Access::Uses },
        ]
    }

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<DiskView> {
        let vm = self.vm;
        let Plan { name, active, mut spec, disk, storlink, driver } = Plan::make(self, core)?;
        let undo = Compensation::DeleteVolume { storlink: storlink.id, volume: disk.volume.clone() };
        let make = NewVolume { format: disk.format, size: disk.size, content: Content::Zeros };
        let reporter = work.reporter();
        let progress = |percent: u32| reporter.progress(percent, "making the disk");
        let control = Control { cancel: reporter.cancel_flag(), progress: &progress };
        work.step(&undo, || driver.create(&disk.volume, &make, &control))?;
        let plug = disk_spec(driver.as_ref(), &disk, Vec::new())?;
        spec.disks.push(plug.clone());
        spec.disks.sort_by_key(|disk| disk.order);
        work.step(&Compensation::Redefine { vm }, || core.hypervisor.define(&spec))?;
        if active {
            // The last step, because taking it back needs the guest's good will.
            let undo = Compensation::DetachDisk { vm, order: disk.order };
            unless_off(core, vm, work.step(&undo, || core.hypervisor.attach_disk(vm, &plug)))?;
        }
        let outcome = format!("disk {} of {name} is created", disk.order);
        work.settle(&outcome, &[], |tx| disks::insert(tx, &disk))?;
        Ok(DiskView { disk, level: storlink.level })
    }
}

/// What will be made; nothing has been touched yet.
struct Plan {
    /// `vm web1`.
    name: String,
    active: bool,
    /// The domain as it is without the disk.
    spec: DomainSpec,
    disk: Disk,
    storlink: Storlink,
    driver: Box<dyn VolumeDriver>,
}

impl Plan {
    fn make(wish: CreateDisk, core: &Core) -> Result<Self> {
        let machine = Machine::load(core, wish.vm)?;
        let storlink = core.store.read(|c| guard::storlink(c, &core.pm, wish.storlink))?;
        let name = format!("vm {}", machine.vm.name);
        let active = state_now(core, wish.vm)?.is_active();
        let driver = (core.volumes)(&storlink)?;
        // Where a storlink is gone, nothing could be undone either, so nothing is begun there.
        driver.usage()?;
        let format = wish.format.unwrap_or(driver.info().default_format);
        if !driver.info().formats.contains(&format) {
            return Err(Error::invalid("format", format!("storlink {} has no {format} volumes", storlink.name)));
        }
        let spec = machine.spec(core)?;
        fits(&name, active, &spec, &core.hypervisor.capabilities(&spec))?;
        let id = DiskId(core.ids.uuid());
        let disk = Disk {
            id,
            owner: DiskOwner::Vm(wish.vm),
            order: free_order(&machine.disks),
            size: wish.size,
            format,
            storlink: storlink.id,
            volume: VolumeName::new(id, format),
            desc: Some(wish.desc).filter(|desc| !desc.is_empty()),
            created_at: core.clock.now(),
            backing: None,
        };
        Ok(Self { name, active, spec, disk, storlink, driver })
    }
}

fn fits(name: &str, active: bool, spec: &DomainSpec, can: &Capabilities) -> Result<()> {
    if spec.disks.len() >= usize::try_from(can.max_disks).unwrap_or(usize::MAX) {
        return Err(guard::unsupported(format!("give {name} more than {} disks", can.max_disks)));
    }
    if active && !can.live_disks {
        return Err(guard::unsupported(format!("plug a disk into {name} while it runs; shut it down first")));
    }
    Ok(())
}

/// The lowest from 1: order 0 is the disk that the VM was made with, and a disk keeps its order.
fn free_order(disks: &[Disk]) -> u32 {
    let mut order = 1;
    while disks.iter().any(|disk| disk.order == order) {
        order += 1;
    }
    order
}
