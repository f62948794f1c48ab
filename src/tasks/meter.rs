//! Tasks, counted and timed.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::model::{TaskKind, TaskState};

/// Upper bounds in seconds.
const BUCKETS: [f64; 8] = [0.01, 0.1, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0];

/// Tasks that are not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    pub running: usize,
    /// They wait for locks or for a thread.
    pub queued: usize,
}

type Label = (&'static str, &'static str);

pub(super) struct Meter {
    ended: Family<[Label; 2], Counter>,
    durations: Family<[Label; 1], Histogram, fn() -> Histogram>,
}

impl Meter {
    pub(super) fn new() -> Self {
        let new: fn() -> Histogram = || Histogram::new(BUCKETS);
        Self { ended: Family::default(), durations: Family::new_with_constructor(new) }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("pengx_tasks_ended", "Tasks that are over, as their records say", self.ended.clone());
        let help = "Tasks that ran, from their first thread to the end of their undoing";
        registry.register("pengx_task_duration_seconds", help, self.durations.clone());
    }

    pub(super) fn ended(&self, kind: TaskKind, outcome: TaskState) {
        self.ended.get_or_create(&[("kind", kind.word()), ("outcome", outcome.word())]).inc();
    }

    pub(super) fn ran(&self, kind: TaskKind, took: Duration) {
        self.durations.get_or_create(&[("kind", kind.word())]).observe(took.as_secs_f64());
    }
}
