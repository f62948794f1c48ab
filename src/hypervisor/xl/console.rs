//! What a guest without a serial port says on its console, written to a file. Xen has no setting for that: the text is read
//! from the terminal that Xen shows it on, by a thread that ends with the domain, or when it has written enough.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};

use crate::error::{Error, Result};

use super::BY;

/// No file gets longer. Whoever reads it gives up before.
const MOST: u64 = 8 << 20;

/// The file is there; what it holds goes, as of one that QEMU writes a console to.
pub(super) fn follow(terminal: &Path, log: &Path) -> Result<()> {
    // It must not become our own terminal.
    let from = open(terminal, OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty());
    let from = from.map(File::from).map_err(io::Error::from);
    let to = OpenOptions::new().write(true).truncate(true).open(log);
    let copy = |from: File, mut to: File| {
        let named = std::thread::Builder::new().name("xl-console".to_owned());
        // The terminal is gone when the domain is.
        named.spawn(move || drop(io::copy(&mut from.take(MOST), &mut to))).map(drop)
    };
    let begun = from.and_then(|from| copy(from, to?));
    begun.map_err(|e| Error::refused(BY, format!("the console {} cannot be read", terminal.display())).caused_by(e))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    #[test]
    fn what_is_said_on_the_terminal_stands_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut xen = File::from(openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap());
        grantpt(xen.as_fd()).unwrap();
        unlockpt(xen.as_fd()).unwrap();
        let terminal = ptsname(xen.as_fd(), Vec::new()).unwrap().into_string().unwrap();
        assert!(follow(Path::new(&terminal), &log).is_err(), "there is no file");
        File::create(&log).unwrap().set_len(1 << 20).unwrap();
        follow(Path::new(&terminal), &log).unwrap();
        writeln!(xen, "ready").unwrap();
        while !std::fs::read_to_string(&log).unwrap().starts_with("ready") {
            std::thread::yield_now();
        }
    }
}
