use std::thread;

use uuid::Uuid;

use super::*;
use crate::error::ErrorKind;
use crate::hypervisor::{Answer, FakeHypervisor, Start, Verb};
use crate::model::{DomainSpec, MiB, Secret, SystemClock};

const PATIENCE: Duration = Duration::from_secs(60);
const GIB: u64 = 1 << 30;

fn id(number: u128) -> VmId {
    VmId(Uuid::from_u128(number))
}

/// A guest of two vCPUs that has worked so many seconds, half as much on the second, and moved as many GiB.
fn stats(number: u128, worked: u64) -> DomainStats {
    let nanos = worked * 1_000_000_000;
    DomainStats {
        id: id(number),
        cpu_nanos: nanos + nanos / 2,
        vcpu_nanos: vec![nanos, nanos / 2],
        memory_kib: 2048,
        max_memory_kib: 4096,
        memory_used_kib: None,
        net_rx: worked * GIB,
        net_tx: worked * GIB / 2,
        disk_read: worked * GIB / 4,
        disk_written: worked * GIB / 8,
    }
}

/// What is seen of a made-up world whose time passes at our word.
struct World {
    began: Instant,
    kept: Kept,
    pace: Pace,
    on: Vec<VmId>,
    there: Vec<VmId>,
}

impl World {
    fn new() -> Self {
        let (on, there) = (vec![id(1)], vec![id(1)]);
        Self { began: Instant::now(), kept: Kept::default(), pace: Pace::default(), on, there }
    }

    fn at(&self, ms: u64) -> Instant {
        self.began + Duration::from_millis(ms)
    }

    fn look(&mut self, ms: u64, all: Vec<DomainStats>) {
        let at = self.at(ms);
        let time = chrono::DateTime::from_timestamp_millis(i64::try_from(ms).unwrap()).unwrap().naive_utc();
        let all = all.into_iter().map(|stats| (stats.id, stats)).collect();
        let look = Arc::new(Look { begun: at, at, time, all });
        self.kept.note(&look, &self.pace, |id| self.on.contains(&id), |id| self.there.contains(&id));
    }

    /// The seconds of the points, with what the CPUs did.
    fn cpu(&self) -> Vec<(i64, f64)> {
        let points = self.kept.series(id(1));
        points.iter().map(|point| (point.at.and_utc().timestamp(), point.cpu)).collect()
    }

    fn pair(&self, ms: u64) -> Option<(Instant, Instant)> {
        self.kept.pair(self.at(ms), &self.pace).map(|(before, now)| (before.at, now.at))
    }
}

#[test]
fn a_point_tells_what_was_used_since_the_one_before() {
    let mut world = World::new();
    world.look(0, vec![stats(1, 100)]);
    assert_eq!(world.kept.series(id(1)), [], "nothing to compare with");
    world.look(30_000, vec![stats(1, 110)]);
    assert_eq!(world.kept.series(id(1)), [], "no minute has passed");
    world.look(60_000, vec![DomainStats { memory_used_kib: Some(1024), ..stats(1, 130) }]);
    let [point] = world.kept.series(id(1))[..] else { panic!("one point") };
    let gib_in_two_seconds = f64::from(1_u32 << 29);
    let expected = SeriesPoint {
        at: chrono::DateTime::from_timestamp(60, 0).unwrap().naive_utc(),
        cpu: 0.375,
        vcpus: 2,
        memory_bytes: 1 << 20,
        max_memory_bytes: 4 << 20,
        disk_bytes: 0,
        max_disk_bytes: 0,
        net_rx: gib_in_two_seconds,
        net_tx: gib_in_two_seconds / 2.0,
        disk_read: gib_in_two_seconds / 4.0,
        disk_written: gib_in_two_seconds / 8.0,
    };
    assert_eq!(point, expected);
}

#[test]
fn a_guest_that_began_meanwhile_has_used_all_of_it_since() {
    let mut world = World::new();
    world.look(0, vec![]);
    world.look(60_000, vec![stats(1, 60)]);
    world.look(120_000, vec![stats(1, 30)]);
    assert_eq!(world.cpu(), [(60, 0.75), (120, 0.375)], "it ended and began again");
    // Off for a while: what it had used by then is nothing to compare with.
    world.on.clear();
    world.look(180_000, vec![]);
    world.on = vec![id(1)];
    world.look(240_000, vec![stats(1, 60)]);
    assert_eq!(world.cpu().last(), Some(&(240, 0.75)));
}

