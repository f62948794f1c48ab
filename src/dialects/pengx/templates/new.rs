//! Row 17: a template with an empty disk.

use serde::Deserialize;

use super::super::fields::{Field, Judge};
use super::super::vms::MAX_DISK;
use super::super::{Call, Failure, Reply};
use crate::error::Result;
use crate::model::{Format, Iso, MiB, StorlinkId};
use crate::operations::template::{self, NewTemplate};

pub async fn add_new(mut call: Call) -> Result<Reply, Failure> {
    let (place, command) = call.body::<Body>().await?.read();
    match command {
        Ok(command) => call.perform(command, |done| Reply::made(done.outcome)).await,
        Err(bad) => {
            let check = |place: Place| {
                move |core: &_| template::check_new(core, place.storlink, place.format, place.iso.as_ref())
            };
            match place {
                Some(place) => call.refuse(bad, check(place)).await,
                None => Err(bad.into()),
            }
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    name: Field,
    os: Field,
    os_arch: Field,
    desc: Field,
    disk: DiskBody,
    /// Not in the manual.
    iso: Field,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DiskBody {
    storlink: Field,
    size: Field,
    format: Field,
}

/// Where the disk is to be, as far as it can be read.
struct Place {
    storlink: StorlinkId,
    format: Option<Format>,
    iso: Option<Iso>,
}

impl Body {
    /// The place if it can be read which one it is, and the whole command or every problem of the body.
    fn read(self) -> (Option<Place>, Result<NewTemplate>) {
        let mut judge = Judge::default();
        let name = judge.needed("name", self.name);
        let os = judge.needed("os", self.os);
        let os_arch = judge.needed("os_arch", self.os_arch);
        let desc = judge.desc("desc", self.desc);
        let storlink = judge.needed("disk.storlink", self.disk.storlink);
        let size = judge.needed_number("disk.size", self.disk.size, 1..=MAX_DISK.0).map(MiB);
        let format = judge.needed("disk.format", self.disk.format);
        let iso: Option<Iso> = judge.optional("iso", self.iso);
        let place = storlink.map(|storlink| Place { storlink, format, iso: iso.clone() });
        let command = judge.done(|| {
            Some(NewTemplate {
                name: name?,
                os: os?,
                os_arch: os_arch?,
                desc,
                storlink: storlink?,
                size: size?,
                format: format?,
                iso,
            })
        });
        (place, command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::pengx::{de, xml};
    use crate::model::{Os, OsArch};

    fn command(document: &str) -> Result<NewTemplate, String> {
        let body: Body = de::from_node(xml::parse(document).unwrap()).unwrap();
        body.read().1.map_err(|e| e.to_string())
    }

    #[test]
    fn the_manuals_example_is_taken() {
        let example = r#"<template>
  <name>debian 8 64bit template</name>
  <os>DEBIAN</os>
  <os_arch>X64</os_arch>
  <desc>Debian 8 jessie 64bit template</desc>
  <disk>
    <storlink>11</storlink>
    <size>102400</size> <!-- unit: MB -->
    <format>qcow2</format>
  </disk>
</template>
"#;
        let expected = NewTemplate {
            name: "debian 8 64bit template".parse().unwrap(),
            os: Os::Debian,
            os_arch: OsArch::X64,
            desc: "Debian 8 jessie 64bit template".to_owned(),
            storlink: StorlinkId(11),
            size: MiB(102_400),
            format: Format::Qcow2,
            iso: None,
        };
        assert_eq!(command(example), Ok(expected));
    }

    #[test]
    fn every_problem_is_told() {
        assert_eq!(
            command("<t><disk><size>0</size></disk><iso>debian.iso</iso></t>").unwrap_err(),
            "name: is required; os: is required; os_arch: is required; disk.storlink: is required; \
             disk.size: must be from 1 to 1073741824; disk.format: is required; \
             iso: must be STORLINK/FILE.iso, as in 2/debian.iso"
        );
    }
}
