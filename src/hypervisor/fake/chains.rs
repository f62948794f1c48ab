//! Overlays and block jobs of the fake: its guests write nothing, but the images are real, so data is moved by the real
//! tool. A job is done when it is begun, or ready.

use std::time::Duration;

use super::{State, path, refused};
use crate::error::{Error, Result};
use crate::exec::{Command, Runner, SystemRunner};
use crate::hypervisor::{BlockJob, Verb};
use crate::model::{DiskSpec, Layer, PowerState, VmId, VolumeSource};

/// For the images of tests and demonstrations.
const PATIENCE: Duration = Duration::from_secs(600);

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
        for overlay in overlays {
            let has = self.disk(id, overlay.order, Verb::OverlayDisks)?.clone();
            if overlay.backing != has.chain() {
                let (file, order) = (path(overlay).display(), overlay.order);
                return Err(refused(format!("{file} is not an overlay of what disk {order} is on")));
            }
            self.check_disk(id, overlay)?;
            self.no_job(id, overlay.order)?;
        }
        for overlay in overlays {
            *self.disk_mut(id, overlay.order, Verb::OverlayDisks)? = overlay.clone();
        }
        Ok(())
    }

    fn no_job(&mut self, id: VmId, order: u32) -> Result<()> {
        if self.run(id, Verb::StartBlockJob)?.jobs.contains_key(&order) {
            return Err(Error::wrong_state(format!("vm {id}"), "moving data of this disk", "wait for the block job"));
        }
        Ok(())
    }

    pub(super) fn start_block_job(&mut self, id: VmId, order: u32, job: &BlockJob) -> Result<()> {
        self.no_job(id, order)?;
        let disk = self.disk(id, order, Verb::StartBlockJob)?.clone();
        let chain = disk.chain();
        match job {
            BlockJob::Commit { top, base } => {
                let at = place(&chain, top)?;
                if chain.get(at + 1).map(|layer| &layer.source) != Some(base) {
                    return Err(refused("the base is not right below the top".to_owned()));
                }
                commit(top)?;
                if at > 0 {
                    let disk = self.disk_mut(id, order, Verb::StartBlockJob)?;
                    disk.backing.remove(at - 1);
                    return reattach(&chain, at - 1, at + 1);
                }
            }
            BlockJob::Pull { base } => {
                let onto = base.as_ref().map(|base| place(&chain, base)).transpose()?;
                let below = onto.and_then(|at| chain.get(at));
                pull(&disk.source, below)?;
                let disk = self.disk_mut(id, order, Verb::StartBlockJob)?;
                disk.backing = onto.map_or_else(Vec::new, |at| chain.into_iter().skip(at).collect());
                return Ok(());
            }
            BlockJob::Mirror { to } => {
                super::check_file(file(&to.source))?;
                copy(&disk, to)?;
            }
        }
        self.run(id, Verb::StartBlockJob)?.jobs.insert(order, job.clone());
        Ok(())
    }

    pub(super) fn pivot(&mut self, id: VmId, order: u32) -> Result<()> {
        let job = self.run(id, Verb::Pivot)?.jobs.remove(&order);
        let disk = self.disk_mut(id, order, Verb::Pivot)?;
        match job {
            Some(BlockJob::Commit { .. }) if !disk.backing.is_empty() => {
                let base = disk.backing.remove(0);
                (disk.source, disk.format) = (base.source, base.format);
                Ok(())
            }
            Some(BlockJob::Mirror { to }) => {
                (disk.source, disk.format) = (to.source, to.format);
                disk.backing.clear();
                Ok(())
            }
            _ => Err(Verb::Pivot.wrong_state(id, PowerState::Running)),
        }
    }
}

fn place(chain: &[Layer], source: &VolumeSource) -> Result<usize> {
    let found = chain.iter().position(|layer| layer.source == *source);
    found.ok_or_else(|| refused(format!("{} is not in the chain", file(source).display())))
}

fn file(source: &VolumeSource) -> &std::path::Path {
    let VolumeSource::File(file) = source;
    file
}

fn commit(top: &VolumeSource) -> Result<()> {
    run(tool().args(["commit", "-q", "-d", "-f", "qcow2"]).arg(file(top)))
}

/// The image at `upper` reads from the one at `lower` from now on; both are in place.
fn reattach(chain: &[Layer], upper: usize, lower: usize) -> Result<()> {
    let (Some(upper), Some(lower)) = (chain.get(upper), chain.get(lower)) else { return Ok(()) };
    let command = tool().args(["rebase", "-q", "-u", "-f", "qcow2", "-F", lower.format.word(), "-b"]);
    run(command.arg(file(&lower.source)).arg(file(&upper.source)))
}

fn pull(leaf: &VolumeSource, below: Option<&Layer>) -> Result<()> {
    let command = tool().args(["rebase", "-q", "-f", "qcow2", "-b"]);
    let command = match below {
        Some(below) => command.arg(file(&below.source)).args(["-F", below.format.word()]),
        None => command.arg(""),
    };
    run(command.arg(file(leaf)))
}

fn copy(disk: &DiskSpec, to: &Layer) -> Result<()> {
    let command = tool().args(["convert", "-q", "-n", "-f", disk.format.word(), "-O", to.format.word()]);
    run(command.arg(path(disk)).arg(file(&to.source)))
}

fn tool() -> Command {
    Command::new("qemu-img", PATIENCE)
}

fn run(command: Command) -> Result<()> {
    SystemRunner.run_quietly(&command).map(drop).map_err(Error::from)
}
