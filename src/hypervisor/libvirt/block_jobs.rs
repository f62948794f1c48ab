//! Overlays and block jobs: what is moved under the disks of a running guest.
//!
//! libvirt's document of the domain is the truth about images and about a job that is ready: it survives a restart of
//! libvirtd, and it is read without asking QEMU. A job is told to end and then looked at, so no call waits for QEMU to
//! bring a disk's data home, and nobody else has to wait for such a call.

use std::ffi::CString;
use std::thread;
use std::time::{Duration, Instant};

use virt::domain::Domain;
use virt_sys as sys;

use super::domain_xml::{self, Images, LiveDisk};
use super::errors::{self, Fault};
use super::link::Connection;
use super::states::power_state;
use super::{LibvirtHypervisor, Patience, ffi};
use crate::error::{Error, ErrorKind, Result};
use crate::hypervisor::{self, BlockJob, BlockJobStatus, Verb};
use crate::model::{DiskSpec, Layer, VmId, VolumeSource};

/// Between two looks at a job that was told to end. The guest may be paused meanwhile.
const FIRST_LOOK: Duration = Duration::from_millis(2);
const LAST_LOOK: Duration = Duration::from_millis(100);

impl LibvirtHypervisor {
    /// The disk as libvirt knows it now; the refusal of `verb` when the domain is off.
    pub(super) fn live_disk(&self, verb: Verb, id: VmId, order: u32) -> Result<LiveDisk> {
        self.call(Verb::Chain, Some(id), move |connection| Ok(connection.live(verb, id)?.1.disk(order)?))
    }

    pub(super) fn end_with_pivot(&self, id: VmId, order: u32) -> Result<()> {
        let verb = Verb::Pivot;
        let deadline = Instant::now() + self.options.block_timeout;
        let before = self.live_disk(verb, id, order)?;
        let Some(mirror) = before.mirror else { return Err(hypervisor::not_ready(id, order)) };
        match mirror.ready.as_deref() {
            Some("yes") => self.end(verb, id, order)?,
            // By somebody who did not hear the end of it.
            Some("pivot") => {}
            _ => return Err(hypervisor::not_ready(id, order)),
        }
        self.until_over(verb, id, order, deadline).map_err(too_late)?;
        let now = self.live_disk(verb, id, order).map_err(too_late)?;
        match now.chain.first() {
            Some(Layer { source: VolumeSource::File(file), .. }) if mirror.file.as_deref() == file.to_str() => Ok(()),
            _ => Err(Error::refused("QEMU", format!("disk {order} of vm {id} could not be moved to the other image"))),
        }
    }

    pub(super) fn end_without_effect(&self, id: VmId, order: u32) -> Result<()> {
        let verb = Verb::AbortBlockJob;
        let deadline = Instant::now() + self.options.block_timeout;
        let ended = self.end(verb, id, order).and_then(|()| self.until_over(verb, id, order, deadline));
        ended.or_else(|error| if is_off(&error) { Ok(()) } else { Err(error) })
    }

    /// Tells the job to end. None, or one that was told so before, is success.
    fn end(&self, verb: Verb, id: VmId, order: u32) -> Result<()> {
        let disk = target(order)?;
        self.call_in_time(verb, Some(id), move |connection, patience| {
            let (domain, images) = connection.live(verb, id)?;
            images.disk(order)?;
            patience.check()?;
            match ffi::end_block_job(&domain, &disk, verb == Verb::Pivot) {
                Err(error) if errors::may_be_for_a_job(&error) => Err(hypervisor::not_ready(id, order).into()),
                Err(_) if ffi::block_job(&domain, &disk)?.is_none() => Ok(()),
                Err(error) if errors::is_wrong_state(&error) && domain.is_active()? => Ok(()),
                told => Ok(told?),
            }
        })
    }

    /// libvirt does one thing to a domain at a time, so when it says that there is no job, QEMU has closed what it used.
    fn until_over(&self, verb: Verb, id: VmId, order: u32, deadline: Instant) -> Result<()> {
        let mut pause = FIRST_LOOK;
        while self.call(Verb::BlockJob, Some(id), move |connection| connection.has_job(verb, id, order))? {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let action = format!("the block job on disk {order} of vm {id} did not end");
                return Err(Error::new(ErrorKind::Timeout { action, after: self.options.block_timeout }));
            }
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(LAST_LOOK);
        }
        Ok(())
    }
}

