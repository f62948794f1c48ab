//! Looks at all domains once a second, and at once after a change of ours, and tells when something is different.

use std::sync::{Arc, PoisonError, Weak};

use crate::hypervisor::Changed;
use crate::model::DomainStatus;

use super::Inner;
use super::seen::Age;

/// The thread lives as long as the backend.
pub(super) fn start(inner: &Arc<Inner>, changed: Changed) {
    let inner = Arc::downgrade(inner);
    let thread = std::thread::Builder::new().name("xl-watch".to_owned()).spawn(move || watch(&inner, &changed));
    if let Err(why) = thread {
        tracing::error!(error = %why, "nobody watches the domains of Xen");
    }
}

fn watch(inner: &Weak<Inner>, changed: &Changed) {
    let mut last: Option<Option<Vec<DomainStatus>>> = None;
    let mut seen = 0;
    while let Some(inner) = inner.upgrade() {
        let now = inner.look(Age::Said).and_then(|sight| {
            if let Err(why) = inner.clean_up(&sight) {
                tracing::warn!(error = why.story(), "what ended guests hold could not be freed");
            }
            inner.let_all_go(&sight);
            inner.statuses(Age::Recent)
        });
        // `None`: Xen is away.
        let now = now.ok();
        // Also at first: something may have changed before.
        if last.as_ref() != Some(&now) {
            changed();
        }
        last = Some(now);
        let left = inner.seen.left();
        let changes = inner.seen.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = inner.seen.changed.wait_timeout_while(changes, left, |changes| *changes == seen);
        seen = *waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}
