//! Domains against the records of their VMs.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use crate::error::Result;
use crate::model::{Definition, Disk, DomainStatus, Mac, Template, VmId, VolumeSource};
use crate::store::vms::VmListing;

use super::{Look, Remedy};

/// How the names of domains begin that are ours.
const PREFIX: &str = "pengx-";

impl Look<'_> {
    pub(super) fn domains(&mut self) {
        let statuses = match self.core.hypervisor.domains() {
            Ok(statuses) => statuses,
            Err(error) => {
                self.report.blind.push(format!("domains were not looked at: {error}"));
                return;
            }
        };
        let mut by_id: HashMap<VmId, DomainStatus> = statuses.into_iter().map(|status| (status.id, status)).collect();
        for listing in self.rows.vms.clone() {
            let status = by_id.remove(&listing.vm.id);
            if let Err(error) = self.domain(&listing, status.as_ref()) {
                let name = &listing.vm.name;
                self.report.blind.push(format!("the domain of vm {name} was not looked at: {error}"));
            }
        }
        let templates: HashSet<VmId> = self.rows.templates.iter().map(|id| Template::domain(*id)).collect();
        let mut others: Vec<VmId> = by_id.into_keys().filter(|id| !templates.contains(id)).collect();
        others.sort();
        for id in others {
            self.stranger(id);
        }
    }

    fn domain(&mut self, listing: &VmListing, status: Option<&DomainStatus>) -> Result<()> {
        let vm = &listing.vm;
        let here = vm.pm == self.core.pm.id;
        if (!here && status.is_none()) || self.is_busy(vm.id) {
            return Ok(());
        }
        if !here {
            let said = format!("vm {} is on pm {}, and there is a domain of it on this host too", vm.name, vm.pm);
            self.find(said, Err("it may never run twice; look which one has its newest disks"));
            return Ok(());
        }
        let definition = match status {
            Some(_) => self.core.hypervisor.defined(vm.id)?,
            None => None,
        };
        let Some(definition) = definition else {
            self.find(format!("vm {} has no domain on this host", vm.name), Ok(Remedy::Define(vm.id)));
            return Ok(());
        };
        let differs = self.differences(listing, &definition);
        let runs = status.is_some_and(|status| status.state.is_active());
        if !differs.is_empty() {
            let remedy = if runs { Err("it runs; shut it down first") } else { Ok(Remedy::Define(vm.id)) };
            self.find(format!("the domain of vm {} is defined with {}", vm.name, differs.join("; ")), remedy);
        }
        if runs { self.running(vm.id, &vm.name) } else { Ok(()) }
    }

    /// `2 vCPUs, and its record says 1`.
    fn differences(&self, listing: &VmListing, is: &Definition) -> Vec<String> {
        let vm = &listing.vm;
        let mut differs = Vec::new();
        let mut differ = |what: String, record: String| differs.push(format!("{what}, and its record says {record}"));
        if is.vcpus != vm.cpu {
            differ(format!("{} vCPUs", is.vcpus), vm.cpu.to_string());
        }
        if is.memory != vm.memory {
            differ(format!("{} MiB of memory", is.memory), vm.memory.to_string());
        }
        if is.max_memory != vm.maxmem {
            differ(format!("at most {} MiB of memory", is.max_memory), vm.maxmem.to_string());
        }
        let mut macs: Vec<Mac> = listing.nics.iter().map(|nic| nic.mac).collect();
        macs.sort();
        if is.macs != macs {
            let words = |macs: &[Mac]| match macs {
                [] => "none".to_owned(),
                macs => macs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            };
            differ(format!("interfaces {}", words(&is.macs)), words(&macs));
        }
        let disks = self.rows.disks_of(vm.id);
        let orders = disks.iter().map(|disk| Some(disk.order)).chain(is.disks.iter().map(|disk| disk.order));
        for order in orders.collect::<std::collections::BTreeSet<_>>() {
            let has = is.disks.iter().find(|disk| disk.order == order);
            let must = disks.iter().find(|disk| Some(disk.order) == order).copied();
            let place = order.map_or_else(|| "a strange place".to_owned(), |order| format!("disk {order}"));
            let word = |path: PathBuf, format: &str| format!("{} ({format})", path.display());
            let has = has.map(|disk| (disk.file.clone().unwrap_or_default(), disk.format.clone()));
            let must = must.map(|disk| (self.expected(disk), disk.format.word().to_owned()));
            if has != must {
                let text = |disk: Option<(PathBuf, String)>| disk.map_or("nothing".to_owned(), |(p, f)| word(p, &f));
                differ(format!("{} as {place}", text(has)), text(must));
            }
        }
        differs
    }

    /// Where a volume is, or would be.
    fn expected(&self, disk: &Disk) -> PathBuf {
        let place = || self.rows.storlinks.iter().find(|storlink| storlink.id == disk.storlink);
        self.path(disk).unwrap_or_else(|| {
            PathBuf::from(place().map(|storlink| storlink.link.clone()).unwrap_or_default()).join(disk.volume.as_str())
        })
    }

    /// A guest writes to the images that its records say.
    fn running(&mut self, vm: VmId, name: &str) -> Result<()> {
        for disk in self.rows.disks_of(vm).into_iter().cloned().collect::<Vec<_>>() {
            let Ok(chain) = self.rows.chain(&disk) else { continue };
            let must: Vec<PathBuf> = chain.into_iter().map(|disk| self.expected(disk)).collect();
            let has = match self.core.hypervisor.chain(vm, disk.order) {
                Ok(has) => has.into_iter().map(|VolumeSource::File(path)| path).collect::<Vec<_>>(),
                Err(error) => {
                    self.note(format!(
                        "vm {name} runs, and the images of its disk {} are not told: {error}",
                        disk.order
                    ));
                    continue;
                }
            };
            // It may not know how the chain goes on.
            if !has.is_empty() && !must.starts_with(&has) {
                let words = |paths: &[PathBuf]| {
                    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" on ")
                };
                let said = format!(
                    "vm {name} runs with {} as disk {}, and its record says {}",
                    words(&has),
                    disk.order,
                    words(&must)
                );
                self.find(said, Err("its data is where it runs; leave it on until somebody has looked"));
            }
        }
        Ok(())
    }

    /// A domain that no record has; perhaps it is none of ours.
    fn stranger(&mut self, id: VmId) {
        if self.rows.owners.task(id.0).is_some() {
            return;
        }
        match self.core.hypervisor.defined(id) {
            Ok(Some(definition)) => {
                let ours = definition.name.strip_prefix(PREFIX).is_some_and(|rest| rest.parse::<VmId>().is_ok());
                if ours {
                    let said = format!("domain {} is known to no record", definition.name);
                    self.find(said, Err("a domain that is not known is left alone; undefine it by hand"));
                }
            }
            Ok(None) => {}
            Err(error) => self.report.blind.push(format!("domain {id} was not looked at: {error}")),
        }
    }
}
