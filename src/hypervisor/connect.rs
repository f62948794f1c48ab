//! From the configured URI to a backend.

use std::path::Path;
use std::sync::Arc;

use super::{FakeHypervisor, Hypervisor, LibvirtHypervisor, LibvirtOptions};
use crate::error::{Error, Result};

const SYSTEM: &str = "qemu:///system";
const SESSION: &str = "qemu:///session";

#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Fake,
    Libvirt(String),
}

/// The hypervisor behind `uri`: `fake:///`, `qemu:///system` and its kind, or `auto`. Does not block and does not ask
/// whether it answers: a backend connects by itself, and again when it was lost. `Invalid` for anything else.
pub fn connect(uri: &str, options: LibvirtOptions) -> Result<Arc<dyn Hypervisor>> {
    let system = || {
        rustix::process::geteuid().is_root()
            || ["libvirt-sock", "virtqemud-sock"].iter().any(|sock| Path::new("/run/libvirt").join(sock).exists())
    };
    Ok(match choose(uri, system)? {
        Choice::Fake => Arc::new(FakeHypervisor::new()),
        Choice::Libvirt(uri) => Arc::new(LibvirtHypervisor::new(&uri, options)?),
    })
}

fn choose(uri: &str, system: impl FnOnce() -> bool) -> Result<Choice> {
    let invalid = |why: &str| Err(Error::invalid("hypervisor", why));
    if uri == "auto" {
        return Ok(Choice::Libvirt(if system() { SYSTEM } else { SESSION }.to_owned()));
    }
    let Some((scheme, rest)) = uri.split_once("://") else {
        return invalid("must be auto, fake:///, qemu:///system or qemu:///session");
    };
    match scheme {
        "fake" if rest == "/" => Ok(Choice::Fake),
        "qemu" | "qemu+unix" if rest.starts_with('/') => Ok(Choice::Libvirt(uri.to_owned())),
        _ if scheme == "qemu" || scheme.starts_with("qemu+") => {
            invalid("must not name a host: pengx manages the one it runs on, through libvirt's local socket")
        }
        "xl" => invalid("this release has no xl backend yet; use qemu:///system or fake:///"),
        _ => invalid("must be auto, fake:///, qemu:///system or qemu:///session"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_chooses_its_backend() {
        let libvirt = |uri: &str| Some(Choice::Libvirt(uri.to_owned()));
        for (uri, system, choice) in [
            ("fake:///", false, Some(Choice::Fake)),
            ("qemu:///system", false, libvirt("qemu:///system")),
            ("qemu:///session", true, libvirt("qemu:///session")),
            ("qemu+unix:///system?socket=/s", true, libvirt("qemu+unix:///system?socket=/s")),
            ("auto", true, libvirt("qemu:///system")),
            ("auto", false, libvirt("qemu:///session")),
            ("qemu://other/system", true, None),
            ("qemu+ssh://other/system", true, None),
            ("qemu+tcp:///system", true, None),
            ("xl:///", true, None),
            ("xen:///system", true, None),
            ("fake:///x", true, None),
            ("qemu:system", true, None),
            ("", true, None),
        ] {
            assert_eq!(choose(uri, || system).ok(), choice, "{uri}");
        }
    }

    #[test]
    fn xl_is_refused_with_what_to_use_instead() {
        let error = choose("xl:///", || true).unwrap_err();
        assert_eq!(error.to_string(), "hypervisor: this release has no xl backend yet; use qemu:///system or fake:///");
    }
}
