//! What works for guests outside Xen, as `/proc` shows it.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use super::migration::MARK;
use crate::model::VmId;

const PROC: &str = "/proc";

/// Those that a living `xl` stays behind, to restart them when they reboot: the `xl create` that was given the file, or the
/// `xl migrate-receive` that took the guest in. While a guest reboots Xen does not know it for a moment; that its monitor
/// lives tells that it will be back.
pub(super) fn monitors(ids: &[VmId], file: impl Fn(VmId) -> PathBuf) -> HashSet<VmId> {
    monitors_in(Path::new(PROC), ids, file)
}

/// Whether somebody is sending this guest to another host: `xl`, or what is left of it while the way there is not given up.
pub(super) fn sends(id: VmId) -> bool {
    sends_in(Path::new(PROC), id)
}

/// Those who are taking this guest in. What stays behind a guest that has come is not one of them: nobody talks to it.
pub(super) fn receivers(id: VmId) -> Vec<Pid> {
    receivers_in(Path::new(PROC), id)
}

/// One that has ended by itself is fine.
pub(super) fn end(process: Pid) {
    if let Err(e) = kill_process(process, Signal::KILL)
        && e != rustix::io::Errno::SRCH
    {
        tracing::warn!(pid = process.as_raw_nonzero(), error = %e, "one who takes a guest in could not be ended");
    }
}

/// The numbers of the domains whose disks are served.
pub(super) fn device_models() -> HashSet<u32> {
    device_models_in(Path::new(PROC))
}

/// The numbers of the domains of this name that have a QEMU.
pub(super) fn device_models_of(name: &str) -> Vec<u32> {
    device_models_of_in(Path::new(PROC), name)
}

fn monitors_in(proc: &Path, ids: &[VmId], file: impl Fn(VmId) -> PathBuf) -> HashSet<VmId> {
    let mut found = HashSet::new();
    each(proc, |process, words| {
        let was_given = |id| words.contains(&file(id).as_os_str().as_bytes());
        let created = is_xl(words) && words.get(1) == Some(&&b"create"[..]);
        found.extend(ids.iter().filter(|id| created && was_given(**id) || receives(process, words, **id)));
    });
    found
}

fn sends_in(proc: &Path, id: VmId) -> bool {
    let (mut sends, id) = (false, id.to_string());
    each(proc, |_, words| {
        // The last that `xl` hands to its ssh.
        let says = words.iter().rfind(|word| !word.is_empty()).is_some_and(|word| word.ends_with(id.as_bytes()));
        let second = words.get(1).copied().unwrap_or_default();
        sends |= says && (is_xl(words) && second == b"migrate" || second == b"migration-send" || is(words, "ssh"));
    });
    sends
}

fn receivers_in(proc: &Path, id: VmId) -> Vec<Pid> {
    let mut found = Vec::new();
    each(proc, |process, words| {
        let is_told = || fs::read_link(process.join("fd/0")).unwrap_or_default() != Path::new("/dev/null");
        if receives(process, words, id) && is_told() || fills(process, words, id) {
            let pid = process.file_name().and_then(OsStr::to_str).and_then(|pid| pid.parse().ok());
            found.extend(pid.and_then(Pid::from_raw));
        }
    });
    found
}

fn is(words: &[&[u8]], program: &str) -> bool {
    words.first().is_some_and(|word| Path::new(OsStr::from_bytes(word)).ends_with(program))
}

fn is_xl(words: &[&[u8]]) -> bool {
    is(words, "xl")
}

fn receives(process: &Path, words: &[&[u8]], id: VmId) -> bool {
    is_xl(words) && words.get(1) == Some(&&b"migrate-receive"[..]) && is_marked(process, id)
}

/// The child of a receiver that puts the guest into its memory. It outlives the receiver for as long as it hears nothing, and
/// while it is there that memory is not free.
fn fills(process: &Path, words: &[&[u8]], id: VmId) -> bool {
    is(words, "libxl-save-helper") && words.get(1) == Some(&&b"--restore-domain"[..]) && is_marked(process, id)
}

