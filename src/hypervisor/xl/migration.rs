//! Guests that move to another host while they run, and what is left when that is broken off.
//!
//! `xl migrate` does the work, through an ssh whose key can do nothing but bring a guest that is expected. While it works the
//! domain has one name more: `--incoming` on the target; on the source `--migratedaway`, from when the target has said that it
//! has all of it. The source tells the target to let it run after that, so these names say where it may run.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use serde_json::json;

use super::config_file::{ConfigFile, domain_name};
use super::definitions::{Definitions, Kept};
use super::images::Images;
use super::parse::{Row, RunState};
use super::seen::{Age, Sight};
use super::{BY, Inner, Kind, devices, errors, is_running, power, processes, refusal, unsupported};
use crate::error::{Error, Result};
use crate::exec::{self, Command, Watch};
use crate::hypervisor::{MigrationTarget, Transit, Verb};
use crate::model::{DomainSpec, VmId};

/// Tells the processes of one arrival from those of another; the value is the id.
pub(super) const MARK: &str = "PENGX_MIGRATION";
/// Where Debian has what Xen's own Python programs use.
const PYTHON_PATH: &str = "/usr/lib/xen-4.17/lib/python";
/// What `xl` does for a guest that it could not send, and has no command for: the guest goes on where it stopped.
const RESUME: &str = "import sys; sys.path.append(sys.argv[2]); from xen.lowlevel import xc, xs; domid = int(sys.argv[1]); \
                      xc.xc().domain_resume(domid, 1); xs.xs().resume_domain(domid)";
/// How a hypervisor says that it cannot tell what a PV guest writes.
const NO_SHADOW: &str = "Failed to enable logdirty";
/// How Xen says that a PV guest has not told it where its memory is, as its kernel does once it runs, if it can be moved.
const NO_MEMORY_MAP: &str = "p2m frame list list";
/// How `xl` says that nobody answered at the other end of ssh.
const NO_BANNER: &str = "reading banner from migration receiver";

/// The guests that somebody here is sending: they are of this host until that is over.
#[derive(Default)]
pub(super) struct Leaving(Mutex<HashSet<VmId>>);

impl Leaving {
    pub(super) fn all(&self) -> HashSet<VmId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, id: VmId, leaves: bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if leaves {
            all.insert(id)
        } else {
            all.remove(&id)
        };
    }
}

impl Inner {
    pub(super) fn expect_guest(&self, file: &ConfigFile) -> Result<()> {
        let id = file.spec.id;
        self.fits_here(id, file)?;
        self.definitions.write(file, Kept::Definition)?;
        self.definitions.write(file, Kept::Run)?;
        self.definitions.remove(id, Kept::Crash)?;
        let done = self.definitions.mark(id, Kept::Expected);
        self.seen.touch();
        done
    }

    /// Xen would find out when all of its memory has been sent.
    fn fits_here(&self, id: VmId, file: &ConfigFile) -> Result<()> {
        let sight = self.look(Age::Fresh)?;
        if sight.rows_of(id).next().is_some() || sight.is_rebooting(id) {
            return Err(Error::refused(BY, format!("vm {id} is on this host already")));
        }
        let (free, needed) = (self.info()?.free, file.spec.memory);
        if free < needed {
            return Err(Error::refused(
                BY,
                format!("this host has {free} MiB of memory free; the guest needs {needed}"),
            ));
        }
        power::bridges_are_there(file)?;
        let mut images = Images::of(&file.spec);
        // Those of a PV guest are read again when it reboots.
        images.read.extend(file.guest.kernel_files());
        self.claim(id, &images).map(drop)
    }

    pub(super) fn send_guest(&self, id: VmId, to: &MigrationTarget, cancel: &AtomicBool) -> Result<()> {
        let row = self.find(Verb::SendGuest, id, is_running)?;
        let file = self.definitions.read(id, Kept::Run)?;
        let file = file.ok_or_else(|| unsupported("move a guest that pengx has not started"))?;
        if file.spec.pci.is_some() {
            return Err(unsupported("move a running guest that has a PCI device"));
        }
        self.has_no_job(&row, &file.spec)?;
        let command = self.sending(&row, &file, to)?;
        self.leaving.set(id, true);
        let sent = self.runner.run(&command, &mut Watch { cancel, line: &mut |_| {}, lost: &|_| None });
        if sent.is_err() {
            // `xl` lets the guest go on, and does not know that its QEMU was told to stand still.
            self.let_qemu_go_on(&row);
        }
        self.leaving.set(id, false);
        self.seen.touch();
        sent.map_err(|error| not_sent(error, to))?;
        // Its definition is left, and what it ran on is the other host's.
        [Kept::Run, Kept::Hold].into_iter().try_for_each(|what| self.definitions.remove(id, what))
    }

