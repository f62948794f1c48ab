//! The states of domains as libvirt numbers them, and this API's English words for them.

use crate::model::PowerState;

/// By libvirt's number. The front end compares them literally.
const WORDS: [&str; 9] =
    ["no state", "running", "blocked", "paused", "shutdown", "shutoff", "crashed", "guest suspended", "other"];

/// What every number has that no domain of libvirt's can be in.
const OTHER: &str = "other";

pub(super) fn number(state: PowerState) -> u8 {
    match state {
        PowerState::Running => 1,
        PowerState::Paused => 3,
        PowerState::Shutdown => 5,
        PowerState::Crashed => 6,
        PowerState::Unknown => 0,
    }
}

pub(super) fn word(number: i64) -> &'static str {
    usize::try_from(number).ok().and_then(|n| WORDS.get(n)).copied().unwrap_or(OTHER)
}

pub(super) fn word_of(state: PowerState) -> &'static str {
    word(number(state).into())
}

/// Whether the domain is known to be off.
pub(super) fn is_off(state: PowerState) -> bool {
    matches!(state, PowerState::Shutdown | PowerState::Crashed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words() {
        let said: Vec<_> = PowerState::ALL.iter().map(|state| (number(*state), word_of(*state))).collect();
        assert_eq!(said, [(1, "running"), (3, "paused"), (5, "shutoff"), (6, "crashed"), (0, "no state")]);
        assert_eq!(
            [2, 4, 7, 8, 9, -1, i64::MAX, i64::MIN].map(word),
            ["blocked", "shutdown", "guest suspended", "other", "other", "other", "other", "other"]
        );
    }
}
