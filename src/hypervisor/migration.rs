//! Moving a running guest from one host to another: what each side can have of it meanwhile, and where it belongs when
//! nobody is at work on it any more.

use std::net::IpAddr;
use std::path::PathBuf;

/// The host that a guest is sent to, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationTarget {
    pub address: IpAddr,
    /// Of the sshd.
    pub port: u16,
    /// The account there that takes guests in.
    pub user: String,
    /// The private key of this host; all it may do there is to bring a guest that is expected.
    pub key: PathBuf,
    /// The keys of the hosts of the site, as ssh reads them. A host that is not in it is sent nothing.
    pub known_hosts: PathBuf,
}

/// What one host has of a guest that moves, or has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transit {
    /// Nothing; so too while the first of it is still awaited.
    Absent,
    /// It is a guest of this host like any other, running or paused.
    Here,
    /// Somebody is at work on it: it is being sent, or received. A target may wait for a source that is gone, for as long as
    /// nobody tells it.
    Moving,
    /// It stands still, and the other host was never told to let it run.
    Suspended,
    /// It stands still, all of it was sent, and the other host may have been told to let it run.
    Sent,
    /// It has come, or a part of it, and stands still.
    Arrived,
}

/// Where a guest belongs after a migration that nobody heard the end of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Settlement {
    /// Not to be said yet: somebody still sends it.
    Wait,
    /// The target gives up what it has, then the source takes over.
    Source,
    /// The target takes over, then the source gives up what it has.
    Target,
    /// Neither side has a whole guest: the target gives up what it has, and the VM is off.
    Lost,
}

/// Such that the guest runs exactly once, or, where neither side has all of it, nowhere. The source is asked first: what it says
/// holds as long as nobody sends the guest anew. Done in the order that each answer names, it may be broken off anywhere, and
/// asked for again.
pub fn settle(source: Transit, target: Transit) -> Settlement {
    use Transit::{Absent, Arrived, Here, Moving, Sent, Suspended};
    match (source, target) {
        (Moving, _) => Settlement::Wait,
        // It runs there, so it was all sent.
        (Absent | Suspended | Sent, Here) => Settlement::Target,
        // The source renames it only when the target has said that it has all of it.
        (Sent, Arrived | Moving) => Settlement::Target,
        (Here | Suspended | Sent, _) => Settlement::Source,
        // Not of a source: it is one that was sent here before, and nobody has taken it over.
        (Arrived, _) => Settlement::Source,
        (Absent, Absent | Arrived | Moving | Suspended | Sent) => Settlement::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Transit; 6] =
        [Transit::Absent, Transit::Here, Transit::Moving, Transit::Suspended, Transit::Sent, Transit::Arrived];

    #[test]
    fn a_guest_that_runs_is_never_ended_and_one_that_is_whole_is_never_lost() {
        for source in ALL {
            for target in ALL {
                let said = settle(source, target);
                assert_eq!(said == Settlement::Wait, source == Transit::Moving, "{source:?} {target:?}");
                let whole = matches!(source, Transit::Here | Transit::Suspended | Transit::Sent);
                if said == Settlement::Lost {
                    assert!(!whole && target != Transit::Here, "{source:?} {target:?}");
                }
                // What one side has in pieces is not what runs.
                if said == Settlement::Target {
                    assert!(target == Transit::Here || source == Transit::Sent, "{source:?} {target:?}");
                    assert_ne!(source, Transit::Here, "it would run twice: {target:?}");
                }
            }
        }
    }

    #[test]
    fn what_was_begun_ends_the_same_when_it_is_asked_for_again() {
        // After the first of the two steps.
        assert_eq!(settle(Transit::Sent, Transit::Here), Settlement::Target);
        for source in [Transit::Here, Transit::Suspended, Transit::Sent] {
            assert_eq!(settle(source, Transit::Absent), Settlement::Source);
        }
    }
}
