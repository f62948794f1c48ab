//! What is plugged into and pulled out of a guest while it runs.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::hypervisor::{Verb, place_taken};
use crate::model::{DiskSpec, Mac, NicLink, NicSpec, VmId, VolumeSource};

use super::chains;
use super::devices::{self, DRIVE};
use super::images::Images;
use super::parse::{self, Details, LiveNic, Row, RunState};
use super::power::{has_bridge, holds_on};
use super::{BY, Inner, Kind, errors, is_active, unsupported};

impl Inner {
    pub(super) fn attach_disk(&self, id: VmId, disk: &DiskSpec) -> Result<()> {
        self.act(Verb::AttachDisk, id, is_active, |row| {
            let details = self.details_of(row)?;
            let words = devices::disk(details.kind, disk)?;
            let place = devices::place(details.kind, disk.order);
            let VolumeSource::File(file) = &disk.source;
            match details.disks.iter().find(|live| live.place == place) {
                Some(live) if live.path.as_str() == file.as_os_str() => return Ok(()),
                Some(_) => return Err(place_taken(id, disk.order)),
                None => {}
            }
            let _claim = self.claim(id, &Images::of_disk(disk))?;
            // First, so that nobody else takes what is below it once the guest has it.
            self.amend_run(row, |run| {
                run.spec.disks.retain(|known| known.order != disk.order);
                run.spec.disks.push(disk.clone());
            })?;
            let args = ["block-attach".to_owned(), row.domid.to_string(), words];
            let done = self.xl(self.options.power_timeout, args).map(drop).map_err(errors::explain);
            if done.is_err() && !self.has_disk(row, &place).unwrap_or(true) {
                self.forget_disk(row, disk.order)?;
            }
            done
        })
    }

    fn has_disk(&self, row: &Row, place: &str) -> Result<bool> {
        Ok(self.details_of(row)?.disks.iter().any(|live| live.place == place))
    }

    fn forget_disk(&self, row: &Row, order: u32) -> Result<()> {
        self.amend_run(row, |run| run.spec.disks.retain(|known| known.order != order))
    }

    pub(super) fn detach_disk(&self, id: VmId, order: u32) -> Result<()> {
        self.act(Verb::DetachDisk, id, is_active, |row| {
            let details = self.details_of(row)?;
            let place = devices::place(details.kind, order);
            if details.disks.iter().any(|live| live.place == place) {
                self.is_awake(row, "disk", "vbd", devices::number(&place))?;
                let args = ["block-detach".to_owned(), row.domid.to_string(), place.clone()];
                self.pull_out(id, "disk", args, || self.has_disk(row, &place))?;
                if self.has_movable_disks(&details) {
                    // QEMU keeps the images of a disk that was moved.
                    chains::close_unused(&mut self.monitor(row, self.options.call_timeout)?)?;
                }
            }
            self.forget_disk(row, order)
        })
    }

    /// Xen does not ask a guest that stands still: it takes away what the guest goes on to use when it is resumed. What the
    /// guest has not taken yet may go.
    fn is_awake(&self, row: &Row, what: &str, kind: &str, number: Option<u32>) -> Result<()> {
        let Some(number) = number.filter(|_| row.state != RunState::Running) else { return Ok(()) };
        let key = format!("/local/domain/{}/device/{kind}/{number}/state", row.domid);
        match self.tool("xenstore-read", self.options.call_timeout, [key]) {
            Ok(said) if said.stdout.trim_ascii() == CONNECTED => Err(holds_on(row.id, what, Duration::ZERO)),
            Ok(_) => Ok(()),
            Err(error) if errors::said_no(&error) => Ok(()),
            Err(error) => Err(errors::explain(error)),
        }
    }

    /// Xen asks the guest and waits; if the device is still there afterwards, the guest holds on to it.
    fn pull_out(&self, id: VmId, what: &str, args: [String; 3], is_there: impl Fn() -> Result<bool>) -> Result<()> {
        match self.xl(self.options.power_timeout, args) {
            Ok(_) => Ok(()),
            Err(error) if errors::said_no(&error) => {
                if is_there()? {
                    Err(holds_on(id, what, XEN_PATIENCE).caused_by(error))
                } else {
                    Ok(())
                }
            }
            Err(error) => Err(errors::explain(error)),
        }
    }

