//! What libvirt's documents of a domain say of it, for a comparison with records. Pure.

use std::path::PathBuf;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::domain_xml::target;
use crate::error::{Error, Result};
use crate::model::{DefinedDisk, Definition, Mac, MiB};

/// More than any domain has disks.
const MAX_ORDER: u32 = 1024;

/// Reads the document of what is defined and, of a domain that runs, the one of what it has now.
pub(super) fn read(defined: &str, running: Option<&str>) -> Result<Definition> {
    let mut definition = Definition::default();
    visit(defined, &mut definition)?;
    if let Some(running) = running {
        let mut now = Definition::default();
        visit(running, &mut now)?;
        definition.files.append(&mut now.files);
    }
    definition.macs.sort();
    definition.disks.sort_by_key(|disk| disk.order);
    Ok(definition)
}

/// The disk that is being read.
#[derive(Default)]
struct Disk {
    is_drive: bool,
    disk: DefinedDisk,
}

fn visit(document: &str, found: &mut Definition) -> Result<()> {
    let damaged = || Error::internal("libvirt's document of a domain cannot be read");
    let mut reader = Reader::from_str(document);
    let mut path: Vec<String> = Vec::new();
    let mut unit = 1024;
    let mut disk = Disk::default();
    loop {
        let event = reader.read_event().map_err(|e| damaged().caused_by(e))?;
        match &event {
            Event::Start(tag) | Event::Empty(tag) => {
                let around: Vec<&str> = path.iter().map(String::as_str).collect();
                look(&around, tag, found, &mut disk, &mut unit).map_err(|e| damaged().caused_by(e))?;
                if matches!(event, Event::Start(_)) {
                    path.push(tag.name().as_ref().to_owned());
                }
            }
            Event::Text(text) => {
                let around: Vec<&str> = path.iter().map(String::as_str).collect();
                number(&around, text, unit, found);
            }
            Event::End(_) => {
                path.pop();
            }
            Event::Eof => return Ok(()),
            _ => {}
        }
    }
}

fn look(
    around: &[&str],
    tag: &BytesStart<'_>,
    found: &mut Definition,
    disk: &mut Disk,
    unit: &mut u64,
) -> Result<(), quick_xml::Error> {
    let name = tag.name();
    // Wherever it stands: a backing file or a mirror is in use as well.
    if name.as_ref() == "source"
        && let Some(file) = attribute(tag, "file")?
    {
        found.files.insert(PathBuf::from(file));
    }
    match (around, name.as_ref()) {
        (["domain"], "memory" | "currentMemory") => {
            *unit = match attribute(tag, "unit")?.as_deref() {
                Some("b" | "bytes") => 1,
                Some("M" | "MiB") => 1 << 20,
                Some("G" | "GiB") => 1 << 30,
                _ => 1024,
            };
        }
        (["domain"], "vcpu") => {
            found.vcpus = attribute(tag, "current")?.and_then(|count| count.parse().ok()).unwrap_or_default();
        }
        (["domain", "devices"], "disk") => {
            *disk = Disk {
                is_drive: attribute(tag, "device")?.is_some_and(|device| device != "disk"),
                disk: DefinedDisk::default(),
            };
        }
        (["domain", "devices", "disk"], "driver") => {
            disk.disk.format = attribute(tag, "type")?.unwrap_or_default();
        }
        (["domain", "devices", "disk"], "source") => disk.disk.file = attribute(tag, "file")?.map(PathBuf::from),
        // After driver and source in every document that libvirt writes.
        (["domain", "devices", "disk"], "target") if !disk.is_drive => {
            let place = attribute(tag, "dev")?.unwrap_or_default();
            let order = (0..MAX_ORDER).find(|order| target(*order) == place);
            found.disks.push(DefinedDisk { order, ..std::mem::take(&mut disk.disk) });
        }
        (["domain", "devices", "interface"], "mac") => {
            let mac: Option<Mac> = attribute(tag, "address")?.and_then(|mac| mac.parse().ok());
            found.macs.extend(mac);
        }
        _ => {}
    }
    Ok(())
}

fn number(around: &[&str], text: &str, unit: u64, found: &mut Definition) {
    let text = text.trim();
    match around {
        ["domain", "name"] => text.clone_into(&mut found.name),
        // Without the attribute all are there.
        ["domain", "vcpu"] if found.vcpus == 0 => found.vcpus = text.parse().unwrap_or_default(),
        ["domain", "memory"] => found.max_memory = mib(text, unit),
        ["domain", "currentMemory"] => found.memory = mib(text, unit),
        _ => {}
    }
}

fn mib(text: &str, unit: u64) -> MiB {
    MiB::from_bytes_ceil(text.parse::<u64>().unwrap_or_default().saturating_mul(unit))
}

fn attribute(tag: &BytesStart<'_>, name: &str) -> Result<Option<String>, quick_xml::Error> {
    match tag.try_get_attribute(name)? {
        Some(found) => Ok(Some(found.normalized_value(quick_xml::XmlVersion::Implicit1_0)?.into_owned())),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_read_with_every_file_that_it_names() {
        let defined = "<domain type='kvm' id='3'><name>pengx-x</name><title>a</title>
            <memory unit='KiB'>131072</memory><currentMemory unit='KiB'>65536</currentMemory>
            <vcpu placement='static' current='1'>16</vcpu>
            <devices>
              <disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/>
                <source file='/s/b &amp; c.qcow2'/><backingStore type='file'><format type='raw'/>
                <source file='/s/base.raw'/><backingStore/></backingStore>
                <target dev='vdb' bus='virtio'/></disk>
              <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/s/a.raw'/>
                <target dev='vda' bus='virtio'/></disk>
              <disk type='block' device='disk'><source dev='/dev/sdb'/><target dev='sda' bus='scsi'/></disk>
              <disk type='file' device='cdrom'><source file='/s/x.iso'/><target dev='hdc' bus='ide'/></disk>
              <interface type='user'><mac address='52:54:00:00:00:02'/></interface>
              <interface type='user'><mac address='52:54:00:00:00:01'/></interface>
            </devices></domain>";
        let running = "<domain><devices><disk type='file' device='disk'><source file='/s/new.qcow2'/>
            <mirror type='file'><source file='/t/m.qcow2'/></mirror><target dev='vda'/></disk></devices></domain>";
        let read = read(defined, Some(running)).unwrap();
        assert_eq!((read.name.as_str(), read.vcpus, read.memory, read.max_memory), ("pengx-x", 1, MiB(64), MiB(128)));
        let disk = |order, file: Option<&str>, format: &str| DefinedDisk {
            order,
            file: file.map(PathBuf::from),
            format: format.to_owned(),
        };
        assert_eq!(
            read.disks,
            [
                disk(None, None, ""),
                disk(Some(0), Some("/s/a.raw"), "raw"),
                disk(Some(1), Some("/s/b & c.qcow2"), "qcow2")
            ]
        );
        assert_eq!(
            read.macs.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["52:54:00:00:00:01", "52:54:00:00:00:02"]
        );
        let files: Vec<_> = read.files.iter().map(|file| file.to_str().unwrap()).collect();
        assert_eq!(files, ["/s/a.raw", "/s/b & c.qcow2", "/s/base.raw", "/s/new.qcow2", "/s/x.iso", "/t/m.qcow2"]);
        let all = super::read("<domain><vcpu>4</vcpu><memory>2048</memory></domain>", None).unwrap();
        assert_eq!((all.vcpus, all.max_memory), (4, MiB(2)));
        assert!(super::read("<domain><vcpu", None).is_err());
    }
}
