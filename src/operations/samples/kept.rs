//! What was seen, and what is made of it. Pure: who looks, and when, is told by the caller.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use chrono::NaiveDateTime;

use super::{POINTS, Pace, SeriesPoint};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{DomainStats, VmId};

/// One answer of the hypervisor.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) begun: Instant,
    /// When it was answered.
    pub(super) at: Instant,
    /// The same as the clock says it.
    pub(super) time: NaiveDateTime,
    pub(super) all: HashMap<VmId, DomainStats>,
}

#[derive(Default)]
pub(super) struct Kept {
    /// The newest two that are far enough apart.
    before: Option<Arc<Look>>,
    newest: Option<Arc<Look>>,
    /// When the last point of the series was made.
    minute: Option<Instant>,
    /// What each guest had used by then, or when it last told.
    bases: HashMap<VmId, (Instant, Counters)>,
    series: HashMap<VmId, VecDeque<(Instant, SeriesPoint)>>,
    /// When somebody asked last.
    asked: Option<Instant>,
    /// When the last look failed, if it did.
    failed: Option<(Instant, ErrorKind)>,
}

impl Look {
    /// Of one that was off before, since it began. `None`: it is off.
    pub(super) fn vcpu_use(&self, before: &Self, id: VmId) -> Option<Vec<f64>> {
        let now = self.all.get(&id)?;
        let secs = secs(self.at, before.at);
        let then = before.all.get(&id).map(|stats| stats.vcpu_nanos.as_slice()).unwrap_or_default();
        let of = |(number, nanos): (usize, &u64)| {
            let worked = grown(*nanos, then.get(number).copied().unwrap_or_default());
            (rate(worked, secs) / 1e9 * 100.0).clamp(0.0, 100.0)
        };
        Some(now.vcpu_nanos.iter().enumerate().map(of).collect())
    }
}

impl Kept {
    pub(super) fn newest(&self) -> Option<Arc<Look>> {
        self.newest.clone()
    }

    /// Notes that somebody asks; whether somebody did already.
    pub(super) fn ask(&mut self, now: Instant, pace: &Pace) -> bool {
        let had_begun = self.is_asked(now, pace);
        self.asked = Some(now);
        had_begun
    }

    fn is_asked(&self, now: Instant, pace: &Pace) -> bool {
        self.asked.is_some_and(|asked| now.saturating_duration_since(asked) < pace.interest)
    }

    /// Two looks that tell of now, if there are such.
    pub(super) fn pair(&self, now: Instant, pace: &Pace) -> Option<(Arc<Look>, Arc<Look>)> {
        let (before, newest) = (self.before.clone()?, self.newest.clone()?);
        let is_new = now.saturating_duration_since(newest.at) < pace.second.saturating_mul(5) / 2;
        let is_near = newest.at.saturating_duration_since(before.at) < pace.second.saturating_mul(5);
        (is_new && is_near).then_some((before, newest))
    }

    pub(super) fn failed_since(&self, asked: Instant) -> Result<()> {
        match &self.failed {
            Some((at, kind)) if *at >= asked => Err(Error::new(kind.clone())),
            _ => Ok(()),
        }
    }

    pub(super) fn fail(&mut self, at: Instant, why: ErrorKind) {
        self.failed = Some((at, why));
    }

    /// When the next look is due.
    pub(super) fn due(&self, now: Instant, pace: &Pace) -> Instant {
        let newest = self.newest.as_ref().map(|look| look.at);
        let failed = self.failed.as_ref().map(|(at, _)| *at);
        if self.is_asked(now, pace) {
            return newest.max(failed).map_or(now, |at| at + pace.second);
        }
        let minute = self.minute.map_or(now, |at| at + pace.minute);
        failed.map_or(minute, |at| minute.max(at + pace.interest))
    }

