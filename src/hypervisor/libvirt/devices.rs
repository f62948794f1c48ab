//! What is changed of a guest while it runs. The definition is never touched.

use std::ffi::CString;
use std::thread;
use std::time::{Duration, Instant};

use virt::domain::Domain;
use virt_sys as sys;

use super::domain_xml::{self, Device};
use super::errors::{self, Fault};
use super::link::Connection;
use super::states::power_state;
use super::{LibvirtHypervisor, Patience, ffi};
use crate::error::{Error, ErrorKind, Result};
use crate::hypervisor::{self, Verb};
use crate::model::{DiskSpec, MiB, NicSpec, VmId, VolumeSource};

/// Between two looks at a guest that was asked to let go; most need a third of a second.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A guest that boots loses what it was asked before, so it is asked again. QEMU may refuse to ask twice within 5 s.
const ASK_AGAIN: Duration = Duration::from_secs(6);

impl LibvirtHypervisor {
    pub(super) fn detach(&self, verb: Verb, id: VmId, is: impl Fn(&Device) -> bool) -> Result<()> {
        let patience = self.options.device_timeout;
        let deadline = Instant::now() + patience;
        let mut asked: Option<(Instant, String)> = None;
        // A guest takes its time, and many may at once: no call waits for it.
        loop {
            let devices = self.call(Verb::Domain, Some(id), move |c| Ok(c.running(verb, id)?.1))?;
            match (devices.into_iter().find(&is), &asked) {
                (Some(device), Some((at, _))) if at.elapsed() < ASK_AGAIN => drop(device),
                (Some(device), _) => {
                    self.ask_to_let_go(verb, id, &device.alias)?;
                    asked = Some((Instant::now(), device.alias));
                }
                // libvirt strikes a device off its document before QEMU has closed the image. It does one thing to a
                // domain at a time: after it has answered this, it has done that.
                (None, Some((_, alias))) => return self.ask_to_let_go(verb, id, alias),
                (None, None) => return Ok(()),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let action = format!("the guest of vm {id} did not let go");
                return Err(Error::new(ErrorKind::Timeout { action, after: patience }));
            }
            thread::sleep(LOOK_AGAIN.min(left));
        }
    }

    fn ask_to_let_go(&self, verb: Verb, id: VmId, alias: &str) -> Result<()> {
        let name = CString::new(alias).map_err(|e| Error::internal("the alias of a device").caused_by(e))?;
        self.call_in_time(verb, Some(id), move |connection, patience| {
            let domain = connection.find(id)?;
            patience.check()?;
            let Err(refusal) = ffi::ask_to_let_go(&domain, &name) else { return Ok(()) };
            let alias = name.to_str().unwrap_or_default();
            let (_, devices) = connection.running(verb, id)?;
            let is_there = devices.iter().any(|device| device.alias == alias);
            if is_there && !errors::is_asked_already(&refusal) { Err(refusal.into()) } else { Ok(()) }
        })
    }
}

impl Connection {
    /// The domain and what is plugged into it; the refusal of `verb` when it is off.
    fn running(&self, verb: Verb, id: VmId) -> Result<(Domain, Vec<Device>), Fault> {
        let domain = self.find(id)?;
        if !domain.is_active()? {
            return Err(verb.wrong_state(id, power_state(ffi::state(&domain)?)).into());
        }
        let devices = domain_xml::devices(&domain.xml_desc(0)?)?;
        Ok((domain, devices))
    }

    pub(super) fn set_vcpus(&self, id: VmId, count: u32, patience: Patience) -> Result<(), Fault> {
        let domain = self.find(id)?;
        let now = domain.vcpus_flags(sys::VIR_DOMAIN_VCPU_LIVE)?;
        // libvirt would try; few guests give a vCPU back, and QEMU 7.2 without KVM dies of it.
        if count < now {
            let why = format!("a running guest keeps its vCPUs: it has {now}, and cannot have {count}");
            return Err(Error::refused("QEMU", why).into());
        }
        if count > now {
            patience.check()?;
            domain.set_vcpus_flags(count, sys::VIR_DOMAIN_VCPU_LIVE)?;
        }
        Ok(())
    }

