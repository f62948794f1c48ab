//! What a journal entry asks for, in the infinitive.

use crate::model::{Compensation, StorlinkId, VmId};

use super::rows::Rows;

pub(super) fn plain(compensation: &Compensation, rows: &Rows) -> String {
    let place = |id: StorlinkId| {
        let known = rows.storlinks.iter().find(|storlink| storlink.id == id);
        known.map_or_else(|| format!("storlink {id}"), |storlink| format!("storlink {}", storlink.name))
    };
    let name = |vm: VmId| rows.vm_name(vm);
    match compensation {
        Compensation::DeleteVolume { storlink, volume } => format!("remove volume {volume} from {}", place(*storlink)),
        Compensation::RestoreVolume { storlink, volume } => {
            format!("bring back volume {volume} on {}", place(*storlink))
        }
        Compensation::PurgeVolume { storlink, volume } => {
            format!("remove the deleted volume {volume} from {}", place(*storlink))
        }
        Compensation::Undefine { vm } => format!("undefine the domain of vm {}", name(*vm)),
        Compensation::Redefine { vm } => format!("define the domain of vm {} as its record says", name(*vm)),
        Compensation::Destroy { vm } => format!("power off vm {}", name(*vm)),
        Compensation::DetachDisk { vm, order } => format!("pull disk {order} out of vm {}", name(*vm)),
        Compensation::AttachDisk { vm, disk } => format!("plug disk {disk} into vm {}", name(*vm)),
        Compensation::DetachNic { vm, mac } => format!("pull interface {mac} out of vm {}", name(*vm)),
        Compensation::ResetMemory { vm } => format!("give vm {} the memory that its record says", name(*vm)),
        Compensation::FoldOverlays { vm, overlays, .. } => {
            format!("fold {} overlays back into the disks of vm {}", overlays.len(), name(*vm))
        }
        Compensation::Start { vm } => format!("start vm {} again", name(*vm)),
        Compensation::Unmark { link, .. } => format!("take the mark of a storlink from {link}"),
        // As it is stored: it names what it is about.
        other => format!("do this: {}", serde_json::to_string(other).unwrap_or_default()),
    }
}
