//! The verbs of a hypervisor as values, so that every backend refuses in the same words.

use crate::error::{Error, ErrorKind};
use crate::model::{PowerState, VmId};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    Info,
    HostUse,
    Domains,
    Domain,
    Defined,
    HasBridge,
    Define,
    Undefine,
    Start,
    RequestShutdown,
    RequestReboot,
    Destroy,
    Pause,
    Unpause,
    SetVcpus,
    SetMemory,
    Memory,
    Size,
    AttachDisk,
    DetachDisk,
    AttachNic,
    DetachNic,
    ChangeDisc,
    Chain,
    OverlayDisks,
    StartBlockJob,
    BlockJob,
    Pivot,
    AbortBlockJob,
    ExpectGuest,
    SendGuest,
    Transit,
    TakeOver,
    GiveUp,
    AgentAnswers,
    Stats,
    Addresses,
    Screenshot,
    Description,
}

impl Verb {
    /// Whether it changes something.
    pub fn is_effect(self) -> bool {
        !matches!(
            self,
            Self::Info
                | Self::HostUse
                | Self::Domains
                | Self::Domain
                | Self::Defined
                | Self::HasBridge
                | Self::Memory
                | Self::Size
                | Self::Chain
                | Self::BlockJob
                | Self::Transit
                | Self::AgentAnswers
                | Self::Stats
                | Self::Addresses
                | Self::Screenshot
                | Self::Description
        )
    }

    /// For metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::HostUse => "host_use",
            Self::Domains => "domains",
            Self::Domain => "domain",
            Self::Defined => "defined",
            Self::HasBridge => "has_bridge",
            Self::Define => "define",
            Self::Undefine => "undefine",
            Self::Start => "start",
            Self::RequestShutdown => "request_shutdown",
            Self::RequestReboot => "request_reboot",
            Self::Destroy => "destroy",
            Self::Pause => "pause",
            Self::Unpause => "unpause",
            Self::SetVcpus => "set_vcpus",
            Self::SetMemory => "set_memory",
            Self::Memory => "memory",
            Self::Size => "size",
            Self::AttachDisk => "attach_disk",
            Self::DetachDisk => "detach_disk",
            Self::AttachNic => "attach_nic",
            Self::DetachNic => "detach_nic",
            Self::ChangeDisc => "change_disc",
            Self::Chain => "chain",
            Self::OverlayDisks => "overlay_disks",
            Self::StartBlockJob => "start_block_job",
            Self::BlockJob => "block_job",
            Self::Pivot => "pivot",
            Self::AbortBlockJob => "abort_block_job",
            Self::ExpectGuest => "expect_guest",
            Self::SendGuest => "send_guest",
            Self::Transit => "transit",
            Self::TakeOver => "take_over",
            Self::GiveUp => "give_up",
            Self::AgentAnswers => "agent_answers",
            Self::Stats => "stats",
            Self::Addresses => "addresses",
            Self::Screenshot => "screenshot",
            Self::Description => "description",
        }
    }

    /// In the infinitive, for sentences.
    pub fn phrase(self) -> &'static str {
        match self {
            Self::Info => "tell its version",
            Self::HostUse => "tell what the host is used for",
            Self::Domains => "list the domains",
            Self::Domain => "look at",
            Self::Defined => "tell the definition of",
            Self::HasBridge => "look for a bridge",
            Self::Define => "define",
            Self::Undefine => "undefine",
            Self::Start => "start",
            Self::RequestShutdown => "shut down",
            Self::RequestReboot => "reboot",
            Self::Destroy => "power off",
            Self::Pause => "pause",
            Self::Unpause => "unpause",
            Self::SetVcpus => "change the vCPUs of",
            Self::SetMemory => "change the memory of",
            Self::Memory => "tell the memory of",
            Self::Size => "tell the size of",
            Self::AttachDisk => "plug a disk into",
            Self::DetachDisk => "pull a disk out of",
            Self::AttachNic => "plug an interface into",
            Self::DetachNic => "pull an interface out of",
            Self::ChangeDisc => "change the disc of",
            Self::Chain => "tell the images of",
            Self::OverlayDisks => "put overlays on the disks of",
            Self::StartBlockJob => "start a block job on",
            Self::BlockJob => "tell how far the block job is on",
            Self::Pivot => "move to the other image a disk of",
            Self::AbortBlockJob => "stop the block job on",
            Self::ExpectGuest => "expect",
            Self::SendGuest => "send to another host",
            Self::Transit => "tell what a migration has left of",
            Self::TakeOver => "take over",
            Self::GiveUp => "give up",
            Self::AgentAnswers => "ask the guest agent of",
            Self::Stats => "measure the guests",
            Self::Addresses => "tell the addresses of",
            Self::Screenshot => "take a picture of the screen of",
            Self::Description => "describe",
        }
    }

    fn needs(self) -> &'static str {
        match self {
            Self::Start => "it must be off to be started",
            Self::RequestShutdown => "it must be running to be shut down",
            Self::RequestReboot => "it must be running to be rebooted",
            Self::Pause => "it must be running to be paused",
            Self::Unpause => "it must be PAUSED to be unpaused",
            Self::Undefine => "power it off before undefining it",
            Self::GiveUp => "it must not be a guest of this host",
            Self::SetVcpus
            | Self::SetMemory
            | Self::Memory
            | Self::Size
            | Self::AttachDisk
            | Self::DetachDisk
            | Self::AttachNic
            | Self::DetachNic
            | Self::ChangeDisc
            | Self::Chain
            | Self::OverlayDisks
            | Self::StartBlockJob
            | Self::BlockJob
            | Self::Pivot
            | Self::AbortBlockJob
            | Self::SendGuest
            | Self::AgentAnswers
            | Self::Screenshot => "it must be running",
            Self::Info
            | Self::HostUse
            | Self::Domains
            | Self::Domain
            | Self::Defined
            | Self::HasBridge
            | Self::Define
            | Self::Stats
            | Self::Addresses
            | Self::Description
            | Self::ExpectGuest
            | Self::Transit
            | Self::TakeOver
            | Self::Destroy => "another state is needed",
        }
    }

    /// The refusal of this verb by a domain in a state that forbids it.
    pub(super) fn wrong_state(self, id: VmId, is: PowerState) -> Error {
        Error::new(ErrorKind::WrongState { what: format!("vm {id}"), is: is.word().into(), needs: self.needs().into() })
    }
}
