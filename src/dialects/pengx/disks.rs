//! Disks of VMs, and of their snapshots and backups.

use askama::Template;
use serde::Deserialize;

use super::fields::{Field, Judge};
use super::style::{Style, or_empty};
use super::vms::MAX_DISK;
use super::{Call, Failure, Reply};
use crate::error::Result;
use crate::model::{DiskOwner, MiB, VmId};
use crate::operations::disk::{self, CreateDisk, DeleteDisk, DiskView};

/// Row 46.
pub async fn index(call: Call) -> Result<Reply, Failure> {
    let vm = call.vm()?;
    let disks = call.core.read(move |core| disk::of_vm(core, vm)).await?;
    Reply::ok(&DisksView { disks: &disks, style: call.style() })
}

/// Row 46.
pub async fn of_snapshot(call: Call) -> Result<Reply, Failure> {
    let (vm, snapshot) = (call.vm()?, call.snapshot()?);
    let disks = call.core.read(move |core| disk::of_snapshot(core, vm, snapshot)).await?;
    Reply::ok(&DisksView { disks: &disks, style: call.style() })
}

/// Row 46.
pub async fn of_backup(call: Call) -> Result<Reply, Failure> {
    let (vm, backup) = (call.vm()?, call.backup()?);
    let disks = call.core.read(move |core| disk::of_backup(core, vm, backup)).await?;
    Reply::ok(&DisksView { disks: &disks, style: call.style() })
}

/// Row 44.
pub async fn create(mut call: Call) -> Result<Reply, Failure> {
    let vm = call.vm()?;
    let command = call.body::<CreateBody>().await?.read(vm)?;
    let show = |made: &DiskView| Reply::created(&CreatedView { vm, made, style: call.style() });
    call.perform_and_show(command, |done| show(&done.output)).await
}

/// Row 45.
pub async fn delete(call: Call) -> Result<Reply, Failure> {
    call.perform(DeleteDisk { vm: call.vm()?, disk: call.disk()? }, |_| Reply::NoContent).await
}

/// Row 46: `disks`.
#[derive(Template)]
#[template(path = "pengx/disks.xml")]
pub struct DisksView<'a> {
    pub disks: &'a [DiskView],
    pub style: &'a Style,
}

/// Row 44: `disk`.
#[derive(Template)]
#[template(path = "pengx/disk.xml")]
pub struct CreatedView<'a> {
    pub vm: VmId,
    pub made: &'a DiskView,
    pub style: &'a Style,
}

/// Row 44.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct CreateBody {
    size: Field,
    storlink: Field,
    desc: Field,
    format: Field,
}

impl CreateBody {
    pub fn read(self, vm: VmId) -> Result<CreateDisk> {
        let mut judge = Judge::default();
        let size = judge.needed_number("size", self.size, 1..=MAX_DISK.0).map(MiB);
        let storlink = judge.needed("storlink", self.storlink);
        let desc = judge.desc("desc", self.desc);
        let format = judge.optional("format", self.format);
        judge.done(|| Some(CreateDisk { vm, storlink: storlink?, size: size?, format, desc }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::pengx::reply::render;
    use crate::dialects::pengx::vms::tests::time;
    use crate::dialects::pengx::{de, xml};
    use crate::model::{Disk, DiskId, Format, StorlinkId, StorlinkLevel, VolumeName};

    const VM: &str = "0f6a9c1e-0000-4000-8000-000000000001";

    fn command(document: &str) -> Result<CreateDisk, String> {
        let body: CreateBody = de::from_node(xml::parse(document).unwrap()).unwrap();
        body.read(VM.parse().unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_manuals_example_is_taken() {
        let example =
            "<disk>\n  <size>1024</size><!-- in MiB -->\n  <storlink>3</storlink>\n  <desc>data</desc>\n</disk>";
        let expected = CreateDisk {
            vm: VM.parse().unwrap(),
            storlink: StorlinkId(3),
            size: MiB(1024),
            format: None,
            desc: "data".to_owned(),
        };
        assert_eq!(command(example), Ok(expected));
        let raw = command("<d><size>1</size><storlink>1</storlink><desc/><format>raw</format></d>").unwrap();
        assert_eq!((raw.format, raw.desc.as_str()), (Some(Format::Raw), ""));
    }

    #[test]
    fn every_problem_is_told() {
        assert_eq!(command("<disk/>").unwrap_err(), "size: is required; storlink: is required");
        assert_eq!(
            command("<d><size>0</size><storlink>a</storlink><desc><x/></desc><format>vdi</format></d>").unwrap_err(),
            "size: must be from 1 to 1073741824; storlink: must be a whole number; desc: must be text, not elements; \
             format: must be one of qcow2, raw"
        );
    }

    fn view(owner: DiskOwner, desc: Option<&str>) -> DiskView {
        let id: DiskId = "0f6a9c1e-0000-4000-8000-00000000000d".parse().unwrap();
        let disk = Disk {
            backing: None,
            id,
            owner,
            order: 1,
            size: MiB(1024),
            format: Format::Qcow2,
            storlink: StorlinkId(3),
            volume: VolumeName::new(id, Format::Qcow2),
            desc: desc.map(str::to_owned),
            created_at: time("2017-07-26 15:04:05"),
        };
        DiskView { disk, level: StorlinkLevel::File }
    }

    #[test]
    fn the_list_is_the_manuals() {
        let owners = [
            DiskOwner::Vm(VM.parse().unwrap()),
            DiskOwner::Snapshot(VM.parse().unwrap()),
            DiskOwner::Backup(VM.parse().unwrap()),
        ];
        for (owner, line) in owners.into_iter().zip(["vm", "snapshot", "backup"]) {
            let disks = [view(owner, Some("a & b")), view(owner, None)];
            let disk = |desc: &str| {
                format!(
                    r#"
  <disk id="0f6a9c1e-0000-4000-8000-00000000000d">
    <name>0f6a9c1e-0000-4000-8000-00000000000d</name>
    <order>1</order>
    <size>1024</size>
    <{line} id="0f6a9c1e-0000-4000-8000-000000000001"></{line}>
    <desc>{desc}</desc>
    <created>2017-07-26 15:04:05</created>
    <format>qcow2</format>
    <type>FL</type>
    <storlink>3</storlink>
  </disk>"#
                )
            };
            assert_eq!(
                render(&DisksView { disks: &disks, style: &Style::default() }).unwrap(),
                format!("<disks>{}{}\n</disks>\n", disk("a &amp; b"), disk(""))
            );
        }
        assert_eq!(render(&DisksView { disks: &[], style: &Style::default() }).unwrap(), "<disks>\n</disks>\n");
    }

    #[test]
    fn a_created_disk_is_the_manuals() {
        let vm = VM.parse().unwrap();
        let made = view(DiskOwner::Vm(vm), None);
        assert_eq!(
            render(&CreatedView { vm, made: &made, style: &Style::default() }).unwrap(),
            r#"<disk id="0f6a9c1e-0000-4000-8000-00000000000d">
  <name>0f6a9c1e-0000-4000-8000-00000000000d</name>
  <size>1024</size>
  <vm id="0f6a9c1e-0000-4000-8000-000000000001"></vm>
  <desc></desc>
  <created>2017-07-26 15:04:05</created>
  <format>qcow2</format>
  <type>FL</type>
  <storlink>3</storlink>
</disk>
"#
        );
    }
}
