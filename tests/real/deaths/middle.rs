//! The middle of an operation, and who dies there.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use pengx::error::Result;
use pengx::hypervisor::Hypervisor;
use pengx::model::*;
use pengx::tasks::Fate;
use rustix::process::{Signal, kill_process};

use super::Death;
use crate::harness::app::{Fuse, StorageFaults};
use crate::harness::bed::{Bed, Ground, counter};
use crate::harness::wait::{BOOT, wait_within};
use crate::harness::whole::files_in;

/// Bytes per second: a block job that has more to move than QEMU moves at once stays in its middle.
pub(super) const SLOW: u64 = 1 << 14;

#[derive(Clone, Copy)]
pub(super) enum Middle {
    /// The first point of a task at which this is so.
    Once(fn(&Sight) -> bool),
    /// A tool copies a disk.
    Copying,
    /// A block job moves the data of the second disk.
    Moving,
}

/// What there is to see and to kill while an operation runs.
#[derive(Clone)]
pub(super) struct Sight {
    hypervisor: Arc<dyn Hypervisor>,
    ground: Arc<dyn Ground>,
    fuse: Arc<Fuse>,
    storage: Arc<StorageFaults>,
    vm: VmId,
    there: PathBuf,
    /// Before it began.
    chains: Vec<Vec<VolumeSource>>,
    files: BTreeSet<PathBuf>,
    struck: Arc<AtomicBool>,
    /// The last numbers that were on the disks right before the QEMU was killed.
    acknowledged: Arc<Mutex<Vec<u64>>>,
}

impl Sight {
    pub(super) fn of(bed: &Bed<impl Ground + 'static>, vm: VmId) -> Self {
        let (site, there) = (&bed.app().site, bed.app().site.second_dir());
        let mut sight = Self {
            hypervisor: site.hypervisor.clone(),
            ground: bed.ground.clone(),
            fuse: bed.app().fuse.clone(),
            storage: site.storage.clone(),
            vm,
            files: files_in([there.clone()].into_iter()),
            there,
            chains: Vec::new(),
            struck: Arc::default(),
            acknowledged: Arc::default(),
        };
        sight.chains = sight.now();
        sight
    }

    /// The images of both disks; nothing when the VM is off, or nobody answers.
    fn now(&self) -> Vec<Vec<VolumeSource>> {
        let chains: Result<Vec<_>> = (0..2).map(|order| self.hypervisor.chain(self.vm, order)).collect();
        chains.unwrap_or_default()
    }

    /// Finished files on the second storlink that were not there.
    fn new_files(&self) -> Vec<PathBuf> {
        let now = files_in([self.there.clone()].into_iter());
        now.into_iter()
            .filter(|file| !self.files.contains(file) && file.extension().is_some_and(|end| end != "part"))
            .collect()
    }

    pub(super) fn is_running(&self) -> bool {
        !self.now().is_empty()
    }

    pub(super) fn is_on_overlays(&self) -> bool {
        self.now().iter().zip(&self.chains).any(|(now, before)| now.get(1) == before.first())
    }

    pub(super) fn has_merged(&self) -> bool {
        self.now().iter().zip(&self.chains).any(|(now, before)| now.len() < before.len())
    }

    pub(super) fn has_moved(&self) -> bool {
        self.now().iter().any(|chain| matches!(&chain[0], VolumeSource::File(file) if file.starts_with(&self.there)))
    }

    pub(super) fn has_copied(&self) -> bool {
        !self.new_files().is_empty()
    }

    pub(super) fn has_copied_all(&self) -> bool {
        self.new_files().len() == 2
    }

    pub(super) fn has_manifest(&self) -> bool {
        self.new_files().iter().any(|file| file.extension().is_some_and(|end| end == "json"))
    }

    fn is_moving(&self) -> bool {
        let job = self.hypervisor.block_job(self.vm, 1);
        job.is_ok_and(|job| job.is_some_and(|job| job.done > 0 && !job.ready))
    }

    /// The first time.
    fn kill(&self, death: Death) -> Fate {
        if self.struck.swap(true, Ordering::SeqCst) {
            return Fate::Go;
        }
        match death {
            Death::Pengx => return Fate::Die,
            Death::Daemon => self.ground.silence(),
            Death::Qemu => {
                let last = |(order, chain): (u32, &Vec<VolumeSource>)| {
                    let VolumeSource::File(file) = &chain[0];
                    counter(file, order).until_past(0)
                };
                *self.acknowledged.lock().unwrap() = (0..).zip(&self.now()).map(last).collect();
                kill_process(self.ground.qemu(self.vm), Signal::KILL).unwrap();
            }
        }
        Fate::Go
    }
}

impl Middle {
    /// Runs an operation that is struck in its middle; what came of it, and the numbers of which the guest had certainly
    /// been told.
    pub(super) fn strike(
        self,
        death: Death,
        sight: &Sight,
        run: impl FnOnce() -> Result<()>,
    ) -> (Result<()>, Vec<u64>) {
        let (seen, over) = (sight.clone(), AtomicBool::new(false));
        let outcome = match self {
            Self::Once(is) => {
                sight.fuse.watch(move || {
                    if !seen.struck.load(Ordering::SeqCst) && is(&seen) { seen.kill(death) } else { Fate::Go }
                });
                run()
            }
            Self::Copying => {
                sight.storage.while_copying(move || {
                    seen.kill(death);
                });
                run()
            }
            Self::Moving => std::thread::scope(|scope| {
                scope.spawn(|| {
                    wait_within(BOOT, "a block job", || Ok(over.load(Ordering::SeqCst) || seen.is_moving()));
                    if !over.load(Ordering::SeqCst) {
                        seen.kill(death);
                    }
                });
                let outcome = run();
                over.store(true, Ordering::SeqCst);
                outcome
            }),
        };
        assert!(sight.struck.load(Ordering::SeqCst), "its middle did not come: {outcome:?}");
        sight.fuse.arm(&[]);
        let acknowledged = sight.acknowledged.lock().unwrap().clone();
        (outcome, acknowledged)
    }
}
