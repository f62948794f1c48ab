//! What stands between the `xl` that sends a guest and the ssh to the other host: `pengx migration-send`.
//!
//! The QEMU that serves the disks of a guest without a device model of its own is told nothing of a migration. It may still
//! write, and keep tables of an image in its memory, when the other host opens the image. So the end of the stream is kept back
//! until the guest stands still and its QEMU has written everything: without it the other host does not begin with the disks.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Deserialize;
use serde_json::json;

use super::parse::{self, RunState};
use super::qmp::Monitor;
use super::{BY, errors};
use crate::error::{Error, Result};
use crate::exec::{self, Command, Runner, SystemRunner};

/// Less than the last record of a stream.
const KEPT_BACK: usize = 4;
/// So long nothing may come before we look whether the guest stands still.
const SILENCE: Duration = Duration::from_millis(50);
/// The longest that QEMU may take to write what it has.
const PATIENCE: Duration = Duration::from_secs(120);
/// So long QEMU must do nothing: what its guest asked for last is begun in less.
const QUIET: Duration = Duration::from_millis(200);

/// Passes standard input on to `ssh`, which has our standard output and error. Status of `ssh`; after a failure of ours the
/// other host has heard an unfinished stream, and gives up what it has.
pub fn send(domid: u32, monitor: &Path, ssh: &[OsString]) -> Result<ExitCode> {
    let (program, args) = ssh.split_first().ok_or_else(|| Error::invalid("command", "is missing"))?;
    let mut child = exec::pipe_into(program, args).map_err(|e| Error::unavailable("ssh").caused_by(e))?;
    let input = io::stdin();
    let passed = match child.stdin.take() {
        Some(mut to) => {
            let has_ended = || child.try_wait().map(|status| status.is_some());
            pass(&mut input.lock(), &mut to, has_ended, || stands_still(domid), || quieten(monitor))
        }
        None => Err(Error::internal("a child without an input")),
    };
    // Its input is closed by now.
    let status = child.wait().map_err(|e| Error::unavailable("ssh").caused_by(e))?;
    passed?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX);
    Ok(ExitCode::from(code))
}

/// Ends with its input, or with who was to get it, whose end nobody else sees while we have our standard output. What was
/// kept back is passed on only after `quieten` has succeeded.
fn pass<R: Read + AsFd>(
    from: &mut R,
    to: &mut impl Write,
    mut has_ended: impl FnMut() -> io::Result<bool>,
    mut stands_still: impl FnMut() -> Result<bool>,
    mut quieten: impl FnMut() -> Result<()>,
) -> Result<()> {
    let cut = |e: io::Error| Error::unavailable("the other host").caused_by(e);
    let mut buffer = vec![0; 256 << 10];
    let mut kept: Vec<u8> = Vec::new();
    let mut is_quiet = false;
    loop {
        if !comes(from.as_fd(), SILENCE).map_err(cut)? {
            if has_ended().map_err(cut)? {
                return Ok(());
            }
            if !is_quiet && stands_still()? {
                quieten()?;
                is_quiet = true;
                to.write_all(&std::mem::take(&mut kept)).and_then(|()| to.flush()).map_err(cut)?;
            }
            continue;
        }
        let read = from.read(&mut buffer).map_err(cut)?;
        if read == 0 {
            return if kept.is_empty() { Ok(()) } else { Err(Error::refused(BY, "the guest was not sent to its end")) };
        }
        kept.extend_from_slice(buffer.get(..read).unwrap_or_default());
        let passed = if is_quiet { kept.len() } else { kept.len().saturating_sub(KEPT_BACK) };
        to.write_all(kept.get(..passed).unwrap_or_default()).and_then(|()| to.flush()).map_err(cut)?;
        kept.drain(..passed);
    }
}

