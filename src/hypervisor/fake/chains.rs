//! Overlays and block jobs of the fake: its guests write nothing, but the images are real, so data is moved by the real
//! tool. Unless jobs are held, one is over when it is begun, or ready.

use std::time::Duration;

use super::{Run, State, path, refused};
use crate::error::{Error, Result};
use crate::exec::{Command, Limits, Runner, SystemRunner};
use crate::hypervisor::{self, BlockJob, BlockJobStatus, Verb};
use crate::model::{DiskSpec, Layer, VmId, VolumeSource};

const BY: &str = "the fake hypervisor";

/// For the images of tests and demonstrations.
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Clone)]
pub(super) struct Job {
    job: BlockJob,
    ready: bool,
}

impl Job {
    pub(super) fn status(&self) -> BlockJobStatus {
        BlockJobStatus { done: u64::from(self.ready), total: 1, ready: self.ready }
    }

    /// The image that data is copied to, outside the chain.
    pub(super) fn target(&self) -> Option<&VolumeSource> {
        match &self.job {
            BlockJob::Mirror { to } => Some(&to.source),
            BlockJob::Commit { .. } => None,
        }
    }

    pub(super) fn writes(&self, image: &VolumeSource) -> bool {
        match &self.job {
            BlockJob::Commit { base: to, .. } | BlockJob::Mirror { to: Layer { source: to, .. } } => to == image,
        }
    }
}

impl State {
    /// The disk of a running or paused guest.
    pub(super) fn disk(&self, id: VmId, order: u32, verb: Verb) -> Result<&DiskSpec> {
        let domain = self.domains.get(&id).ok_or_else(|| Error::not_found("vm", id))?;
        let run = domain.run.as_ref().ok_or_else(|| verb.wrong_state(id, domain.state()))?;
        run.has.disks.iter().find(|disk| disk.order == order).ok_or_else(|| refused(format!("no disk {order}")))
    }

    fn disk_mut(&mut self, id: VmId, order: u32, verb: Verb) -> Result<&mut DiskSpec> {
        let disks = &mut self.run(id, verb)?.has.disks;
        disks.iter_mut().find(|disk| disk.order == order).ok_or_else(|| refused(format!("no disk {order}")))
    }

    pub(super) fn overlay_disks(&mut self, id: VmId, overlays: &[DiskSpec]) -> Result<()> {
        self.run(id, Verb::OverlayDisks)?;
        for overlay in overlays {
            let has = self.disk(id, overlay.order, Verb::OverlayDisks)?;
            if overlay.backing != has.chain() {
                return Err(hypervisor::not_on_this(BY, overlay));
            }
            self.no_job(id, overlay.order)?;
            self.check_disk(id, overlay)?;
        }
        for overlay in overlays {
            let disk = self.disk_mut(id, overlay.order, Verb::OverlayDisks)?;
            *disk = overlay.clone();
        }
        Ok(())
    }

    fn no_job(&mut self, id: VmId, order: u32) -> Result<()> {
        match self.run(id, Verb::StartBlockJob)?.jobs.get(&order) {
            Some(_) => Err(hypervisor::job_runs(id, order)),
            None => Ok(()),
        }
    }

    pub(super) fn start_block_job(&mut self, id: VmId, order: u32, job: &BlockJob) -> Result<()> {
        let disk = self.disk(id, order, Verb::StartBlockJob)?.clone();
        self.no_job(id, order)?;
        job.check(BY, &disk.chain())?;
        match job {
            BlockJob::Commit { base: to, .. } => self.check_image(id, to, true)?,
            BlockJob::Mirror { to } => self.check_image(id, &to.source, true)?,
        }
        self.run(id, Verb::StartBlockJob)?.jobs.insert(order, Job { job: job.clone(), ready: false });
        if !self.jobs_are_held {
            self.finish(id, order);
        }
        Ok(())
    }

