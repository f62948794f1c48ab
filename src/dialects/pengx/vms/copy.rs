//! Rows 19 and 24: the disks of a VM, copied to another VM or moved to another storlink.

use serde::Deserialize;

use crate::dialects::pengx::fields::{Field, Judge};
use crate::dialects::pengx::{Call, Failure, Reply};
use crate::error::Result;
use crate::model::VmId;
use crate::operations::vm::{CopyVm, SmigrateVm};

/// Row 19.
pub async fn copy(mut call: Call) -> Result<Reply, Failure> {
    let vm = call.vm()?;
    let command = call.body::<CopyBody>().await?.read(vm)?;
    call.perform(command, |done| Reply::made(done.outcome)).await
}

/// Row 24.
pub async fn smigrate(mut call: Call) -> Result<Reply, Failure> {
    let vm = call.vm()?;
    let command = call.body::<SmigrateBody>().await?.read(vm)?;
    call.perform(command, |done| Reply::made(done.outcome)).await
}

/// Row 19.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CopyBody {
    name: Field,
    storlink: Field,
}

impl CopyBody {
    fn read(self, vm: VmId) -> Result<CopyVm> {
        let mut judge = Judge::default();
        let name = judge.needed("name", self.name);
        let storlink = judge.needed("storlink", self.storlink);
        judge.done(|| Some(CopyVm { vm, name: name?, storlink: storlink? }))
    }
}

/// Row 24.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SmigrateBody {
    storlink: Field,
}

impl SmigrateBody {
    fn read(self, vm: VmId) -> Result<SmigrateVm> {
        let mut judge = Judge::default();
        let storlink = judge.needed("storlink", self.storlink);
        judge.done(|| Some(SmigrateVm { vm, storlink: storlink? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::pengx::{de, xml};
    use crate::model::StorlinkId;

    const VM: VmId = VmId(uuid::Uuid::nil());

    #[test]
    fn the_manuals_examples_are_taken() {
        let node = |document: &str| xml::parse(document).unwrap();
        let example = "<vm>\n  <name>copied_vm</name>\n  <storlink>2</storlink>\n</vm>";
        let body: CopyBody = de::from_node(node(example)).unwrap();
        let expected = CopyVm { vm: VM, name: "copied_vm".parse().unwrap(), storlink: StorlinkId(2) };
        assert_eq!(body.read(VM).unwrap(), expected);
        let body: SmigrateBody = de::from_node(node("<vm>\n  <storlink>2</storlink>\n</vm>")).unwrap();
        assert_eq!(body.read(VM).unwrap(), SmigrateVm { vm: VM, storlink: StorlinkId(2) });
    }

    #[test]
    fn every_problem_is_told() {
        let bad = CopyBody::default().read(VM).unwrap_err();
        assert_eq!(bad.to_string(), "name: is required; storlink: is required");
        assert_eq!(SmigrateBody::default().read(VM).unwrap_err().to_string(), "storlink: is required");
    }
}
