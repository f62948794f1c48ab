//! libvirt whose guests are started and never run an instruction: everything is real, and costs no processor time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pengx::error::Result;
use pengx::hypervisor::{
    Capabilities, Changed, DomainType, FakeHypervisor, Hypervisor, HypervisorInfo, LibvirtHypervisor, LibvirtOptions,
    Start,
};
use pengx::model::{DomainSpec, DomainStatus, VmId};

use crate::harness::app::Site;

type Hook = Box<dyn FnOnce() + Send>;

pub(super) struct Paused {
    libvirt: LibvirtHypervisor,
    /// Runs once, right before libvirt is told to start a domain.
    pub(super) before_start: Mutex<Option<Hook>>,
}

impl Paused {
    pub(super) fn new(uri: &str, call_timeout: Duration, power_timeout: Duration) -> Arc<Self> {
        let options = LibvirtOptions { call_timeout, power_timeout, domain_type: DomainType::Qemu };
        Arc::new(Self { libvirt: LibvirtHypervisor::new(uri, options).unwrap(), before_start: Mutex::default() })
    }

    /// A host for servers in this process.
    pub(super) fn site(self: Arc<Self>) -> Site {
        Site::on(self, FakeHypervisor::new())
    }
}

impl Hypervisor for Paused {
    fn kind(&self) -> &'static str {
        self.libvirt.kind()
    }
    fn info(&self) -> Result<HypervisorInfo> {
        self.libvirt.info()
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
    fn watch(&self, changed: Changed) {
        self.libvirt.watch(changed);
    }
    fn has_bridge(&self, name: &str) -> Result<bool> {
        self.libvirt.has_bridge(name)
    }
}
