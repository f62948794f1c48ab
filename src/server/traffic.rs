//! Connections and requests, counted.

use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use warp::http::Method;
use warp::reply::Response;

use crate::dialects::Route;

/// Upper bounds in seconds: a kept document takes 0.1 ms, a copy of a disk minutes.
const BUCKETS: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 300.0, 1800.0];

/// The counters of one listener. Cloning gives another handle to the same ones.
#[derive(Debug, Clone)]
pub struct Traffic {
    requests: Family<Answered, Counter>,
    durations: Family<Asked, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    accepted: Counter,
    open: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    route: &'static str,
    method: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: &'static str,
    method: &'static str,
    status: u16,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            in_flight: Gauge::default(),
            accepted: Counter::default(),
            open: Gauge::default(),
        }
    }
}

impl Traffic {
    /// Shown by `registry` from now on.
    pub fn new(registry: &mut Registry) -> Self {
        let new = Self::default();
        registry.register("pengx_http_requests", "Requests answered, by route pattern", new.requests.clone());
        let help = "From the end of a request's headers to the beginning of its answer";
        registry.register("pengx_http_request_duration_seconds", help, new.durations.clone());
        registry.register("pengx_http_requests_in_flight", "Requests without an answer yet", new.in_flight.clone());
        registry.register("pengx_http_connections_accepted", "Connections accepted", new.accepted.clone());
        registry.register("pengx_http_connections", "Connections open now", new.open.clone());
        new
    }

    pub(super) fn connection(&self) -> Held {
        self.accepted.inc();
        Held::new(&self.open)
    }

    pub(super) fn request(&self) -> Pending {
        Pending { began: Instant::now(), traffic: self.clone(), _held: Held::new(&self.in_flight) }
    }
}

/// One more on a gauge, until it is dropped.
pub(super) struct Held(Gauge);

impl Held {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A request that is being answered. Dropped without an answer, because its client hung up, it counts nowhere.
pub(super) struct Pending {
    began: Instant,
    traffic: Traffic,
    _held: Held,
}

impl Pending {
    /// Counts the answer; how long it took.
    pub(super) fn answered(self, method: &Method, response: &Response) -> Duration {
        let took = self.began.elapsed();
        let route = response.extensions().get::<Route>().map_or("unknown", |route| route.0);
        let (method, status) = (word(method), response.status().as_u16());
        self.traffic.requests.get_or_create(&Answered { route, method, status }).inc();
        self.traffic.durations.get_or_create(&Asked { route, method }).observe(took.as_secs_f64());
        took
    }
}

/// Clients choose the method's name, and each name would be a series of its own.
fn word(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
