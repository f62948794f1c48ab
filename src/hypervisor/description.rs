//! A domain in libvirt's form, where libvirt itself is not there to write it. For readers; nothing is defined from it. Pure.

use askama::Template;

use crate::error::{Error, Result};
use crate::model::{DomainSpec, NicLink, NicSpec, VncEndpoint, VolumeSource};

#[derive(Template)]
#[template(path = "hypervisor/domain.xml")]
pub(super) struct Description {
    /// Whose domain it is: `xen`.
    pub(super) kind: &'static str,
    /// Of a run.
    pub(super) number: Option<u32>,
    pub(super) name: String,
    pub(super) id: String,
    pub(super) title: String,
    pub(super) memory_kib: u64,
    pub(super) max_memory_kib: u64,
    pub(super) vcpus: u32,
    pub(super) max_vcpus: u32,
    /// `hvm`, `xen` or `xenpvh`.
    pub(super) os_type: &'static str,
    pub(super) disks: Vec<Disk>,
    pub(super) nics: Vec<Nic>,
    pub(super) screen: Option<VncEndpoint>,
}

pub(super) struct Disk {
    /// `disk` or `cdrom`.
    pub(super) device: &'static str,
    /// `None`: a drive without a disc.
    pub(super) file: Option<String>,
    pub(super) format: String,
    pub(super) target: String,
    pub(super) bus: &'static str,
}

pub(super) struct Nic {
    pub(super) mac: String,
    pub(super) bridge: Option<String>,
    pub(super) unplugged: bool,
}

impl Description {
    /// Without its disks, number and screen.
    pub(super) fn of(spec: &DomainSpec, kind: &'static str, os_type: &'static str) -> Self {
        Self {
            kind,
            number: None,
            name: format!("pengx-{}", spec.id),
            id: spec.id.to_string(),
            title: spec.title.clone(),
            memory_kib: spec.memory.0.saturating_mul(1024),
            max_memory_kib: spec.max_memory.0.saturating_mul(1024),
            vcpus: spec.vcpus,
            max_vcpus: spec.max_vcpus,
            os_type,
            disks: Vec::new(),
            nics: spec.nics.iter().map(Nic::of).collect(),
            screen: None,
        }
    }

    pub(super) fn write(&self) -> Result<String> {
        self.render().map_err(|e| Error::internal("writing the description of a domain").caused_by(e))
    }
}

impl Nic {
    fn of(nic: &NicSpec) -> Self {
        let bridge = match &nic.link {
            NicLink::Bridge(name) => Some(name.clone()),
            NicLink::User | NicLink::Unplugged => None,
        };
        Self { mac: nic.mac.to_string(), bridge, unplugged: nic.link == NicLink::Unplugged }
    }
}

pub(super) fn file(VolumeSource::File(file): &VolumeSource) -> String {
    file.to_string_lossy().into_owned()
}
