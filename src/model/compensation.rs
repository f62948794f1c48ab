//! How a step is undone, as data that survives a crash.

use serde::{Deserialize, Serialize};

use super::{DiskId, Mac, StorlinkId, VmId, VolumeName};

/// Written to the journal before the step that it undoes. Applying one twice, or one whose step never ran, changes nothing.
/// Stored as JSON: variants and fields are append-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compensation {
    /// Remove a volume that the task was making, or that it made needless. One that a disk's row names stays.
    DeleteVolume { storlink: StorlinkId, volume: VolumeName },
    /// Bring a volume back that was set aside.
    RestoreVolume { storlink: StorlinkId, volume: VolumeName },
    /// Forward: remove for good a volume that was set aside.
    PurgeVolume { storlink: StorlinkId, volume: VolumeName },
    /// Drop the definition of a domain that the task was making.
    Undefine { vm: VmId },
    /// Define a domain again as its rows say.
    Redefine { vm: VmId },
    /// Pull the plug of a domain that the task was starting.
    Destroy { vm: VmId },
    /// Pull a disk out of a running domain that the task was plugging in.
    DetachDisk { vm: VmId, order: u32 },
    /// Plug a disk in again, as its row says, if the domain runs.
    AttachDisk { vm: VmId, disk: DiskId },
    /// Pull a NIC out of a running domain that the task was plugging in.
    DetachNic { vm: VmId, mac: Mac },
    /// Give a running domain the memory that its row says.
    ResetMemory { vm: VmId },
    /// Put the disc into the drive of a running domain that its row says.
    ResetDisc { vm: VmId },
    /// vCPUs cannot be pulled out: make the row of a running domain say as many as it has.
    AdoptVcpus { vm: VmId },
    /// The task moved a guest from these disks onto overlays of its own: bring what the overlays hold back into the disks,
    /// and the guest with it. It was paused before, or not.
    FoldOverlays { vm: VmId, overlays: Vec<OverlayOf>, paused: bool },
    /// Start a domain again whose plug the task was pulling to start it anew.
    Start { vm: VmId },
    /// Forward, of a snapshot that is going: bring what `top` holds into `base`, its disk, which then stands where `top`
    /// stood. The VM was paused before, or not.
    MergeDown { vm: VmId, top: DiskId, base: DiskId, paused: bool },
    /// Forward, of a snapshot that is going: copy into `top` what it reads from `base`, and take it off.
    PullUp { vm: VmId, top: DiskId, base: DiskId },
    /// Stop copying a disk of a running domain to another image.
    StopMirror { vm: VmId, order: u32 },
    /// The task was moving a guest from these disks to their copies, and paused it for that unless it was: the rows follow
    /// where the guest is, disk by disk, and it runs on.
    FinishMove { vm: VmId, disks: Vec<DiskMove>, paused: bool },
    /// Take the mark from the directory of a storlink that the task was making.
    Unmark { link: String, storlink: uuid::Uuid },
}

/// A volume that was put over a disk for the time of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayOf {
    pub disk: DiskId,
    pub storlink: StorlinkId,
    pub volume: VolumeName,
}

/// A disk, and the one that takes its place; the two hold the same while the guest stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskMove {
    pub disk: DiskId,
    pub to: DiskId,
    pub storlink: StorlinkId,
    pub volume: VolumeName,
}

impl Compensation {
    /// Whether its task keeps its locks until this is done, also when the task has settled: nobody may meet what it acts
    /// on half way.
    pub fn binds(&self) -> bool {
        matches!(self, Self::MergeDown { .. } | Self::PullUp { .. } | Self::FinishMove { .. })
    }

    /// The volume that it removes or brings back, and the storlink without which it cannot.
    pub fn volume(&self) -> Option<(StorlinkId, &VolumeName)> {
        match self {
            Self::DeleteVolume { storlink, volume }
            | Self::RestoreVolume { storlink, volume }
            | Self::PurgeVolume { storlink, volume } => Some((*storlink, volume)),
            Self::Undefine { .. }
            | Self::Redefine { .. }
            | Self::Destroy { .. }
            | Self::DetachDisk { .. }
            | Self::AttachDisk { .. }
            | Self::DetachNic { .. }
            | Self::ResetMemory { .. }
            | Self::ResetDisc { .. }
            | Self::AdoptVcpus { .. }
            | Self::FoldOverlays { .. }
            | Self::Start { .. }
            | Self::MergeDown { .. }
            | Self::PullUp { .. }
            | Self::StopMirror { .. }
            | Self::FinishMove { .. }
            | Self::Unmark { .. } => None,
        }
    }
}
