//! What Xen tells of a guest that runs: what it has used, how its screen looks, and what it is made of for readers.
//!
//! Xen counts time to a tenth of a second here, and traffic in KiB. It cannot look into a guest: how much of its memory the
//! guest uses, and its addresses, it does not know.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::parse::{Details, Row, strange, utf8};
use super::qmp::{Fault, Monitor};
use super::seen::Age;
use super::{BY, Guest, Inner, Kept, Kind, devices, errors, is_active, unsupported};
use crate::error::{Error, ErrorKind, Result};
use crate::hypervisor::description::{self, Description, Disk, Nic};
use crate::hypervisor::{Verb, arp};
use crate::model::{DomainSpec, DomainStats, GuestAddress, Mac, Screenshot, VmId};

/// Larger than a picture of a screen of eight million pixels.
const MAX_PICTURE: u64 = 64 << 20;
const SECTOR: u64 = 512;

/// What each vCPU that is switched on has worked, by domain, in the answer to `xl vcpu-list`.
fn vcpus(stdout: &[u8]) -> Result<HashMap<u32, Vec<Duration>>> {
    let text = utf8(stdout)?;
    let mut all: HashMap<u32, Vec<Duration>> = HashMap::new();
    for line in text.lines().skip(1) {
        let (domid, time) = vcpu(line).ok_or_else(|| strange(line))?;
        all.entry(domid).or_default().extend(time);
    }
    Ok(all)
}

/// `NAME ID VCPU CPU State Time(s) HARD / SOFT`, from the right: a stranger's name may have blanks, and so may the two lists of
/// CPUs, but none is empty and a slash is between them. One that is switched off is on no CPU.
fn vcpu(line: &str) -> Option<(u32, Option<Duration>)> {
    let (line, _soft) = line.rsplit_once(" / ")?;
    let words: Vec<&str> = line.split_whitespace().collect();
    // The state is the last word of three flags before a time.
    let at = words.windows(2).rposition(|pair| matches!(pair, [state, time] if is_flags(state) && is_time(time)))?;
    let [.., domid, _number, cpu] = words.get(..at)? else { return None };
    let time = Duration::try_from_secs_f64(words.get(at + 1)?.parse().ok()?).ok()?;
    Some((domid.parse().ok()?, (*cpu != "-").then_some(time)))
}

fn is_flags(word: &str) -> bool {
    word.len() == 3 && word.chars().all(|flag| "rbp-".contains(flag))
}

fn is_time(word: &str) -> bool {
    word.parse::<f64>().is_ok()
}

/// What a guest's devices have moved and what it has of memory, in the answer to `xentop`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Used {
    memory_kib: u64,
    max_memory_kib: u64,
    net_rx: u64,
    net_tx: u64,
    disk_read: u64,
    disk_written: u64,
}

/// By the domain's name.
fn used(stdout: &[u8]) -> Result<HashMap<String, Used>> {
    let text = utf8(stdout)?;
    let known = ["NETTX(k)", "NETRX(k)", "VBDS", "VBD_OO", "VBD_RD", "VBD_WR", "VBD_RSECT", "VBD_WSECT", "SSID"];
    let header = text.lines().next().unwrap_or_default();
    if !header.split_whitespace().rev().take(known.len()).eq(known.into_iter().rev()) {
        return Err(strange(header));
    }
    // The control domain may have no limit, which is two words.
    let guests = text.lines().skip(1).filter(|line| !line.trim_start().starts_with("Domain-0 "));
    guests.map(|line| used_by(line).ok_or_else(|| strange(line))).collect()
}

/// From the right, as above. What the host sends to its end of an interface, the guest receives.
fn used_by(line: &str) -> Option<(String, Used)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (name, rest) = words.split_at_checked(words.len().checked_sub(18)?)?;
    let [_state, _seconds, _cpu, memory, _share, most, _of, _vcpus, _nets, sent, received, rest @ ..] = rest else {
        return None;
    };
    let [_vbds, _late, _reads, _writes, read, written, _label] = rest else { return None };
    let number = |word: &str, unit: u64| word.parse::<u64>().ok().map(|number| number.saturating_mul(unit));
    let used = Used {
        memory_kib: number(memory, 1)?,
        max_memory_kib: number(most, 1)?,
        net_rx: number(sent, 1024)?,
        net_tx: number(received, 1024)?,
        disk_read: number(read, SECTOR)?,
        disk_written: number(written, SECTOR)?,
    };
    Some((name.join(" "), used))
}

