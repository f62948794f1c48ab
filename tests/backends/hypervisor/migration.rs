//! The laws of moving a running guest, over two hosts of one kind. What is broken off in the middle ends with the guest
//! running exactly once.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::AtomicBool;

use pengx::hypervisor::{MigrationTarget, Settlement, Transit, settle};

use crate::harness::wait::wait_until;

use super::*;

/// What is asked of one of the two hosts.
pub trait Side {
    fn define(&self, spec: &DomainSpec) -> Result<()>;
    fn undefine(&self, id: VmId) -> Result<()>;
    fn start(&self, id: VmId) -> Result<()>;
    fn pause(&self, id: VmId) -> Result<()>;
    fn destroy(&self, id: VmId) -> Result<()>;
    fn state(&self, id: VmId) -> Result<Option<PowerState>>;
    fn expect(&self, spec: &DomainSpec) -> Result<()>;
    fn send(&self, id: VmId) -> Result<()>;
    fn transit(&self, id: VmId) -> Result<Transit>;
    fn take_over(&self, id: VmId) -> Result<()>;
    fn give_up(&self, id: VmId) -> Result<()>;
}

/// A host that is in this process, and where it sends guests.
pub struct Near<H> {
    pub hypervisor: H,
    pub to: MigrationTarget,
}

impl<H: Hypervisor> Side for Near<H> {
    fn define(&self, spec: &DomainSpec) -> Result<()> {
        self.hypervisor.define(spec)
    }
    fn undefine(&self, id: VmId) -> Result<()> {
        self.hypervisor.undefine(id)
    }
    fn start(&self, id: VmId) -> Result<()> {
        self.hypervisor.start(id, Start::Running)
    }
    fn pause(&self, id: VmId) -> Result<()> {
        self.hypervisor.pause(id)
    }
    fn destroy(&self, id: VmId) -> Result<()> {
        self.hypervisor.destroy(id)
    }
    fn state(&self, id: VmId) -> Result<Option<PowerState>> {
        Ok(self.hypervisor.domain(id)?.map(|status| status.state))
    }
    fn expect(&self, spec: &DomainSpec) -> Result<()> {
        self.hypervisor.expect_guest(spec)
    }
    fn send(&self, id: VmId) -> Result<()> {
        self.hypervisor.send_guest(id, &self.to, &AtomicBool::new(false))
    }
    fn transit(&self, id: VmId) -> Result<Transit> {
        self.hypervisor.transit(id)
    }
    fn take_over(&self, id: VmId) -> Result<()> {
        self.hypervisor.take_over(id)
    }
    fn give_up(&self, id: VmId) -> Result<()> {
        self.hypervisor.give_up(id)
    }
}

/// Two hosts, and a guest that both can run.
pub trait Two {
    fn here(&self) -> &dyn Side;
    fn there(&self) -> &dyn Side;
    fn spec(&self) -> DomainSpec;
    /// It is what it was, and does what it did.
    fn lives(&self, spec: &DomainSpec);
}

/// A guest of `two` that runs here.
pub fn running(two: &impl Two) -> DomainSpec {
    let spec = two.spec();
    two.here().define(&spec).unwrap();
    wait_until("it starts", || match two.here().start(spec.id) {
        Err(late) if is_too_slow(&late) => Err(late),
        done => done.map(|()| true).map_err(|why| panic!("{why}")),
    });
    two.lives(&spec);
    spec
}

pub fn transits(two: &impl Two, id: VmId) -> (Transit, Transit) {
    (two.here().transit(id).unwrap(), two.there().transit(id).unwrap())
}