    fn has_no_job(&self, row: &Row, spec: &DomainSpec) -> Result<()> {
        for disk in spec.disks.iter().filter(|disk| devices::is_served_by_qemu(disk)) {
            if self.block_job(row.id, disk.order)?.is_some() {
                return Err(crate::hypervisor::job_runs(row.id, disk.order));
            }
        }
        Ok(())
    }

    fn sending(&self, row: &Row, file: &ConfigFile, to: &MigrationTarget) -> Result<Command> {
        let mut words = vec!["exec".to_owned()];
        // The QEMU of an HVM guest lets go of its images by itself; that of another is not told that its guest stands still.
        if file.guest.kind() != Kind::Hvm && file.spec.disks.iter().any(devices::is_served_by_qemu) {
            let monitor = self.monitor_path(row.domid);
            words.extend([
                word(&self.options.program)?,
                "migration-send".to_owned(),
                row.domid.to_string(),
                word(&monitor)?,
            ]);
        }
        words.extend(ssh(row.id, to)?);
        let args: [OsString; 5] =
            ["migrate".into(), "-s".into(), "".into(), row.domid.to_string().into(), words.join(" ").into()];
        Ok(Command::new("xl", self.options.migration_timeout).args(args).for_the_host())
    }

    fn let_qemu_go_on(&self, row: &Row) {
        if !super::exists(&self.monitor_path(row.domid)) {
            return;
        }
        let told = self
            .monitor(row, self.options.call_timeout)
            .and_then(|mut monitor| monitor.tell("cont", json!({})).map_err(Error::from));
        if let Err(why) = told {
            tracing::warn!(vm = %row.id, error = why.story(), "the QEMU of a guest that was not sent was not told to go on");
        }
    }

    pub(super) fn transit(&self, id: VmId) -> Result<Transit> {
        // Before the look: what they did until their end is seen then.
        let is_sent = processes::sends(id);
        let is_received = !processes::receivers(id).is_empty();
        match transit(&*self.look(Age::Fresh)?, id) {
            // Who received it has done so, and is about to say it.
            Transit::Here if !is_sent => Ok(Transit::Here),
            is => Ok(if is_sent || is_received { Transit::Moving } else { is }),
        }
    }

    pub(super) fn take_over(&self, id: VmId) -> Result<()> {
        if processes::sends(id) {
            return Err(at_work(id));
        }
        // They may wait for who is gone; what has come stays.
        processes::receivers(id).into_iter().for_each(processes::end);
        let sight = self.look(Age::Fresh)?;
        let transit = transit(&sight, id);
        let row = sight.rows_of(id).find(|row| row.state != RunState::Dying);
        let row = match transit {
            Transit::Absent => return Err(Error::not_found("guest of vm", id)),
            _ => row.ok_or_else(|| Error::refused(BY, format!("vm {id} is rebooting; ask again in a moment")))?,
        };
        if transit == Transit::Arrived
            && let Some(file) = self.definitions.read(id, Kept::Run)?
        {
            self.has_its_disks(row, &file)?;
        }
        if row.is_in_transit() {
            self.tell(row, "rename", [domain_name(id)])?;
        }
        match transit {
            Transit::Suspended | Transit::Sent => self.resume(row)?,
            Transit::Arrived => self.tell(row, "unpause", [])?,
            _ => {}
        }
        self.seen.touch();
        self.definitions.remove(id, Kept::Expected)
    }

    /// A guest that was stopped to be sent goes on.
    pub(super) fn resume(&self, row: &Row) -> Result<()> {
        if processes::sends(row.id) {
            return Err(at_work(row.id));
        }
        self.let_qemu_go_on(row);
        let args = ["-I", "-c", RESUME, &row.domid.to_string(), PYTHON_PATH].map(OsString::from);
        let done = self.tool("python3", self.options.call_timeout, args).map(drop).map_err(errors::explain);
        self.seen.touch();
        done
    }

    pub(super) fn give_up(&self, id: VmId) -> Result<()> {
        if processes::sends(id) {
            return Err(at_work(id));
        }
        // Whoever receives it would go on with it.
        processes::receivers(id).into_iter().for_each(processes::end);
        let sight = self.look(Age::Fresh)?;
        if transit(&sight, id) == Transit::Here {
            return Err(refusal(Verb::GiveUp, id, &sight));
        }
        for row in sight.rows_of(id) {
            self.end(row)?;
        }
        [Kept::Run, Kept::Hold, Kept::Expected].into_iter().try_for_each(|what| self.definitions.remove(id, what))
    }
}

/// When nobody is at work on it.
fn transit(sight: &Sight, id: VmId) -> Transit {
    if let Some(half) = sight.rows_of(id).find(|row| row.is_in_transit() && row.state != RunState::Dying) {
        return if half.was_sent() { Transit::Sent } else { Transit::Arrived };
    }
    match sight.row(id).map(|row| row.state) {
        Some(RunState::Dying) | None if !sight.is_rebooting(id) => Transit::Absent,
        Some(RunState::Suspended) => Transit::Suspended,
        // It has its name, and nobody has let it run yet.
        Some(RunState::Paused) if sight.is_expected(id) => Transit::Arrived,
        _ => Transit::Here,
    }
}

