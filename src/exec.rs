//! The one place where a child process is started.
//!
//! Law: argv only, never a shell; a fixed environment, no input, no network, limits on memory, files and descriptors, its
//! own process group, a deadline, a bounded amount of output. A child does not outlive its call: it is killed on time-out
//! and cancellation, and the kernel kills it when this process dies, even by SIGKILL. It gets no file descriptor that we
//! opened: whatever runs in this process opens its own close-on-exec, as the standard library and the libraries we link do.
//! What this process was started with, above the first three, it passes on; a service manager gives it none.
//! Secrets do not belong in `argv`: it is logged, and any user can read it.
//!
//! Two functions are for this program when it is a child itself, between a tool and sshd or ssh: [`pipe_into`] and
//! [`become_program`] keep the standard output that it was given, and its parent bounds their time.
//!
//! The one exception is [`Command::for_the_host`]: what such a tool starts, a guest's device model say, belongs to the host
//! and stays, so the tool has the host's network and no limits of ours, which would be handed down. Deadline, process group
//! and the rest hold for it as well.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

mod confine;
mod error;
mod network;

pub use confine::Limits;
pub use error::{ExecError, Failure};

use confine::wrapped;

use crate::error::Error;

/// Where programs are looked for, whatever our own environment says.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How late a cancellation or a deadline may be noticed.
const TICK: Duration = Duration::from_millis(50);
/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// After SIGKILL: a process that hangs in the kernel, on a dead mount say, is then left to a thread that reaps it.
const LAST_WAIT: Duration = Duration::from_secs(5);
const MAX_STDOUT: usize = 16 << 20;
const STDERR_TAIL: usize = 8 << 10;

/// What to run. Two commands that are equal do the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// A name to be found in the system's directories, or an absolute path.
    pub program: OsString,
    pub args: Vec<OsString>,
    /// Wall clock, for the whole run.
    pub deadline: Duration,
    /// The longest silence on standard output; for tools that report progress.
    pub stall: Option<Duration>,
    pub limits: Limits,
    /// Without a network of nowhere and without limits; see [`Command::for_the_host`].
    pub host: bool,
}

impl Command {
    pub fn new(program: impl Into<OsString>, deadline: Duration) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            deadline,
            stall: None,
            limits: Limits::default(),
            host: false,
        }
    }

    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    #[must_use]
    pub fn stall(mut self, longest_silence: Duration) -> Self {
        self.stall = Some(longest_silence);
        self
    }

    /// For a tool that changes the host and leaves processes behind there: it gets the host's network and no limits.
    #[must_use]
    pub fn for_the_host(mut self) -> Self {
        self.host = true;
        self
    }

    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}

/// How the caller follows and stops a run.
pub struct Watch<'a> {
    /// Set from another thread: the run ends within seconds.
    pub cancel: &'a AtomicBool,
    /// Each line of standard output as it comes; a carriage return ends one too.
    pub line: &'a mut dyn FnMut(&str),
    /// Asked all the time how long it has said nothing: what it works on, by name, if that does not answer any more. The
    /// run then ends within seconds.
    pub lost: &'a dyn Fn(Duration) -> Option<String>,
}

/// What a command that succeeded has said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    pub stdout: Vec<u8>,
    /// The last lines.
    pub stderr: String,
}

