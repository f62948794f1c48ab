//! libvirt's document of a domain: written from a [`DomainSpec`], whole or the one device that is plugged in; read for the
//! screen, the devices and the images of one that runs. Pure.
//!
//! Every image of a chain is declared with its format, and the empty `backingStore` ends it, so neither libvirt nor QEMU
//! ever looks into what a guest has written to find out what it is or what it is on.

mod images;

use askama::Template;
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use crate::error::{Error, Result};
use crate::model::{
    CacheMode, DiskSpec, DomainSpec, Layer, Mac, NicLink, NicSpec, PciAddress, VmId, VncEndpoint, VolumeSource,
};

pub(super) use images::{Images, LiveDisk, images};

/// RFB authenticates with DES, whose key has so many characters.
const MAX_VNC_PASSWORD: usize = 8;

/// Of the VM's uuid in the serial number of a disk, which has room for four more characters in the 20 that every guest
/// shows.
const SERIAL_DIGITS: usize = 16;

/// The CD-ROM drive, which every domain has: an IDE drive cannot be plugged in.
const DRIVE: &str = "hdc";

#[derive(Template)]
#[template(path = "libvirt/domain.xml")]
struct DomainXml<'a> {
    id: String,
    title: String,
    domain_type: &'a str,
    cpu_mode: &'a str,
    memory: u64,
    max_memory: u64,
    vcpus: u32,
    max_vcpus: u32,
    disks: Vec<DiskXml<'a>>,
    drive: DriveXml<'a>,
    nics: Vec<NicXml<'a>>,
    pci: Option<PciAddress>,
    console: Option<&'a str>,
    vnc_password: &'a str,
}

struct DiskXml<'a> {
    format: &'static str,
    cache: &'static str,
    file: &'a str,
    /// From the next image to the last; each is written inside the one that is on it.
    backing: Vec<LayerXml<'a>>,
    target: String,
    serial: String,
}

struct LayerXml<'a> {
    format: &'static str,
    file: &'a str,
}

struct DriveXml<'a> {
    target: &'static str,
    file: Option<&'a str>,
}

struct NicXml<'a> {
    mac: String,
    bridge: Option<&'a str>,
    unplugged: bool,
}

/// One device, in the very words that it has in the document of a domain.
#[derive(Template)]
#[template(path = "libvirt/disk.xml")]
struct DiskDocument<'a> {
    disk: DiskXml<'a>,
}

#[derive(Template)]
#[template(path = "libvirt/drive.xml")]
struct DriveDocument<'a> {
    drive: DriveXml<'a>,
}

#[derive(Template)]
#[template(path = "libvirt/nic.xml")]
struct NicDocument<'a> {
    nic: NicXml<'a>,
}

/// Moves the disks onto overlays that are there, and names the others, lest libvirt chooses for them.
#[derive(Template)]
#[template(path = "libvirt/overlays.xml")]
struct OverlaysDocument<'a> {
    overlays: Vec<OverlayXml<'a>>,
    others: Vec<&'a str>,
}

struct OverlayXml<'a> {
    target: String,
    format: &'static str,
    file: &'a str,
}

#[derive(Template)]
#[template(path = "libvirt/mirror.xml")]
struct MirrorDocument<'a> {
    to: LayerXml<'a>,
}

impl<'a> DiskXml<'a> {
    fn new(vm: VmId, disk: &'a DiskSpec) -> Result<Self> {
        Ok(Self {
            format: disk.format.word(),
            cache: match disk.cache {
                CacheMode::None => "none",
                CacheMode::Writeback => "writeback",
            },
            file: file("disk", &disk.source)?,
            backing: disk.backing.iter().map(LayerXml::new).collect::<Result<_>>()?,
            target: target(disk.order),
            serial: serial(vm, disk.order),
        })
    }
}

impl<'a> LayerXml<'a> {
    fn new(layer: &'a Layer) -> Result<Self> {
        Ok(Self { format: layer.format.word(), file: file("image", &layer.source)? })
    }
}

impl<'a> DriveXml<'a> {
    fn new(disc: Option<&'a VolumeSource>) -> Result<Self> {
        Ok(Self { target: DRIVE, file: disc.map(|disc| file("disc", disc)).transpose()? })
    }
}

impl<'a> NicXml<'a> {
    fn new(nic: &'a NicSpec) -> Result<Self> {
        let bridge = match &nic.link {
            NicLink::Bridge(name) => Some(sayable("bridge", name)?),
            NicLink::User | NicLink::Unplugged => None,
        };
        Ok(Self { mac: nic.mac.to_string(), bridge, unplugged: nic.link == NicLink::Unplugged })
    }
}

