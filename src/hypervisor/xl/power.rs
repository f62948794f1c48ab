//! Start, end, and what a guest is asked.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::exec::Failure;
use crate::hypervisor::{Start, Verb};
use crate::model::{NicLink, PowerState, VmId, VolumeSource};

use super::chains::screen;
use super::config_file::{self, ConfigFile};
use super::definitions::Kept;
use super::images::Images;
use super::parse::{self, Row, RunState};
use super::seen::{Age, Sight};
use super::{BY, Inner, Kind, bridges, console, devices, errors, processes};

/// How long a guest that is just rebooting may take to be back, so that it can be ended.
const REBOOT: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(100);
/// How long its monitor may take to see that a guest was ended.
const GIVES_UP: Duration = Duration::from_millis(500);
const GLANCE: Duration = Duration::from_millis(2);

impl Inner {
    pub(super) fn start(&self, id: VmId, how: Start) -> Result<()> {
        let _nobody_cleans_up = self.starting.read().unwrap_or_else(PoisonError::into_inner);
        let file = self.definitions.read(id, Kept::Definition)?;
        self.until_torn_down(id)?;
        // A refusal is for what is so now.
        if self.may_start(id, &*self.look(Age::Recent)?).is_err() {
            self.may_start(id, &*self.look(Age::Fresh)?)?;
        }
        let file = file.ok_or_else(|| Error::not_found("vm", id))?;
        let mut images = Images::of(&file.spec);
        images.read.extend(file.guest.kernel_files());
        bridges_are_there(&file)?;
        console_has_a_place(&file)?;
        let claim = self.claim(id, &images)?;
        // Made after the claim.
        let sight = self.look(Age::Recent)?;
        self.may_start(id, &sight)?;
        // What is left of a run that ended holds memory, and would be taken for the new one.
        self.end_all(id, &sight)?;
        self.definitions.remove(id, Kept::Hold)?;
        self.definitions.write(&file, Kept::Run)?;
        let begun = self.create(&file, how, &sight);
        if begun.is_err() {
            self.undo_start(id);
            self.seen.touch();
        }
        drop(claim);
        begun.map(|row| self.show(id, Some(row)))
    }

    /// A guest that has just ended is in the list for a moment.
    fn until_torn_down(&self, id: VmId) -> Result<()> {
        let deadline = Instant::now() + self.options.teardown_timeout;
        let is_dying = |sight: &Sight| sight.rows_of(id).any(|row| row.state == RunState::Dying);
        let mut sight = self.look(Age::Recent)?;
        while is_dying(&sight) && Instant::now() < deadline {
            sight = self.look(Age::Fresh)?;
            if is_dying(&sight) {
                std::thread::sleep(TICK);
            }
        }
        Ok(())
    }

    /// Xen would start it a second time.
    fn may_start(&self, id: VmId, sight: &Sight) -> Result<()> {
        if sight.is_expected(id) || sight.rows_of(id).any(Row::is_in_transit) {
            return Err(Error::refused(BY, format!("vm {id} is on its way between two hosts")));
        }
        match sight.state(id) {
            Some(state) if state.is_active() => return Err(Verb::Start.wrong_state(id, state)),
            _ => {}
        }
        match sight.rows_of(id).find(|row| row.state == RunState::Dying) {
            Some(row) => {
                let why = format!("domain {} of its last run is still being torn down; try again", row.domid);
                Err(Error::refused(BY, why))
            }
            None => Ok(()),
        }
    }

    /// The domain that it has become; `before`, there was none.
    fn create(&self, file: &ConfigFile, how: Start, before: &Sight) -> Result<Row> {
        let id = file.spec.id;
        let path = self.definitions.path(id, Kept::Run).into_os_string();
        // The QEMU of an HVM guest writes its console by itself.
        let console = file.spec.console.as_ref().filter(|_| file.guest.kind() != Kind::Hvm);
        let args = if how == Start::Paused || console.is_some() {
            vec!["create".into(), "-q".into(), "-p".into(), path]
        } else {
            vec!["create".into(), "-q".into(), path]
        };
        self.xl(self.options.power_timeout, args).map_err(errors::explain)?;
        self.definitions.remove(id, Kept::Crash)?;
        let row = self.new_row(file, how, before)?;
        self.has_its_disks(&row, file)?;
        let Some(VolumeSource::File(log)) = console else { return Ok(row) };
        console::follow(&self.console(&row)?, log)?;
        if how == Start::Running {
            self.tell(&row, "unpause", [])?;
        }
        Ok(row)
    }

