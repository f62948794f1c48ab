//! Repairs what can be repaired without anybody who decides, each thing as a task of its own.
//!
//! Law: only a definition that its record says, an orphan that may go, and what a dead task holds are touched. No header of
//! an image is ever rewritten: that a file has the name and the size of the one that is missed does not say that it has its
//! content. No domain is removed.

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Access, Lock, MadeName, Resource, Right, TaskId, TaskKind, VmId};
use crate::operations::domain::Machine;
use crate::operations::ledger::{self, OwnerKind, Owners};
use crate::operations::vm::{self, state_now};
use crate::operations::{Core, Operation, chain, guard};
use crate::store::{journal, locks, reservations, storlinks, tasks};
use crate::tasks::Work;

use super::{Finding, Remedy, Report, Scope, check};

/// Finishes what dead tasks have left, repairs what is safe, and looks again: what was done, and what is left with the reason.
pub fn repair(core: &Core, scope: Scope) -> Result<(Vec<String>, Report)> {
    let mut done = Vec::new();
    core.tasks()?.recover()?;
    let mut refused: Vec<(String, String)> = Vec::new();
    // An orphan may read from another one, which can go only after it.
    loop {
        let report = check(core, scope)?;
        let before = done.len();
        for finding in &report.findings {
            let Ok(remedy) = &finding.remedy else { continue };
            match core.submit_blocking(Repair(remedy.clone()))?.wait_blocking() {
                Ok(ended) => done.push(format!("{}: {}", finding.said, ended.outcome)),
                // Done already, by this one under another name.
                Err(why) if matches!(why.kind(), ErrorKind::NotFound { .. }) => {}
                Err(why) => {
                    refused.retain(|(key, _)| *key != finding.key);
                    refused.push((finding.key.clone(), why.to_string()));
                }
            }
        }
        if done.len() == before {
            return Ok((done, explained(report, &refused)));
        }
    }
}

/// With what stood in the way of a repair.
fn explained(mut report: Report, refused: &[(String, String)]) -> Report {
    for Finding { said, key, .. } in &mut report.findings {
        if let Some((_, why)) = refused.iter().find(|(refused, _)| refused == key) {
            said.push_str(&format!(" ({why})"));
        }
    }
    report
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair(pub Remedy);

impl Operation for Repair {
    const KIND: TaskKind = TaskKind::SiteRepair;
    const RIGHT: Right = Right::Administer;
    type Output = ();

    fn subject(&self, core: &Core) -> Result<String> {
        match &self.0 {
            Remedy::Define(vm) => vm::noun(core, *vm),
            Remedy::Remove { storlink, name } => {
                let storlink = core.store.read(|c| guard::storlink(c, &core.pm, *storlink))?;
                Ok(format!("volume {name} of storlink {}", storlink.name))
            }
            Remedy::Free(task) => Ok(format!("task {task}")),
        }
    }

    fn locks(&self) -> Vec<Lock> {
        match &self.0 {
            Remedy::Define(vm) => vec![Lock { resource: Resource::Vm(*vm), access: Access::Changes }],
            Remedy::Remove { storlink, name } => ledger::locks(*storlink, name),
            Remedy::Free(_) => Vec::new(),
        }
    }

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        match self.0 {
            Remedy::Define(vm) => define(core, work, vm),
            Remedy::Remove { storlink, name } => {
                let outcome = ledger::remove(core, work, storlink, &name)?;
                work.settle(&outcome, &[], |_| Ok(()))
            }
            Remedy::Free(task) => free(work, task),
        }
    }
}

/// Of a VM that is off and whose images are what its records say.
fn define(core: &Core, work: &mut Work<'_>, vm: VmId) -> Result<()> {
    let machine = Machine::load(core, vm)?;
    let name = format!("vm {}", machine.vm.name);
    let state = state_now(core, vm)?;
    if state.is_active() {
        return Err(vm::wrong_state(name, state, "shut it down first"));
    }
    for disk in &machine.disks {
        chain::of(core, &machine, disk)?;
    }
    loses_nothing(core, vm)?;
    let spec = machine.spec(core)?;
    // No undo: the record says so in any case.
    work.act(|| core.hypervisor.define(&spec))?;
    core.inventory.refresh(vm)?;
    work.settle(&format!("the domain of {name} is defined as its record says"), &[], |_| Ok(()))
}

/// After a restore of the database the definition may be newer than the record: a volume that it names and that no record
/// has may hold what the guest wrote last.
fn loses_nothing(core: &Core, vm: VmId) -> Result<()> {
    let Some(definition) = core.hypervisor.defined(vm)? else { return Ok(()) };
    let (places, owners) = core.store.read(|c| Ok((storlinks::all(c)?, Owners::read(c)?)))?;
    for path in &definition.files {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let (Some(_), Ok(file)) = (MadeName::parse(name), name.parse()) else { continue };
        for place in places.iter().filter(|place| guard::reaches(&core.pm, place)) {
            let Some(found) = (core.volumes)(place)?.file(&file)? else { continue };
            let unknown = matches!(owners.of(place.id, &found).kind, OwnerKind::Orphan | OwnerKind::Foreign);
            if unknown && places.iter().all(|other| owners.of(other.id, &found).kind != OwnerKind::Disk) {
                let why = format!("its domain names volume {name} of storlink {}, which no record knows", place.name);
                return Err(Error::refused("pengx", why));
            }
        }
    }
    Ok(())
}

fn free(work: &mut Work<'_>, task: TaskId) -> Result<()> {
    work.settle(&format!("what task {task} held is free"), &[], |tx| {
        let row = tasks::find(tx, task)?.ok_or_else(|| Error::not_found("task", task))?;
        if !row.state.is_over() || !journal::of_task(tx, task)?.is_empty() {
            let (what, by) = (format!("task {task}"), "what it still has to do".to_owned());
            return Err(Error::new(ErrorKind::InUse { what, by }));
        }
        reservations::release(tx, task)?;
        locks::release(tx, task)
    })
}
