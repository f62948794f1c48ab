//! What lies on storlinks, and whose it is. Not in the manual.

use askama::Template;

use super::style::Style;
use super::{Call, Failure, Reply};
use crate::model::MiB;
use crate::operations::ledger::{self, DeleteVolume, Ledger, Total};

/// Every file of a storlink with its owner.
pub async fn index(call: Call) -> Result<Reply, Failure> {
    let ledger = ledger::list(&call.core, call.storlink()?).await?;
    Reply::ok(&VolumesView { totals: ledger.totals(), ledger: &ledger, style: call.style() })
}

/// Removes an orphan.
pub async fn delete(call: Call) -> Result<Reply, Failure> {
    let command = DeleteVolume { storlink: call.storlink()?, name: call.file_name()? };
    call.perform(command, |_| Reply::NoContent).await
}

/// `volumes`.
#[derive(Template)]
#[template(path = "pengx/volumes.xml")]
pub struct VolumesView<'a> {
    totals: Vec<Total>,
    ledger: &'a Ledger,
    style: &'a Style,
}

impl VolumesView<'_> {
    fn mib(bytes: &u64) -> MiB {
        MiB::from_bytes_ceil(*bytes)
    }
}
