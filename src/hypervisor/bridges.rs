//! The bridges of this host, as the kernel shows them.

use std::path::Path;

use crate::error::{Error, Result};

/// Whether the host has a Linux bridge of this name. A name that no interface can have is a bridge that is not there.
pub(super) fn host_has_bridge(name: &str) -> Result<bool> {
    has_bridge_under(Path::new("/sys/class/net"), name)
}

fn has_bridge_under(interfaces: &Path, name: &str) -> Result<bool> {
    if !is_interface_name(name) {
        return Ok(false);
    }
    let path = interfaces.join(name).join("bridge");
    path.try_exists().map_err(|e| Error::internal(format!("reading {}", path.display())).caused_by(e))
}

/// What the kernel takes for the name of an interface.
fn is_interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.bytes().any(|b| matches!(b, b'/' | b':' | 0) || b.is_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_a_bridge_directory_is_a_bridge() {
        let net = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(net.path().join("xenbr0/bridge")).unwrap();
        std::fs::create_dir_all(net.path().join("eth0")).unwrap();
        std::fs::create_dir(net.path().join("bridge")).unwrap();
        for (name, there) in [
            ("xenbr0", true),
            ("eth0", false),
            ("none", false),
            ("", false),
            (".", false),
            ("..", false),
            ("eth0/../xenbr0", false),
            ("xenbr0/", false),
            ("xenbr0\0", false),
            ("a name too long for linux", false),
        ] {
            assert_eq!(has_bridge_under(net.path(), name).unwrap(), there, "{name:?}");
        }
    }
}
