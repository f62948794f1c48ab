//! What systemd is told when it started us with `Type=notify`. Where nobody listens, nothing is said.

use std::net::SocketAddr;
use std::time::Duration;

use sd_notify::NotifyState;

/// It listens.
pub(super) fn ready(address: SocketAddr) {
    tell(&[NotifyState::Ready, NotifyState::Status(&format!("serving on {address}"))]);
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