fn is_marked(process: &Path, id: VmId) -> bool {
    let mark = format!("{MARK}={id}");
    let environment = fs::read(process.join("environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
}

fn device_models_in(proc: &Path) -> HashSet<u32> {
    let mut found = HashSet::new();
    each(proc, |_, words| found.extend(domid_of(words)));
    found
}

fn device_models_of_in(proc: &Path, name: &str) -> Vec<u32> {
    let mut found = Vec::new();
    each(proc, |_, words| found.extend(domid_of(words).filter(|_| option(words, b"-name") == Some(name.as_bytes()))));
    found
}

fn domid_of(words: &[&[u8]]) -> Option<u32> {
    std::str::from_utf8(option(words, b"-xen-domid")?).ok()?.parse().ok()
}

fn option<'a>(words: &[&'a [u8]], name: &[u8]) -> Option<&'a [u8]> {
    words.iter().skip_while(|word| **word != name).nth(1).copied()
}

/// Each process, and the words of its command line.
fn each(proc: &Path, mut see: impl FnMut(&Path, &[&[u8]])) {
    let Ok(processes) = fs::read_dir(proc) else { return };
    for process in processes.flatten() {
        // One that ends meanwhile has none.
        let Ok(line) = fs::read(process.path().join("cmdline")) else { continue };
        see(&process.path(), &line.split(|byte| *byte == 0).collect::<Vec<_>>());
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
        let ids = ["a", "b", "c", "d"].map(|c| VmId(uuid::Uuid::parse_str(&c.repeat(32)).unwrap()));
        let file = |id: VmId| PathBuf::from(format!("/d/{}.run", &id.to_string()[..1]));
        assert_eq!(monitors_in(proc.path(), &ids, file), [ids[0]].into());
        // One that came from another host is known by what its `xl` was started with.
        let came = proc.path().join("9");
        fs::create_dir(&came).unwrap();
        fs::write(came.join("cmdline"), b"xl\0migrate-receive\0").unwrap();
        fs::write(came.join("environ"), format!("PATH=/bin\0{MARK}={}\0", ids[3])).unwrap();
        assert_eq!(monitors_in(proc.path(), &ids, file), [ids[0], ids[3]].into());
    }

    #[test]
    fn who_sends_a_guest_does_so_until_its_ssh_has_ended() {
        let id = VmId(uuid::Uuid::from_u128(7));
        for (line, sends) in [
            (format!("xl\0migrate\0-s\0\x007\0exec ssh -l root 10.0.0.2 {id}\0"), true),
            (format!("/usr/bin/pengx\0migration-send\x007\0/run/xen/qmp\0ssh\x0010.0.0.2\0{id}\0"), true),
            (format!("ssh\0-l\0root\x0010.0.0.2\0{id}\0"), true),
            (format!("ssh\0-l\0root\x0010.0.0.2\0{}\0", uuid::Uuid::nil()), false),
            (format!("xl\0create\0pengx-{id}\0"), false),
        ] {
            assert_eq!(sends_in(proc(&[b"", line.as_bytes()]).path(), id), sends, "{line:?}");
        }
    }

    #[test]
    fn who_takes_a_guest_in_is_known_with_its_helper() {
        let id = VmId(uuid::Uuid::from_u128(7));
        let helper = b"/usr/lib/xen/bin/libxl-save-helper\0--restore-domain\x0011\0";
        let saves = b"/usr/lib/xen/bin/libxl-save-helper\0--save-domain\x0011\0";
        let receive = b"xl\0migrate-receive\0";
        let proc = proc(&[b"", receive, receive, helper, saves, helper]);
        for (pid, input, of) in [
            (1, "pipe:[1]", id),
            (2, "/dev/null", id),
            (3, "pipe:[1]", id),
            (4, "pipe:[1]", id),
            (5, "pipe:[1]", VmId(uuid::Uuid::nil())),
        ] {
            let dir = proc.path().join(pid.to_string());
            fs::write(dir.join("environ"), format!("{MARK}={of}\0")).unwrap();
            fs::create_dir(dir.join("fd")).unwrap();
            std::os::unix::fs::symlink(input, dir.join("fd/0")).unwrap();
        }
        let mut found: Vec<_> = receivers_in(proc.path(), id).iter().map(|pid| pid.as_raw_nonzero().get()).collect();
        found.sort_unstable();
        assert_eq!(found, [1, 3]);
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
