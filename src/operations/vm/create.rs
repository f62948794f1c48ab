//! Creates a VM from a template or with an empty disk, and leaves it off.

use std::collections::HashMap;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{
    Access, Compensation, Disk, DiskId, DiskOwner, Format, Iso, Lane, Layer, Lock, MiB, Name, Resource, Secret, Seen,
    Storlink, StorlinkId, TaskKind, TemplateId, Vm, VmId, VolumeName,
};
use crate::operations::domain::{Machine, Plug};
use crate::operations::{Core, Operation, guard, nic, space, template};
use crate::storage::{Content, Control, NewVolume, VolumeDriver};
use crate::store::{Conn, disks, nics, vms};
use crate::tasks::Work;

use super::{Known, check};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateVm {
    pub name: Name,
    pub template: Option<TemplateId>,
    /// Where its disks go.
    pub storlink: StorlinkId,
    /// Virtual CPUs.
    pub cpu: u32,
    pub memory: MiB,
    pub maxmem: MiB,
    /// Grows the template's first disk; the size of the only disk where there is no template.
    pub os_disk_size: Option<MiB>,
    pub extra_disk_size: Option<MiB>,
    /// The template's, else qcow2.
    pub format: Option<Format>,
    /// A number or the name of a bridge, for one NIC each.
    pub networks: Vec<String>,
    /// The disc in its drive.
    pub iso: Option<Iso>,
    pub desc: String,
}

impl Operation for CreateVm {
    const KIND: TaskKind = TaskKind::VmCreate;
    type Output = VmId;

    fn lane(&self) -> Lane {
        if self.template.is_some() { Lane::Long } else { Lane::Quick }
    }

    fn subject(&self, _: &Core) -> Result<String> {
        Ok(format!("vm {}", self.name))
    }

    fn locks(&self) -> Vec<Lock> {
        let mut locks = vec![
            Lock { resource: Resource::Name("vm", self.name.to_string()), access: Access::Changes },
            Lock { resource: Resource::Storlink(self.storlink), access: Access::Uses },
        ];
        if let Some(template) = self.template {
            locks.push(Lock { resource: Resource::Template(template), access: Access::Uses });
        }
        if let Some(iso) = &self.iso {
            locks.push(Lock { resource: Resource::Storlink(iso.storlink), access: Access::Uses });
        }
        locks
    }

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<VmId> {
        self.make(core, work, |_| Vec::new(), |_, _| Ok(())).map(|(vm, ())| vm)
    }
}

impl CreateVm {
    /// With `forward` to be done once it is made, and what `also` writes in the transaction that makes it visible.
    pub(in crate::operations) fn make<T>(
        self,
        core: &Core,
        work: &mut Work<'_>,
        forward: impl FnOnce(VmId) -> Vec<Compensation>,
        also: impl FnOnce(&mut Conn, &Vm) -> Result<T>,
    ) -> Result<(VmId, T)> {
        let plan = Plan::make(&self, core)?;
        let vm = plan.machine.vm.id;
        if plan.copied > MiB(0) {
            space::reserve(core, work, &plan.storlink, plan.driver.as_ref(), plan.copied)?;
        }
        let share = 100 / u32::try_from(plan.volumes.len().max(1)).unwrap_or(100);
        for (n, (disk, make)) in (0..).zip(plan.machine.disks.iter().zip(&plan.volumes)) {
            let undo = Compensation::DeleteVolume { storlink: disk.storlink, volume: disk.volume.clone() };
            let reporter = work.reporter();
            let step = format!("making disk {}", disk.order);
            let progress = |percent: u32| reporter.progress(share * n + percent * share / 100, &step);
            let control = Control { cancel: reporter.cancel_flag(), progress: &progress };
            work.step(&undo, || plan.driver.create(&disk.volume, make, &control))?;
        }
        let spec = plan.machine.spec(core)?;
        work.step(&Compensation::Undefine { vm }, || core.hypervisor.define(&spec))?;
        core.inventory.refresh(vm)?;
        let also = work.settle(&format!("vm {} is created", self.name), &forward(vm), |tx| {
            vms::insert(tx, &plan.machine.vm)?;
            plan.machine.disks.iter().try_for_each(|disk| disks::insert(tx, disk))?;
            plan.nics.iter().try_for_each(|nic| nics::insert(tx, nic).map(|_| ()))?;
            also(tx, &plan.machine.vm)
        })?;
        Ok((vm, also))
    }
}

/// What will be made; nothing has been touched yet.
struct Plan {
    machine: Machine,
    /// One for each disk of the machine.
    volumes: Vec<NewVolume>,
    nics: Vec<nics::NewNic>,
    storlink: Storlink,
    driver: Box<dyn VolumeDriver>,
    /// What the copies will occupy.
    copied: MiB,
}