    pub(super) fn memory(&self, id: VmId) -> Result<MiB, Fault> {
        let domain = self.find(id)?;
        let memory = domain.info()?.memory;
        if !domain.is_active()? {
            return Err(Verb::Memory.wrong_state(id, power_state(ffi::state(&domain)?)).into());
        }
        Ok(MiB(memory >> 10))
    }

    pub(super) fn attach_disk(&self, id: VmId, disk: &DiskSpec, patience: Patience) -> Result<(), Fault> {
        let document = domain_xml::disk(id, disk)?;
        let file = domain_xml::file("disk", &disk.source)?;
        let (domain, devices) = self.running(Verb::AttachDisk, id)?;
        let is_it = |device: &Device| device.is_disk(disk.order) && device.file.as_deref() == Some(file);
        if devices.iter().any(is_it) {
            return Ok(());
        }
        // Not tried, so that nobody undoes it by pulling out what stands there.
        if devices.iter().any(|device| device.is_disk(disk.order)) {
            return Err(hypervisor::place_taken(id, disk.order).into());
        }
        attach(&domain, &document, is_it, patience)
    }

    pub(super) fn attach_nic(&self, id: VmId, nic: &NicSpec, patience: Patience) -> Result<(), Fault> {
        let document = domain_xml::nic(nic)?;
        let (domain, devices) = self.running(Verb::AttachNic, id)?;
        let is_it = |device: &Device| device.is_nic(nic.mac);
        if devices.iter().any(is_it) { Ok(()) } else { attach(&domain, &document, is_it, patience) }
    }

    /// libvirt opens the drive, exchanges the disc and closes the drive. A guest that wants to read from an open drive closes
    /// it itself, and may come in between: then libvirt fails; or, when the disc is in already, QEMU does not look at it
    /// and shows the guest the size of what was in there before, and that is no disc if it was empty. So a disc is put in
    /// under another spelling of its name first: whatever the guest does during the second change, the size is right.
    pub(super) fn change_disc(&self, id: VmId, disc: Option<&VolumeSource>, patience: Patience) -> Result<(), Fault> {
        let file = disc.map(|disc| domain_xml::file("disc", disc)).transpose()?;
        let (domain, devices) = self.running(Verb::ChangeDisc, id)?;
        let is_in = |device: &Device| device.is_drive() && !device.is_open && device.file.as_deref() == file;
        if file.is_some() && devices.iter().any(is_in) {
            return Ok(());
        }
        let change = |disc: Option<&VolumeSource>| -> Result<(), Fault> {
            let flags = sys::VIR_DOMAIN_DEVICE_MODIFY_LIVE | sys::VIR_DOMAIN_DEVICE_MODIFY_FORCE;
            let document = domain_xml::drive(disc)?;
            patience.check()?;
            Ok(domain.update_device_flags(&document, flags)?)
        };
        let spelled = file.map(|file| VolumeSource::File(format!("/.{file}").into()));
        loop {
            let first = if spelled.is_some() { change(spelled.as_ref()) } else { Ok(()) };
            match first.and_then(|()| change(disc)) {
                Err(Fault::Libvirt(refusal)) if errors::is_closed_tray(&refusal) => {}
                // Of a disc that cannot be had, in its own name.
                Err(Fault::Libvirt(_)) => return change(disc),
                done => return done,
            }
        }
    }
}

fn attach(domain: &Domain, document: &str, is_it: impl Fn(&Device) -> bool, patience: Patience) -> Result<(), Fault> {
    patience.check()?;
    let Err(refusal) = domain.attach_device_flags(document, sys::VIR_DOMAIN_DEVICE_MODIFY_LIVE) else { return Ok(()) };
    // This call may have waited for an earlier one, which nobody hears any more, to do the same.
    if domain_xml::devices(&domain.xml_desc(0)?)?.iter().any(is_it) { Ok(()) } else { Err(refusal.into()) }
}

/// The balloon's unit.
pub(super) fn kib(memory: MiB) -> Result<u64> {
    memory.0.checked_mul(1024).ok_or_else(|| Error::invalid("memory", "is larger than can be said"))
}
