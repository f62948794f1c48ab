//! A file system that can be made to hang for real: bindfs over a directory, stopped and let go on.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::wait::wait_until;
use rustix::process::{Pid, Signal, kill_process};

/// Unmounted when it is dropped, also while it hangs.
pub struct Mount {
    bindfs: Child,
    at: PathBuf,
}

/// While this lives, every access to the mount waits.
pub struct Hung(Pid);

impl Mount {
    /// Shows the directory `of` at the directory `at`.
    pub fn new(of: &Path, at: &Path) -> Self {
        let mut command = Command::new("bindfs");
        let bindfs = command.arg("-f").arg(of).arg(at).stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut mount = Self { bindfs: bindfs.expect("bindfs"), at: at.to_owned() };
        wait_until("the mount is there", || {
            if mount.bindfs.try_wait().unwrap().is_some() {
                let mut said = String::new();
                mount.bindfs.stderr.take().unwrap().read_to_string(&mut said).unwrap();
                panic!("bindfs cannot mount: {said}");
            }
            Ok(mount.is_there())
        });
        mount
    }

    fn is_there(&self) -> bool {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        mounts.lines().any(|line| line.split(' ').nth(1) == self.at.to_str())
    }

    /// Puts another mount in its place, as an operator does who gives a dead one up.
    pub fn replace(&self, of: &Path) -> Self {
        let done = Command::new("umount").arg("-l").arg(&self.at).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        Self::new(of, &self.at)
    }

    pub fn hang(&self) -> Hung {
        let pid = Pid::from_child(&self.bindfs);
        kill_process(pid, Signal::STOP).unwrap();
        Hung(pid)
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        // The mount may have gone first.
        kill_process(self.0, Signal::CONT).ok();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // SIGKILL ends it also while it is stopped, and with it every access that hangs.
        drop(self.bindfs.kill().and_then(|()| self.bindfs.wait()));
        let umount = Command::new("umount").arg("-l").arg(&self.at).output();
        if self.is_there() {
            println!("{} stays mounted: {umount:?}", self.at.display());
        }
    }
}