fn at_work(id: VmId) -> Error {
    Error::refused(BY, format!("vm {id} is still on its way between two hosts; ask again in a moment"))
}

/// `xl` gives the words to a shell.
fn word(text: impl AsRef<OsStr>) -> Result<String> {
    let text = text.as_ref();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=%@".contains(c);
    match text.to_str().filter(|text| !text.is_empty() && text.chars().all(plain)) {
        Some(text) => Ok(text.to_owned()),
        None => {
            let what = "must be made of ASCII letters, digits and /._-+:=%@, to stand in a command of xl";
            Err(Error::invalid("path", format!("{}: {what}", text.to_string_lossy())))
        }
    }
}

fn ssh(id: VmId, to: &MigrationTarget) -> Result<Vec<String>> {
    let (key, known) = (word(&to.key)?, word(&to.known_hosts)?);
    let mut words: Vec<String> = ["ssh", "-F", "none", "-T", "-i"].map(str::to_owned).to_vec();
    words.push(key);
    for option in [
        "IdentitiesOnly=yes",
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "GlobalKnownHostsFile=none",
        "ConnectTimeout=20",
        "ServerAliveInterval=10",
        "ServerAliveCountMax=6",
    ] {
        words.extend(["-o".to_owned(), option.to_owned()]);
    }
    words.extend(["-o".to_owned(), format!("UserKnownHostsFile={known}"), "-l".to_owned(), word(&to.user)?]);
    words.extend(["-p".to_owned(), to.port.to_string(), to.address.to_string(), id.to_string()]);
    Ok(words)
}

fn not_sent(error: exec::ExecError, to: &MigrationTarget) -> Error {
    if error.stderr.contains(NO_SHADOW) {
        let what = "move a PV guest that runs: its hypervisor was built without CONFIG_SHADOW_PAGING, as Debian's is";
        return unsupported(what).caused_by(error);
    }
    if error.stderr.contains(NO_MEMORY_MAP) {
        return unsupported("move a PV guest whose kernel does not run yet, or cannot be moved").caused_by(error);
    }
    // What the other pengx says is the reason, and no failure of the way there.
    let told = error.stderr.lines().find_map(|line| line.trim().strip_prefix("pengx: pengx refused: "));
    if let Some(why) = told {
        return Error::refused(format!("the host at {}", to.address), why.to_owned()).caused_by(error);
    }
    if error.stderr.contains(NO_BANNER) {
        let why = error.stderr.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        return Error::unavailable(format!("the host at {} ({why})", to.address)).caused_by(error);
    }
    errors::explain(error)
}

/// On the target, for the ssh of the source: becomes the `xl` that takes the guest in. Returns only why not.
pub fn receive_guest(domains: &Path, asked: Option<&OsStr>) -> Error {
    let why = match expected(domains, asked) {
        Ok(id) => return exec::become_program("xl", &["migrate-receive"], (MARK, &id.to_string())),
        Err(why) => why,
    };
    Error::refused("pengx", why)
}

/// All that a key of another host may ask for is the id of a guest that is expected.
fn expected(domains: &Path, asked: Option<&OsStr>) -> Result<VmId, String> {
    let asked = asked.and_then(OsStr::to_str).unwrap_or_default();
    let id: VmId = asked.trim().parse().map_err(|_| "this key may bring a guest, and must say which".to_owned())?;
    let note: PathBuf = domains.join(Definitions::file_name(id, Kept::Expected));
    if super::exists(&note) { Ok(id) } else { Err(format!("vm {id} is not expected here")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_means_something_to_a_shell() {
        for plain in ["/usr/bin/pengx", "a_b.c+d@e%f:g=h-1"] {
            assert_eq!(word(plain).unwrap(), plain);
        }
        for other in ["", "a b", "$HOME", "a;b", "`id`", "a'b", "a\"b", "a\\b", "a\nb", "~", "a|b", "a>b", "*", "한글"]
        {
            assert!(word(other).is_err(), "{other:?}");
        }
    }

    #[test]
    fn a_key_may_bring_what_is_expected_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let id = "5f1d3e0a-9f5c-4f43-8b6e-1d1f6a3f2a10";
        let ask = |asked: &str| expected(dir.path(), Some(OsStr::new(asked)));
        assert_eq!(ask(id), Err(format!("vm {id} is not expected here")));
        std::fs::write(dir.path().join(format!("{id}.expected")), "").unwrap();
        assert_eq!(ask(id).unwrap().to_string(), id);
        for other in ["", "sh", "xl migrate-receive", "../x", &format!("{id} sh"), &format!("{id}/../{id}")] {
            assert!(ask(other).is_err(), "{other}");
        }
        assert!(expected(dir.path(), None).is_err());
    }
}
