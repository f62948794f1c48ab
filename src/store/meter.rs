//! Transactions, counted and timed.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::error::{ErrorKind, Result};

/// Upper bounds in seconds.
const BUCKETS: [f64; 8] = [0.0005, 0.002, 0.01, 0.05, 0.25, 1.0, 5.0, 15.0];

type Kind = [(&'static str, &'static str); 1];

pub(super) struct Meter {
    durations: Family<Kind, Histogram, fn() -> Histogram>,
    unavailable: Family<Kind, Counter>,
}

impl Meter {
    pub(super) fn new() -> Self {
        let new: fn() -> Histogram = || Histogram::new(BUCKETS);
        Self { durations: Family::new_with_constructor(new), unavailable: Family::default() }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Transactions that have ended, with their wait for a connection";
        registry.register("pengx_database_transaction_duration_seconds", help, self.durations.clone());
        let help = "Transactions that failed because the database did not answer";
        registry.register("pengx_database_unavailable", help, self.unavailable.clone());
    }

    /// `kind`: `read`, `write`, or `generation` for whether what was read before still holds.
    pub(super) fn ended<T>(&self, kind: &'static str, took: Duration, result: &Result<T>) {
        let kind = [("kind", kind)];
        self.durations.get_or_create(&kind).observe(took.as_secs_f64());
        if let Err(why) = result
            && matches!(why.kind(), ErrorKind::Unavailable { .. })
        {
            self.unavailable.get_or_create(&kind).inc();
        }
    }
}