fn comes(from: impl AsFd, patience: Duration) -> io::Result<bool> {
    let mut fds = [PollFd::new(&from, PollFlags::IN)];
    let timeout = Timespec::try_from(patience).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
    match poll(&mut fds, Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

fn stands_still(domid: u32) -> Result<bool> {
    let args = ["list".to_owned(), "-v".to_owned(), domid.to_string()];
    let said = SystemRunner::new().run_quietly(&Command::new("xl", PATIENCE).args(args).for_the_host());
    let rows = parse::list(&said.map_err(errors::explain)?.stdout)?;
    Ok(rows.iter().any(|row| row.domid == domid && row.state == RunState::Suspended))
}

/// QEMU writes everything, and begins nothing more.
fn quieten(monitor: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut monitor = Monitor::open(monitor, PATIENCE)?;
    loop {
        // What is begun is awaited, then all tables are written and flushed.
        monitor.tell("stop", json!({}))?;
        let before = done(&mut monitor)?;
        std::thread::sleep(QUIET);
        if done(&mut monitor)? == before {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Error::refused("QEMU", "it goes on writing for a guest that stands still"));
        }
        monitor.tell("cont", json!({}))?;
    }
}

#[derive(Deserialize)]
struct Device {
    #[serde(default)]
    qdev: String,
    stats: Done,
}

#[derive(Deserialize, PartialEq, Eq)]
struct Done {
    wr_operations: u64,
    flush_operations: u64,
    #[serde(default)]
    unmap_operations: u64,
}

fn done(monitor: &mut Monitor) -> Result<BTreeMap<String, Done>> {
    let devices: Vec<Device> = monitor.ask("query-blockstats", json!({}))?;
    Ok(devices.into_iter().map(|device| (device.qdev, device.stats)).collect())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// What the other host has got, and how it ended.
    fn passed(stream: &[u8], quieten: impl FnMut() -> Result<()>) -> (Vec<u8>, Result<()>) {
        let (mut from, mut source) = UnixStream::pair().unwrap();
        source.write_all(stream).unwrap();
        let (asked, mut got) = (Cell::new(0), Vec::new());
        let stands_still = || {
            asked.set(asked.get() + 1);
            if asked.get() == 3 {
                source.shutdown(std::net::Shutdown::Write).unwrap();
            }
            Ok(asked.get() > 1)
        };
        let ended = pass(&mut from, &mut got, || Ok(false), stands_still, quieten);
        (got, ended)
    }

    #[test]
    fn the_end_waits_for_the_disks() {
        let (mut from, mut source) = UnixStream::pair().unwrap();
        source.write_all(b"a guest and its end").unwrap();
        let (still, mut got) = (Cell::new(false), Vec::new());
        let mut looks = 0;
        pass(
            &mut from,
            &mut got,
            || Ok(false),
            || {
                looks += 1;
                Ok(looks == 3)
            },
            || {
                still.set(true);
                source.write_all(b", and the word to go").unwrap();
                source.shutdown(std::net::Shutdown::Write).unwrap();
                Ok(())
            },
        )
        .unwrap();
        assert!(still.get());
        assert_eq!(got, b"a guest and its end, and the word to go");
    }

    #[test]
    fn without_its_disks_a_guest_does_not_arrive() {
        let (got, ended) = passed(b"a guest and its end", || Err(Error::refused("QEMU", "no")));
        assert_eq!(got, b"a guest and its");
        assert_eq!(ended.unwrap_err().to_string(), "QEMU refused: no");
    }

    #[test]
    fn nothing_is_passed_to_who_has_ended() {
        let (mut from, mut source) = UnixStream::pair().unwrap();
        source.write_all(b"a guest").unwrap();
        pass(&mut from, &mut Vec::new(), || Ok(true), || Ok(false), || Ok(())).unwrap();
        // Who sends has not ended.
        drop(source);
    }

    #[test]
    fn a_sender_that_dies_has_not_sent_it() {
        let (mut from, mut source) = UnixStream::pair().unwrap();
        source.write_all(b"a guest and its end").unwrap();
        drop(source);
        let mut got = Vec::new();
        let ended = pass(&mut from, &mut got, || Ok(false), || Ok(false), || Ok(()));
        assert_eq!(got, b"a guest and its");
        assert_eq!(ended.unwrap_err().to_string(), "Xen refused: the guest was not sent to its end");
    }
}