/// Who runs commands: the system, or in tests a transcript or a fault.
pub trait Runner: Send + Sync {
    /// Blocks until the child is gone.
    fn run(&self, command: &Command, watch: &mut Watch<'_>) -> Result<Output, ExecError>;

    /// Without watching: for short commands.
    fn run_quietly(&self, command: &Command) -> Result<Output, ExecError> {
        self.run(command, &mut Watch { cancel: &AtomicBool::new(false), line: &mut |_| {}, lost: &|_| None })
    }
}

/// Runs commands for real.
///
/// `nsenter` leaves the network behind, `setpriv` arms the kernel's parent death signal, `prlimit` sets the limits; all are
/// in util-linux, which every Debian has. The signal belongs to the *thread* that spawns, so that thread also waits. It is
/// armed a moment after the fork: a server killed in that very moment leaves the child to run.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemRunner;

impl SystemRunner {
    /// Finds out what this host lets children be kept from, so that the log tells it at the start.
    pub fn new() -> Self {
        drop(network::none());
        Self
    }
}

impl Runner for SystemRunner {
    fn run(&self, command: &Command, watch: &mut Watch<'_>) -> Result<Output, ExecError> {
        let mut heard = Heard::default();
        match supervise(command, watch, &mut heard) {
            Ok(()) => Ok(Output { stderr: heard.stderr_text(), stdout: heard.stdout }),
            Err(failure) => {
                let argv = std::iter::once(&command.program).chain(&command.args).cloned().collect();
                Err(ExecError { argv, failure, stderr: heard.stderr_text() })
            }
        }
    }
}

fn supervise(command: &Command, watch: &mut Watch<'_>, heard: &mut Heard) -> Result<(), Failure> {
    if watch.cancel.load(Ordering::Relaxed) {
        return Err(Failure::Cancelled);
    }
    let mut running = Running::start(&wrapped(command)?)?;
    let started = Instant::now();
    let mut last_word = started;
    let verdict = loop {
        match running.listen(TICK, heard, watch.line) {
            Ok(Event::Exited) => break None,
            Ok(Event::Stdout) => last_word = Instant::now(),
            Ok(Event::Nothing) => {}
            Err(failure) => break Some(failure),
        }
        if watch.cancel.load(Ordering::Relaxed) {
            break Some(Failure::Cancelled);
        }
        if started.elapsed() >= command.deadline {
            break Some(Failure::Timeout(command.deadline));
        }
        if let Some(what) = (watch.lost)(last_word.elapsed()) {
            break Some(Failure::Lost(what));
        }
        if let Some(stall) = command.stall.filter(|stall| last_word.elapsed() >= *stall) {
            break Some(Failure::Stalled(stall));
        }
    };
    match verdict {
        Some(failure) => {
            running.stop(heard);
            Err(failure)
        }
        None => running.reap(heard, watch.line),
    }
}

enum Event {
    Exited,
    Stdout,
    Nothing,
}

/// A child that has not been reaped, so that its id and its group's are still its own.
struct Running {
    child: Child,
    pid: Pid,
    /// Readable once the child has exited.
    exit: OwnedFd,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
}

impl Running {
    fn start(argv: &[OsString]) -> Result<Self, Failure> {
        let (program, args) = argv.split_first().ok_or_else(|| Failure::Missing(OsString::new()))?;
        let started = blank(program, args).process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = started.map_err(Failure::System)?;
        let pid = Pid::from_child(&child);
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(exit) => {
                let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
                Ok(Self { child, pid, exit, stdout, stderr })
            }
            Err(e) => {
                signal(pid, Signal::KILL);
                abandon(child);
                Err(Failure::System(e.into()))
            }
        }
    }

    /// Waits for output or the end, at most so long, and takes in what there is.
    fn listen(&mut self, patience: Duration, heard: &mut Heard, line: &mut dyn FnMut(&str)) -> Result<Event, Failure> {
        let (exited, out, err) = self.ready(patience)?;
        let mut event = Event::Nothing;
        if out && let Some(stdout) = &mut self.stdout {
            match take(stdout)? {
                Some(bytes) => heard.stdout(&bytes, line)?,
                None => self.stdout = None,
            }
            event = Event::Stdout;
        }
        if err && let Some(stderr) = &mut self.stderr {
            match take(stderr)? {
                Some(bytes) => heard.stderr(&bytes),
                None => self.stderr = None,
            }
        }
        // What it wrote before it went is still in the pipes: the end counts when they are silent.
        Ok(if exited && !out && !err { Event::Exited } else { event })
    }

    /// Whether the child has exited, and which of its pipes have something to read (an end included).
    fn ready(&self, patience: Duration) -> Result<(bool, bool, bool), Failure> {
        let mut fds = vec![PollFd::new(&self.exit, PollFlags::IN)];
        fds.extend(self.stdout.iter().map(|pipe| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)));
        fds.extend(self.stderr.iter().map(|pipe| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)));
        let timeout = Timespec::try_from(patience).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok((false, false, false)),
            Err(e) => return Err(Failure::System(e.into())),
        }
        let mut seen = fds.iter().map(|fd| !fd.revents().is_empty());
        let exited = seen.next().unwrap_or(false);
        let out = self.stdout.is_some() && seen.next().unwrap_or(false);
        let err = self.stderr.is_some() && seen.next().unwrap_or(false);
        Ok((exited, out, err))
    }

    /// The child has exited by itself.
    fn reap(mut self, heard: &mut Heard, line: &mut dyn FnMut(&str)) -> Result<(), Failure> {
        heard.last_line(line);
        let status = self.child.wait().map_err(Failure::System)?;
        match (status.code(), status.signal()) {
            (Some(0), _) => Ok(()),
            (Some(code), _) => Err(Failure::Exit(code)),
            (None, signal) => Err(Failure::Signal(signal.unwrap_or_default())),
        }
    }

    /// Ends the whole group: first politely, then not, and never waits without end.
    fn stop(mut self, heard: &mut Heard) {
        signal(self.pid, Signal::TERM);
        let left_in_time = self.gone_within(GRACE, heard);
        // Also when the leader has left: others of its group may have stayed. It is not reaped yet, so the id is ours.
        signal(self.pid, Signal::KILL);
        if left_in_time || self.gone_within(LAST_WAIT, heard) {
            if let Err(e) = self.child.wait() {
                tracing::warn!(pid = self.child.id(), error = %e, "a child process could not be reaped");
            }
        } else {
            tracing::error!(pid = self.child.id(), "a killed child process hangs in the kernel; is a mount dead?");
            abandon(self.child);
        }
    }

    fn gone_within(&mut self, patience: Duration, heard: &mut Heard) -> bool {
        let start = Instant::now();
        while start.elapsed() < patience {
            match self.listen(TICK, heard, &mut |_| {}) {
                Ok(Event::Exited) => return true,
                Ok(_) => {}
                // Output is of no more interest; without the pipes only the exit is listened for.
                Err(_) => (self.stdout, self.stderr) = (None, None),
            }
        }
        false
    }
}

