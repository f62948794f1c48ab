//! Whether this host is a control domain of Xen.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};

/// Among the features that the kernel was told: it is the initial domain.
const FEATURE_DOM0: u32 = 11;

/// Reads two files of the kernel.
pub(in crate::hypervisor) fn is_control_domain() -> bool {
    is_control_domain_under(Path::new("/"))
}

fn is_control_domain_under(root: &Path) -> bool {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    // The first is on a file system that has to be mounted, the others always are.
    let features = read("sys/hypervisor/properties/features");
    let features = u64::from_str_radix(features.trim().trim_start_matches("0x"), 16).unwrap_or_default();
    let is_dom0 = read("sys/hypervisor/type").trim() == "xen" && features >> FEATURE_DOM0 & 1 == 1;
    read("proc/xen/capabilities").contains("control_d") || is_dom0
}

/// For a start: `Invalid` says what is wrong.
pub(super) fn check() -> Result<()> {
    let wrong = |why: &str| Err(Error::invalid("hypervisor", why));
    if !is_control_domain() {
        return wrong("xl:/// needs a control domain (dom0) of Xen, and this host is none");
    }
    if !rustix::process::geteuid().is_root() {
        return wrong("xl:/// needs root: only root of the control domain may talk to Xen");
    }
    if !["/usr/sbin/xl", "/usr/bin/xl", "/usr/local/sbin/xl", "/usr/local/bin/xl"]
        .iter()
        .any(|xl| super::exists(Path::new(xl)))
    {
        return wrong("xl:/// needs the program xl, which is not installed (package xen-utils-common)");
    }
    if !super::exists(Path::new("/dev/xen/privcmd")) {
        return wrong(
            "xl:/// needs /dev/xen/privcmd, which is hidden from this server; its unit needs the drop-in /usr/share/pengx/xen.conf",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_domain_is_told_by_the_kernel() {
        for (files, is) in [
            (&[][..], false),
            (&[("proc/xen/capabilities", "control_d\n")][..], true),
            (&[("proc/xen/capabilities", "")][..], false),
            (&[("sys/hypervisor/type", "xen\n"), ("sys/hypervisor/properties/features", "00002b05\n")][..], true),
            (&[("sys/hypervisor/type", "xen\n"), ("sys/hypervisor/properties/features", "00002705\n")][..], false),
            (&[("sys/hypervisor/type", "kvm\n"), ("sys/hypervisor/properties/features", "00002b05\n")][..], false),
        ] {
            let root = tempfile::tempdir().unwrap();
            for (path, text) in files {
                let path = root.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            assert_eq!(is_control_domain_under(root.path()), is, "{files:?}");
        }
    }
}
