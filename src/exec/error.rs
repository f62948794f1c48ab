//! How a run fails, and which error of ours that is.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, ErrorKind};

/// A run that did not end well.
#[derive(Debug)]
pub struct ExecError {
    /// The program and its arguments, as the caller gave them.
    pub argv: Vec<OsString>,
    pub failure: Failure,
    /// The last lines.
    pub stderr: String,
}

#[derive(Debug)]
pub enum Failure {
    /// The program, or the named tool that starts it, is not on this machine.
    Missing(OsString),
    Exit(i32),
    Signal(i32),
    /// The deadline passed.
    Timeout(Duration),
    /// It ran, but said nothing for so long.
    Stalled(Duration),
    Cancelled,
    /// What it works on does not answer any more.
    Lost(String),
    /// It wrote more than we keep.
    Flood,
    /// The system would not start or watch it.
    System(io::Error),
}

/// Who gives memory, and takes it.
const HOST: &str = "the host";
/// What we send ourselves ends as another failure, so this one came from the kernel or an operator.
const KILL: i32 = 9;
/// How programs say that they were given no memory, none for a thread, or none for a library.
const STARVED: [&str; 5] =
    ["annot allocate memory", "failed to allocate", "ut of memory", "thread_create", "failed to map segment"];

impl ExecError {
    /// The program as a sentence names it: without directories.
    pub fn program(&self) -> String {
        let program = self.argv.first().map(Path::new).and_then(Path::file_name);
        program.unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The program's own last word, without its name in front.
    pub fn reason(&self) -> String {
        let last = self.stderr.lines().map(str::trim).rfind(|line| !line.is_empty());
        match (last, &self.failure) {
            (Some(line), _) => line.strip_prefix(&format!("{}: ", self.program())).unwrap_or(line).to_owned(),
            (None, failure) => failure.to_string(),
        }
    }

    fn was_starved(&self) -> bool {
        STARVED.iter().any(|words| self.stderr.contains(words))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(program) => write!(f, "{} is not installed", program.display()),
            Self::Exit(code) => write!(f, "it ended with code {code}"),
            Self::Signal(signal) => write!(f, "it was ended by signal {signal}"),
            Self::Timeout(after) => write!(f, "it did not end within {} s", after.as_secs()),
            Self::Stalled(after) => write!(f, "it made no progress within {} s", after.as_secs()),
            Self::Cancelled => f.write_str("it was cancelled"),
            Self::Lost(what) => write!(f, "it was ended because {what} does not answer"),
            Self::Flood => write!(f, "it wrote more than {} MiB", super::MAX_STDOUT >> 20),
            Self::System(e) => write!(f, "the system could not run it: {e}"),
        }
    }
}

impl fmt::Display for ExecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.argv, self.failure)?;
        if self.stderr.is_empty() { Ok(()) } else { write!(f, "; it said: {}", self.stderr) }
    }
}

impl std::error::Error for ExecError {}

impl From<ExecError> for Error {
    fn from(e: ExecError) -> Self {
        let program = e.program();
        let kind = match &e.failure {
            Failure::Missing(missing) => ErrorKind::Unavailable { what: advice(missing) },
            Failure::Timeout(after) => {
                ErrorKind::Timeout { action: format!("{program} did not finish"), after: *after }
            }
            Failure::Stalled(after) => {
                ErrorKind::Timeout { action: format!("{program} made no progress"), after: *after }
            }
            Failure::Cancelled => ErrorKind::Cancelled { what: program },
            Failure::Lost(what) => ErrorKind::Unavailable { what: what.clone() },
            Failure::System(_) => ErrorKind::Unavailable { what: program },
            Failure::Signal(KILL) => ErrorKind::Refused {
                by: HOST.to_owned(),
                why: format!("{program} was killed (signal {KILL}); is the host out of memory?"),
            },
            Failure::Exit(_) | Failure::Signal(_) if e.was_starved() => ErrorKind::Refused {
                by: HOST.to_owned(),
                why: format!("{program} got too little memory ({})", e.reason()),
            },
            Failure::Exit(_) | Failure::Signal(_) | Failure::Flood => {
                ErrorKind::Refused { by: program, why: e.reason() }
            }
        };
        Self::new(kind).caused_by(e)
    }
}

/// What to install.
fn advice(program: &OsStr) -> String {
    let package = match program.to_str() {
        Some("qemu-img") => "qemu-utils",
        Some("setpriv" | "prlimit" | "nsenter" | "unshare") => "util-linux",
        _ => return program.display().to_string(),
    };
    format!("{} (is the package {package} installed?)", program.display())
}