/// After a migration from here to there that was broken off: until it runs exactly once. Where that is.
pub fn settled(two: &impl Two, spec: &DomainSpec) -> Settlement {
    let deadline = Instant::now() + NEVER * 4;
    loop {
        let (here, there) = transits(two, spec.id);
        let settlement = settle(here, there);
        match settlement {
            Settlement::Wait => {
                assert!(Instant::now() < deadline, "somebody still sends it: {here:?} {there:?}");
                std::thread::sleep(Duration::from_millis(200));
                continue;
            }
            Settlement::Source => {
                two.there().give_up(spec.id).unwrap();
                two.here().take_over(spec.id).unwrap();
            }
            Settlement::Target => {
                two.there().take_over(spec.id).unwrap();
                two.here().give_up(spec.id).unwrap();
            }
            Settlement::Lost => panic!("it was lost: {here:?} {there:?}"),
        }
        let (here, there) = transits(two, spec.id);
        let one = [here, there].into_iter().filter(|is| *is == Transit::Here).count();
        let none = [here, there].into_iter().filter(|is| *is == Transit::Absent).count();
        assert_eq!((one, none), (1, 1), "{settlement:?}: {here:?} {there:?}");
        let home: &dyn Side = if settlement == Settlement::Source { two.here() } else { two.there() };
        assert_eq!(home.state(spec.id).unwrap(), Some(PowerState::Running));
        two.lives(spec);
        return settlement;
    }
}

/// Nothing of it is left on either side.
pub fn end(two: &impl Two, id: VmId) {
    for side in [two.here(), two.there()] {
        side.destroy(id).unwrap();
        side.undefine(id).unwrap();
        assert_eq!((side.state(id).unwrap(), side.transit(id).unwrap()), (None, Transit::Absent));
    }
}

pub fn a_guest_moves_there_and_back(two: &impl Two) {
    let spec = running(two);
    let id = spec.id;
    for (from, to) in [(two.here(), two.there()), (two.there(), two.here())] {
        if to.state(id).unwrap().is_some() {
            to.undefine(id).unwrap();
        }
        to.expect(&spec).unwrap();
        assert_eq!((from.transit(id).unwrap(), to.transit(id).unwrap()), (Transit::Here, Transit::Absent));
        from.send(id).unwrap();
        assert_eq!((from.transit(id).unwrap(), to.transit(id).unwrap()), (Transit::Absent, Transit::Here));
        // Both may be repeated.
        for _ in 0..2 {
            to.take_over(id).unwrap();
            from.give_up(id).unwrap();
        }
        assert_eq!(from.state(id).unwrap(), Some(PowerState::Shutdown), "the definition stays");
        assert_eq!(to.state(id).unwrap(), Some(PowerState::Running));
        wrong_state(to.give_up(id));
        two.lives(&spec);
    }
    end(two, id);
}

pub fn what_is_not_expected_is_not_taken(two: &impl Two) {
    let spec = running(two);
    let why = refused(two.here().send(spec.id));
    assert!(why.contains("is not expected"), "{why}");
    assert_eq!(transits(two, spec.id), (Transit::Here, Transit::Absent));
    assert_eq!(two.here().state(spec.id).unwrap(), Some(PowerState::Running));
    two.lives(&spec);
    // It is not expected where it is, and neither side is asked for what it has not.
    assert!(matches!(two.here().expect(&spec).unwrap_err().kind(), ErrorKind::Refused { .. }));
    assert!(matches!(two.there().take_over(spec.id).unwrap_err().kind(), ErrorKind::NotFound { .. }));
    two.there().give_up(spec.id).unwrap();
    wrong_state(two.here().give_up(spec.id));
    two.here().take_over(spec.id).unwrap();
    // One that stands still cannot be asked to.
    two.here().pause(spec.id).unwrap();
    wrong_state(two.here().send(spec.id));
    end(two, spec.id);
}

pub fn what_is_expected_is_off_until_it_comes(two: &impl Two) {
    let spec = two.spec();
    not_found(two.here().send(spec.id), spec.id);
    two.here().define(&spec).unwrap();
    wrong_state(two.here().send(spec.id));
    for _ in 0..2 {
        two.there().expect(&spec).unwrap();
        assert_eq!(two.there().state(spec.id).unwrap(), Some(PowerState::Shutdown));
        assert_eq!(two.there().transit(spec.id).unwrap(), Transit::Absent);
        assert!(matches!(two.there().start(spec.id).unwrap_err().kind(), ErrorKind::Refused { .. }));
    }
    two.there().give_up(spec.id).unwrap();
    let nowhere = NicLink::Bridge("none0".to_owned());
    let missing = DomainSpec { nics: vec![nic(9, nowhere)], ..spec.clone() };
    assert!(matches!(two.there().expect(&missing).unwrap_err().kind(), ErrorKind::Refused { .. }));
    end(two, spec.id);
}

