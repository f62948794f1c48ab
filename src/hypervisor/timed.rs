//! Any hypervisor, with its calls counted and timed.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{
    BlockJob, BlockJobStatus, Capabilities, Changed, Hypervisor, HypervisorInfo, MigrationTarget, Start, Transit, Verb,
};
use crate::error::Result;
use crate::model::{
    Definition, DiskSpec, DomainSpec, DomainStats, DomainStatus, GuestAddress, GuestSize, HostUse, Mac, MiB, NicSpec,
    Screenshot, VmId, VolumeSource,
};

/// Upper bounds in seconds: a look takes a millisecond, a guest may take a minute to let a disk go.
const BUCKETS: [f64; 9] = [0.001, 0.005, 0.025, 0.1, 0.5, 2.0, 5.0, 20.0, 60.0];

type Label = (&'static str, &'static str);

/// Passes every call on. A call counts when it has ended.
pub struct Timed {
    inner: Arc<dyn Hypervisor>,
    durations: Family<[Label; 1], Histogram, fn() -> Histogram>,
    errors: Family<[Label; 2], Counter>,
}

impl Timed {
    /// Shown by `registry` from now on.
    pub fn new(inner: Arc<dyn Hypervisor>, registry: &mut Registry) -> Self {
        let new: fn() -> Histogram = || Histogram::new(BUCKETS);
        let timed = Self { inner, durations: Family::new_with_constructor(new), errors: Family::default() };
        let help = "Calls of the hypervisor that have ended";
        registry.register("pengx_hypervisor_call_duration_seconds", help, timed.durations.clone());
        let help = "Calls of the hypervisor that failed or were refused";
        registry.register("pengx_hypervisor_errors", help, timed.errors.clone());
        timed
    }

    fn call<T>(&self, verb: Verb, call: impl FnOnce(&dyn Hypervisor) -> Result<T>) -> Result<T> {
        let began = Instant::now();
        let answer = call(self.inner.as_ref());
        let verb = ("verb", verb.word());
        self.durations.get_or_create(&[verb]).observe(began.elapsed().as_secs_f64());
        if let Err(why) = &answer {
            self.errors.get_or_create(&[verb, ("error", why.kind().name())]).inc();
        }
        answer
    }
}