#[test]
fn what_a_busy_guest_was_not_asked_is_no_step() {
    let mut world = World::new();
    world.look(0, vec![stats(1, 600)]);
    let busy = |worked| DomainStats { disk_read: 0, disk_written: 0, ..stats(1, worked) };
    world.look(60_000, vec![busy(600)]);
    world.look(120_000, vec![stats(1, 600)]);
    let read: Vec<f64> = world.kept.series(id(1)).iter().map(|point| point.disk_read).collect();
    assert_eq!(read, [0.0, 0.0]);
    // And one that was left out has used what it has since it told last.
    world.look(180_000, vec![]);
    world.look(240_000, vec![stats(1, 720)]);
    assert_eq!(world.cpu(), [(60, 0.0), (120, 0.0), (240, 0.75)]);
}

#[test]
fn a_series_has_seventy_points_and_goes_with_its_guest() {
    let mut world = World::new();
    for minute in 0..100 {
        world.look(minute * 60_000, vec![stats(1, 1000 + minute)]);
    }
    let all = world.cpu();
    assert_eq!((all.len(), all[0].0, all[69].0), (70, 30 * 60, 99 * 60));
    world.look(120 * 60_000, vec![]);
    assert_eq!(world.cpu()[0].0, 50 * 60, "off, and older than all that is kept");
    world.there.clear();
    world.look(121 * 60_000, vec![]);
    assert_eq!(world.kept.series(id(1)), []);
}

#[test]
fn vcpus_are_compared_between_two_looks_that_tell_of_now() {
    let mut world = World::new();
    world.look(0, vec![stats(1, 10)]);
    assert_eq!(world.pair(0), None);
    world.look(100, vec![stats(1, 10)]);
    assert_eq!(world.pair(100), None, "too near");
    world.look(2000, vec![stats(1, 11)]);
    let (before, now) = world.kept.pair(world.at(2100), &world.pace).unwrap();
    assert_eq!((before.at, now.at), (world.at(100), world.at(2000)));
    let shares = now.vcpu_use(&before, id(1)).unwrap();
    let expected = [1.0 / 1.9 * 100.0, 0.5 / 1.9 * 100.0];
    assert!(shares.iter().zip(expected).all(|(is, expected)| (is - expected).abs() < 1e-9), "{shares:?}");
    assert_eq!(now.vcpu_use(&before, id(2)), None);
    assert!(world.pair(4499).is_some());
    assert_eq!(world.pair(4500), None, "too old");
    world.look(60_000, vec![stats(1, 11)]);
    assert_eq!(world.pair(60_000), None, "too far apart");
    // More than all of a CPU cannot be.
    world.look(61_000, vec![stats(1, 100), stats(2, 0)]);
    let (before, now) = world.kept.pair(world.at(61_000), &world.pace).unwrap();
    assert_eq!(now.vcpu_use(&before, id(1)), Some(vec![100.0, 100.0]));
    assert_eq!(now.vcpu_use(&before, id(2)), Some(vec![0.0, 0.0]));
}

#[test]
fn it_looks_each_minute_and_each_second_while_somebody_asks() {
    let mut world = World::new();
    let due = |world: &World, ms| world.kept.due(world.at(ms), &world.pace);
    assert_eq!(due(&world, 0), world.at(0), "at once");
    world.look(0, vec![]);
    assert_eq!(due(&world, 500), world.at(60_000));
    assert!(!world.kept.ask(world.at(2000), &world.pace));
    assert!(world.kept.ask(world.at(3000), &world.pace), "somebody asked a second ago");
    assert_eq!(due(&world, 3000), world.at(1000));
    world.look(3000, vec![]);
    assert_eq!(due(&world, 3100), world.at(4000));
    assert_eq!(due(&world, 13_000), world.at(60_000), "nobody asked for ten seconds");
    world.kept.fail(world.at(60_000), ErrorKind::Unavailable { what: "it".to_owned() });
    assert_eq!(due(&world, 60_000), world.at(70_000), "tried again after a while");
    assert!(world.kept.failed_since(world.at(59_000)).is_err());
    assert!(world.kept.failed_since(world.at(60_001)).is_ok());
    world.look(70_000, vec![]);
    assert_eq!(due(&world, 70_001), world.at(130_000));
    assert!(world.kept.failed_since(world.at(59_000)).is_ok());
}