    /// The number of a domain that was just started stands in the command line of its QEMU; Xen is asked where it has none.
    fn new_row(&self, file: &ConfigFile, how: Start, before: &Sight) -> Result<Row> {
        let (id, name) = (file.spec.id, config_file::domain_name(file.spec.id));
        let mut new = processes::device_models_of(&name);
        new.retain(|domid| before.rows().iter().all(|row| row.domid != *domid));
        let state = if how == Start::Running { RunState::Running } else { RunState::Paused };
        if let [domid] = new[..] {
            return Ok(Row { domid, id, name, state, memory: file.spec.memory, cpu_time: Duration::ZERO });
        }
        self.seen.touch();
        let sight = self.look(Age::Recent)?;
        let row = sight.row(id).ok_or_else(|| Error::refused(BY, "the guest ended as soon as it was started"))?;
        Ok(if super::is_active(row) { Row { state, ..row.clone() } } else { row.clone() })
    }

    /// Xen does not ask whether QEMU could open the images that it is to serve: it would start a guest without disks.
    pub(super) fn has_its_disks(&self, row: &Row, file: &ConfigFile) -> Result<()> {
        let mut served = file.spec.disks.iter().filter(|disk| devices::is_served_by_qemu(disk)).peekable();
        if served.peek().is_none() {
            return Ok(());
        }
        let mut monitor = self.monitor(row, self.options.call_timeout)?;
        let live = self.settle_by(&mut monitor, row)?;
        if let Some(port) = screen(&mut monitor) {
            self.seen.learn_screen(row.domid, port);
        }
        match served.find(|disk| !live.contains_key(&devices::place(file.guest.kind(), disk.order))) {
            Some(disk) => {
                let VolumeSource::File(image) = &disk.source;
                let image = image.display();
                Err(Error::refused("QEMU", format!("it cannot open {image}; its log in /var/log/xen says why")))
            }
            None => Ok(()),
        }
    }

    /// The terminal that shows the console of a guest that has no serial port.
    fn console(&self, row: &Row) -> Result<PathBuf> {
        let key = format!("/local/domain/{}/console/tty", row.domid);
        let said = self.tool("xenstore-read", self.options.call_timeout, [key]).map_err(errors::explain)?;
        parse::terminal(&said.stdout)
    }

    /// A failed start leaves nothing: `xl` cleans up after itself unless it was killed.
    fn undo_start(&self, id: VmId) {
        let left = self.look(Age::Fresh).and_then(|sight| self.end_all(id, &sight));
        if let Err(why) = left.and_then(|()| self.definitions.remove(id, Kept::Run)) {
            tracing::warn!(vm = %id, error = why.story(), "what is left of a failed start could not be removed");
        }
    }

    /// Ends everything of this uuid.
    pub(super) fn end_all(&self, id: VmId, sight: &Sight) -> Result<()> {
        for row in sight.rows_of(id).filter(|row| !row.is_in_transit()) {
            self.end(row)?;
        }
        Ok(())
    }

    pub(super) fn end(&self, row: &Row) -> Result<()> {
        let done = self.xl(self.options.power_timeout, ["destroy".to_owned(), row.domid.to_string()]);
        let Err(error) = done else {
            // It may be in the list for a moment.
            self.show(row.id, Some(Row { state: RunState::Dying, ..row.clone() }));
            return Ok(());
        };
        self.seen.touch();
        // It may have ended by itself meanwhile, or be half way.
        if errors::said_no(&error) {
            let sight = self.look(Age::Fresh)?;
            let now = sight.rows().iter().find(|now| now.domid == row.domid);
            if now.is_none_or(|now| now.state == RunState::Dying) {
                return Ok(());
            }
        }
        Err(errors::explain(error))
    }

    pub(super) fn destroy(&self, id: VmId) -> Result<()> {
        let deadline = Instant::now() + REBOOT;
        let is_active = |sight: &Sight| sight.state(id).is_some_and(PowerState::is_active);
        let mut sight = self.look(Age::Recent)?;
        // What is seen to be off may have begun since, and what is not in the list may be about to come back.
        if !sight.row(id).is_some_and(super::is_active) {
            sight = self.look(Age::Fresh)?;
        }
        loop {
            self.end_all(id, &sight)?;
            let comes_back =
                sight.is_rebooting(id) || is_active(&*self.look(Age::Recent)?) || !self.is_given_up(&sight, id);
            if !comes_back || Instant::now() >= deadline {
                break;
            }
            std::thread::sleep(TICK);
            sight = self.look(Age::Fresh)?;
        }
        // Without it nobody waits for the guest to come back.
        if sight.has_run(id) {
            self.definitions.remove(id, Kept::Run)?;
            self.show(id, None);
        }
        Ok(())
    }

