//! All records of one moment.

use std::collections::{HashMap, HashSet};

use crate::error::Result;
use crate::model::{Disk, DiskId, DiskOwner, Pm, Storlink, Task, TaskId, TemplateId, VmId};
use crate::operations::Core;
use crate::operations::ledger::Owners;
use crate::store::ledger::{self, Owned, OwnedBackup};
use crate::store::locks::Held;
use crate::store::{Conn, journal, locks, pms, reservations, storlinks, tasks, templates, vms};

pub(super) struct Rows {
    pub(super) storlinks: Vec<Storlink>,
    pub(super) vms: Vec<vms::VmListing>,
    pub(super) templates: HashSet<TemplateId>,
    pub(super) disks: Vec<Owned>,
    pub(super) backups: Vec<OwnedBackup>,
    pub(super) owners: Owners,
    pub(super) pms: Vec<Pm>,
    /// Every task that is not over, or has locks, reservations or a journal.
    pub(super) tasks: HashMap<TaskId, Task>,
    pub(super) locks: Vec<Held>,
    pub(super) reserved: HashSet<TaskId>,
    /// By task; the last entry is the first to be done.
    pub(super) journal: Vec<(TaskId, Vec<journal::Entry>)>,
    by_id: HashMap<DiskId, usize>,
}

impl Rows {
    pub(super) fn read(c: &mut Conn, core: &Core) -> Result<Self> {
        let (disks, backups) = ledger::owned(c)?;
        let pms = pms::all(c)?;
        if pms.iter().all(|pm| pm.id != core.pm.id) {
            let why = format!("pm {} is not in it; is this the data directory of the server?", core.pm.id);
            return Err(crate::error::Error::refused("the database", why));
        }
        let mut all = HashMap::new();
        for pm in &pms {
            all.extend(tasks::unfinished(c, pm.id)?.into_iter().map(|task| (task.id, task)));
        }
        let (locks, reserved) = (locks::all(c)?, reservations::holders(c)?);
        let mut journal: Vec<(TaskId, Vec<journal::Entry>)> = Vec::new();
        for (task, entry) in journal::all(c)? {
            match journal.last_mut() {
                Some((last, entries)) if *last == task => entries.push(entry),
                _ => journal.push((task, vec![entry])),
            }
        }
        let holders = locks.iter().map(|lock| lock.task).chain(reserved.iter().copied());
        for id in holders.chain(journal.iter().map(|(task, _)| *task)).collect::<HashSet<_>>() {
            if !all.contains_key(&id) {
                all.extend(tasks::find(c, id)?.map(|task| (id, task)));
            }
        }
        Ok(Self {
            storlinks: storlinks::all(c)?,
            vms: vms::listing(c)?,
            templates: templates::all(c)?.into_iter().map(|template| template.id).collect(),
            by_id: disks.iter().enumerate().map(|(n, owned)| (owned.disk.id, n)).collect(),
            disks,
            backups,
            owners: Owners::read(c)?,
            pms,
            tasks: all,
            locks,
            reserved: reserved.into_iter().collect(),
            journal,
        })
    }

    pub(super) fn disk(&self, id: DiskId) -> Option<&Owned> {
        self.by_id.get(&id).and_then(|n| self.disks.get(*n))
    }

    /// The disk and what it reads from. `Err`: the records go in a circle.
    pub(super) fn chain<'a>(&'a self, disk: &'a Disk) -> std::result::Result<Vec<&'a Disk>, Vec<&'a Disk>> {
        let mut chain = vec![disk];
        let mut next = disk.backing;
        while let Some(below) = next.and_then(|id| self.disk(id)) {
            if let Some(at) = chain.iter().position(|known| known.id == below.disk.id) {
                return Err(chain.split_off(at));
            }
            chain.push(&below.disk);
            next = below.disk.backing;
        }
        Ok(chain)
    }

    /// By order.
    pub(super) fn disks_of(&self, vm: VmId) -> Vec<&Disk> {
        let mut disks: Vec<&Disk> =
            self.disks.iter().map(|owned| &owned.disk).filter(|disk| disk.owner == DiskOwner::Vm(vm)).collect();
        disks.sort_by_key(|disk| disk.order);
        disks
    }

    /// The task that has the VM, or its name in its journal.
    pub(super) fn holder(&self, vm: VmId) -> Option<TaskId> {
        let resource = format!("vm:{vm}");
        let held = self.locks.iter().find(|lock| lock.resource == resource && self.is_alive(lock.task));
        held.map(|lock| lock.task).or_else(|| self.owners.task(vm.0))
    }

    /// A task that still has something to do.
    pub(super) fn is_alive(&self, task: TaskId) -> bool {
        let open = self.tasks.get(&task).is_some_and(|task| !task.state.is_over());
        open || self.journal.iter().any(|(id, _)| *id == task)
    }

    /// Whether a task is changing it.
    pub(super) fn changes(&self, template: TemplateId) -> bool {
        let resource = format!("template:{template}");
        let changes = |lock: &&Held| lock.resource == resource && lock.access == crate::model::Access::Changes;
        self.locks.iter().find(changes).is_some_and(|lock| self.is_alive(lock.task))
    }

    pub(super) fn vm_name(&self, vm: VmId) -> String {
        let listing = self.vms.iter().find(|listing| listing.vm.id == vm);
        listing.map_or_else(|| vm.to_string(), |listing| listing.vm.name.clone())
    }
}
