//! libvirt whose guests are started and never run an instruction: everything is real, and costs no processor time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pengx::error::{ErrorKind, Result};
use pengx::hypervisor::{
    BlockJob, BlockJobStatus, Capabilities, Changed, DomainType, FakeHypervisor, Hypervisor, HypervisorInfo,
    LibvirtHypervisor, LibvirtOptions, MigrationTarget, Start, Transit,
};
use pengx::model::{
    Definition, DiskSpec, DomainSpec, DomainStats, DomainStatus, GuestAddress, GuestSize, HostUse, Mac, MiB, NicSpec,
    Screenshot, VmId, VolumeSource,
};

use crate::harness::app::Site;

type Hook = Box<dyn FnOnce() + Send>;

pub(super) struct Paused {
    libvirt: LibvirtHypervisor,
    /// Runs once, right before libvirt is told to start a domain.
    pub(super) before_start: Mutex<Option<Hook>>,
    /// How often a guest did not let go of a device; none that is paused does.
    pub(super) held: AtomicUsize,
}

impl Paused {
    pub(super) fn new(
        uri: &str,
        call_timeout: Duration,
        power_timeout: Duration,
        device_timeout: Duration,
    ) -> Arc<Self> {
        let options = LibvirtOptions {
            call_timeout,
            power_timeout,
            device_timeout,
            block_timeout: power_timeout,
            domain_type: DomainType::Qemu,
            ..LibvirtOptions::default()
        };
        let libvirt = LibvirtHypervisor::new(uri, options).unwrap();
        Arc::new(Self { libvirt, before_start: Mutex::default(), held: AtomicUsize::default() })
    }

    /// A host for servers in this process.
    pub(super) fn site(self: Arc<Self>) -> Site {
        let mut site = Site::on(self, FakeHypervisor::new());
        site.settings.orphan_quarantine = Duration::ZERO;
        site
    }

    fn count(&self, detached: Result<()>) -> Result<()> {
        if detached.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::Timeout { .. })) {
            self.held.fetch_add(1, Ordering::SeqCst);
        }
        detached
    }
}