impl Hypervisor for Timed {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }
    fn info(&self) -> Result<HypervisorInfo> {
        self.call(Verb::Info, |h| h.info())
    }
    fn host_use(&self) -> Result<Option<HostUse>> {
        self.call(Verb::HostUse, |h| h.host_use())
    }
    fn capabilities(&self, spec: &DomainSpec) -> Capabilities {
        self.inner.capabilities(spec)
    }
    fn domains(&self) -> Result<Vec<DomainStatus>> {
        self.call(Verb::Domains, |h| h.domains())
    }
    fn domain(&self, id: VmId) -> Result<Option<DomainStatus>> {
        self.call(Verb::Domain, |h| h.domain(id))
    }
    fn defined(&self, id: VmId) -> Result<Option<Definition>> {
        self.call(Verb::Defined, |h| h.defined(id))
    }
    fn define(&self, spec: &DomainSpec) -> Result<()> {
        self.call(Verb::Define, |h| h.define(spec))
    }
    fn undefine(&self, id: VmId) -> Result<()> {
        self.call(Verb::Undefine, |h| h.undefine(id))
    }
    fn start(&self, id: VmId, how: Start) -> Result<()> {
        self.call(Verb::Start, |h| h.start(id, how))
    }
    fn request_shutdown(&self, id: VmId) -> Result<()> {
        self.call(Verb::RequestShutdown, |h| h.request_shutdown(id))
    }
    fn request_reboot(&self, id: VmId) -> Result<()> {
        self.call(Verb::RequestReboot, |h| h.request_reboot(id))
    }
    fn destroy(&self, id: VmId) -> Result<()> {
        self.call(Verb::Destroy, |h| h.destroy(id))
    }
    fn pause(&self, id: VmId) -> Result<()> {
        self.call(Verb::Pause, |h| h.pause(id))
    }
    fn unpause(&self, id: VmId) -> Result<()> {
        self.call(Verb::Unpause, |h| h.unpause(id))
    }
    fn set_vcpus(&self, id: VmId, count: u32) -> Result<()> {
        self.call(Verb::SetVcpus, |h| h.set_vcpus(id, count))
    }
    fn set_memory(&self, id: VmId, memory: MiB) -> Result<()> {
        self.call(Verb::SetMemory, |h| h.set_memory(id, memory))
    }
    fn memory(&self, id: VmId) -> Result<MiB> {
        self.call(Verb::Memory, |h| h.memory(id))
    }
    fn size(&self, id: VmId) -> Result<GuestSize> {
        self.call(Verb::Size, |h| h.size(id))
    }
    fn attach_disk(&self, id: VmId, disk: &DiskSpec) -> Result<()> {
        self.call(Verb::AttachDisk, |h| h.attach_disk(id, disk))
    }
    fn detach_disk(&self, id: VmId, order: u32) -> Result<()> {
        self.call(Verb::DetachDisk, |h| h.detach_disk(id, order))
    }
    fn attach_nic(&self, id: VmId, nic: &NicSpec) -> Result<()> {
        self.call(Verb::AttachNic, |h| h.attach_nic(id, nic))
    }
    fn detach_nic(&self, id: VmId, mac: Mac) -> Result<()> {
        self.call(Verb::DetachNic, |h| h.detach_nic(id, mac))
    }
    fn change_disc(&self, id: VmId, disc: Option<&VolumeSource>) -> Result<()> {
        self.call(Verb::ChangeDisc, |h| h.change_disc(id, disc))
    }
    fn chain(&self, id: VmId, order: u32) -> Result<Vec<VolumeSource>> {
        self.call(Verb::Chain, |h| h.chain(id, order))
    }
    fn overlay_disks(&self, id: VmId, overlays: &[DiskSpec]) -> Result<()> {
        self.call(Verb::OverlayDisks, |h| h.overlay_disks(id, overlays))
    }
    fn start_block_job(&self, id: VmId, order: u32, job: &BlockJob) -> Result<()> {
        self.call(Verb::StartBlockJob, |h| h.start_block_job(id, order, job))
    }
    fn block_job(&self, id: VmId, order: u32) -> Result<Option<BlockJobStatus>> {
        self.call(Verb::BlockJob, |h| h.block_job(id, order))
    }
    fn pivot(&self, id: VmId, order: u32) -> Result<()> {
        self.call(Verb::Pivot, |h| h.pivot(id, order))
    }
    fn abort_block_job(&self, id: VmId, order: u32) -> Result<()> {
        self.call(Verb::AbortBlockJob, |h| h.abort_block_job(id, order))
    }
    fn expect_guest(&self, spec: &DomainSpec) -> Result<()> {
        self.call(Verb::ExpectGuest, |h| h.expect_guest(spec))
    }
    fn send_guest(&self, id: VmId, to: &MigrationTarget, cancel: &AtomicBool) -> Result<()> {
        self.call(Verb::SendGuest, |h| h.send_guest(id, to, cancel))
    }
    fn transit(&self, id: VmId) -> Result<Transit> {
        self.call(Verb::Transit, |h| h.transit(id))
    }
    fn take_over(&self, id: VmId) -> Result<()> {
        self.call(Verb::TakeOver, |h| h.take_over(id))
    }
    fn give_up(&self, id: VmId) -> Result<()> {
        self.call(Verb::GiveUp, |h| h.give_up(id))
    }
    fn agent_answers(&self, id: VmId) -> Result<bool> {
        self.call(Verb::AgentAnswers, |h| h.agent_answers(id))
    }
    fn stats(&self) -> Result<Vec<DomainStats>> {
        self.call(Verb::Stats, |h| h.stats())
    }
    fn addresses(&self, id: VmId) -> Result<Vec<GuestAddress>> {
        self.call(Verb::Addresses, |h| h.addresses(id))
    }
    fn screenshot(&self, id: VmId) -> Result<Screenshot> {
        self.call(Verb::Screenshot, |h| h.screenshot(id))
    }
    fn description(&self, id: VmId) -> Result<Option<String>> {
        self.call(Verb::Description, |h| h.description(id))
    }
    fn watch(&self, changed: Changed) {
        self.inner.watch(changed);
    }
    fn has_bridge(&self, name: &str) -> Result<bool> {
        self.call(Verb::HasBridge, |h| h.has_bridge(name))
    }
}