/// The document that defines the domain, with hardware virtualisation or without. `Invalid` when a text in it cannot be
/// said in XML, or the VNC password is too long for the protocol.
pub(super) fn write(spec: &DomainSpec, kvm: bool) -> Result<String> {
    let vnc_password = sayable("vnc password", spec.vnc_password.reveal())?;
    if vnc_password.len() > MAX_VNC_PASSWORD {
        return Err(Error::invalid("vnc password", format!("must have at most {MAX_VNC_PASSWORD} characters")));
    }
    // The firmware boots the first disk of the document.
    let mut disks: Vec<&DiskSpec> = spec.disks.iter().collect();
    disks.sort_by_key(|disk| disk.order);
    rendered(&DomainXml {
        id: spec.id.to_string(),
        title: title(&spec.title),
        domain_type: if kvm { "kvm" } else { "qemu" },
        cpu_mode: if kvm { "host-passthrough" } else { "maximum" },
        memory: spec.memory.0,
        max_memory: spec.max_memory.0,
        vcpus: spec.vcpus,
        max_vcpus: spec.max_vcpus,
        disks: disks.into_iter().map(|disk| DiskXml::new(spec.id, disk)).collect::<Result<_>>()?,
        drive: DriveXml::new(spec.disc.as_ref())?,
        nics: spec.nics.iter().map(NicXml::new).collect::<Result<_>>()?,
        pci: spec.pci,
        console: spec.console.as_ref().map(|console| file("console", console)).transpose()?,
        vnc_password,
    })
}

/// What a guest knows its disk by: it stays the same whatever image the disk is on.
fn serial(vm: VmId, order: u32) -> String {
    let digits: String = vm.0.simple().to_string().chars().take(SERIAL_DIGITS).collect();
    format!("{digits}-{order}")
}

/// The document that plugs in the disk. `Invalid` as in [`write`], here and below.
pub(super) fn disk(vm: VmId, disk: &DiskSpec) -> Result<String> {
    rendered(&DiskDocument { disk: DiskXml::new(vm, disk)? })
}

/// The document that plugs in the NIC.
pub(super) fn nic(nic: &NicSpec) -> Result<String> {
    rendered(&NicDocument { nic: NicXml::new(nic)? })
}

/// The document that puts the disc into the drive, or takes out what is there.
pub(super) fn drive(disc: Option<&VolumeSource>) -> Result<String> {
    rendered(&DriveDocument { drive: DriveXml::new(disc)? })
}

/// The document that moves the disks of a domain onto overlays, and leaves alone the other ones that it has.
pub(super) fn overlays(overlays: &[DiskSpec], targets: &[String]) -> Result<String> {
    let mut moved = Vec::new();
    for disk in overlays {
        let file = file("overlay", &disk.source)?;
        moved.push(OverlayXml { target: target(disk.order), format: disk.format.word(), file });
    }
    let is_other = |target: &&str| moved.iter().all(|overlay| overlay.target != *target);
    let others = targets.iter().map(String::as_str).filter(is_other).collect();
    rendered(&OverlaysDocument { overlays: moved, others })
}

/// The document of the image that a disk is mirrored to.
pub(super) fn mirror(to: &Layer) -> Result<String> {
    rendered(&MirrorDocument { to: LayerXml::new(to)? })
}

fn rendered(document: &impl Template) -> Result<String> {
    document.render().map_err(|e| Error::internal("writing XML for libvirt").caused_by(e))
}

/// The file of a volume, as libvirt's document says it.
pub(super) fn file<'a>(field: &str, volume: &'a VolumeSource) -> Result<&'a str> {
    let VolumeSource::File(file) = volume;
    let file = file.to_str().ok_or_else(|| Error::invalid(field, "has a path that is not UTF-8"))?;
    sayable(field, file)
}

/// libvirt wants it on one line; it is for people only, so what cannot be in it is left out.
fn title(name: &str) -> String {
    let breaks_or_hides = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    name.chars().filter(|c| !breaks_or_hides(*c)).collect()
}

/// Escaping cannot help what XML has no way to say, and an attribute would lose its line breaks.
fn sayable<'a>(field: &str, text: &'a str) -> Result<&'a str> {
    if text.chars().any(|c| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}')) {
        return Err(Error::invalid(field, "must not have control characters"));
    }
    Ok(text)
}

