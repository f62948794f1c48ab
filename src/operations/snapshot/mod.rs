//! Snapshots: frozen points of a VM. Each has the disks that the VM wrote to until it was taken, and the VM goes on in
//! overlays of them; so snapshots and VM are a tree, in the rows and in the headers of the images alike.

mod delete;
mod keep;
mod merge;
mod query;
mod restore;
mod take;

pub use delete::DeleteSnapshot;
pub(super) use keep::{automatic, keep};
pub(super) use merge::{merge_down, pull_up};
pub use query::list;
pub use restore::{RestoreSnapshot, StartSnapshot};
pub use take::TakeSnapshot;

use std::collections::BTreeMap;

use crate::error::Result;
use crate::model::{Disk, DiskId, DiskOwner, Format, MiB, Storlink, StorlinkId, VmId};
use crate::store::{disks, snapshots};
use crate::tasks::Work;

use super::chain::Overlay;
use super::domain::Machine;
use super::{Core, space};

/// What an overlay takes before anything is written to it: its tables, on the largest disk.
const EMPTY_OVERLAY: MiB = MiB(2);

/// With every disk that there is of a VM: those that it writes to, and those of its snapshots.
pub(super) fn family(core: &Core, vm: VmId) -> Result<Machine> {
    Machine::with(core, vm, |c| {
        let mut all = disks::of_vm(c, vm)?;
        for snapshot in snapshots::of_vm(c, vm)? {
            all.extend(disks::of_snapshot(c, snapshot.id)?);
        }
        Ok(all)
    })
}

/// Whether a VM that runs has the disk open: it writes to it, or reads through an overlay from it.
fn is_in_use(family: &Machine, disk: DiskId) -> bool {
    leaf_on(family, disk).is_some()
}

/// The disk that the VM writes to and that is this one, or an overlay somewhere above it.
fn leaf_on(family: &Machine, disk: DiskId) -> Option<&Disk> {
    let reads = |leaf: &Disk| {
        let below = family.below.get(&leaf.id).map(Vec::as_slice).unwrap_or_default();
        leaf.id == disk || below.iter().any(|below| below.id == disk)
    };
    family.disks.iter().find(|leaf| matches!(leaf.owner, DiskOwner::Vm(_)) && reads(leaf))
}

/// The rows of overlays, as disks of the VM in the places of those that they are on.
fn leaf(core: &Core, vm: VmId, frozen: &[Disk], overlays: &[Overlay]) -> Vec<Disk> {
    let now = core.clock.now();
    let row = |(disk, overlay): (&Disk, &Overlay)| Disk {
        id: overlay.id,
        owner: DiskOwner::Vm(vm),
        format: Format::Qcow2,
        storlink: overlay.storlink.id,
        volume: overlay.volume.clone(),
        created_at: now,
        backing: Some(disk.id),
        ..disk.clone()
    };
    frozen.iter().zip(overlays).map(row).collect()
}

/// What will be written to each storlink.
#[derive(Default)]
pub(super) struct Needs(BTreeMap<StorlinkId, (Storlink, MiB)>);

impl Needs {
    pub(super) fn add(&mut self, storlink: &Storlink, size: MiB) {
        let (_, need) = self.0.entry(storlink.id).or_insert_with(|| (storlink.clone(), MiB(0)));
        *need = *need + size;
    }

    pub(super) fn reserve(&self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        for (storlink, need) in self.0.values() {
            space::reserve(core, work, storlink, (core.volumes)(storlink)?.as_ref(), *need)?;
        }
        Ok(())
    }
}