struct Fakes {
    here: Near<FakeHypervisor>,
    there: Near<FakeHypervisor>,
}

impl Two for Fakes {
    fn here(&self) -> &dyn Side {
        &self.here
    }
    fn there(&self) -> &dyn Side {
        &self.there
    }
    fn spec(&self) -> DomainSpec {
        spec(&[])
    }
    fn lives(&self, _: &DomainSpec) {}
}

fn fakes() -> Fakes {
    let (here, there) = (FakeHypervisor::new(), FakeHypervisor::new());
    let address = |n| IpAddr::from(Ipv4Addr::new(10, 99, 0, n));
    here.reach(address(2), &there);
    there.reach(address(1), &here);
    let to = |n| MigrationTarget {
        address: address(n),
        port: 22,
        user: "root".to_owned(),
        key: "/key".into(),
        known_hosts: "/known".into(),
    };
    Fakes { here: Near { hypervisor: here, to: to(2) }, there: Near { hypervisor: there, to: to(1) } }
}

#[test]
fn a_fake_guest_moves_there_and_back() {
    a_guest_moves_there_and_back(&fakes());
}

#[test]
fn a_fake_guest_that_is_not_expected_is_not_taken() {
    what_is_not_expected_is_not_taken(&fakes());
}

#[test]
fn a_fake_guest_that_is_expected_is_off_until_it_comes() {
    what_is_expected_is_off_until_it_comes(&fakes());
}

/// Whatever each side has of it, the other side's word decides.
#[test]
fn a_fake_migration_that_is_broken_off_runs_exactly_once() {
    for (source, target, home) in [
        (Transit::Here, Transit::Absent, Settlement::Source),
        (Transit::Here, Transit::Arrived, Settlement::Source),
        (Transit::Here, Transit::Moving, Settlement::Source),
        (Transit::Suspended, Transit::Absent, Settlement::Source),
        (Transit::Suspended, Transit::Arrived, Settlement::Source),
        (Transit::Suspended, Transit::Moving, Settlement::Source),
        (Transit::Sent, Transit::Absent, Settlement::Source),
        (Transit::Sent, Transit::Arrived, Settlement::Target),
        (Transit::Sent, Transit::Moving, Settlement::Target),
        (Transit::Sent, Transit::Here, Settlement::Target),
        (Transit::Absent, Transit::Here, Settlement::Target),
    ] {
        let two = fakes();
        let spec = running(&two);
        two.there().expect(&spec).unwrap();
        two.here.hypervisor.break_next_migration(source, target);
        assert!(matches!(two.here().send(spec.id).unwrap_err().kind(), ErrorKind::Unavailable { .. }));
        assert_eq!(transits(&two, spec.id), (source, target));
        if matches!(source, Transit::Suspended | Transit::Sent) {
            assert!(two.here().start(spec.id).is_err(), "{source:?}");
        }
        assert_eq!(settled(&two, &spec), home, "{source:?} {target:?}");
        end(&two, spec.id);
    }
}

/// Only Xen moves guests yet; who asks first is told so, and nothing happens.
#[test]
fn libvirt_says_that_it_moves_nothing() {
    let bench = Bench::libvirt();
    assert!(!bench.can().live_migration);
    let vm = bench.vm(&[bench.disk()]);
    vm.start(Start::Paused);
    let side = Near { hypervisor: connect(&Libvirtd::shared().uri), to: fakes().here.to };
    unsupported(side.send(vm.id));
    unsupported(side.expect(&spec(&[])));
    unsupported(side.take_over(vm.id));
    unsupported(side.give_up(vm.id));
    assert_eq!(vm.state(), PowerState::Paused);
}