impl Connection {
    /// The domain and its images; the refusal of `verb` when it is off.
    fn live(&self, verb: Verb, id: VmId) -> Result<(Domain, Images), Fault> {
        let domain = self.find(id)?;
        match domain_xml::images(&domain.xml_desc(0)?)? {
            Some(images) => Ok((domain, images)),
            None => Err(verb.wrong_state(id, power_state(ffi::state(&domain)?)).into()),
        }
    }

    fn has_job(&self, verb: Verb, id: VmId, order: u32) -> Result<bool, Fault> {
        let (domain, _) = self.live(verb, id)?;
        Ok(ffi::block_job(&domain, &target(order)?)?.is_some())
    }

    pub(super) fn block_job(&self, id: VmId, order: u32) -> Result<Option<BlockJobStatus>, Fault> {
        // In this order: what was ready before a job was found may be of an earlier one, but then it is gone.
        let (domain, images) = self.live(Verb::BlockJob, id)?;
        let mirror = images.disk(order)?.mirror;
        // QEMU's numbers are equal long before the guest can be moved.
        let ready = mirror.is_some_and(|mirror| mirror.ready.as_deref() == Some("yes"));
        let job = ffi::block_job(&domain, &target(order)?)?;
        Ok(job.map(|moved| {
            let total = moved.total.max(1);
            BlockJobStatus { done: moved.done.min(total), total, ready }
        }))
    }

    pub(super) fn overlay_disks(&self, id: VmId, overlays: &[DiskSpec], patience: Patience) -> Result<(), Fault> {
        let (domain, images) = self.live(Verb::OverlayDisks, id)?;
        for overlay in overlays {
            let disk = images.disk(overlay.order)?;
            if disk.chain != overlay.backing {
                return Err(hypervisor::not_on_this(BY, overlay).into());
            }
        }
        if overlays.is_empty() {
            return Ok(());
        }
        let document = domain_xml::overlays(overlays, &images.targets())?;
        patience.check()?;
        let flags = sys::VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
            | sys::VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
            | sys::VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
            | sys::VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT;
        match domain.create_snapshot_xml(&document, flags) {
            Err(error) if errors::may_be_for_a_job(&error) => {
                for overlay in overlays {
                    if self.has_job(Verb::OverlayDisks, id, overlay.order)? {
                        return Err(hypervisor::job_runs(id, overlay.order).into());
                    }
                }
                Err(error.into())
            }
            Err(error) => Err(error.into()),
            Ok(_) => Ok(()),
        }
    }

    pub(super) fn start_block_job(
        &self,
        id: VmId,
        order: u32,
        job: &BlockJob,
        rate: u64,
        patience: Patience,
    ) -> Result<(), Fault> {
        let (domain, images) = self.live(Verb::StartBlockJob, id)?;
        let LiveDisk { chain, mirror } = images.disk(order)?;
        if mirror.is_some() {
            return Err(hypervisor::job_runs(id, order).into());
        }
        job.check(BY, &chain)?;
        let disk = target(order)?;
        patience.check()?;
        let begun = match job {
            BlockJob::Commit { top, base } => {
                let live = chain.first().is_some_and(|leaf| leaf.source == *top);
                ffi::commit(&domain, &disk, &name(top)?, &name(base)?, live, rate)
            }
            BlockJob::Mirror { to } => ffi::mirror(&domain, &disk, &text(&domain_xml::mirror(to)?)?, rate),
        };
        match begun {
            Err(error) if errors::may_be_for_a_job(&error) && ffi::block_job(&domain, &disk)?.is_some() => {
                Err(hypervisor::job_runs(id, order).into())
            }
            begun => Ok(begun?),
        }
    }
}

const BY: &str = "libvirt";

fn target(order: u32) -> Result<CString> {
    text(&domain_xml::target(order))
}

fn name(image: &VolumeSource) -> Result<CString> {
    text(domain_xml::file("image", image)?)
}

fn text(words: &str) -> Result<CString> {
    CString::new(words).map_err(|e| Error::internal("a text for libvirt").caused_by(e))
}

fn is_off(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::WrongState { .. } | ErrorKind::NotFound { .. })
}

/// Who hears `WrongState` takes it that nothing was begun.
fn too_late(error: Error) -> Error {
    if is_off(&error) { Error::refused(BY, "the guest was powered off meanwhile").caused_by(error) } else { error }
}
