//! What `xl` prints, as values. Pure. Whatever looks otherwise than known is an error that shows the line, never a guess.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::model::{MiB, VmId};

use super::{BY, Kind};

/// The longest line that a sentence shows, in characters.
const MAX_SHOWN: usize = 200;
/// How the name of a domain ends that is being received from another host.
const INCOMING: &str = "--incoming";
/// And that of one that was sent there.
const SENT: &str = "--migratedaway";
/// The control domain, which is no guest.
const DOM0: u32 = 0;

/// A domain as Xen has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Never used again once it is gone; a guest that reboots has a new one.
    pub(super) domid: u32,
    /// Twice in the list when two domains were made with it.
    pub(super) id: VmId,
    pub(super) name: String,
    pub(super) state: RunState,
    /// What it has now.
    pub(super) memory: MiB,
    /// What its vCPUs have worked together, to a tenth of a second.
    pub(super) cpu_time: Duration,
}

impl Row {
    pub(super) fn is_guest(&self) -> bool {
        self.domid != DOM0
    }

    /// Half of a migration: the guest lives elsewhere.
    pub(super) fn is_in_transit(&self) -> bool {
        self.name.ends_with(INCOMING) || self.was_sent()
    }

    pub(super) fn was_sent(&self) -> bool {
        self.name.ends_with(SENT)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunState {
    Running,
    Paused,
    /// It has stopped by itself to be saved or moved.
    Suspended,
    /// Ended, to begin again at once.
    Rebooting,
    /// Ended, and kept.
    Shutdown,
    /// Died, and kept.
    Crashed,
    /// Being torn down; what it holds is not free yet.
    Dying,
}

/// Six flags, of which several may be set; the fifth says why it ended. The one that says most counts.
fn run_state(flags: &str) -> Option<RunState> {
    let flags: Vec<char> = flags.chars().collect();
    let [running, blocked, paused, ended, why, dying] = flags[..] else { return None };
    let is = |flag: char, set: char| (flag == set || flag == '-').then_some(flag == set);
    let (_, _) = (is(running, 'r')?, is(blocked, 'b')?);
    let (paused, ended, dying) = (is(paused, 'p')?, is(ended, 's')?, is(dying, 'd')?);
    Some(match why {
        _ if !"-rscwS?".contains(why) => return None,
        _ if dying => RunState::Dying,
        // It died, or its watchdog bit.
        'c' | 'w' => RunState::Crashed,
        // By itself, or by a soft reset.
        'r' | 'S' => RunState::Rebooting,
        's' => RunState::Suspended,
        _ if ended => RunState::Shutdown,
        _ if paused => RunState::Paused,
        _ => RunState::Running,
    })
}

/// All domains in the answer to `xl list -v`, the control domain as well.
pub(super) fn list(stdout: &[u8]) -> Result<Vec<Row>> {
    let text = utf8(stdout)?;
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let known = ["Name", "ID", "Mem", "VCPUs", "State", "Time(s)", "UUID", "Reason-Code", "Security", "Label"];
    if header != known {
        return Err(strange(&header.join(" ")));
    }
    lines.map(|line| row(line).ok_or_else(|| strange(line))).collect()
}

/// From the right: a long name pushes the columns, and one of a stranger may have blanks.
fn row(line: &str) -> Option<Row> {
    let mut words = line.split_whitespace().rev();
    let _label = words.next()?;
    let _reason = words.next()?;
    let id = words.next()?.parse().ok()?;
    let cpu_time = Duration::try_from_secs_f64(words.next()?.parse().ok()?).ok()?;
    let state = run_state(words.next()?)?;
    let _vcpus: u32 = words.next()?.parse().ok()?;
    let memory = MiB(words.next()?.parse().ok()?);
    let domid = words.next()?.parse().ok()?;
    let mut name: Vec<&str> = words.collect();
    name.reverse();
    Some(Row { domid, id, name: name.join(" "), state, memory, cpu_time })
}

/// What a guest is made of, with what was plugged in since it started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Details {
    pub(super) domid: u32,
    pub(super) id: Option<VmId>,
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) vcpus: u32,
    pub(super) memory: MiB,
    pub(super) max_memory: MiB,
    pub(super) disks: Vec<LiveDisk>,
    pub(super) nics: Vec<LiveNic>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LiveDisk {
    /// Empty: a drive without a disc.
    pub(super) path: String,
    pub(super) place: String,
    pub(super) format: String,
    /// Who serves it: `qdisk` is QEMU, `phy` the kernel.
    pub(super) backend: String,
    pub(super) writable: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LiveNic {
    pub(super) mac: String,
    pub(super) number: u32,
}

/// Only what is used; a screen's password is never taken in.
#[derive(Deserialize)]
struct Element {
    domid: u32,
    config: Config,
}

#[derive(Deserialize)]
struct Config {
    c_info: Created,
    b_info: Built,
    #[serde(default)]
    disks: Vec<Disk>,
    #[serde(default)]
    nics: Vec<Nic>,
}

#[derive(Deserialize)]
struct Created {
    #[serde(rename = "type")]
    kind: Option<String>,
    name: Option<String>,
    uuid: Option<String>,
}

#[derive(Deserialize)]
struct Built {
    #[serde(default)]
    avail_vcpus: Vec<u32>,
    #[serde(default)]
    max_memkb: u64,
    #[serde(default)]
    target_memkb: u64,
}

#[derive(Deserialize)]
struct Disk {
    #[serde(default)]
    pdev_path: String,
    vdev: String,
    #[serde(default)]
    format: String,
    #[serde(default)]
    backend: String,
    /// Absent when nobody writes to it.
    #[serde(default)]
    readwrite: u32,
}

#[derive(Deserialize)]
struct Nic {
    /// Absent when it is the first.
    #[serde(default)]
    devid: u32,
    #[serde(default)]
    mac: String,
}

/// The guests in the answer to `xl list -l`.
pub(super) fn details(stdout: &[u8]) -> Result<Vec<Details>> {
    // Not what serde says: it may quote a value.
    let wrong = |place: String| Error::refused(BY, format!("xl list -l said what pengx does not understand, {place}"));
    let elements: Vec<Element> =
        serde_json::from_slice(stdout).map_err(|e| wrong(format!("in line {} column {}", e.line(), e.column())))?;
    let guests = elements.into_iter().filter(|element| element.domid != DOM0);
    guests.map(|element| detail(element).map_err(|domid| wrong(format!("of domain {domid}")))).collect()
}

fn detail(element: Element) -> Result<Details, u32> {
    let Element { domid, config: Config { c_info, b_info, disks, nics } } = element;
    let id = c_info.uuid.map(|uuid| uuid.parse()).transpose().map_err(|_| domid)?;
    let disk = |disk: Disk| LiveDisk {
        path: disk.pdev_path,
        place: disk.vdev,
        format: disk.format,
        backend: disk.backend,
        writable: disk.readwrite != 0,
    };
    Ok(Details {
        domid,
        id,
        name: c_info.name.unwrap_or_default(),
        kind: c_info.kind.as_deref().and_then(Kind::from_word).ok_or(domid)?,
        vcpus: u32::try_from(b_info.avail_vcpus.len()).map_err(|_| domid)?,
        memory: MiB(b_info.target_memkb >> 10),
        max_memory: MiB(b_info.max_memkb >> 10),
        disks: disks.into_iter().map(disk).collect(),
        nics: nics.into_iter().map(|nic| LiveNic { mac: nic.mac, number: nic.devid }).collect(),
    })
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Info {
    pub(super) version: String,
    pub(super) cpus: u32,
    pub(super) threads_per_core: u32,
    pub(super) memory: MiB,
    /// What a new guest could have.
    pub(super) free: MiB,
}

/// The answer to `xl info`: a key and a value in each line.
pub(super) fn info(stdout: &[u8]) -> Result<Info> {
    let text = utf8(stdout)?;
    let value = |key: &str| {
        let line = text.lines().find(|line| line.split_once(':').is_some_and(|(name, _)| name.trim() == key));
        let value = line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim());
        value.filter(|value| !value.is_empty()).ok_or_else(|| strange(&format!("xl info without {key}")))
    };
    let number = |key: &str| -> Result<u64> {
        let text = value(key)?;
        text.parse().map_err(|_| strange(&format!("{key}: {text}")))
    };
    let small = |key: &str| {
        let number = number(key)?;
        number.try_into().map_err(|_| strange(&format!("{key}: {number}")))
    };
    Ok(Info {
        version: value("xen_version")?.to_owned(),
        cpus: small("nr_cpus")?,
        threads_per_core: small("threads_per_core")?,
        memory: MiB(number("total_memory")?),
        free: MiB(number("free_memory")?),
    })
}

/// How many vCPUs are switched on, in the answer to `xenstore-ls -f /local/domain/N/cpu`.
pub(super) fn switched_on(stdout: &[u8]) -> Result<u32> {
    let text = utf8(stdout)?;
    let on = text.lines().filter(|line| line.ends_with("/availability = \"online\"")).count();
    u32::try_from(on).ok().filter(|on| *on > 0).ok_or_else(|| strange(text))
}

/// The port of a screen, in the answer to `xenstore-read`.
pub(super) fn port(stdout: &[u8]) -> Result<u16> {
    let text = utf8(stdout)?.trim();
    text.parse().map_err(|_| strange(text))
}

/// The terminal of a console, in the answer to `xenstore-read`.
pub(super) fn terminal(stdout: &[u8]) -> Result<PathBuf> {
    let text = utf8(stdout)?.trim();
    let number = text.strip_prefix("/dev/pts/").filter(|number| number.parse::<u32>().is_ok());
    number.map(|_| PathBuf::from(text)).ok_or_else(|| strange(text))
}

pub(super) fn utf8(stdout: &[u8]) -> Result<&str> {
    std::str::from_utf8(stdout).map_err(|_| strange(&String::from_utf8_lossy(stdout)))
}

pub(super) fn strange(line: &str) -> Error {
    let mut shown: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_SHOWN).collect();
    if line.chars().count() > MAX_SHOWN {
        shown.push_str("...");
    }
    Error::refused(BY, format!("xl said what pengx does not understand: {shown:?}"))
}

#[cfg(test)]
mod tests;
