//! A control domain of Xen to test in, as `tests/xen/test.sh` boots it. Tests that need one are ignored elsewhere.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What `tests/xen/build.sh` put there for guests.
const SHARED: &str = "/usr/local/share/pengx-xen";

pub fn shared(name: &str) -> PathBuf {
    Path::new(SHARED).join(name)
}

/// What `xl` answers, whatever that is, unless it takes longer than so many seconds.
pub fn try_xl(seconds: u32, args: &[&str]) -> Output {
    Command::new("timeout").arg(seconds.to_string()).arg("xl").args(args).output().unwrap()
}

/// What it says; it must succeed.
pub fn xl(args: &[&str]) -> String {
    let done = try_xl(60, args);
    assert!(done.status.success(), "xl {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}
