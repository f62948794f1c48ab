//! File descriptors: each connection takes one, and the kernel gives few unless asked.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For the database, storlinks, child processes and libvirt.
const OTHERS: u64 = 256;

/// Raises the process's limit as far as it may go, and warns when that is too little for so many connections.
pub fn raise(connections: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, "the limit of file descriptors was not raised");
    }
    let needed = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHERS);
    // `None`: no limit.
    if let Some(limit) = getrlimit(Resource::Nofile).current.filter(|limit| *limit < needed) {
        tracing::warn!(
            limit,
            needed,
            "file descriptors are fewer than limits.connections needs; raise LimitNOFILE of the service"
        );
    }
}
