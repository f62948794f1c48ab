//! What systemd is told when it started us with `Type=notify`. Where nobody listens, nothing is said.

use std::time::Duration;

use sd_notify::NotifyState;

use super::Listening;

/// It listens.
pub(super) fn ready(listening: &[Listening]) {
    let addresses: Vec<_> = listening.iter().map(|listener| listener.address.to_string()).collect();
    tell(&[NotifyState::Ready, NotifyState::Status(&format!("serving on {}", addresses.join(", ")))]);
}

/// It takes no new requests.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("letting requests and tasks end")]);
}

/// Says for as long as it is polled that the async threads run, if the unit has a watchdog.
pub(super) async fn watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut turn = tokio::time::interval((limit / 3).max(Duration::from_millis(1)));
    loop {
        turn.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(why) = sd_notify::notify(state) {
        tracing::warn!(error = %why, "systemd could not be told");
    }
}
