//! The `xl` that stays behind each guest to restart it when it reboots. While a guest reboots Xen does not know it for a
//! moment; that its monitor lives tells that it will be back.

use std::collections::HashSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Which of these files a living `xl create` was given. Looks at `/proc` alone.
pub(super) fn of(files: &[PathBuf]) -> HashSet<PathBuf> {
    under(Path::new("/proc"), files)
}

fn under(proc: &Path, files: &[PathBuf]) -> HashSet<PathBuf> {
    let mut found = HashSet::new();
    let Ok(processes) = fs::read_dir(proc) else { return found };
    for process in processes.flatten() {
        // One that ends meanwhile has none.
        let Ok(line) = fs::read(process.path().join("cmdline")) else { continue };
        let mut words = line.split(|byte| *byte == 0);
        let is_xl = words.next().is_some_and(|program| Path::new(std::ffi::OsStr::from_bytes(program)).ends_with("xl"));
        if is_xl && words.next() == Some(b"create") {
            let given: Vec<&[u8]> = words.collect();
            found.extend(files.iter().filter(|file| given.contains(&file.as_os_str().as_bytes())).cloned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_is_known_by_the_file_that_it_was_given() {
        let proc = tempfile::tempdir().unwrap();
        for (pid, line) in [
            ("1", &b"/sbin/init\0"[..]),
            ("2", b"/usr/sbin/xl\0create\0-q\0/d/a.run\0"),
            ("3", b"vi\0create\0/d/b.run\0"),
            ("4", b"xl\0list\0/d/c.run\0"),
            ("5", b""),
        ] {
            fs::create_dir(proc.path().join(pid)).unwrap();
            fs::write(proc.path().join(pid).join("cmdline"), line).unwrap();
        }
        let files = ["/d/a.run", "/d/b.run", "/d/c.run"].map(PathBuf::from);
        assert_eq!(under(proc.path(), &files), [files[0].clone()].into());
    }
}