    /// `is_on` and `is_there` tell of a guest whether it runs, though the look has it not, and whether it exists.
    pub(super) fn note(
        &mut self,
        look: &Arc<Look>,
        pace: &Pace,
        is_on: impl Fn(VmId) -> bool,
        is_there: impl Fn(VmId) -> bool,
    ) {
        self.failed = None;
        let since = |at: Instant| look.at.saturating_duration_since(at);
        if self.newest.as_ref().is_some_and(|newest| since(newest.at) >= pace.apart) {
            self.before = self.newest.take();
        }
        self.newest = Some(Arc::clone(look));
        let last = self.minute;
        if last.is_some_and(|at| since(at) < pace.minute) {
            return;
        }
        self.minute = Some(look.at);
        self.bases.retain(|id, _| is_on(*id));
        for now in look.all.values() {
            let base = self.bases.get(&now.id).copied();
            let (since, before) =
                base.filter(|(_, before)| goes_on(before, now)).unwrap_or((last.unwrap_or(look.at), [0; 5]));
            if last.is_some() {
                let point = point(look, now, since, before);
                self.series.entry(now.id).or_default().push_back((look.at, point));
            }
            self.bases.insert(now.id, (look.at, told(before, counters(now))));
        }
        let oldest = pace.minute.saturating_mul(POINTS);
        let most = usize::try_from(POINTS).unwrap_or(usize::MAX);
        for points in self.series.values_mut() {
            while points.len() > most || points.front().is_some_and(|(at, _)| since(*at) > oldest) {
                points.pop_front();
            }
        }
        self.series.retain(|id, points| !points.is_empty() && (look.all.contains_key(id) || is_there(*id)));
    }

    pub(super) fn series(&self, id: VmId) -> Vec<SeriesPoint> {
        self.series.get(&id).into_iter().flatten().map(|(_, point)| *point).collect()
    }
}

/// Since what the guest had used before.
fn point(look: &Look, now: &DomainStats, since: Instant, before: Counters) -> SeriesPoint {
    let secs = secs(look.at, since);
    let [cpu, net_rx, net_tx, disk_read, disk_written] =
        zipped(counters(now), before, |now, before| rate(grown(now, before), secs));
    let vcpus = u32::try_from(now.vcpu_nanos.len()).unwrap_or(u32::MAX);
    let bytes = |kib: u64| kib.saturating_mul(1024);
    SeriesPoint {
        at: look.time,
        cpu: (cpu / 1e9 / f64::from(vcpus.max(1))).clamp(0.0, 1.0),
        vcpus,
        memory_bytes: bytes(now.memory_used_kib.unwrap_or(now.memory_kib)),
        max_memory_bytes: bytes(now.max_memory_kib),
        disk_bytes: 0,
        max_disk_bytes: 0,
        net_rx,
        net_tx,
        disk_read,
        disk_written,
    }
}

/// CPU time, then bytes.
type Counters = [u64; 5];

fn counters(stats: &DomainStats) -> Counters {
    [stats.cpu_nanos, stats.net_rx, stats.net_tx, stats.disk_read, stats.disk_written]
}

/// Whether it is the same run of the guest. The others step back when a device is pulled out.
fn goes_on([before, ..]: &Counters, now: &DomainStats) -> bool {
    *before <= now.cpu_nanos
}

/// What was told last: a guest that was busy was not asked for all, and did not say 0.
fn told(before: Counters, now: Counters) -> Counters {
    zipped(now, before, |now, before| if now == 0 { before } else { now })
}

fn zipped<T>(one: Counters, other: Counters, each: impl Fn(u64, u64) -> T) -> [T; 5] {
    let [a, b, c, d, e] = one;
    let [f, g, h, i, j] = other;
    [each(a, f), each(b, g), each(c, h), each(d, i), each(e, j)]
}

fn grown(now: u64, before: u64) -> u64 {
    now.saturating_sub(before)
}

fn secs(now: Instant, before: Instant) -> f64 {
    now.saturating_duration_since(before).as_secs_f64()
}

#[expect(clippy::as_conversions, reason = "no conversion from u64 to f64 is without loss, and rates are shown rounded")]
fn rate(grown: u64, secs: f64) -> f64 {
    if secs > 0.0 { grown as f64 / secs } else { 0.0 }
}
