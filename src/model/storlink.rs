//! A storlink: a pool of volumes.

use super::{MiB, PmId, StorlinkId, words};

words! {
    /// What kind of storage is behind a storlink.
    StorlinkType {
        Local = "LO",
        FibreChannel = "FC",
        Iscsi = "ISC",
        Nfs = "NFS",
        Ceph = "CEP",
    }
}

words! {
    /// What a volume is there: a file, a block device or an object.
    StorlinkLevel {
        File = "FL",
        Block = "BL",
        Object = "OB",
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storlink {
    pub id: StorlinkId,
    pub uuid: uuid::Uuid,
    pub pm: PmId,
    pub name: String,
    /// Directory, volume group or pool.
    pub link: String,
    pub kind: StorlinkType,
    pub level: StorlinkLevel,
    /// What the storage said last.
    pub usage: Usage,
    pub desc: String,
    pub shared: bool,
    /// Its directory carries its mark; one that does not is another one, perhaps a mount point without its mount.
    pub marked: bool,
}

/// How large a storlink is and how much of it is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    pub size: MiB,
    pub free: MiB,
}
