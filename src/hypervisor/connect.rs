//! From the configured URI to a backend.

use std::path::Path;
use std::sync::Arc;

use super::{FakeHypervisor, Hypervisor, LibvirtHypervisor, LibvirtOptions, XlHypervisor, XlOptions, xl};
use crate::error::{Error, Result};
use crate::exec::Runner;

const SYSTEM: &str = "qemu:///system";
const SESSION: &str = "qemu:///session";

#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Fake,
    Libvirt(String),
    Xl,
}

/// What each backend is to be like, whichever it becomes.
pub struct Options {
    pub libvirt: LibvirtOptions,
    pub xl: XlOptions,
    /// Runs the programs of a backend that is driven by programs.
    pub runner: Arc<dyn Runner>,
}

/// The hypervisor behind `uri`: `fake:///`, `xl:///`, `qemu:///system` and its kind, or `auto`: `xl:///` in a control domain of
/// Xen, else libvirt. Does not block and does not ask whether it answers: a backend connects by itself, and again when it was
/// lost. `Invalid` for anything else, and for what this host cannot be.
pub fn connect(uri: &str, options: Options) -> Result<Arc<dyn Hypervisor>> {
    let system = || {
        rustix::process::geteuid().is_root()
            || ["libvirt-sock", "virtqemud-sock"].iter().any(|sock| Path::new("/run/libvirt").join(sock).exists())
    };
    Ok(match choose(uri, xl::is_control_domain, system)? {
        Choice::Fake => Arc::new(FakeHypervisor::new()),
        Choice::Libvirt(uri) => Arc::new(LibvirtHypervisor::new(&uri, options.libvirt)?),
        Choice::Xl => Arc::new(XlHypervisor::new(options.xl, options.runner)?),
    })
}

const ALL: &str = "must be auto, fake:///, xl:///, qemu:///system or qemu:///session";

fn choose(uri: &str, xen: impl FnOnce() -> bool, system: impl FnOnce() -> bool) -> Result<Choice> {
    let invalid = |why: &str| Err(Error::invalid("hypervisor", why));
    if uri == "auto" && xen() {
        return Ok(Choice::Xl);
    }
    if uri == "auto" {
        return Ok(Choice::Libvirt(if system() { SYSTEM } else { SESSION }.to_owned()));
    }
    let Some((scheme, rest)) = uri.split_once("://") else {
        return invalid(ALL);
    };
    match scheme {
        "fake" if rest == "/" => Ok(Choice::Fake),
        "qemu" | "qemu+unix" if rest.starts_with('/') => Ok(Choice::Libvirt(uri.to_owned())),
        _ if scheme == "qemu" || scheme.starts_with("qemu+") => {
            invalid("must not name a host: pengx manages the one it runs on, through libvirt's local socket")
        }
        "xl" if rest == "/" => Ok(Choice::Xl),
        _ => invalid(ALL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_chooses_its_backend() {
        let libvirt = |uri: &str| Some(Choice::Libvirt(uri.to_owned()));
        for (uri, xen, system, choice) in [
            ("fake:///", false, false, Some(Choice::Fake)),
            ("qemu:///system", true, false, libvirt("qemu:///system")),
            ("qemu:///session", false, true, libvirt("qemu:///session")),
            ("qemu+unix:///system?socket=/s", false, true, libvirt("qemu+unix:///system?socket=/s")),
            ("auto", false, true, libvirt("qemu:///system")),
            ("auto", false, false, libvirt("qemu:///session")),
            ("auto", true, true, Some(Choice::Xl)),
            ("auto", true, false, Some(Choice::Xl)),
            ("xl:///", false, true, Some(Choice::Xl)),
            ("xl:///x", true, true, None),
            ("xl://other/", true, true, None),
            ("qemu://other/system", true, true, None),
            ("qemu+ssh://other/system", true, true, None),
            ("qemu+tcp:///system", true, true, None),
            ("xen:///system", true, true, None),
            ("fake:///x", true, true, None),
            ("qemu:system", true, true, None),
            ("", true, true, None),
        ] {
            assert_eq!(choose(uri, || xen, || system).ok(), choice, "{uri}");
        }
    }
}
