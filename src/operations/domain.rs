//! From rows to what the hypervisor is told.

use std::collections::HashMap;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{
    Disk, DiskId, DiskOwner, DiskSpec, DomainSpec, Layer, Mac, NicSpec, Os, Storlink, StorlinkId, TemplateId, Vm, VmId,
};
use crate::storage::VolumeDriver;
use crate::store::{Conn, disks, nics, templates};

use super::{Core, bridge, guard, iso};

/// A VM with everything that its domain is made of.
pub struct Machine {
    pub vm: Vm,
    pub disks: Vec<Disk>,
    /// What each disk reads from, down to the last; nothing for one that is self-contained.
    pub below: HashMap<DiskId, Vec<Disk>>,
    pub plugs: Vec<Plug>,
    pub storlinks: HashMap<StorlinkId, Storlink>,
}

/// A NIC and the bridge that it is plugged into, by the client's name.
pub struct Plug {
    pub mac: Mac,
    pub switch: String,
}

impl Machine {
    pub fn load(core: &Core, id: VmId) -> Result<Self> {
        Self::with(core, id, |c| disks::of_vm(c, id))
    }

    /// On other disks than those that it runs on now: those of a snapshot, or all that there are.
    pub fn with(core: &Core, id: VmId, disks: impl FnOnce(&mut Conn) -> Result<Vec<Disk>>) -> Result<Self> {
        core.store.read(|c| {
            let vm = guard::vm(c, core, id)?;
            let disks = disks(c)?;
            let nics = nics::of_vm(c, id)?.into_iter();
            let plugs = nics.map(|nic| Plug { mac: nic.mac, switch: nic.switch }).collect();
            let mut below = HashMap::new();
            for disk in disks.iter().filter(|disk| disk.backing.is_some()) {
                below.insert(disk.id, disks::below(c, disk)?);
            }
            let mut storlinks = HashMap::new();
            for disk in disks.iter().chain(below.values().flatten()) {
                storlinks.insert(disk.storlink, guard::storlink(c, &core.pm, disk.storlink)?);
            }
            Ok(Self { vm, disks, below, plugs, storlinks })
        })
    }

    /// The driver of the storlink that a disk of this VM is on.
    pub fn driver(&self, core: &Core, disk: &Disk) -> Result<Box<dyn VolumeDriver>> {
        let storlink = self.storlinks.get(&disk.storlink);
        (core.volumes)(storlink.ok_or_else(|| Error::internal(format!("disk {} without its storlink", disk.id)))?)
    }

    /// What a disk reads from, from the next image to the last. Each must be there.
    pub fn backing(&self, core: &Core, disk: &Disk) -> Result<Vec<Layer>> {
        let below = self.below.get(&disk.id).map(Vec::as_slice).unwrap_or_default();
        let layer = |below: &Disk| {
            let source = self.driver(core, below)?.source(&below.volume);
            Ok(Layer { source: source.map_err(|error| self.lost(below, error))?, format: below.format })
        };
        below.iter().map(layer).collect()
    }

    /// What the rows say, for a definition.
    pub fn spec(&self, core: &Core) -> Result<DomainSpec> {
        let mut spec = DomainSpec {
            id: self.vm.id,
            title: self.vm.name.clone(),
            os: self.os(core)?,
            vcpus: self.vm.cpu,
            max_vcpus: self.vm.cpu.max(core.settings.max_vcpus),
            memory: self.vm.memory,
            max_memory: self.vm.maxmem,
            disks: Vec::new(),
            nics: Vec::new(),
            pci: self.vm.pcivf,
            disc: iso::if_there(core, &self.vm)?,
            console: None,
            vnc_password: self.vm.vnc_password.clone(),
        };
        for disk in &self.disks {
            let driver = self.driver(core, disk)?;
            let backing = self.backing(core, disk)?;
            spec.disks.push(disk_spec(driver.as_ref(), disk, backing).map_err(|error| self.lost(disk, error))?);
        }
        let can = core.hypervisor.capabilities(&spec);
        for plug in &self.plugs {
            let link = bridge::resolve(core, &plug.switch, &can)?.map_err(|why| Error::refused("pengx", why))?;
            spec.nics.push(NicSpec { mac: plug.mac, link });
        }
        Ok(spec)
    }

    /// Said of the template that it was made from, or is.
    fn os(&self, core: &Core) -> Result<Option<Os>> {
        let template = self.vm.template.unwrap_or(TemplateId(self.vm.id.0));
        Ok(core.store.read(|c| templates::find(c, template))?.map(|template| template.os))
    }

    /// The client named the VM or the template, not the volume: that a volume is missing is the storage's failure, and no 404.
    pub fn lost(&self, disk: &Disk, error: Error) -> Error {
        if !matches!(error.kind(), ErrorKind::NotFound { .. }) {
            return error;
        }
        let noun = if matches!(disk.owner, DiskOwner::Template(_)) { "template" } else { "vm" };
        let why = format!("volume {} of {noun} {} is not on storlink {}", disk.volume, self.vm.name, disk.storlink);
        Error::refused("storage", why).caused_by(error)
    }
}

/// What the hypervisor is told about a disk on these images. Its volume must be there.
pub fn disk_spec(driver: &dyn VolumeDriver, disk: &Disk, backing: Vec<Layer>) -> Result<DiskSpec> {
    Ok(DiskSpec {
        order: disk.order,
        source: driver.source(&disk.volume)?,
        format: disk.format,
        cache: driver.cache_mode()?,
        backing,
    })
}
