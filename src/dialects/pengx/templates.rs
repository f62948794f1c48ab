//! Templates.

mod change;
mod create;
mod new;
mod power;

use askama::Template as Document;
use serde::Deserialize;

use super::fields::{Field, Judge};
use super::style::{Or, Style, boolean, or_empty};
use super::{Call, Failure, Reply, Shape};
use crate::error::Result;
use crate::model::{DiskId, Format, Right, StorlinkId, TemplateId};
use crate::operations::disk::{self, DiskView};
use crate::operations::template::{self, AddTemplate, DeleteTemplate, TemplateView};

pub use change::update;
pub use create::create;
pub use new::add_new;
pub use power::{poweroff, shutdown, start};

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

/// Row 18. The manual has it from v2 on; below a v1 prefix it shows what the list shows there.
pub async fn retrieve(call: Call) -> Result<Reply, Failure> {
    let id = call.template()?;
    let template = call.core.read(move |core| template::find(core, id)).await?;
    match call.shape {
        Shape::V1 => Reply::ok(&TemplateV1 { gvm: &template }),
        Shape::V2 => {
            let may_open_console = call.core.caller().may(Right::Operate);
            Reply::ok(&TemplateV2 { gvm: &template, may_open_console, style: call.style() })
        }
    }
}

/// Row 13.
pub async fn delete(call: Call) -> Result<Reply, Failure> {
    call.perform(DeleteTemplate { template: call.template()? }, |_| Reply::NoContent).await
}

/// Row 14.
pub async fn disks(call: Call) -> Result<Reply, Failure> {
    let template = call.template()?;
    let disks = call.core.read(move |core| disk::of_template(core, template)).await?;
    Reply::ok(&DisksView { template, disks: &disks, style: call.style() })
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

/// Row 18 below a v1 prefix: `template`.
#[derive(Document)]
#[template(path = "pengx/template_v1.xml")]
pub struct TemplateV1<'a> {
    pub gvm: &'a TemplateView,
}

/// Row 18 elsewhere: `template`.
#[derive(Document)]
#[template(path = "pengx/template_v2.xml")]
pub struct TemplateV2<'a> {
    pub gvm: &'a TemplateView,
    /// Else the password is not shown.
    pub may_open_console: bool,
    pub style: &'a Style,
}

impl TemplateV2<'_> {
    fn vnc_port(&self) -> Or<'_, u16> {
        self.style.or_null(self.gvm.observed.vnc.as_ref().map(|vnc| vnc.port))
    }

    /// A template that was never started has none.
    fn vnc_password(&self) -> Or<'_, &str> {
        self.style.or_null(self.gvm.template.vnc_password.as_ref().map(|secret| secret.reveal()))
    }
}

/// Row 14: `disks`.
#[derive(Document)]
#[template(path = "pengx/template_disks.xml")]
pub struct DisksView<'a> {
    pub template: TemplateId,
    pub disks: &'a [DiskView],
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::pengx::reply::render;
    use crate::dialects::pengx::vms::tests::time;
    use crate::dialects::pengx::{de, xml};
    use crate::model::{Disk, DiskOwner, MiB, Os, OsArch, PowerState, Secret, Seen, StorlinkLevel};
    use crate::model::{Template, VncEndpoint, VolumeName};
    use crate::operations::inventory::Observed;

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

    fn view() -> TemplateView {
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
        let observed = Observed { state: PowerState::Shutdown, vnc: None, number: None };
        TemplateView { template, size: MiB(2048), locked: true, observed }
    }

    #[test]
    fn the_single_reads_are_the_manuals() {
        let mut gvm = view();
        let style = Style::default();
        let v1 = "<template id=\"0f6a9c1e-0000-4000-8000-00000000000c\">\n  <name>debian</name>\n  <size>2048</size>\n  \
                  <os>DEBIAN</os>\n  <os_arch>X64</os_arch>\n  <desc></desc>\n</template>\n";
        assert_eq!(render(&TemplateV1 { gvm: &gvm }).unwrap(), v1);
        let common = v1.strip_suffix("</template>\n").unwrap();
        let v2 = |state: &str, rest: &str| {
            format!(
                "{common}  <lock_status>True</lock_status>\n  <pm>0f6a9c1e-0000-4000-8000-00000000000a</pm>\n  \
                 <state>{state}</state>\n  <recent_booted_at>None</recent_booted_at>\n{rest}</template>\n"
            )
        };
        let never = "  <vnc_port>None</vnc_port>\n  <vnc_password>None</vnc_password>\n";
        let shown = |gvm: &TemplateView, may_open_console| {
            render(&TemplateV2 { gvm, may_open_console, style: &style }).unwrap()
        };
        assert_eq!(shown(&gvm, true), v2("SHUTDOWN", never));
        gvm.observed = Observed {
            state: PowerState::Running,
            vnc: Some(VncEndpoint { host: "127.0.0.1".to_owned(), port: 5907 }),
            number: Some(1),
        };
        gvm.template.vnc_password = Some(Secret::new("s<cret".to_owned()));
        let running = "  <vnc_port>5907</vnc_port>\n  <vnc_password>s&lt;cret</vnc_password>\n";
        assert_eq!(shown(&gvm, true), v2("RUNNING", running));
        let hidden = "  <vnc_port>5907</vnc_port>\n  <vnc_password></vnc_password>\n";
        assert_eq!(shown(&gvm, false), v2("RUNNING", hidden));
    }

    #[test]
    fn the_list_of_disks_is_the_manuals() {
        let id: DiskId = "bed05d84-7c44-4720-9588-57cbd8ecef8c".parse().unwrap();
        let template: TemplateId = "0f6a9c1e-0000-4000-8000-00000000000c".parse().unwrap();
        let disk = Disk {
            backing: None,
            id,
            owner: DiskOwner::Template(template),
            order: 0,
            size: MiB(2048),
            format: Format::Qcow2,
            storlink: StorlinkId(11),
            volume: VolumeName::bare(id),
            desc: None,
            created_at: time("2017-07-26 15:04:05"),
        };
        let disks = [DiskView { disk, level: StorlinkLevel::File }];
        assert_eq!(
            render(&DisksView { template, disks: &disks, style: &Style::default() }).unwrap(),
            r#"<disks>
  <disk id="bed05d84-7c44-4720-9588-57cbd8ecef8c">
    <name>bed05d84-7c44-4720-9588-57cbd8ecef8c</name>
    <order>0</order>
    <size>2048</size>
    <template id="0f6a9c1e-0000-4000-8000-00000000000c"></template>
    <desc></desc>
    <created>2017-07-26 15:04:05</created>
    <format>qcow2</format>
    <type>FL</type>
    <storlink>11</storlink>
  </disk>
</disks>
"#
        );
    }

    #[test]
    fn the_lists_are_the_manuals() {
        let views = [view()];
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