    pub(super) fn hold_jobs(&mut self, hold: bool) {
        self.jobs_are_held = hold;
        if hold {
            return;
        }
        let runs = self.domains.iter().filter_map(|(id, domain)| Some((*id, domain.run.as_ref()?)));
        let waiting = |(id, run): (VmId, &Run)| -> Vec<(VmId, u32)> {
            run.jobs.iter().filter(|(_, job)| !job.ready).map(|(order, _)| (id, *order)).collect()
        };
        let waiting: Vec<_> = runs.flat_map(waiting).collect();
        for (id, order) in waiting {
            self.finish(id, order);
        }
    }

    /// Moves the data of a job. Nobody is told why one fails: it is gone, and the disk is on what it was on.
    fn finish(&mut self, id: VmId, order: u32) {
        if let Err(error) = self.move_data(id, order) {
            tracing::warn!(vm = %id, order, error = error.story(), "a block job failed");
            if let Ok(run) = self.run(id, Verb::BlockJob) {
                run.jobs.remove(&order);
            }
        }
    }

    fn move_data(&mut self, id: VmId, order: u32) -> Result<()> {
        let disk = self.disk(id, order, Verb::BlockJob)?.clone();
        let jobs = &mut self.run(id, Verb::BlockJob)?.jobs;
        let Some(job) = jobs.get_mut(&order) else { return Ok(()) };
        let mut chain = disk.chain();
        match &job.job {
            BlockJob::Commit { top, .. } => {
                commit(top)?;
                let Some(above) = chain.iter().position(|layer| layer.source == *top).and_then(|at| at.checked_sub(1))
                else {
                    job.ready = true;
                    return Ok(());
                };
                chain.remove(above + 1);
                if let [upper, lower, ..] = chain.get(above..).unwrap_or_default() {
                    reattach(upper, lower)?;
                }
            }
            BlockJob::Mirror { to } => {
                copy(&disk, to)?;
                job.ready = true;
                return Ok(());
            }
        }
        jobs.remove(&order);
        self.disk_mut(id, order, Verb::BlockJob)?.backing = chain.split_off(1);
        Ok(())
    }

    pub(super) fn pivot(&mut self, id: VmId, order: u32) -> Result<()> {
        self.disk(id, order, Verb::Pivot)?;
        let jobs = &mut self.run(id, Verb::Pivot)?.jobs;
        if !jobs.get(&order).is_some_and(|job| job.ready) {
            return Err(hypervisor::not_ready(id, order));
        }
        let Some(Job { job, .. }) = jobs.remove(&order) else { return Err(hypervisor::not_ready(id, order)) };
        let disk = self.disk_mut(id, order, Verb::Pivot)?;
        match job {
            BlockJob::Mirror { to } => {
                (disk.source, disk.format) = (to.source, to.format);
                disk.backing.clear();
            }
            BlockJob::Commit { .. } => {
                if !disk.backing.is_empty() {
                    let base = disk.backing.remove(0);
                    (disk.source, disk.format) = (base.source, base.format);
                }
            }
        }
        Ok(())
    }
}

fn file(source: &VolumeSource) -> &std::path::Path {
    let VolumeSource::File(file) = source;
    file
}

fn commit(top: &VolumeSource) -> Result<()> {
    run(&tool().args(["commit", "-q", "-d", "-f", "qcow2"]).arg(file(top)))
}

/// The upper image reads from the lower one from now on.
fn reattach(upper: &Layer, lower: &Layer) -> Result<()> {
    let command = tool().args(["rebase", "-q", "-u", "-f", "qcow2", "-F", lower.format.word(), "-b"]);
    run(&command.arg(file(&lower.source)).arg(file(&upper.source)))
}

fn copy(disk: &DiskSpec, to: &Layer) -> Result<()> {
    let command = tool().args(["convert", "-q", "-n", "-f", disk.format.word(), "-O", to.format.word()]);
    run(&command.arg(path(disk)).arg(file(&to.source)))
}

fn tool() -> Command {
    // It writes whole images, of whatever size.
    Command::new("qemu-img", PATIENCE).limits(Limits { file_bytes: Some(u64::MAX >> 1), ..Limits::default() })
}

fn run(command: &Command) -> Result<()> {
    SystemRunner.run_quietly(command).map(drop).map_err(Error::from)
}