    /// Whether the `xl` that restarts the guest when it reboots has gone, as it does when the guest is ended.
    fn is_given_up(&self, sight: &Sight, id: VmId) -> bool {
        let run = |id| self.definitions.path(id, Kept::Run);
        let deadline = Instant::now() + GIVES_UP;
        while sight.has_run(id) && !processes::monitors(&[id], run).is_empty() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(GLANCE);
        }
        true
    }

    /// Asks once, by Xen's own channel; a guest that has none is pressed the power button of.
    pub(super) fn request(&self, verb: Verb, id: VmId, word: &str) -> Result<()> {
        self.act_to(verb, id, super::is_running, |row| {
            let asked = Ok(Some(row.state));
            let args = [word.to_owned(), "-F".to_owned(), row.domid.to_string()];
            match self.xl(self.options.request_timeout, args) {
                Ok(_) => asked,
                // It was asked, and says nothing.
                Err(error) if matches!(error.failure, Failure::Timeout(_)) => asked,
                Err(error) if error.stderr.contains("didn't acknowledge") => asked,
                // The power button of an HVM guest is all that Xen can press.
                Err(error) if error.stderr.contains("Send trigger 'reset' failed") => {
                    let what = "ask a guest without a driver for Xen to reboot; reset it, or shut it down";
                    Err(super::unsupported(what).caused_by(error))
                }
                Err(error) => Err(errors::explain(error)),
            }
        })
    }

    /// Notes that guests of ours crashed, and frees what they hold. One whose QEMU has ended has no disks any more, and Xen
    /// gives it no other QEMU.
    pub(super) fn clean_up(&self, sight: &Sight) -> Result<()> {
        // Before the next look: what ends a domain pauses it first, and its QEMU after that.
        let alone = self.without_qemu(sight);
        let crashed = |row: &Row| row.state == RunState::Crashed || alone.contains(&row.domid);
        if !ours(sight).any(crashed) {
            return Ok(());
        }
        // A start does this by itself, and what it starts must not be taken for what crashed.
        let Ok(_nobody_starts) = self.starting.try_write() else { return Ok(()) };
        let sight = self.look(Age::Fresh)?;
        for row in ours(&sight).filter(|row| crashed(row)) {
            let why = match row.state {
                RunState::Crashed => "a guest crashed",
                _ if goes(&sight, row) => "the QEMU of a guest has ended, and its disks with it",
                _ => continue,
            };
            // First, or a death of ours in between would make it look as if it had ended in order.
            self.definitions.mark(row.id, Kept::Crash)?;
            self.end(row)?;
            self.definitions.remove(row.id, Kept::Run)?;
            tracing::warn!(vm = %row.id, domain = row.domid, "{why}");
        }
        Ok(())
    }

    /// Those of our guests that run, and whose QEMU was there once.
    fn without_qemu(&self, sight: &Sight) -> HashSet<u32> {
        let run = ours(sight).filter(|row| goes(sight, row)).map(|row| row.domid);
        // A socket is there as soon as its QEMU is, and stays.
        let mut had: HashSet<u32> = run.filter(|domid| super::exists(&self.monitor_path(*domid))).collect();
        if !had.is_empty() {
            let have = processes::device_models();
            had.retain(|domid| !have.contains(domid));
        }
        had
    }
}

fn ours(sight: &Sight) -> impl Iterator<Item = &Row> {
    sight.rows().iter().filter(|row| sight.is_defined(row.id) && !row.is_in_transit())
}

/// Whether it runs, or is to.
fn goes(sight: &Sight, row: &Row) -> bool {
    row.state == RunState::Running || row.state == RunState::Paused && sight.is_held(row.id)
}

pub(super) fn bridges_are_there(file: &ConfigFile) -> Result<()> {
    for nic in &file.spec.nics {
        if let NicLink::Bridge(name) = &nic.link {
            has_bridge(name)?;
        }
    }
    Ok(())
}

/// Xen's scripts would find out in the middle, and leave half an interface.
pub(super) fn has_bridge(name: &str) -> Result<()> {
    if bridges::host_has_bridge(name)? {
        return Ok(());
    }
    Err(Error::refused(BY, format!("this host has no bridge {name}")))
}

fn console_has_a_place(file: &ConfigFile) -> Result<()> {
    let Some(console) = &file.spec.console else { return Ok(()) };
    let console = super::path(console);
    if super::exists(&console) {
        return Ok(());
    }
    Err(Error::refused(BY, format!("{}: No such file or directory", console.display())))
}

/// The error of a guest that keeps a device.
pub(super) fn holds_on(id: VmId, what: &str, after: Duration) -> Error {
    Error::new(ErrorKind::Timeout { action: format!("the guest of vm {id} did not let go of its {what}"), after })
}
