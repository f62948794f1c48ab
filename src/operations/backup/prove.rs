//! Boots a backup in a domain that is thrown away again, and waits for a sign that its guest has come up.
//!
//! Law: the backup is only read, no packet leaves the guest, and however it ends nothing of it stays.

use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::hypervisor::Start;
use crate::model::{
    Access, BackupId, Compensation, Disk, DiskId, DiskSpec, DomainSpec, Format, Lane, Layer, Lock, MiB, NicLink,
    NicSpec, Os, ProofSign, Resource, TaskKind, VmId, VolumeName, VolumeSource,
};
use crate::operations::domain::disk_spec;
use crate::operations::vm::{new_vnc_password, state_now};
use crate::operations::{Core, Operation, space};
use crate::storage::{Content, Control, MAX_LOG, NewVolume, VolumeDriver};
use crate::store::{backups, templates};
use crate::tasks::Work;

use super::manifest::{Manifest, glance};
use super::{Kept, noun, subject};

/// How often the guest is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What a guest may write to each of its disks while it boots.
const WRITTEN: MiB = MiB(64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProveBackup {
    /// There, or deleted since.
    pub vm: VmId,
    pub backup: BackupId,
}

impl Operation for ProveBackup {
    const KIND: TaskKind = TaskKind::BackupProve;
    type Output = ();

    fn lane(&self) -> Lane {
        Lane::Long
    }

    fn subject(&self, core: &Core) -> Result<String> {
        subject(core, self.vm, self.backup)
    }

    fn locks(&self) -> Vec<Lock> {
        vec![Lock { resource: Resource::Backup(self.backup), access: Access::Uses }]
    }

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let kept = Kept::load(core, self.vm, self.backup)?;
        let driver = kept.driver(core)?;
        // Nothing is made for a hypervisor that could not be told of it.
        core.hypervisor.info()?;
        let manifest = glance(driver.as_ref(), &kept.backup, &kept.disks)?;
        let mut proof = Proof { core, kept: &kept, driver: driver.as_ref(), manifest, made: Vec::new() };
        let spec = proof.build(work)?;
        let domain = spec.id;
        work.step(&Compensation::Undefine { vm: domain }, || core.hypervisor.define(&spec))?;
        work.step(&Compensation::Destroy { vm: domain }, || core.hypervisor.start(domain, Start::Running))?;
        proof.wait(work, &spec)?;
        work.act(|| core.hypervisor.destroy(domain))?;
        work.act(|| core.hypervisor.undefine(domain))?;
        core.inventory.refresh(domain)?;
        for volume in &proof.made {
            work.act(|| driver.remove(volume))?;
        }
        let now = core.clock.now();
        work.settle(&format!("{} boots", noun(&kept.backup)), &[], |tx| backups::set_proven(tx, self.backup, now))
    }
}

struct Proof<'a> {
    core: &'a Core,
    kept: &'a Kept,
    driver: &'a dyn VolumeDriver,
    manifest: Manifest,
    /// What lies on the storlink for the time of the proof.
    made: Vec<VolumeName>,
}

