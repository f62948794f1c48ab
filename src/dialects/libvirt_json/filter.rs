//! `type` of `/vms`: the flags of libvirt's `virConnectListAllDomains`, and words for three sets of them.

use super::integer;
use crate::model::PowerState;

const ACTIVE: u16 = 1;
const INACTIVE: u16 = 1 << 1;
const PERSISTENT: u16 = 1 << 2;
const TRANSIENT: u16 = 1 << 3;
const RUNNING: u16 = 1 << 4;
const PAUSED: u16 = 1 << 5;
const SHUTOFF: u16 = 1 << 6;
const OTHER: u16 = 1 << 7;
const MANAGED_SAVE: u16 = 1 << 8;
const NO_MANAGED_SAVE: u16 = 1 << 9;
const AUTOSTART: u16 = 1 << 10;
const NO_AUTOSTART: u16 = 1 << 11;
const SNAPSHOT: u16 = 1 << 12;
const NO_SNAPSHOT: u16 = 1 << 13;
const CHECKPOINT: u16 = 1 << 14;
const NO_CHECKPOINT: u16 = 1 << 15;

/// A mask of flags. A VM must fit every group of which a flag is set, and fits a group by any of its flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Filter(u16);

impl Filter {
    /// `None`: there is no such type.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "active" => Some(Self(ACTIVE)),
            "inactive" => Some(Self(INACTIVE)),
            "all" => Some(Self(0)),
            _ => match integer::parse(text)? {
                -1 => Some(Self(0)),
                mask => mask.try_into().ok().map(Self),
            },
        }
    }

    /// Whether it takes a look at the VM's snapshots.
    pub(super) fn asks_for_snapshots(self) -> bool {
        let both = SNAPSHOT | NO_SNAPSHOT;
        ![0, both].contains(&(self.0 & both))
    }

    /// By all but the VM's snapshots. VMs are persistent, have no saved image and no checkpoint, and none starts with its host.
    pub(super) fn fits(self, now: PowerState) -> bool {
        // Whether a domain runs that its hypervisor does not tell of, nobody can know: it is not listed as running.
        let active = now.is_active();
        let other = !matches!(now, PowerState::Running | PowerState::Paused | PowerState::Shutdown);
        self.group(&[(ACTIVE, active), (INACTIVE, !active)])
            && self.group(&[(PERSISTENT, true), (TRANSIENT, false)])
            && self.group(&[
                (RUNNING, now == PowerState::Running),
                (PAUSED, now == PowerState::Paused),
                (SHUTOFF, now == PowerState::Shutdown),
                (OTHER, other),
            ])
            && self.group(&[(MANAGED_SAVE, false), (NO_MANAGED_SAVE, true)])
            && self.group(&[(AUTOSTART, false), (NO_AUTOSTART, true)])
            && self.group(&[(CHECKPOINT, false), (NO_CHECKPOINT, true)])
    }

    /// By the VM's snapshots alone.
    pub(super) fn fits_snapshots(self, has: bool) -> bool {
        self.group(&[(SNAPSHOT, has), (NO_SNAPSHOT, !has)])
    }

    fn group(self, flags: &[(u16, bool)]) -> bool {
        let mut set = flags.iter().filter(|(flag, _)| self.0 & flag != 0).peekable();
        set.peek().is_none() || set.any(|(_, holds)| *holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers() {
        for (text, mask) in [
            ("active", 1),
            ("1", 1),
            ("inactive", 2),
            ("2", 2),
            ("all", 0),
            ("-1", 0),
            ("0", 0),
            ("3", 3),
            ("65535", 65_535),
            (" 1_6.0 ", 16),
        ] {
            assert_eq!(Filter::parse(text), Some(Filter(mask)), "{text:?}");
        }
        for text in ["", "Active", "actives", "-2", "65536", "99999999999999999999", "-99999999999999999999", "1.5"] {
            assert_eq!(Filter::parse(text), None, "{text:?}");
        }
    }

    /// Of a VM in each state: running, paused, off, crashed, unknown.
    #[track_caller]
    fn listed(mask: u16, expected: [bool; 5]) {
        let all: Vec<_> = PowerState::ALL.iter().map(|state| Filter(mask).fits(*state)).collect();
        assert_eq!(all, expected, "{mask}");
    }

    #[test]
    fn every_flag_alone_and_its_group() {
        let (all, none) = ([true; 5], [false; 5]);
        listed(0, all);
        for (flag, expected) in [
            (ACTIVE, [true, true, false, false, false]),
            (INACTIVE, [false, false, true, true, true]),
            (PERSISTENT, all),
            (TRANSIENT, none),
            (RUNNING, [true, false, false, false, false]),
            (PAUSED, [false, true, false, false, false]),
            (SHUTOFF, [false, false, true, false, false]),
            (OTHER, [false, false, false, true, true]),
            (MANAGED_SAVE, none),
            (NO_MANAGED_SAVE, all),
            (AUTOSTART, none),
            (NO_AUTOSTART, all),
            (CHECKPOINT, none),
            (NO_CHECKPOINT, all),
        ] {
            listed(flag, expected);
        }
        for both in [
            ACTIVE | INACTIVE,
            PERSISTENT | TRANSIENT,
            RUNNING | PAUSED | SHUTOFF | OTHER,
            MANAGED_SAVE | NO_MANAGED_SAVE,
            AUTOSTART | NO_AUTOSTART,
            CHECKPOINT | NO_CHECKPOINT,
            u16::MAX,
        ] {
            listed(both, all);
        }
        listed(RUNNING | PAUSED, [true, true, false, false, false]);
        // Every group must be satisfied.
        listed(ACTIVE | SHUTOFF, none);
        listed(INACTIVE | SHUTOFF | PERSISTENT, [false, false, true, false, false]);
        listed(RUNNING | TRANSIENT, none);
    }

    #[test]
    fn snapshots_are_looked_at_only_where_they_decide() {
        for (mask, asks, with, without) in [
            (0, false, true, true),
            (SNAPSHOT, true, true, false),
            (NO_SNAPSHOT, true, false, true),
            (SNAPSHOT | NO_SNAPSHOT, false, true, true),
            (SNAPSHOT | ACTIVE, true, true, false),
        ] {
            let filter = Filter(mask);
            let said = (filter.asks_for_snapshots(), filter.fits_snapshots(true), filter.fits_snapshots(false));
            assert_eq!(said, (asks, with, without), "{mask}");
        }
    }
}
