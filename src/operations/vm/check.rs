//! What this site has against a wish for a VM, field by field: before it is planned, and also for a wish of which some
//! fields cannot be read at all, so that a client learns of every bad field in one answer.

use crate::error::{ErrorKind, Problems, Result};
use crate::hypervisor::Capabilities;
use crate::model::{DomainSpec, Format, Iso, MiB, Secret, StorlinkId, TemplateId, VmId};
use crate::operations::{Core, bridge, iso};
use crate::store::{disks, storlinks};

/// The fields of a wish that could be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    pub template: Option<TemplateId>,
    pub storlink: Option<StorlinkId>,
    pub cpu: Option<u32>,
    pub memory: Option<MiB>,
    pub maxmem: Option<MiB>,
    pub os_disk_size: Option<MiB>,
    pub extra_disk_size: Option<MiB>,
    pub format: Option<Format>,
    pub networks: Vec<String>,
    pub iso: Option<Iso>,
}

/// What the hypervisor can do with such a VM; `Invalid` with every field that the site cannot serve. An object that is not
/// there is no field's problem here: whoever needs it says that it is not found.
pub fn check(core: &Core, known: &Known) -> Result<Capabilities> {
    let mut bad = Problems::new();
    let can = core.hypervisor.capabilities(&outline(known));
    if known.cpu.is_some_and(|cpu| cpu > can.max_vcpus) {
        bad.add("cpu_core", format!("must be at most {}", can.max_vcpus));
    }
    if let (Some(memory), Some(maxmem)) = (known.memory, known.maxmem)
        && memory > maxmem
    {
        bad.add("memory", format!("must be at most maxmem, {maxmem}"));
    }
    disks_fit(core, known, &can, &mut bad)?;
    networks_fit(core, known, &can, &mut bad)?;
    disc_fits(core, known, &mut bad)?;
    bad.done()?;
    Ok(can)
}

/// Enough of the domain to ask what the hypervisor can do with it.
pub(super) fn outline(known: &Known) -> DomainSpec {
    DomainSpec {
        id: VmId(uuid::Uuid::nil()),
        title: String::new(),
        os: None,
        vcpus: known.cpu.unwrap_or(1),
        max_vcpus: known.cpu.unwrap_or(1),
        memory: MiB(1),
        max_memory: MiB(1),
        disks: Vec::new(),
        nics: Vec::new(),
        pci: None,
        disc: None,
        console: None,
        vnc_password: Secret::new(String::new()),
    }
}

fn disks_fit(core: &Core, known: &Known, can: &Capabilities, bad: &mut Problems) -> Result<()> {
    let (storlink, sources) = core.store.read(|c| {
        let storlink = known.storlink.map(|id| storlinks::find(c, id)).transpose()?.flatten();
        let sources = known.template.map(|id| disks::of_template(c, id)).transpose()?.unwrap_or_default();
        Ok((storlink, sources))
    })?;
    let first = sources.first();
    if let (Some(size), Some(first)) = (known.os_disk_size, first)
        && size < first.size
    {
        bad.add("os_disk_size", format!("must be at least {} MiB, the size of the template's disk", first.size));
    }
    if let (Some(format), Some(storlink)) = (known.format.or(first.map(|disk| disk.format)), storlink) {
        let driver = (core.volumes)(&storlink)?;
        if !driver.info().formats.contains(&format) {
            bad.add("disk_format", format!("storlink {} has no {format} volumes", storlink.name));
        }
    }
    let count = sources.len().max(1) + usize::from(known.extra_disk_size.is_some());
    if count > usize::try_from(can.max_disks).unwrap_or(usize::MAX) {
        bad.add("extra_disk_size", format!("a vm here has at most {} disks", can.max_disks));
    }
    Ok(())
}

fn networks_fit(core: &Core, known: &Known, can: &Capabilities, bad: &mut Problems) -> Result<()> {
    if known.networks.len() > usize::try_from(can.max_nics).unwrap_or(usize::MAX) {
        bad.add("network", format!("a vm here has at most {} interfaces", can.max_nics));
    }
    for item in &known.networks {
        if let Err(why) = bridge::resolve(core, &bridge::name(core, item), can)? {
            bad.add("network", why);
        }
    }
    Ok(())
}

fn disc_fits(core: &Core, known: &Known, bad: &mut Problems) -> Result<()> {
    let Some(iso) = &known.iso else { return Ok(()) };
    match bad.absorb(iso::open(core, iso)) {
        Err(absent) if matches!(absent.kind(), ErrorKind::NotFound { .. }) => Ok(()),
        other => other.map(drop),
    }
}