/// A child that is fed by us and has our standard output and error, for a program of ours that is a child itself.
pub fn pipe_into(program: &OsStr, args: &[OsString]) -> io::Result<Child> {
    blank(program, args).stdin(Stdio::piped()).spawn()
}

/// Runs a program in the place of this one, with its standard input and output, and one more variable. Returns only why not.
pub fn become_program(program: &str, args: &[&str], (name, value): (&str, &str)) -> Error {
    let args: Vec<OsString> = args.iter().map(OsString::from).collect();
    let failed = blank(program.as_ref(), &args).stdin(Stdio::inherit()).env(name, value).exec();
    Error::unavailable(program).caused_by(failed)
}

/// A child that knows nothing of us.
fn blank(program: &OsStr, args: &[OsString]) -> std::process::Command {
    #[expect(clippy::disallowed_methods, reason = "the owner of child processes")]
    let mut command = std::process::Command::new(program);
    command.args(args).env_clear().env("PATH", PATH).env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
    command
}

/// Absent is fine: then there is nothing left to signal.
fn signal(group: Pid, signal: Signal) {
    if let Err(e) = kill_process_group(group, signal)
        && e != rustix::io::Errno::SRCH
    {
        tracing::warn!(group = group.as_raw_nonzero(), error = %e, "a process group could not be signalled");
    }
}

/// Reaps a killed child whenever the kernel lets go of it.
fn abandon(mut child: Child) {
    let reaper = std::thread::Builder::new().name("reaper".to_owned()).spawn(move || child.wait());
    if let Err(e) = reaper {
        tracing::warn!(error = %e, "no thread to reap a child process; it stays a zombie until the server ends");
    }
}

/// What can be read now; `None` at the end.
fn take(pipe: &mut impl Read) -> Result<Option<Vec<u8>>, Failure> {
    let mut buffer = vec![0; 16 << 10];
    match pipe.read(&mut buffer) {
        Ok(0) => Ok(None),
        Ok(n) => {
            buffer.truncate(n);
            Ok(Some(buffer))
        }
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(Some(Vec::new())),
        Err(e) => Err(Failure::System(e)),
    }
}

/// What the child has said so far, within bounds.
#[derive(Default)]
struct Heard {
    stdout: Vec<u8>,
    unfinished: Vec<u8>,
    stderr: Vec<u8>,
}

impl Heard {
    fn stdout(&mut self, bytes: &[u8], line: &mut dyn FnMut(&str)) -> Result<(), Failure> {
        if self.stdout.len() + bytes.len() > MAX_STDOUT {
            return Err(Failure::Flood);
        }
        self.stdout.extend_from_slice(bytes);
        for part in bytes.split_inclusive(|b| matches!(b, b'\r' | b'\n')) {
            self.unfinished.extend_from_slice(part);
            if part.ends_with(b"\r") || part.ends_with(b"\n") {
                self.last_line(line);
            }
        }
        Ok(())
    }

    fn last_line(&mut self, line: &mut dyn FnMut(&str)) {
        let text = String::from_utf8_lossy(&self.unfinished);
        let text = text.trim_end_matches(['\r', '\n']);
        if !text.is_empty() {
            line(text);
        }
        self.unfinished.clear();
    }

    fn stderr(&mut self, bytes: &[u8]) {
        self.stderr.extend_from_slice(bytes);
        if self.stderr.len() > 2 * STDERR_TAIL {
            self.stderr.drain(..self.stderr.len() - STDERR_TAIL);
        }
    }

    fn stderr_text(&self) -> String {
        let start = self.stderr.len().saturating_sub(STDERR_TAIL);
        String::from_utf8_lossy(self.stderr.get(start..).unwrap_or_default()).trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests;