impl Plan {
    fn make(wish: &CreateVm, core: &Core) -> Result<Self> {
        let (storlink, source, sources) = core.store.read(|c| {
            if vms::find_by_name(c, wish.name.as_str())?.is_some() {
                return Err(Error::new(ErrorKind::Exists { what: "vm", name: wish.name.to_string() }));
            }
            let storlink = guard::storlink(c, &core.pm, wish.storlink)?;
            if let Some(iso) = &wish.iso {
                guard::storlink(c, &core.pm, iso.storlink)?;
            }
            let mut source = None;
            let mut sources = Vec::new();
            if let Some(template) = wish.template {
                source = Some(guard::template(c, template)?);
                for disk in disks::of_template(c, template)? {
                    let storlink = guard::storlink(c, &core.pm, disk.storlink)?;
                    sources.push((disk, storlink));
                }
            }
            Ok((storlink, source, sources))
        })?;
        if let Some(template) = &source {
            template::off(core, template, "shut it down before making vms from it")?;
        }
        // Nothing is copied for a hypervisor that could not be told of it.
        core.hypervisor.info()?;
        let driver = (core.volumes)(&storlink)?;
        // Where a storlink is gone, nothing could be undone either, so nothing is begun there.
        driver.usage()?;
        let can = check(core, &wish.known())?;
        let (volumes, copied) = wish.volumes(core, driver.as_ref(), &sources)?;
        let vm = VmId(core.ids.uuid());
        let nics = nic::draft_all(core, vm, &wish.networks, can.mac_prefix)?;
        let machine = wish.machine(core, vm, storlink.clone(), &volumes, &nics);
        Ok(Self { machine, volumes, nics, storlink, driver, copied })
    }
}

impl CreateVm {
    fn known(&self) -> Known {
        Known {
            template: self.template,
            storlink: Some(self.storlink),
            cpu: Some(self.cpu),
            memory: Some(self.memory),
            maxmem: Some(self.maxmem),
            os_disk_size: self.os_disk_size,
            extra_disk_size: self.extra_disk_size,
            format: self.format,
            networks: self.networks.clone(),
            iso: self.iso.clone(),
        }
    }

    /// The volumes to make: copies of the template's disks, or an empty one; and the extra one. And what the copies take.
    fn volumes(
        &self,
        core: &Core,
        driver: &dyn VolumeDriver,
        sources: &[(Disk, Storlink)],
    ) -> Result<(Vec<NewVolume>, MiB)> {
        let template_format = sources.first().map(|(disk, _)| disk.format);
        let format = self.format.or(template_format).unwrap_or(driver.info().default_format);
        let mut volumes = Vec::new();
        let mut copied = 0_u64;
        for (disk, from) in sources {
            let source = (core.volumes)(from)?;
            if !source.exists(&disk.volume)? {
                let why = format!("the template's image {} is gone from storlink {}", disk.volume, from.name);
                return Err(Error::refused("storage", why));
            }
            // Read again at each use: the file may have been exchanged since the template was added.
            copied = copied.saturating_add(source.probe(&disk.volume, disk.format)?.allocated_bytes);
            let layer = Layer { source: source.source(&disk.volume)?, format: disk.format };
            volumes.push(NewVolume { format, size: disk.size, content: Content::Copy(vec![layer]) });
        }
        match (volumes.first_mut(), self.os_disk_size) {
            (Some(os), Some(size)) => os.size = size,
            (Some(_), None) => {}
            (None, Some(size)) => volumes.push(NewVolume { format, size, content: Content::Zeros }),
            (None, None) => return Err(Error::invalid("os_disk_size", "is required without a template")),
        }
        if let Some(size) = self.extra_disk_size {
            volumes.push(NewVolume { format, size, content: Content::Zeros });
        }
        Ok((volumes, MiB::from_bytes_ceil(copied)))
    }

    fn machine(
        &self,
        core: &Core,
        id: VmId,
        storlink: Storlink,
        volumes: &[NewVolume],
        nics: &[nics::NewNic],
    ) -> Machine {
        let now = core.clock.now();
        let disk = |(order, volume): (u32, &NewVolume)| {
            let disk = DiskId(core.ids.uuid());
            Disk {
                id: disk,
                owner: DiskOwner::Vm(id),
                order,
                size: volume.size,
                format: volume.format,
                storlink: storlink.id,
                volume: VolumeName::new(disk, volume.format),
                desc: None,
                created_at: now,
                backing: None,
            }
        };
        Machine {
            vm: Vm {
                id,
                template: self.template,
                pm: core.pm.id,
                name: self.name.to_string(),
                cpu: self.cpu,
                memory: self.memory,
                maxmem: self.maxmem,
                desc: self.desc.clone(),
                pcivf: None,
                iso: self.iso.clone(),
                seen: Seen::default(),
                vnc_password: new_vnc_password(core),
                snapshot: None,
                created_at: now,
                recent_booted_at: None,
                updated_at: now,
            },
            disks: (0..).zip(volumes).map(disk).collect(),
            plugs: nics.iter().map(|nic| Plug { mac: nic.mac, switch: nic.switch.clone() }).collect(),
            below: HashMap::new(),
            storlinks: [(storlink.id, storlink)].into(),
        }
    }
}

/// Eight characters, which is all that VNC looks at; from the bytes of a uuid that are random in full.
pub(in crate::operations) fn new_vnc_password(core: &Core) -> Secret {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let bytes = core.ids.uuid().into_bytes();
    let random = bytes.iter().take(6).chain(bytes.iter().skip(9)).take(8);
    let text = random.filter_map(|b| ALPHABET.get(usize::from(b % 32))).map(|b| char::from(*b)).collect();
    Secret::new(text)
}
