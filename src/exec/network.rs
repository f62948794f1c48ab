//! A place without a network, for children.
//!
//! Law: one network namespace with nothing in it, not even a loopback that is up, is made for the first child; each child
//! enters it. Root makes it directly; who may not do that makes it in a user namespace of his own, in which he stays who he
//! is and reaches the files that he reached before. Where neither works, children run without, and the log says so once.
//! Sockets that are files are files: no namespace keeps a child from them.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use rustix::process::{getegid, geteuid};

use super::confine::locate;

/// The words before a command that has no network; none where that cannot be had.
pub(super) fn none() -> Vec<OsString> {
    static NOWHERE: OnceLock<Option<Nowhere>> = OnceLock::new();
    let nowhere = NOWHERE.get_or_init(|| match Nowhere::find() {
        Ok(nowhere) => Some(nowhere),
        Err(why) => {
            tracing::warn!(error = %why, "tools run with this host's network: no namespace without one can be had");
            None
        }
    });
    nowhere.as_ref().map(|nowhere| nowhere.words.clone()).unwrap_or_default()
}

struct Nowhere {
    words: Vec<OsString>,
    /// The namespaces live for as long as these are open.
    _open: Vec<File>,
}

impl Nowhere {
    /// The first that really works.
    fn find() -> io::Result<Self> {
        Self::make(&["net"]).or_else(|first| {
            Self::make(&["user", "net"])
                .map_err(|second| io::Error::other(format!("{first}; with a user namespace: {second}")))
        })
    }

    fn make(kinds: &[&str]) -> io::Result<Self> {
        let holder = Holder::start(kinds)?;
        if kinds.contains(&"user") {
            holder.be_who_we_are()?;
        }
        let open: Vec<File> =
            kinds.iter().map(|kind| File::open(holder.proc("ns").join(kind))).collect::<Result<_, _>>()?;
        let mut words = vec![tool("nsenter")?];
        let of_ours = |fd: RawFd| format!("/proc/{}/fd/{fd}", std::process::id());
        words.extend(
            kinds.iter().zip(&open).map(|(kind, file)| format!("--{kind}={}", of_ours(file.as_raw_fd())).into()),
        );
        words.extend(["--preserve-credentials", "--"].map(OsString::from));
        let tried = command(&words).arg(tool("true")?).stderr(Stdio::piped()).output()?;
        if !tried.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&tried.stderr).trim()));
        }
        Ok(Self { words, _open: open })
    }
}

/// A process in new namespaces, which nobody needs once these have been opened.
struct Holder(Child);

impl Holder {
    fn start(kinds: &[&str]) -> io::Result<Self> {
        let mut words = vec![tool("unshare")?];
        words.extend(kinds.iter().map(|kind| format!("--{kind}").into()));
        words.extend(["--".into(), tool("cat")?]);
        let mut holder =
            Self(command(&words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
        holder.hear().map(|()| holder)
    }

    /// Returns when it is there.
    fn hear(&mut self) -> io::Result<()> {
        let Child { stdin: Some(stdin), stdout: Some(stdout), stderr: Some(stderr), .. } = &mut self.0 else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        // When it could not be made, nobody reads this, and its own words say why.
        drop(stdin.write_all(b"?"));
        if stdout.read_exact(&mut [0]).is_ok() {
            return Ok(());
        }
        let mut why = String::new();
        stderr.read_to_string(&mut why)?;
        Err(io::Error::other(why.trim()))
    }

    /// Everybody is himself in the user namespace. Root maps all users, or it would lose its right to the files of others.
    fn be_who_we_are(&self) -> io::Result<()> {
        let (user, group) = (geteuid(), getegid());
        if user.is_root() {
            fs::write(self.proc("uid_map"), "0 0 4294967295")?;
            return fs::write(self.proc("gid_map"), "0 0 4294967295");
        }
        fs::write(self.proc("setgroups"), "deny")?;
        fs::write(self.proc("uid_map"), format!("{0} {0} 1", user.as_raw()))?;
        fs::write(self.proc("gid_map"), format!("{0} {0} 1", group.as_raw()))
    }

    fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0.id()))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It is gone already if it could not be made.
        drop(self.0.kill().and_then(|()| self.0.wait()));
    }
}

fn tool(name: &str) -> io::Result<OsString> {
    locate(name).map_err(|missing| io::Error::other(missing.to_string()))
}

fn command(words: &[OsString]) -> Command {
    let mut args = words.iter();
    let program = args.next().map_or(OsStr::new(""), OsString::as_os_str);
    super::blank(program, args.as_slice())
}
