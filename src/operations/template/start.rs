//! Starts a template in a domain of its own, so that a system can be installed on its disks from a disc.

use std::collections::HashMap;

use crate::error::Result;
use crate::hypervisor::{Capabilities, Start};
use crate::model::{Access, Compensation, Iso, Lock, MiB, Resource, Secret, TaskKind, Template, TemplateId, Vm};
use crate::operations::domain::{Machine, Plug};
use crate::operations::vm::{Known, check, new_vnc_password};
use crate::operations::{Core, Operation, guard, iso, nic};
use crate::store::{disks, seen, templates};
use crate::tasks::Work;

use super::{noun, off};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartTemplate {
    pub template: TemplateId,
    /// Another disc for its drive, to stay there; `Some(None)` takes the disc out.
    pub iso: Option<Option<Iso>>,
    /// Virtual CPUs.
    pub cpu: u32,
    pub memory: MiB,
    /// A number or the name of a bridge, for one NIC each.
    pub networks: Vec<String>,
}

impl Operation for StartTemplate {
    const KIND: TaskKind = TaskKind::TemplateStart;
    type Output = ();

    fn subject(&self, core: &Core) -> Result<String> {
        noun(core, self.template)
    }

    fn locks(&self) -> Vec<Lock> {
        let mut locks = vec![Lock { resource: Resource::Template(self.template), access: Access::Changes }];
        if let Some(Some(iso)) = &self.iso {
            locks.push(Lock { resource: Resource::Storlink(iso.storlink), access: Access::Uses });
        }
        locks
    }

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let mut template = core.store.read(|c| guard::own_template(c, &core.pm, self.template))?;
        off(core, &template, "it is started already")?;
        let can = check_start(core, &self.known())?;
        if let Some(iso) = self.iso.clone() {
            template.iso = iso;
        }
        let password = template.vnc_password.take().unwrap_or_else(|| new_vnc_password(core));
        let machine = self.machine(core, &template, password.clone(), &can)?;
        let name = format!("template {}", template.name);
        iso::of_vm(core, &machine.vm)?;
        let spec = machine.spec(core)?;
        let vm = spec.id;
        work.step(&Compensation::Undefine { vm }, || core.hypervisor.define(&spec))?;
        work.step(&Compensation::Destroy { vm }, || core.hypervisor.start(vm, Start::Running))?;
        core.inventory.refresh(vm)?;
        template.vnc_password = Some(password);
        template.recent_booted_at = Some(core.clock.now());
        let observed = core.inventory.of(vm);
        work.settle(&format!("{name} is started"), &[], |tx| {
            templates::update(tx, &template)?;
            // With the locks goes what keeps other hosts from making VMs of it; from then on this does.
            seen::record(tx, template.pm, vm, observed.seen())
        })
    }
}

impl StartTemplate {
    fn known(&self) -> Known {
        Known {
            cpu: Some(self.cpu),
            memory: Some(self.memory),
            networks: self.networks.clone(),
            iso: self.iso.clone().flatten(),
            ..Known::default()
        }
    }

    /// The VM that the template is while it runs; no row tells of it.
    fn machine(&self, core: &Core, template: &Template, password: Secret, can: &Capabilities) -> Result<Machine> {
        let id = Template::domain(template.id);
        let nics = nic::draft_all(core, id, &self.networks, can.mac_prefix)?;
        let vm = Vm {
            id,
            template: None,
            pm: template.pm,
            name: template.name.clone(),
            cpu: self.cpu,
            memory: self.memory,
            maxmem: self.memory,
            desc: String::new(),
            pcivf: None,
            iso: template.iso.clone(),
            vnc_password: password,
            snapshot: None,
            seen: template.seen,
            created_at: template.created_at,
            recent_booted_at: template.recent_booted_at,
            updated_at: template.updated_at,
        };
        let (disks, storlinks) = core.store.read(|c| {
            let disks = disks::of_template(c, template.id)?;
            let mut storlinks = HashMap::new();
            for disk in &disks {
                storlinks.insert(disk.storlink, guard::storlink(c, &core.pm, disk.storlink)?);
            }
            Ok((disks, storlinks))
        })?;
        let plugs = nics.into_iter().map(|nic| Plug { mac: nic.mac, switch: nic.switch }).collect();
        Ok(Machine { vm, disks, below: HashMap::new(), plugs, storlinks })
    }
}

/// What the hypervisor can do with such a domain; `Invalid` with every field that the site cannot serve, and `NotFound`
/// for a disc on a storlink that is not there.
pub fn check_start(core: &Core, known: &Known) -> Result<Capabilities> {
    let can = check(core, known)?;
    known.iso.as_ref().map(|disc| iso::open(core, disc)).transpose()?;
    Ok(can)
}
