//! The images behind the disks of a running domain.

use std::collections::BTreeMap;

use quick_xml::events::BytesStart;

use super::{attribute, target, visit};
use crate::error::{Error, Result};
use crate::model::{Format, Layer, VolumeSource};

/// The disks and drives of a running domain.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Images {
    disks: Vec<Disk>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Disk {
    target: String,
    /// What is said of each image, from the one that is written to: its file and its format.
    layers: BTreeMap<usize, (Option<String>, Option<String>)>,
    mirror: Option<Mirror>,
}

/// The image that a guest is about to be moved to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct Mirror {
    pub(in super::super) file: Option<String>,
    /// `yes` when both hold the same; then `pivot` or `abort` while the job is ended so.
    pub(in super::super) ready: Option<String>,
}

/// One disk of a running domain.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct LiveDisk {
    /// The one that the guest writes to first.
    pub(in super::super) chain: Vec<Layer>,
    pub(in super::super) mirror: Option<Mirror>,
}

impl Images {
    /// `vda`, `hdc`.
    pub(in super::super) fn targets(&self) -> Vec<String> {
        self.disks.iter().map(|disk| disk.target.clone()).collect()
    }

    /// The disk of this order.
    ///
    /// # Errors
    /// `Refused` when there is none, or when it is on something that is not of ours.
    pub(in super::super) fn disk(&self, order: u32) -> Result<LiveDisk> {
        let wanted = target(order);
        let found = self.disks.iter().find(|disk| disk.target == wanted);
        let Some(disk) = found else { return Err(Error::refused("libvirt", format!("there is no disk {wanted}"))) };
        let layer = |(file, format): &(Option<String>, Option<String>)| -> Option<Layer> {
            let format: Format = format.as_deref()?.parse().ok()?;
            Some(Layer { source: VolumeSource::File(file.as_ref()?.into()), format })
        };
        let chain: Option<Vec<Layer>> = disk.layers.values().map(layer).collect();
        match chain {
            Some(chain) if !chain.is_empty() => Ok(LiveDisk { chain, mirror: disk.mirror.clone() }),
            _ => Err(Error::refused(
                "libvirt",
                format!("disk {wanted} is on an image that is no file of a known format"),
            )),
        }
    }
}

/// Reads the images from the document of a running domain; `None` when it is the document of one that is off.
pub(in super::super) fn images(document: &str) -> Result<Option<Images>> {
    let mut found = Images::default();
    let mut is_running = false;
    visit(document, |path, tag| {
        match path {
            [] => is_running = attribute(tag, "id")?.is_some(),
            ["domain", "devices"] if tag.name().as_ref() == "disk" => found.disks.push(Disk::default()),
            ["domain", "devices", "disk", within @ ..] => {
                if let Some(disk) = found.disks.last_mut() {
                    disk.read(within, tag)?;
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(is_running.then_some(found))
}

impl Disk {
    /// One element of the disk, `within` those.
    fn read(&mut self, within: &[&str], tag: &BytesStart<'_>) -> Result<(), quick_xml::Error> {
        let name = tag.name();
        match (within, name.as_ref()) {
            ([], "target") => self.target = attribute(tag, "dev")?.unwrap_or_default(),
            ([], "mirror") => self.mirror = Some(Mirror { file: None, ready: attribute(tag, "ready")? }),
            (["mirror"], "source") => {
                if let Some(mirror) = &mut self.mirror {
                    mirror.file = attribute(tag, "file")?;
                }
            }
            (stores, "source") if are_stores(stores) => self.layer(stores.len()).0 = attribute(tag, "file")?,
            ([], "driver") => self.layer(0).1 = attribute(tag, "type")?,
            (stores, "format") if are_stores(stores) => self.layer(stores.len()).1 = attribute(tag, "type")?,
            _ => {}
        }
        Ok(())
    }

    fn layer(&mut self, depth: usize) -> &mut (Option<String>, Option<String>) {
        self.layers.entry(depth).or_default()
    }
}

fn are_stores(path: &[&str]) -> bool {
    path.iter().all(|name| *name == "backingStore")
}
