//! What works for guests outside Xen, as `/proc` shows it.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const PROC: &str = "/proc";

/// Which of these files a living `xl create` was given: it stays behind each guest to restart it when it reboots. While a
/// guest reboots Xen does not know it for a moment; that its monitor lives tells that it will be back.
pub(super) fn monitors(files: &[PathBuf]) -> HashSet<PathBuf> {
    monitors_in(Path::new(PROC), files)
}

/// The numbers of the domains whose disks are served.
pub(super) fn device_models() -> HashSet<u32> {
    device_models_in(Path::new(PROC))
}

/// The numbers of the domains of this name that have a QEMU.
pub(super) fn device_models_of(name: &str) -> Vec<u32> {
    device_models_of_in(Path::new(PROC), name)
}

fn monitors_in(proc: &Path, files: &[PathBuf]) -> HashSet<PathBuf> {
    let mut found = HashSet::new();
    each(proc, |words| {
        let is_xl = words.first().is_some_and(|program| Path::new(OsStr::from_bytes(program)).ends_with("xl"));
        if is_xl && words.get(1) == Some(&&b"create"[..]) {
            found.extend(files.iter().filter(|file| words.contains(&file.as_os_str().as_bytes())).cloned());
        }
    });
    found
}

fn device_models_in(proc: &Path) -> HashSet<u32> {
    let mut found = HashSet::new();
    each(proc, |words| found.extend(domid_of(words)));
    found
}

fn device_models_of_in(proc: &Path, name: &str) -> Vec<u32> {
    let mut found = Vec::new();
    each(proc, |words| found.extend(domid_of(words).filter(|_| option(words, b"-name") == Some(name.as_bytes()))));
    found
}

fn domid_of(words: &[&[u8]]) -> Option<u32> {
    std::str::from_utf8(option(words, b"-xen-domid")?).ok()?.parse().ok()
}

fn option<'a>(words: &[&'a [u8]], name: &[u8]) -> Option<&'a [u8]> {
    words.iter().skip_while(|word| **word != name).nth(1).copied()
}

/// The words of each command line.
fn each(proc: &Path, mut see: impl FnMut(&[&[u8]])) {
    let Ok(processes) = fs::read_dir(proc) else { return };
    for process in processes.flatten() {
        // One that ends meanwhile has none.
        let Ok(line) = fs::read(process.path().join("cmdline")) else { continue };
        see(&line.split(|byte| *byte == 0).collect::<Vec<_>>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proc(lines: &[&[u8]]) -> tempfile::TempDir {
        let proc = tempfile::tempdir().unwrap();
        for (pid, line) in lines.iter().enumerate() {
            let dir = proc.path().join(pid.to_string());
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("cmdline"), line).unwrap();
        }
        proc
    }

    #[test]
    fn a_monitor_is_known_by_the_file_that_it_was_given() {
        let proc = proc(&[
            b"/sbin/init\0",
            b"/usr/sbin/xl\0create\0-q\0/d/a.run\0",
            b"vi\0create\0/d/b.run\0",
            b"xl\0list\0/d/c.run\0",
            b"",
        ]);
        let files = ["/d/a.run", "/d/b.run", "/d/c.run"].map(PathBuf::from);
        assert_eq!(monitors_in(proc.path(), &files), [files[0].clone()].into());
    }

    #[test]
    fn a_qemu_is_known_by_the_domain_that_it_serves() {
        let proc = proc(&[
            b"/sbin/init\0",
            b"qemu\0-xen-domid\x007\0-name\0-xen-domid\0",
            b"qemu\0-xen-domid\0x\0",
            b"qemu\0-xen-domid\x008\0-name\0pengx-1\0",
            b"vi\0-name\0pengx-1\0",
            b"",
        ]);
        assert_eq!(device_models_in(proc.path()), [7, 8].into());
        assert_eq!(device_models_of_in(proc.path(), "pengx-1"), [8]);
        assert!(device_models_of_in(proc.path(), "pengx-2").is_empty());
    }
}
