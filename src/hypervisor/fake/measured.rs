//! What the fake tells of its guests: counters that grow while one runs, and a screen that is always the same.

use std::time::{Duration, Instant};

use super::{Domain, Run, path};
use crate::error::Result;
use crate::hypervisor::description::{Description, Disk, file};
use crate::hypervisor::libvirt;
use crate::model::{DomainStats, Screenshot};

/// The smallest picture that there is, one pixel.
const PICTURE: &[u8] = b"\x89PNG\r\n\x1a\n\
    \0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0:~\x9bU\
    \0\0\0\nIDATx\xdac`\0\0\0\x02\0\x01\xe5'\xde\xfc\
    \0\0\0\0IEND\xaeB`\x82";

/// How long a guest has run, less the time that it was paused.
#[derive(Clone)]
pub(super) struct Meter {
    ran: Duration,
    /// `None` while it is paused.
    since: Option<Instant>,
}

impl Meter {
    pub(super) fn new(paused: bool) -> Self {
        Self { ran: Duration::ZERO, since: (!paused).then(Instant::now) }
    }

    pub(super) fn pause(&mut self, paused: bool) {
        self.ran = self.ran();
        self.since = (!paused).then(Instant::now);
    }

    /// So much time passes for it, if it runs.
    pub(super) fn pass(&mut self, time: Duration) {
        if self.since.is_some() {
            self.ran = self.ran.saturating_add(time);
        }
    }

    fn ran(&self) -> Duration {
        self.ran.saturating_add(self.since.map_or(Duration::ZERO, |since| since.elapsed()))
    }
}

impl Run {
    /// Each vCPU works a quarter of the time; an interface receives 4000 bytes a second and sends half of it, a disk reads and
    /// writes as much.
    pub(super) fn stats(&self) -> DomainStats {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let ran = self.meter.ran();
        let worked = u64::try_from(ran.as_nanos()).unwrap_or(u64::MAX) / 4;
        let vcpu_nanos: Vec<u64> = (0..self.has.vcpus).map(|_| worked).collect();
        let bytes = u64::try_from(ran.as_millis()).unwrap_or(u64::MAX).saturating_mul(4);
        let (nics, disks) = (count(self.has.nics.len()), count(self.has.disks.len()));
        DomainStats {
            id: self.has.id,
            cpu_nanos: vcpu_nanos.iter().fold(0, |all, one| all.saturating_add(*one)),
            vcpu_nanos,
            memory_kib: self.has.memory.0.saturating_mul(1024),
            max_memory_kib: self.has.max_memory.0.saturating_mul(1024),
            memory_used_kib: Some(self.has.memory.0.saturating_mul(512)),
            net_rx: bytes.saturating_mul(nics),
            net_tx: (bytes / 2).saturating_mul(nics),
            disk_read: bytes.saturating_mul(disks),
            disk_written: (bytes / 2).saturating_mul(disks),
        }
    }
}

impl Domain {
    pub(super) fn description(&self) -> Result<String> {
        let spec = self.run.as_ref().map_or(&self.spec, |run| &run.has);
        let status = self.status();
        let disks = spec.disks.iter().map(|disk| Disk {
            device: "disk",
            file: Some(path(disk).to_string_lossy().into_owned()),
            format: disk.format.word().to_owned(),
            target: libvirt::target(disk.order),
            bus: "virtio",
        });
        let drive = Disk {
            device: "cdrom",
            file: spec.disc.as_ref().map(file),
            format: "raw".to_owned(),
            target: "hdc".to_owned(),
            bus: "ide",
        };
        let disks = disks.chain([drive]).collect();
        let plain = Description::of(spec, "fake", "hvm");
        Description { number: status.number, screen: status.vnc, disks, ..plain }.write()
    }
}

pub(super) fn screenshot() -> Screenshot {
    Screenshot { media_type: "image/png".to_owned(), bytes: PICTURE.to_vec() }
}