impl Proof<'_> {
    /// Puts an overlay on each image, or a copy beside it where guests cannot run on what zstd made smaller, and says what
    /// domain has them.
    fn build(&mut self, work: &mut Work<'_>) -> Result<DomainSpec> {
        let config = &self.kept.backup.config;
        let mut spec = DomainSpec {
            id: VmId(self.core.ids.uuid()),
            title: format!("proof of {}", noun(&self.kept.backup)),
            os: self.os()?,
            vcpus: config.cpu,
            max_vcpus: config.cpu,
            memory: config.memory,
            max_memory: config.memory,
            disks: Vec::new(),
            nics: Vec::new(),
            pci: None,
            disc: None,
            console: None,
            vnc_password: new_vnc_password(self.core),
        };
        let can = self.core.hypervisor.capabilities(&spec);
        let mut need = MiB(0);
        for disk in &self.kept.disks {
            let copied = if can.zstd { 0 } else { self.manifest.image(disk)?.data_bytes };
            need = need + WRITTEN + MiB::from_bytes_ceil(copied);
        }
        space::reserve(self.core, work, &self.kept.storlink, self.driver, need)?;
        if can.user_network {
            let nics = config.nics.iter();
            spec.nics = nics.map(|nic| NicSpec { mac: nic.mac, link: NicLink::Unplugged }).collect();
        }
        for disk in &self.kept.disks {
            spec.disks.push(self.disk(work, disk, can.zstd)?);
        }
        if let ProofSign::Console(_) = self.core.settings.prove_wait {
            let volume = VolumeName::log(DiskId(self.core.ids.uuid()));
            let make = NewVolume { format: Format::Raw, size: MiB(1), content: Content::Zeros };
            spec.console = Some(self.make(work, volume, &make)?);
        }
        Ok(spec)
    }

    /// Said of the template that its VM was made from.
    fn os(&self) -> Result<Option<Os>> {
        let Some(template) = self.kept.backup.config.template else { return Ok(None) };
        Ok(self.core.store.read(|c| templates::find(c, template))?.map(|template| template.os))
    }

    fn disk(&mut self, work: &mut Work<'_>, disk: &Disk, overlay: bool) -> Result<DiskSpec> {
        let kept = vec![Layer { source: self.driver.source(&disk.volume)?, format: disk.format }];
        let (content, below) =
            if overlay { (Content::Overlay(kept.clone()), kept) } else { (Content::Copy(kept), Vec::new()) };
        let id = DiskId(self.core.ids.uuid());
        let row = Disk { id, format: Format::Qcow2, volume: VolumeName::new(id, Format::Qcow2), ..disk.clone() };
        let make = NewVolume { format: row.format, size: disk.size, content };
        self.make(work, row.volume.clone(), &make)?;
        disk_spec(self.driver, &row, below)
    }

    fn make(&mut self, work: &mut Work<'_>, volume: VolumeName, make: &NewVolume) -> Result<VolumeSource> {
        let undo = Compensation::DeleteVolume { storlink: self.kept.storlink.id, volume: volume.clone() };
        let reporter = work.reporter();
        let control = Control { cancel: reporter.cancel_flag(), progress: &|_| {} };
        work.step(&undo, || self.driver.create(&volume, make, &control))?;
        let source = self.driver.source(&volume)?;
        self.made.push(volume);
        Ok(source)
    }

    /// Until the sign is seen. `Refused` when the guest powers off before, `Timeout` when it takes too long.
    fn wait(&self, work: &Work<'_>, spec: &DomainSpec) -> Result<()> {
        let timeout = self.core.settings.prove_timeout;
        let deadline = Instant::now() + timeout;
        let reporter = work.reporter();
        reporter.progress(0, "waiting for the guest");
        loop {
            match self.seen(spec) {
                Ok(true) => return Ok(()),
                // One that is away for a moment is no reason to give up.
                Err(error) if !matches!(error.kind(), ErrorKind::Unavailable { .. }) => return Err(error),
                _ => {}
            }
            work.checkpoint()?;
            if Instant::now() >= deadline {
                let sign = match &self.core.settings.prove_wait {
                    ProofSign::Agent => "its guest agent did not answer".to_owned(),
                    ProofSign::Console(text) => format!("its console did not show {text:?}"),
                };
                let action = format!("{} was booted, and {sign}", noun(&self.kept.backup));
                return Err(Error::new(ErrorKind::Timeout { action, after: timeout }));
            }
            std::thread::sleep(LOOK_AGAIN.min(deadline.saturating_duration_since(Instant::now())));
        }
    }

    fn seen(&self, spec: &DomainSpec) -> Result<bool> {
        if !state_now(self.core, spec.id)?.is_active() {
            return Err(self.failed("its guest powered off before it had come up"));
        }
        match (&self.core.settings.prove_wait, self.made.iter().find(|volume| volume.is_log())) {
            (ProofSign::Console(text), Some(log)) => {
                let said = self.driver.read_log(log)?;
                if contains(&said, text.as_bytes()) {
                    return Ok(true);
                }
                // It may be up to no good, and the log must not fill the storlink.
                if said.len() >= MAX_LOG {
                    return Err(self.failed("its guest floods its console"));
                }
                Ok(false)
            }
            _ => match self.core.hypervisor.agent_answers(spec.id) {
                // It has powered off since: the next look tells.
                Err(off) if matches!(off.kind(), ErrorKind::WrongState { .. }) => Ok(false),
                answer => answer,
            },
        }
    }

    fn failed(&self, why: &str) -> Error {
        Error::refused("pengx", format!("{} does not boot: {why}", noun(&self.kept.backup)))
    }
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len().max(1)).any(|part| part == wanted)
}