/// One guest on the fake, which runs; nobody follows.
fn one(pace: Pace) -> (FakeHypervisor, Samples, VmId) {
    let spec = DomainSpec {
        id: id(1),
        title: "one".to_owned(),
        os: None,
        vcpus: 2,
        max_vcpus: 2,
        memory: MiB(64),
        max_memory: MiB(64),
        disks: Vec::new(),
        nics: Vec::new(),
        pci: None,
        disc: None,
        console: None,
        vnc_password: Secret::new("12345678".to_owned()),
    };
    let fake = FakeHypervisor::new();
    fake.define(&spec).unwrap();
    fake.start(spec.id, Start::Running).unwrap();
    let hypervisor: Arc<dyn Hypervisor> = Arc::new(fake.clone());
    let inventory = Inventory::new(&hypervisor);
    inventory.refresh(spec.id).unwrap();
    let samples = Samples::new(hypervisor, Arc::new(SystemClock), inventory, pace);
    (fake, samples, spec.id)
}

/// Whatever was looked at stays recent.
fn patient() -> Pace {
    Pace { second: PATIENCE, apart: Duration::from_millis(1), ..Pace::default() }
}

fn hurried() -> Pace {
    let ms = Duration::from_millis;
    Pace { minute: ms(10), second: ms(5), interest: PATIENCE, apart: ms(1) }
}

#[track_caller]
fn wait_for(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::yield_now();
    }
}

#[test]
fn however_many_ask_there_is_one_look_at_a_time() {
    let (fake, samples, id) = one(patient());
    fake.hold(Verb::Stats);
    thread::scope(|scope| {
        let askers: Vec<_> = (0..8).map(|_| scope.spawn(|| samples.vcpu_use(id).unwrap().unwrap())).collect();
        assert!(fake.wait_held(Verb::Stats, 1, PATIENCE));
        fake.release(Verb::Stats);
        for asker in askers {
            assert_eq!(asker.join().unwrap().len(), 2);
        }
    });
    assert_eq!(fake.calls(Verb::Stats), 2, "the first one looked twice, and the others were told what it saw");
    samples.newest(id).unwrap().expect("it runs");
    assert_eq!(fake.calls(Verb::Stats), 2);
}

#[test]
fn what_is_off_is_told_without_a_look_and_what_has_begun_is_looked_at() {
    let (fake, samples, id) = one(patient());
    let first = samples.newest(id).unwrap().unwrap();
    fake.let_pass(Duration::from_secs(100));
    assert_eq!(samples.newest(id).unwrap().unwrap(), first, "as of the last look");
    fake.destroy(id).unwrap();
    samples.0.inventory.refresh(id).unwrap();
    assert_eq!((samples.newest(id).unwrap(), samples.vcpu_use(id).unwrap()), (None, None));
    assert_eq!(fake.calls(Verb::Stats), 1);
}

#[test]
fn a_guest_that_has_begun_since_the_last_look_is_looked_at() {
    let (fake, samples, id) = one(patient());
    fake.destroy(id).unwrap();
    assert_eq!(samples.newest(id).unwrap(), None, "the inventory has not heard of it, and the look has it not");
    fake.start(id, Start::Paused).unwrap();
    samples.0.inventory.refresh(id).unwrap();
    assert_eq!(samples.newest(id).unwrap().expect("it is there").cpu_nanos, 0);
    assert_eq!(fake.calls(Verb::Stats), 2);
}

#[test]
fn whoever_asks_a_dead_hypervisor_is_told_so() {
    let (fake, samples, id) = one(patient());
    let away = ErrorKind::Unavailable { what: "the test".to_owned() };
    fake.fail_every(Verb::Stats, Answer::Refuse(away.clone()));
    assert_eq!(samples.newest(id).unwrap_err().kind(), &away);
    assert_eq!(samples.vcpu_use(id).unwrap_err().kind(), &away);
    fake.heal();
    assert!(samples.newest(id).unwrap().is_some());
}

#[test]
fn the_thread_makes_a_series_goes_over_gaps_and_ends_with_its_core() {
    let (fake, samples, id) = one(hurried());
    samples.follow();
    wait_for("three points", || samples.series(id).len() >= 3);
    let away = ErrorKind::Unavailable { what: "the test".to_owned() };
    fake.fail_next(Verb::Stats, Answer::Refuse(away));
    let failed = fake.calls(Verb::Stats);
    wait_for("a look after one that failed", || {
        // Else it would be tried again after a minute only.
        assert!(samples.vcpu_use(id).is_ok() || fake.calls(Verb::Stats) > failed);
        fake.calls(Verb::Stats) > failed + 5
    });
    let points = samples.series(id);
    assert!(points.len() <= 70 && points.is_sorted_by_key(|point| point.at), "{points:?}");
    assert!(points.iter().all(|point| point.vcpus == 2 && (0.0..=1.0).contains(&point.cpu)));
    let weak = Arc::downgrade(&samples.0);
    drop(samples);
    wait_for("the end of the thread", || weak.upgrade().is_none());
}