    pub(super) fn attach_nic(&self, id: VmId, nic: &NicSpec) -> Result<()> {
        self.act(Verb::AttachNic, id, is_active, |row| {
            let details = self.details_of(row)?;
            if live_nic(&details, nic.mac).is_some() {
                return Ok(());
            }
            let words = devices::nic(nic)?;
            if let NicLink::Bridge(name) = &nic.link {
                has_bridge(name)?;
            }
            let args = ["network-attach".to_owned(), row.domid.to_string()].into_iter().chain(words);
            let done = self.xl(self.options.power_timeout, args).map(drop).map_err(errors::explain);
            if done.is_err() {
                // Xen leaves half of it there.
                if let Err(why) = self.remove_nic(row, nic.mac) {
                    tracing::warn!(vm = %id, error = why.story(), "half an interface could not be removed");
                }
                return done;
            }
            self.amend_run(row, |run| {
                run.spec.nics.retain(|known| known.mac != nic.mac);
                run.spec.nics.push(nic.clone());
            })
        })
    }

    fn remove_nic(&self, row: &Row, mac: Mac) -> Result<()> {
        let Some(nic) = live_nic(&self.details_of(row)?, mac) else { return Ok(()) };
        let args = ["network-detach".to_owned(), row.domid.to_string(), nic.number.to_string()];
        self.xl(self.options.power_timeout, args).map(drop).map_err(errors::explain)
    }

    pub(super) fn detach_nic(&self, id: VmId, mac: Mac) -> Result<()> {
        self.act(Verb::DetachNic, id, is_active, |row| {
            if let Some(nic) = live_nic(&self.details_of(row)?, mac) {
                self.is_awake(row, "interface", "vif", Some(nic.number))?;
                let args = ["network-detach".to_owned(), row.domid.to_string(), nic.number.to_string()];
                self.pull_out(id, "interface", args, || Ok(live_nic(&self.details_of(row)?, mac).is_some()))?;
            }
            self.amend_run(row, |run| run.spec.nics.retain(|nic| nic.mac != mac))
        })
    }

    pub(super) fn change_disc(&self, id: VmId, disc: Option<&VolumeSource>) -> Result<()> {
        self.act(Verb::ChangeDisc, id, is_active, |row| {
            let details = self.details_of(row)?;
            if details.kind != Kind::Hvm {
                return Err(unsupported("change the disc of a guest that is not HVM while it runs"));
            }
            let images = Images { read: disc.iter().map(|disc| super::path(disc)).collect(), ..Images::default() };
            let _claim = self.claim(id, &images)?;
            let file = disc.map_or(self.definitions.blank(), |VolumeSource::File(file)| file);
            let file = devices::target(details.kind, file)?.to_owned();
            let args = ["cd-insert".to_owned(), row.domid.to_string(), DRIVE.to_owned(), file];
            self.xl(self.options.power_timeout, args).map_err(errors::explain)?;
            self.amend_run(row, |run| run.spec.disc = disc.cloned())
        })
    }

    pub(super) fn set_vcpus(&self, id: VmId, count: u32) -> Result<()> {
        self.act(Verb::SetVcpus, id, is_active, |row| {
            let has = self.vcpus(row)?;
            if count < has {
                return Err(Error::refused(
                    BY,
                    format!("the guest has {has} vCPUs, and none is taken away while it runs"),
                ));
            }
            let args = ["vcpu-set".to_owned(), "--ignore-host".to_owned(), row.domid.to_string(), count.to_string()];
            self.xl(self.options.call_timeout, args).map_err(errors::explain)?;
            self.amend_run(row, |run| run.spec.vcpus = count)
        })
    }

    /// What the guest was given; it may not have switched all of them on yet.
    pub(super) fn vcpus(&self, row: &Row) -> Result<u32> {
        let place = format!("/local/domain/{}/cpu", row.domid);
        let said = self.tool("xenstore-ls", self.options.call_timeout, ["-f".to_owned(), place]);
        parse::switched_on(&said.map_err(errors::explain)?.stdout)
    }
}

/// How Xen says that a guest uses a device.
const CONNECTED: &[u8] = b"4";
/// Xen itself waits no longer for a guest.
const XEN_PATIENCE: Duration = Duration::from_secs(10);

fn live_nic(details: &Details, mac: Mac) -> Option<LiveNic> {
    details.nics.iter().find(|nic| nic.mac.parse() == Ok(mac)).cloned()
}