impl Inner {
    /// Two calls for all guests, besides the list that others share.
    pub(super) fn stats(&self) -> Result<Vec<DomainStats>> {
        let patience = self.options.call_timeout;
        let sight = self.look(Age::Recent)?;
        let said = self.xl(patience, ["vcpu-list"]).map_err(errors::explain)?;
        let mut vcpus = vcpus(&said.stdout)?;
        let said = self.tool("xentop", patience, ["-b", "-f", "-i", "1"]).map_err(errors::explain)?;
        let used = used(&said.stdout)?;
        let rows = sight.rows().iter().filter(|row| is_active(row) && !row.is_in_transit());
        // What ended meanwhile is in one answer only.
        let known = rows.filter_map(|row| Some((row, vcpus.remove(&row.domid)?, used.get(&row.name)?)));
        Ok(known.map(|(row, vcpus, used)| self.stats_of(row, &vcpus, used)).collect())
    }

    fn stats_of(&self, row: &Row, vcpus: &[Duration], used: &Used) -> DomainStats {
        let nanos = |time: &Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        // Xen knows what it may have now, and only we, up to how much it can be given. All are told of, whatever one file says.
        let run = self.definitions.read(row.id, Kept::Run).ok().flatten();
        let given = run.as_ref().and_then(|run| usize::try_from(run.spec.vcpus).ok()).unwrap_or(0);
        let most = run.map_or(used.max_memory_kib, |run| run.spec.max_memory.0.saturating_mul(1024));
        // Its first one switches the others on, and until then Xen counts them as off.
        let mut vcpu_nanos: Vec<u64> = vcpus.iter().map(nanos).collect();
        vcpu_nanos.resize(vcpu_nanos.len().max(given), 0);
        DomainStats {
            id: row.id,
            cpu_nanos: nanos(&row.cpu_time),
            vcpu_nanos,
            memory_kib: used.memory_kib,
            max_memory_kib: most.max(used.memory_kib),
            memory_used_kib: None,
            net_rx: used.net_rx,
            net_tx: used.net_tx,
            disk_read: used.disk_read,
            disk_written: used.disk_written,
        }
    }

    /// Xen has no agent and leases nothing.
    pub(super) fn addresses(&self, id: VmId) -> Result<Vec<GuestAddress>> {
        let sight = self.look(Age::Recent)?;
        let Some(row) = sight.row(id).filter(|row| is_active(row)) else { return Ok(Vec::new()) };
        let details = self.details(Some(row.domid))?.into_iter().find(|details| details.domid == row.domid);
        let nics = details.map(|details| details.nics).unwrap_or_default();
        let macs: Vec<Mac> = nics.iter().filter_map(|nic| nic.mac.parse().ok()).collect();
        Ok(arp::addresses(&macs))
    }

    /// Of a guest with a BIOS, whose QEMU is its screen.
    pub(super) fn screenshot(&self, id: VmId) -> Result<Screenshot> {
        let row = self.find_active(Verb::Screenshot, id)?;
        if self.details_of(&row)?.kind != Kind::Hvm {
            return Err(unsupported("take a picture of the screen of a guest that is not HVM"));
        }
        let file = self.options.dir.join(format!("{id}.screen"));
        let mut monitor = self.monitor(&row, self.options.call_timeout)?;
        let picture = dump(&mut monitor, &file)
            .and_then(|media_type| Ok(Screenshot { media_type: media_type.to_owned(), bytes: read_picture(&file)? }));
        // It may not have come to be.
        drop(std::fs::remove_file(&file));
        picture
    }

    pub(super) fn description(&self, id: VmId) -> Result<Option<String>> {
        let sight = self.look(Age::Recent)?;
        let row = sight.row(id).filter(|row| is_active(row));
        let screen = row.and_then(|_| self.status(&sight, id)).and_then(|status| status.vnc);
        let number = row.map(|row| row.domid);
        let what = if row.is_some() { Kept::Run } else { Kept::Definition };
        let described = match (self.definitions.read(id, what)?, row) {
            (Some(file), _) => ours(&file.spec, &file.guest),
            (None, Some(row)) => theirs(id, &self.details_of(row)?),
            (None, None) => return Ok(None),
        };
        Description { number, screen, ..described }.write().map(Some)
    }
}

/// As PNG, or by an older QEMU as PPM.
fn dump(monitor: &mut Monitor, file: &Path) -> Result<&'static str> {
    let Some(name) = file.to_str() else { return Err(Error::internal("a data directory that is not UTF-8")) };
    match monitor.tell("screendump", json!({ "filename": name, "format": "png" })) {
        Ok(()) => return Ok("image/png"),
        Err(Fault::Other(error)) if matches!(error.kind(), ErrorKind::Refused { .. }) => {}
        Err(fault) => return Err(fault.into()),
    }
    monitor.tell("screendump", json!({ "filename": name }))?;
    Ok("image/x-portable-pixmap")
}

