//! libvirt's document of a domain: written from a [`DomainSpec`], read for the screen of one that runs. Pure.
//!
//! Formats are declared and the empty `backingStore` ends the chain, so neither libvirt nor QEMU ever looks into a disk
//! that a guest has written to find out what it is.

use askama::Template;
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use crate::error::{Error, Result};
use crate::model::{CacheMode, DomainSpec, NicLink, VncEndpoint, VolumeSource};

/// RFB authenticates with DES, whose key has so many characters.
const MAX_VNC_PASSWORD: usize = 8;

/// The length of a disk's serial number that every guest shows whole.
const SERIAL_CHARS: usize = 20;

#[derive(Template)]
#[template(path = "libvirt/domain.xml")]
struct DomainXml<'a> {
    id: String,
    domain_type: &'a str,
    cpu_mode: &'a str,
    memory: u64,
    max_memory: u64,
    vcpus: u32,
    disks: Vec<DiskXml<'a>>,
    nics: Vec<NicXml<'a>>,
    vnc_password: &'a str,
}

struct DiskXml<'a> {
    format: &'static str,
    cache: &'static str,
    file: &'a str,
    target: String,
    serial: String,
}

struct NicXml<'a> {
    mac: String,
    bridge: Option<&'a str>,
}

/// The document that defines the domain, with hardware virtualisation or without. `Invalid` when a text in it cannot be
/// said in XML, or the VNC password is too long for the protocol.
pub(super) fn write(spec: &DomainSpec, kvm: bool) -> Result<String> {
    let vnc_password = sayable("vnc password", spec.vnc_password.reveal())?;
    if vnc_password.len() > MAX_VNC_PASSWORD {
        return Err(Error::invalid("vnc password", format!("must have at most {MAX_VNC_PASSWORD} characters")));
    }
    let mut disks = Vec::with_capacity(spec.disks.len());
    for disk in &spec.disks {
        let VolumeSource::File(file) = &disk.source;
        let file = file.to_str().ok_or_else(|| Error::invalid("disk", "has a path that is not UTF-8"))?;
        disks.push((
            disk.order,
            DiskXml {
                format: disk.format.word(),
                cache: match disk.cache {
                    CacheMode::None => "none",
                    CacheMode::Writeback => "writeback",
                },
                file: sayable("disk", file)?,
                target: target(disk.order),
                serial: disk.id.0.simple().to_string().chars().take(SERIAL_CHARS).collect(),
            },
        ));
    }
    // The firmware boots the first disk of the document.
    disks.sort_by_key(|(order, _)| *order);
    let mut nics = Vec::with_capacity(spec.nics.len());
    for nic in &spec.nics {
        let bridge = match &nic.link {
            NicLink::Bridge(name) => Some(sayable("bridge", name)?),
            NicLink::User => None,
        };
        nics.push(NicXml { mac: nic.mac.to_string(), bridge });
    }
    let document = DomainXml {
        id: spec.id.to_string(),
        domain_type: if kvm { "kvm" } else { "qemu" },
        cpu_mode: if kvm { "host-passthrough" } else { "maximum" },
        memory: spec.memory.0,
        max_memory: spec.max_memory.0,
        vcpus: spec.vcpus,
        disks: disks.into_iter().map(|(_, disk)| disk).collect(),
        nics,
        vnc_password,
    };
    document.render().map_err(|e| Error::internal("writing the domain's XML").caused_by(e))
}

/// Escaping cannot help what XML has no way to say, and an attribute would lose its line breaks.
fn sayable<'a>(field: &str, text: &'a str) -> Result<&'a str> {
    if text.chars().any(|c| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}')) {
        return Err(Error::invalid(field, "must not have control characters"));
    }
    Ok(text)
}

/// The guest's device of a disk: `vda` to `vdz`, then `vdaa`.
fn target(order: u32) -> String {
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
    let damaged = || Error::internal("libvirt's document of a domain cannot be read");
    let mut reader = Reader::from_str(document);
    let mut path: Vec<String> = Vec::new();
    loop {
        let event = reader.read_event().map_err(|e| damaged().caused_by(e))?;
        match &event {
            Event::Start(tag) | Event::Empty(tag) => {
                if tag.name().as_ref() == "graphics" && path == ["domain", "devices"] {
                    let screen = graphics(tag).map_err(|e| damaged().caused_by(e))?;
                    if screen != Screen::None {
                        return Ok(screen);
                    }
                }
                if matches!(event, Event::Start(_)) {
                    path.push(tag.name().as_ref().to_owned());
                }
            }
            Event::End(_) => {
                path.pop();
            }
            Event::Eof => return Ok(Screen::None),
            _ => {}
        }
    }
}

fn graphics(tag: &BytesStart<'_>) -> Result<Screen, quick_xml::Error> {
    let attribute = |name: &str| -> Result<Option<String>, quick_xml::Error> {
        match tag.try_get_attribute(name)? {
            Some(found) => Ok(Some(found.normalized_value(quick_xml::XmlVersion::Implicit1_0)?.into_owned())),
            None => Ok(None),
        }
    };
    if attribute("type")?.as_deref() != Some("vnc") {
        return Ok(Screen::None);
    }
    // Without the attribute it listens on a socket alone; -1 is a port still to be chosen.
    let Some(port) = attribute("port")? else { return Ok(Screen::None) };
    let port = port.parse().ok().filter(|port| *port > 0);
    let host = attribute("listen")?.filter(|host| !host.is_empty()).unwrap_or_else(|| "127.0.0.1".to_owned());
    Ok(port.map_or(Screen::NotYet, |port| Screen::At(VncEndpoint { host, port })))
}

#[cfg(test)]
mod tests;