impl Hypervisor for Paused {
    fn kind(&self) -> &'static str {
        self.libvirt.kind()
    }
    fn info(&self) -> Result<HypervisorInfo> {
        self.libvirt.info()
    }
    fn host_use(&self) -> Result<Option<HostUse>> {
        self.libvirt.host_use()
    }
    fn capabilities(&self, spec: &DomainSpec) -> Capabilities {
        self.libvirt.capabilities(spec)
    }
    fn domains(&self) -> Result<Vec<DomainStatus>> {
        self.libvirt.domains()
    }
    fn domain(&self, id: VmId) -> Result<Option<DomainStatus>> {
        self.libvirt.domain(id)
    }
    fn defined(&self, id: VmId) -> Result<Option<Definition>> {
        self.libvirt.defined(id)
    }
    fn define(&self, spec: &DomainSpec) -> Result<()> {
        self.libvirt.define(spec)
    }
    fn undefine(&self, id: VmId) -> Result<()> {
        self.libvirt.undefine(id)
    }
    fn start(&self, id: VmId, _: Start) -> Result<()> {
        let hook = self.before_start.lock().unwrap().take();
        if let Some(hook) = hook {
            hook();
        }
        self.libvirt.start(id, Start::Paused)
    }
    fn request_shutdown(&self, id: VmId) -> Result<()> {
        self.libvirt.request_shutdown(id)
    }
    fn request_reboot(&self, id: VmId) -> Result<()> {
        self.libvirt.request_reboot(id)
    }
    fn destroy(&self, id: VmId) -> Result<()> {
        self.libvirt.destroy(id)
    }
    fn pause(&self, id: VmId) -> Result<()> {
        self.libvirt.pause(id)
    }
    fn unpause(&self, id: VmId) -> Result<()> {
        self.libvirt.unpause(id)
    }
    fn set_vcpus(&self, id: VmId, count: u32) -> Result<()> {
        self.libvirt.set_vcpus(id, count)
    }
    fn set_memory(&self, id: VmId, memory: MiB) -> Result<()> {
        self.libvirt.set_memory(id, memory)
    }
    fn memory(&self, id: VmId) -> Result<MiB> {
        self.libvirt.memory(id)
    }
    fn size(&self, id: VmId) -> Result<GuestSize> {
        self.libvirt.size(id)
    }
    fn attach_disk(&self, id: VmId, disk: &DiskSpec) -> Result<()> {
        self.libvirt.attach_disk(id, disk)
    }
    fn detach_disk(&self, id: VmId, order: u32) -> Result<()> {
        self.count(self.libvirt.detach_disk(id, order))
    }
    fn attach_nic(&self, id: VmId, nic: &NicSpec) -> Result<()> {
        self.libvirt.attach_nic(id, nic)
    }
    fn detach_nic(&self, id: VmId, mac: Mac) -> Result<()> {
        self.count(self.libvirt.detach_nic(id, mac))
    }
    fn change_disc(&self, id: VmId, disc: Option<&VolumeSource>) -> Result<()> {
        self.libvirt.change_disc(id, disc)
    }
    fn chain(&self, id: VmId, order: u32) -> Result<Vec<VolumeSource>> {
        self.libvirt.chain(id, order)
    }
    fn overlay_disks(&self, id: VmId, overlays: &[DiskSpec]) -> Result<()> {
        self.libvirt.overlay_disks(id, overlays)
    }
    fn start_block_job(&self, id: VmId, order: u32, job: &BlockJob) -> Result<()> {
        self.libvirt.start_block_job(id, order, job)
    }
    fn block_job(&self, id: VmId, order: u32) -> Result<Option<BlockJobStatus>> {
        self.libvirt.block_job(id, order)
    }
    fn pivot(&self, id: VmId, order: u32) -> Result<()> {
        self.libvirt.pivot(id, order)
    }
    fn abort_block_job(&self, id: VmId, order: u32) -> Result<()> {
        self.libvirt.abort_block_job(id, order)
    }
    /// Of a guest that runs; one that never runs an instruction would not.
    fn expect_guest(&self, spec: &DomainSpec) -> Result<()> {
        self.libvirt.expect_guest(spec)
    }
    fn send_guest(&self, id: VmId, to: &MigrationTarget, cancel: &AtomicBool) -> Result<()> {
        self.libvirt.send_guest(id, to, cancel)
    }
    fn transit(&self, id: VmId) -> Result<Transit> {
        self.libvirt.transit(id)
    }
    fn take_over(&self, id: VmId) -> Result<()> {
        self.libvirt.take_over(id)
    }
    fn give_up(&self, id: VmId) -> Result<()> {
        self.libvirt.give_up(id)
    }
    fn agent_answers(&self, id: VmId) -> Result<bool> {
        let said = self.libvirt.agent_answers(id)?;
        assert!(!said, "a guest that is paused has an agent that answers");
        Ok(self.libvirt.domain(id)?.is_some_and(|domain| domain.state.is_active()))
    }
    fn stats(&self) -> Result<Vec<DomainStats>> {
        self.libvirt.stats()
    }
    fn addresses(&self, id: VmId) -> Result<Vec<GuestAddress>> {
        self.libvirt.addresses(id)
    }
    fn screenshot(&self, id: VmId) -> Result<Screenshot> {
        self.libvirt.screenshot(id)
    }
    fn description(&self, id: VmId) -> Result<Option<String>> {
        self.libvirt.description(id)
    }
    fn watch(&self, changed: Changed) {
        self.libvirt.watch(changed);
    }
    fn has_bridge(&self, name: &str) -> Result<bool> {
        self.libvirt.has_bridge(name)
    }
}