/// The guest's device of a disk: `vda` to `vdz`, then `vdaa`.
pub(in crate::hypervisor) fn target(order: u32) -> String {
    let mut letters = Vec::new();
    let mut rest = u64::from(order) + 1;
    while rest > 0 {
        let letter = u8::try_from((rest - 1) % 26).unwrap_or(0);
        letters.push(char::from(b'a' + letter));
        rest = (rest - 1) / 26;
    }
    letters.push('d');
    letters.push('v');
    letters.into_iter().rev().collect()
}

/// Where the screen of a running domain is, as far as its document can say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Screen {
    At(VncEndpoint),
    /// It has no VNC screen.
    None,
    /// It will have one, but the port is not known yet.
    NotYet,
}

/// Reads `/domain/devices/graphics` of the document of a running domain.
pub(super) fn screen(document: &str) -> Result<Screen> {
    let mut found = Screen::None;
    visit(document, |path, tag| {
        if path == ["domain", "devices"] && tag.name().as_ref() == "graphics" && found == Screen::None {
            found = graphics(tag)?;
        }
        Ok(())
    })?;
    Ok(found)
}

fn graphics(tag: &BytesStart<'_>) -> Result<Screen, quick_xml::Error> {
    if attribute(tag, "type")?.as_deref() != Some("vnc") {
        return Ok(Screen::None);
    }
    // Without the attribute it listens on a socket alone; -1 is a port still to be chosen.
    let Some(port) = attribute(tag, "port")? else { return Ok(Screen::None) };
    let port = port.parse().ok().filter(|port| *port > 0);
    let host = attribute(tag, "listen")?.filter(|host| !host.is_empty()).unwrap_or_else(|| "127.0.0.1".to_owned());
    Ok(port.map_or(Screen::NotYet, |port| Screen::At(VncEndpoint { host, port })))
}

/// A disk, a drive or a NIC of a running domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Device {
    /// What libvirt calls it while it is plugged in.
    pub(super) alias: String,
    /// `vda`; of a disk or drive.
    target: Option<String>,
    /// The image behind it.
    pub(super) file: Option<String>,
    mac: Option<Mac>,
    /// A drive that the guest, or somebody, has opened.
    pub(super) is_open: bool,
}

impl Device {
    pub(super) fn is_disk(&self, order: u32) -> bool {
        self.target.as_ref().is_some_and(|is| *is == target(order))
    }

    pub(super) fn is_drive(&self) -> bool {
        self.target.as_deref() == Some(DRIVE)
    }

    pub(super) fn is_nic(&self, mac: Mac) -> bool {
        self.mac == Some(mac)
    }
}

/// Reads what is plugged in from the document of a running domain.
pub(super) fn devices(document: &str) -> Result<Vec<Device>> {
    let mut found: Vec<Device> = Vec::new();
    visit(document, |path, tag| {
        let name = tag.name();
        match path {
            ["domain", "devices"] => found.push(Device::default()),
            // No deeper: a disk may have a mirror or a backing file with a source of its own.
            ["domain", "devices", "disk" | "interface"] => {
                let Some(device) = found.last_mut() else { return Ok(()) };
                match name.as_ref() {
                    "alias" => device.alias = attribute(tag, "name")?.unwrap_or_default(),
                    "source" => device.file = attribute(tag, "file")?,
                    "mac" => device.mac = attribute(tag, "address")?.and_then(|mac| mac.parse().ok()),
                    "target" => {
                        device.target = attribute(tag, "dev")?;
                        device.is_open = attribute(tag, "tray")?.as_deref() == Some("open");
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(found)
}

/// Each element of a document, with the names of those around it.
fn visit(document: &str, mut each: impl FnMut(&[&str], &BytesStart<'_>) -> Result<(), quick_xml::Error>) -> Result<()> {
    let damaged = || Error::internal("libvirt's document of a domain cannot be read");
    let mut reader = Reader::from_str(document);
    let mut path: Vec<String> = Vec::new();
    loop {
        let event = reader.read_event().map_err(|e| damaged().caused_by(e))?;
        match &event {
            Event::Start(tag) | Event::Empty(tag) => {
                let around: Vec<&str> = path.iter().map(String::as_str).collect();
                each(&around, tag).map_err(|e| damaged().caused_by(e))?;
                if matches!(event, Event::Start(_)) {
                    path.push(tag.name().as_ref().to_owned());
                }
            }
            Event::End(_) => {
                path.pop();
            }
            Event::Eof => return Ok(()),
            _ => {}
        }
    }
}

fn attribute(tag: &BytesStart<'_>, name: &str) -> Result<Option<String>, quick_xml::Error> {
    match tag.try_get_attribute(name)? {
        Some(found) => Ok(Some(found.normalized_value(quick_xml::XmlVersion::Implicit1_0)?.into_owned())),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests;