fn read_picture(file: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|file| file.take(MAX_PICTURE + 1).read_to_end(&mut bytes));
    read.map_err(|e| Error::refused(BY, "the picture of the screen cannot be read").caused_by(e))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_PICTURE {
        return Err(Error::refused(BY, "the picture of the screen is too large"));
    }
    Ok(bytes)
}

/// As libvirt calls it.
fn os_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Hvm => "hvm",
        Kind::Pv => "xen",
        Kind::Pvh => "xenpvh",
    }
}

fn ours(spec: &DomainSpec, guest: &Guest) -> Description {
    let kind = guest.kind();
    let disks = spec.disks.iter().map(|disk| Disk {
        device: "disk",
        file: Some(description::file(&disk.source)),
        format: disk.format.word().to_owned(),
        target: devices::place(kind, disk.order),
        bus: "xen",
    });
    let drive = (kind == Kind::Hvm).then(|| Disk {
        device: "cdrom",
        file: spec.disc.as_ref().map(description::file),
        format: "raw".to_owned(),
        target: devices::DRIVE.to_owned(),
        bus: "ide",
    });
    Description { disks: disks.chain(drive).collect(), ..Description::of(spec, "xen", os_type(kind)) }
}

/// Somebody else's, as it runs.
fn theirs(id: VmId, details: &Details) -> Description {
    let disks = details.disks.iter().map(|disk| Disk {
        device: if disk.writable { "disk" } else { "cdrom" },
        file: Some(disk.path.clone()).filter(|path| !path.is_empty()),
        format: disk.format.clone(),
        target: disk.place.clone(),
        bus: "xen",
    });
    let nics = details.nics.iter().map(|nic| Nic { mac: nic.mac.clone(), bridge: None, unplugged: false });
    Description {
        kind: "xen",
        number: None,
        name: details.name.clone(),
        id: id.to_string(),
        title: String::new(),
        memory_kib: details.memory.0.saturating_mul(1024),
        max_memory_kib: details.max_memory.0.saturating_mul(1024),
        vcpus: details.vcpus,
        max_vcpus: details.vcpus,
        os_type: os_type(details.kind),
        disks: disks.collect(),
        nics: nics.collect(),
        screen: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::transcript;
    use super::*;

    const NAME: &str = "0d3a9f44-5b0c-4a0e-9d53-6f6c1f0b7a0";

    #[test]
    fn each_vcpu_that_is_on_has_its_time() {
        let all = vcpus(&transcript("vcpu-list").stdout).unwrap();
        let ms = |domid: u32| all[&domid].iter().map(Duration::as_millis).collect::<Vec<_>>();
        assert_eq!((ms(0), ms(1), ms(2), ms(3)), (vec![61_500, 62_100], vec![10_100], vec![0], vec![1_900]));
    }

    #[test]
    fn names_with_blanks_and_lists_of_cpus_are_read() {
        for (line, is) in [
            ("my 1 vm 3 0 1 -b- 7.5 all / all", Some((3, Some(7500)))),
            ("a 12 1 - --p 1.2 0-1,3 / 0, 2", Some((12, None))),
            ("a --- 0.1 4 2 0 r-- 0.3 all / all", Some((4, Some(300)))),
            ("a 3 0 1 -b- 7.5", None),
            ("a x 0 1 -b- 7.5 all / all", None),
        ] {
            let read = vcpu(line).map(|(domid, time)| (domid, time.map(|time| time.as_millis())));
            assert_eq!(read, is, "{line}");
        }
        assert!(vcpus(b"Name ID\nnonsense\n").is_err());
    }

    #[test]
    fn what_devices_moved_is_read_by_name() {
        let all = used(&transcript("xentop").stdout).unwrap();
        assert_eq!(all.len(), 4);
        let one = Used {
            memory_kib: 131_072,
            max_memory_kib: 132_096,
            net_rx: 3 << 10,
            net_tx: 4 << 10,
            disk_read: 65_570 * 512,
            disk_written: 372 * 512,
        };
        assert_eq!(all[&format!("{NAME}1")], one);
        assert_eq!(all[&format!("{NAME}3")].memory_kib, 65_840);
        let text = String::from_utf8(transcript("xentop").stdout).unwrap();
        let unlimited = text.replace("786432      37.5     2", "no limit       n/a     2");
        assert_ne!(unlimited, text);
        assert_eq!(used(unlimited.as_bytes()).unwrap().len(), 4);
        let blanks = text.replace(&format!("{NAME}2"), "a vm of 2 words");
        assert!(used(blanks.as_bytes()).unwrap().contains_key("a vm of 2 words"));
        assert!(used(b"").is_err());
        assert!(used(text.replace("SSID", "NEW").as_bytes()).is_err());
        assert!(used(text.replace("65570", "-").as_bytes()).is_err());
    }
}
