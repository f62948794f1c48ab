//! The ground: ids, units, records and states. Does no I/O and knows no other floor but [`crate::error`].

mod account;
mod backup;
mod clock;
mod compensation;
mod disk;
mod domain;
mod guest;
mod host_storage;
mod ids;
mod iso;
mod name_rules;
mod network;
mod nic;
mod pci;
mod pm;
mod snapshot;
mod ssh_key;
mod storlink;
mod task;
mod template;
mod tenant;
mod text;
mod units;
mod vm;
mod volume;
mod volume_file;

pub use account::{Right, Role, Token, TokenDigest, User, UserName};
pub use backup::{Backup, BackupConfig, BackupNic, ProofSign};
pub use clock::{Clock, SystemClock};
pub use compensation::{Compensation, DiskMove, OverlayOf};
pub use disk::{Disk, DiskOwner};
pub use domain::{
    CacheMode, DefinedDisk, Definition, DiskSpec, DomainSpec, DomainStatus, GuestSize, NicLink, NicSpec, PowerState,
    VncEndpoint,
};
pub use guest::{DomainStats, GuestAddress, Screenshot};
pub use host_storage::{Ocfs2Peer, Storage, StorageCategory};
pub use ids::{
    BackupId, DiskId, Ids, NicId, PmId, RandomIds, SnapshotId, StorlinkId, TaskId, TemplateId, TokenId, UserId, VmId,
    VmNumber,
};
pub use iso::{Iso, IsoFile, IsoName};
pub use name_rules::NameRules;
pub use network::{BridgeType, Dns, Network, NetworkCategory, NetworkKind, NetworkMethod, Sriov};
pub use nic::{Mac, Nic};
pub use pci::PciAddress;
pub use pm::{HostUse, Pm};
pub use snapshot::{Snapshot, SnapshotKind};
pub use ssh_key::SshKey;
pub use storlink::{Storlink, StorlinkLevel, StorlinkType, Usage};
pub use task::{Access, Lane, Lock, Resource, Task, TaskKind, TaskState};
pub use template::{Os, OsArch, Template};
pub use tenant::{Deletion, ShortId, Tenancy, Tenant};
pub use text::{Name, Secret, forbidden, is_noncharacter, is_xml_char};
pub use units::MiB;
pub use vm::{Seen, Vm};
pub use volume::{Format, Layer, LayerFacts, VolumeFacts, VolumeName, VolumeSource};
pub use volume_file::{FileKind, FileName, MARKER_PREFIX, MadeName, Mark, PROBE_PREFIX, VolumeFile, VolumeFiles};

/// Declares an enum whose words are stored and sent: `Debian = "DEBIAN"`.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            /// The error names every word that would do.
            fn from_str(s: &str) -> Result<Self, String> {
                match s {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("must be one of {}", [$($word),+].join(", "))),
                }
            }
        }
    };
}
pub(crate) use words;
