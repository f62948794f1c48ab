//! Backups of VMs, of deleted ones too.

use askama::Template;
use serde::Deserialize;

use super::fields::{Field, Judge};
use super::style::Style;
use super::{Call, Failure, Reply};
use crate::error::Result;
use crate::model::{Backup, VmId};
use crate::operations::backup::{self, CreateBackup, DeleteBackup, ProveBackup, RestoreBackup, VerifyBackup};

/// Row 42.
pub async fn index(call: Call) -> Result<Reply, Failure> {
    let vm = call.vm()?;
    let backups = call.core.read(move |core| backup::of_vm(core, vm)).await?;
    Reply::ok(&BackupsView { backups: &backups, style: call.style() })
}

/// Row 42, of all VMs. Not in the manual.
pub async fn index_all(call: Call) -> Result<Reply, Failure> {
    let backups = call.core.read(backup::list).await?;
    Reply::ok(&BackupsView { backups: &backups, style: call.style() })
}

/// Row 40.
pub async fn create(mut call: Call) -> Result<Reply, Failure> {
    let vm = call.vm()?;
    let command = call.body::<CreateBody>().await?.read(vm)?;
    call.perform(command, |done| Reply::done(done.outcome)).await
}

/// Row 41.
pub async fn delete(call: Call) -> Result<Reply, Failure> {
    call.perform(DeleteBackup { vm: call.vm()?, backup: call.backup()? }, |_| Reply::NoContent).await
}

/// Row 43.
pub async fn restore(call: Call) -> Result<Reply, Failure> {
    let command = RestoreBackup { vm: call.vm()?, backup: call.backup()? };
    call.perform(command, |done| Reply::made(done.outcome)).await
}

/// Not in the manual.
pub async fn verify(call: Call) -> Result<Reply, Failure> {
    let command = VerifyBackup { vm: call.vm()?, backup: call.backup()? };
    call.perform(command, |done| Reply::done(done.outcome)).await
}

/// Not in the manual.
pub async fn prove(call: Call) -> Result<Reply, Failure> {
    let command = ProveBackup { vm: call.vm()?, backup: call.backup()? };
    call.perform(command, |done| Reply::done(done.outcome)).await
}

/// Row 42: `vmbackups`.
#[derive(Template)]
#[template(path = "pengx/vmbackups.xml")]
pub struct BackupsView<'a> {
    pub backups: &'a [Backup],
    pub style: &'a Style,
}

/// Row 40.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct CreateBody {
    backup_name: Field,
    storlink: Field,
    desc: Field,
}

impl CreateBody {
    pub fn read(self, vm: VmId) -> Result<CreateBackup> {
        let mut judge = Judge::default();
        let name = judge.needed("backup_name", self.backup_name);
        let storlink = judge.needed("storlink", self.storlink);
        let desc = judge.desc("desc", self.desc);
        judge.done(|| Some(CreateBackup { vm, name: name?, storlink: storlink?, desc }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::pengx::reply::render;
    use crate::dialects::pengx::vms::tests::time;
    use crate::dialects::pengx::{de, xml};
    use crate::model::{BackupConfig, BackupId, MiB, StorlinkId};

    const VM: &str = "0f6a9c1e-0000-4000-8000-000000000001";

    fn command(document: &str) -> Result<CreateBackup, String> {
        let body: CreateBody = de::from_node(xml::parse(document).unwrap()).unwrap();
        body.read(VM.parse().unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_manuals_example_is_taken() {
        let example = "<vm>\n  <backup_name>$backup_name</backup_name>\n  <storlink>2</storlink>\n  \
                       <desc>backup of vm_uuid</desc>\n</vm>";
        let expected = CreateBackup {
            vm: VM.parse().unwrap(),
            name: "$backup_name".parse().unwrap(),
            storlink: StorlinkId(2),
            desc: "backup of vm_uuid".to_owned(),
        };
        assert_eq!(command(example), Ok(expected));
        assert_eq!(command("<v><backup_name>b</backup_name><storlink>1</storlink></v>").unwrap().desc, "");
    }

    #[test]
    fn every_problem_is_told() {
        assert_eq!(command("<vm/>").unwrap_err(), "backup_name: is required; storlink: is required");
        assert_eq!(
            command("<v><backup_name>a&#10;b</backup_name><storlink>x</storlink><desc><x/></desc></v>").unwrap_err(),
            "backup_name: must not have control characters; storlink: must be a whole number; \
             desc: must be text, not elements"
        );
    }

    #[test]
    fn the_list_is_the_manuals() {
        let id: BackupId = "0f6a9c1e-0000-4000-8000-00000000000b".parse().unwrap();
        let backup = Backup {
            id,
            vm: VM.parse().unwrap(),
            name: "a & b".to_owned(),
            storlink: StorlinkId(1),
            size: MiB(6144),
            desc: "not shown".to_owned(),
            created_at: time("2017-07-26 15:04:05"),
            config: BackupConfig::default(),
            manifest: String::new(),
            verified_at: None,
            proven_at: None,
        };
        assert_eq!(
            render(&BackupsView { backups: &[backup], style: &Style::default() }).unwrap(),
            r#"<vmbackups>
  <vmbackup id="0f6a9c1e-0000-4000-8000-00000000000b">
    <name>a &amp; b</name>
    <vm id="0f6a9c1e-0000-4000-8000-000000000001"></vm>
    <date>2017-07-26 15:04:05</date>
    <size>6144</size><!-- unit: MB -->
  </vmbackup>
</vmbackups>
"#
        );
        let none = render(&BackupsView { backups: &[], style: &Style::default() }).unwrap();
        assert_eq!(none, "<vmbackups>\n</vmbackups>\n");
    }
}
