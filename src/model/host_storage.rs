//! What a host knows of the storage under its mounts.

use super::{Usage, words};

/// A file system that a host has mounted, or an iSCSI session without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    pub category: StorageCategory,
    /// Of the file system. NFS has none of its own: one made of server and path, so that every host makes the same.
    pub uuid: Option<String>,
    /// `None` until the mount has answered.
    pub usage: Option<Usage>,
    pub mount_point: Option<String>,
    /// The server of NFS or iSCSI.
    pub target_ip: Option<String>,
    /// The path on an NFS server, the name of an iSCSI target.
    pub target: Option<String>,
}

impl Storage {
    /// For the same storage, whatever is in it.
    pub fn is_same(&self, other: &Self) -> bool {
        Self { usage: None, ..self.clone() } == Self { usage: None, ..other.clone() }
    }
}

words! {
    /// The manual's words; `pv` and `vg` have no mount and are not looked for. Stored: append-only.
    StorageCategory {
        Local = "local",
        Fc = "fc",
        Iscsi = "iscsi",
        Nfs = "nfs",
        Ocfs2 = "ocfs2",
        Drbd = "drbd",
        Pv = "pv",
        Vg = "vg",
        Lv = "lv",
    }
}

/// Another node of the OCFS2 cluster that a host is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ocfs2Peer {
    pub ip: String,
    pub name: String,
    /// Of the node in its cluster.
    pub number: u32,
}
