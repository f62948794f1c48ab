//! ISO images: from `2/debian.iso`, as clients and rows say it, to what a drive is given.

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Iso, Vm, VolumeSource};

use super::{Core, guard};

/// The image that a client named. `Invalid` on `iso` when its storage has no such file or refuses it.
pub(super) fn open(core: &Core, iso: &Iso) -> Result<VolumeSource> {
    let storlink = core.store.read(|c| guard::storlink(c, &core.pm, iso.storlink))?;
    (core.volumes)(&storlink)?.iso(&iso.name).map_err(|error| match error.kind() {
        ErrorKind::Refused { why, .. } => Error::invalid("iso", why.clone()),
        _ => error,
    })
}

/// The disc in a VM's drive, or why it cannot be there and what to do.
pub(super) fn of_vm(core: &Core, vm: &Vm) -> Result<Option<VolumeSource>> {
    let Some(iso) = &vm.iso else { return Ok(None) };
    open(core, iso).map(Some).map_err(|error| match error.kind() {
        ErrorKind::Unavailable { .. } | ErrorKind::Internal => error,
        ErrorKind::Invalid { problems } => {
            refused(vm, iso, &problems.iter().map(|p| p.why.as_str()).collect::<Vec<_>>().join("; "))
        }
        other => refused(vm, iso, &other.to_string()),
    })
}

/// The disc in a VM's drive; none when its file is gone. Nothing but a start depends on a file that anybody may remove.
pub(super) fn if_there(core: &Core, vm: &Vm) -> Result<Option<VolumeSource>> {
    match of_vm(core, vm) {
        Err(gone) if matches!(gone.kind(), ErrorKind::Refused { .. }) => {
            tracing::warn!(vm = %vm.id, why = gone.story(), "its drive is left empty");
            Ok(None)
        }
        other => other,
    }
}

fn refused(vm: &Vm, iso: &Iso, why: &str) -> Error {
    let advice = "eject it with an update whose iso is empty";
    Error::refused("storage", format!("the disc {iso} of vm {} cannot be used ({why}); {advice}", vm.name))
}
