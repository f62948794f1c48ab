//! What is put around every child, as words before its own.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};

use super::{Command, Failure, PATH, network};

/// What the kernel holds the child to. `None`: to what every child is held to.
///
/// There is none on processes: for root the kernel does not count them, and of another user it counts all that he has.
/// Threads are held by the address space, of which each takes 8 MiB for its stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    pub address_space_bytes: Option<u64>,
    /// Else only the wall clock counts.
    pub cpu_secs: Option<u64>,
    /// Size of any one file it writes.
    pub file_bytes: Option<u64>,
}

/// For tools that read a few tables and say a few lines.
const ADDRESS_SPACE: u64 = 2 << 30;
/// Room for a log or a header, not for an image: who writes images says how large they may be.
const FILE: u64 = 64 << 20;
/// What a login has; an image on top of a long chain opens each file of it.
const OPEN_FILES: u64 = 1024;

/// The whole command line. The network comes first, because a process that enters a user namespace loses its parent death
/// signal.
pub(super) fn wrapped(command: &Command) -> Result<Vec<OsString>, Failure> {
    let mut argv = if command.host { Vec::new() } else { network::none() };
    argv.push(locate("setpriv")?);
    argv.extend(["--pdeathsig", "KILL", "--"].map(OsString::from));
    if !command.host {
        argv.push(locate("prlimit")?);
        argv.extend(limits(&command.limits).into_iter().map(OsString::from));
        argv.push("--".into());
    }
    argv.push(locate(&command.program)?);
    argv.extend(command.args.iter().cloned());
    Ok(argv)
}

/// Soft and hard alike, and never above what we are held to ourselves, which only root could raise.
fn limits(asked: &Limits) -> Vec<String> {
    let held = |resource, wanted: u64| getrlimit(resource).maximum.map_or(wanted, |ours| ours.min(wanted));
    let limit = |name: &str, resource, wanted| format!("--{name}={}", held(resource, wanted));
    let mut words = vec![
        limit("as", Resource::As, asked.address_space_bytes.unwrap_or(ADDRESS_SPACE)),
        limit("fsize", Resource::Fsize, asked.file_bytes.unwrap_or(FILE)),
        limit("nofile", Resource::Nofile, OPEN_FILES),
        // It would hold what guests wrote, and fill the disk.
        limit("core", Resource::Core, 0),
    ];
    words.extend(asked.cpu_secs.map(|secs| limit("cpu", Resource::Cpu, secs)));
    words
}

/// The full path of a program.
pub(super) fn locate(program: impl AsRef<OsStr>) -> Result<OsString, Failure> {
    let program = program.as_ref();
    let runnable = |path: &PathBuf| path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    let found = if Path::new(program).is_absolute() {
        Some(PathBuf::from(program)).filter(runnable)
    } else {
        PATH.split(':').map(|dir| Path::new(dir).join(program)).find(runnable)
    };
    found.map(PathBuf::into_os_string).ok_or_else(|| Failure::Missing(program.to_owned()))
}
