//! Templates.

use askama::Template as Document;
use serde::Deserialize;

use super::fields::{Field, Judge};
use super::style::{Style, boolean};
use super::{Call, Failure, Reply, Shape};
use crate::error::Result;
use crate::model::{DiskId, Format, StorlinkId};
use crate::operations::template::{self, AddTemplate, TemplateView};

/// Row 15.
pub async fn index(call: Call) -> Result<Reply, Failure> {
    let templates = call.core.read(template::list).await?;
    match call.shape {
        Shape::V1 => Reply::ok(&TemplatesV1 { templates: &templates }),
        Shape::V2 => Reply::ok(&TemplatesV2 { templates: &templates, style: call.style() }),
    }
}

/// Row 11.
pub async fn add(mut call: Call) -> Result<Reply, Failure> {
    let (image, command) = call.body::<AddBody>().await?.read();
    match command {
        Ok(command) => call.perform(command, |done| Reply::made(done.outcome)).await,
        Err(bad) => {
            call.refuse(bad, move |core| {
                image.map(|image| template::check(core, image.storlink, image.disk, image.format)).transpose()
            })
            .await
        }
    }
}

/// Row 15 below a v1 prefix: `templates`.
#[derive(Document)]
#[template(path = "pengx/templates_v1.xml")]
pub struct TemplatesV1<'a> {
    pub templates: &'a [TemplateView],
}

/// Row 15 elsewhere: a superset in the same order.
#[derive(Document)]
#[template(path = "pengx/templates_v2.xml")]
pub struct TemplatesV2<'a> {
    pub templates: &'a [TemplateView],
    pub style: &'a Style,
}

/// Row 11.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct AddBody {
    name: Field,
    os: Field,
    os_arch: Field,
    desc: Field,
    disk: DiskBody,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DiskBody {
    storlink: Field,
    uuid: Field,
    format: Field,
}

impl AddBody {
    /// The image if it can be read which one it is, and the whole command or every problem of the body.
    pub fn read(self) -> (Option<Image>, Result<AddTemplate>) {
        let mut judge = Judge::default();
        let name = judge.needed("name", self.name);
        let os = judge.needed("os", self.os);
        let os_arch = judge.needed("os_arch", self.os_arch);
        let desc = judge.desc("desc", self.desc);
        let storlink = judge.needed("disk.storlink", self.disk.storlink);
        let disk = judge.needed("disk.uuid", self.disk.uuid);
        let format = judge.needed("disk.format", self.disk.format);
        let image = storlink.zip(disk).zip(format).map(|((storlink, disk), format)| Image { storlink, disk, format });
        let command = judge.done(|| {
            Some(AddTemplate {
                name: name?,
                os: os?,
                os_arch: os_arch?,
                desc,
                storlink: storlink?,
                disk: disk?,
                format: format?,
            })
        });
        (image, command)
    }
}

/// Which image is to be a template.
pub struct Image {
    storlink: StorlinkId,
    disk: DiskId,
    format: Format,
}

/// Row 17.
pub async fn add_new(call: Call) -> Result<Reply, Failure> {
    super::resources::not_yet(call).await
}

/// Row 18.
pub async fn retrieve(call: Call) -> Result<Reply, Failure> {
    super::resources::not_yet(call).await
}

/// Row 16.
pub async fn update(call: Call) -> Result<Reply, Failure> {
    super::resources::not_yet(call).await
}

/// Row 13.
pub async fn delete(call: Call) -> Result<Reply, Failure> {
    super::resources::not_yet(call).await
}

/// Row 14.
pub async fn disks(call: Call) -> Result<Reply, Failure> {
    super::resources::not_yet(call).await
}

/// Row choice.
pub async fn start(call: Call) -> Result<Reply, Failure> {
    super::resources::not_yet(call).await
}

/// Row choice.
pub async fn shutdown(call: Call) -> Result<Reply, Failure> {
    super::resources::not_yet(call).await
}

/// Row choice.
pub async fn poweroff(call: Call) -> Result<Reply, Failure> {
    super::resources::not_yet(call).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::pengx::reply::render;
    use crate::dialects::pengx::vms::tests::time;
    use crate::dialects::pengx::{de, xml};
    use crate::model::{MiB, Os, OsArch, PowerState, Seen, Template};

    fn command(document: &str) -> Result<AddTemplate, String> {
        let body: AddBody = de::from_node(xml::parse(document).unwrap()).unwrap();
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
    <uuid>bed05d84-7c44-4720-9588-57cbd8ecef8c</uuid>
    <format>qcow2</format>
  </disk>
</template>
"#;
        let expected = AddTemplate {
            name: "debian 8 64bit template".parse().unwrap(),
            os: Os::Debian,
            os_arch: OsArch::X64,
            desc: "Debian 8 jessie 64bit template".to_owned(),
            storlink: StorlinkId(11),
            disk: "bed05d84-7c44-4720-9588-57cbd8ecef8c".parse().unwrap(),
            format: Format::Qcow2,
        };
        assert_eq!(command(example), Ok(expected));
    }

    #[test]
    fn every_problem_is_told() {
        assert_eq!(
            command("<t><os>DOS</os><os_arch/><disk><storlink>x</storlink><uuid>7</uuid></disk></t>").unwrap_err(),
            "name: is required; os: must be one of ARCH, CENTOS, COREOS, DEBIAN, FEDORA, GENTOO, RHEL, UBUNTU, WINDOWS, OTHER; \
             os_arch: is required; disk.storlink: must be a whole number; disk.uuid: must be a uuid; disk.format: is required"
        );
        assert!(command("<t><disk/></t>").unwrap_err().contains("disk.storlink: is required; disk.uuid: is required"));
    }

    #[test]
    fn the_documents_are_the_manuals() {
        let template = Template {
            id: "0f6a9c1e-0000-4000-8000-00000000000c".parse().unwrap(),
            name: "debian".to_owned(),
            os: Os::Debian,
            os_arch: OsArch::X64,
            desc: String::new(),
            pm: "0f6a9c1e-0000-4000-8000-00000000000a".parse().unwrap(),
            seen: Seen::default(),
            iso: None,
            vnc_password: None,
            created_at: time("2017-07-26 15:04:05"),
            recent_booted_at: None,
            updated_at: time("2017-07-26 15:04:05"),
        };
        let views = [TemplateView { template, size: MiB(2048), locked: true, state: PowerState::Shutdown }];
        assert_eq!(
            render(&TemplatesV1 { templates: &views }).unwrap(),
            r#"<templates>
  <template id="0f6a9c1e-0000-4000-8000-00000000000c">
    <name>debian</name>
    <size>2048</size>
    <os>DEBIAN</os>
    <os_arch>X64</os_arch>
    <desc></desc>
  </template>
</templates>
"#
        );
        assert_eq!(
            render(&TemplatesV2 { templates: &views, style: &Style::default() }).unwrap(),
            r#"<templates>
  <template id="0f6a9c1e-0000-4000-8000-00000000000c">
    <name>debian</name>
    <size>2048</size>
    <os>DEBIAN</os>
    <os_arch>X64</os_arch>
    <desc></desc>
    <lock_status>True</lock_status>
    <pm>0f6a9c1e-0000-4000-8000-00000000000a</pm>
    <state>SHUTDOWN</state>
    <recent_booted_at>None</recent_booted_at>
  </template>
</templates>
"#
        );
    }
}
