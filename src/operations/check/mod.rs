//! Compares records, storage and hypervisor, and says in plain words what does not agree.
//!
//! Law: looking changes nothing, takes no lock, and may be done beside a server. What a task is changing is not compared, and
//! what is found is told only if it is still so when it is looked at again. What is repaired is a task.

mod domains;
mod images;
mod repair;
mod rows;
mod tasks;
mod words;

pub use repair::{Repair, repair};

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::error::{Error, ErrorKind, Result};
use crate::model::{FileName, Storlink, StorlinkId, TaskId, VmId};
use crate::storage::VolumeDriver;

use super::{Core, guard};
use rows::Rows;

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// What does not agree.
    pub findings: Vec<Finding>,
    /// What is worth knowing, and in order.
    pub notes: Vec<String>,
    /// What could not be looked at.
    pub blind: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// One line.
    pub said: String,
    /// What tells it from every other one, also when its line has other numbers in it the next time.
    key: String,
    /// What can be done about it without anybody who decides; else why not.
    pub remedy: Result<Remedy, &'static str>,
}

/// What is safe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// Define the domain of a VM that is off as its record says.
    Define(VmId),
    /// Remove an orphan.
    Remove { storlink: StorlinkId, name: FileName },
    /// Free what a task holds that is over and has nothing left to do.
    Free(TaskId),
}

/// Which neighbours are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// Not where the domains live in another process.
    pub domains: bool,
}

/// Looks at everything within reach of this host. An error means that not even the records could be read.
pub fn check(core: &Core, scope: Scope) -> Result<Report> {
    let first = Look::over(core, scope)?;
    if first.findings.is_empty() {
        return Ok(first);
    }
    // The world goes on meanwhile: what was only half done is done by now, or a task has it.
    let known: HashSet<String> = first.findings.into_iter().map(|finding| finding.key).collect();
    let mut report = Look::over(core, scope)?;
    report.findings.retain(|finding| known.contains(&finding.key));
    Ok(report)
}

/// One pass.
struct Look<'a> {
    core: &'a Core,
    rows: Rows,
    places: HashMap<StorlinkId, Place>,
    /// What was said already.
    said: BTreeSet<String>,
    report: Report,
}

/// A storlink within reach.
struct Place {
    storlink: Storlink,
    /// `None`: it does not answer, or not as it should.
    driver: Option<Box<dyn VolumeDriver>>,
}

impl<'a> Look<'a> {
    fn over(core: &'a Core, scope: Scope) -> Result<Report> {
        let rows = core.store.read(|c| Rows::read(c, core))?;
        let mut look = Self { core, rows, places: HashMap::new(), said: BTreeSet::new(), report: Report::default() };
        look.storlinks();
        look.images();
        look.chains();
        look.manifests();
        if scope.domains {
            look.domains();
        }
        look.files()?;
        look.tasks();
        Ok(look.report)
    }

    fn find(&mut self, said: String, remedy: Result<Remedy, &'static str>) {
        self.find_as(said.clone(), said, remedy);
    }

    fn find_as(&mut self, key: String, said: String, remedy: Result<Remedy, &'static str>) {
        if self.said.insert(key.clone()) {
            self.report.findings.push(Finding { said, key, remedy });
        }
    }

    fn note(&mut self, said: String) {
        if self.said.insert(said.clone()) {
            self.report.notes.push(said);
        }
    }

    fn storlinks(&mut self) {
        for storlink in self.rows.storlinks.clone() {
            if !guard::reaches(&self.core.pm, &storlink) {
                continue;
            }
            let opened = (self.core.volumes)(&storlink).and_then(|driver| driver.usage().map(|_| driver));
            let driver = opened.map_err(|error| self.lost(&storlink, &error)).ok();
            self.places.insert(storlink.id, Place { storlink, driver });
        }
    }

    /// A storlink that does not answer, or not as it should.
    fn lost(&mut self, storlink: &Storlink, error: &Error) {
        let why = match error.kind() {
            ErrorKind::Refused { why, .. } => why.clone(),
            _ => error.to_string(),
        };
        let key = format!("storlink {}", storlink.id);
        self.find_as(key, format!("storlink {}: {why}", storlink.name), Err("bring the storage back"));
    }

    /// From here on nothing is asked of a storlink that has stopped answering.
    fn forget(&mut self, id: StorlinkId, error: &Error) {
        if let Some(place) = self.places.get_mut(&id) {
            place.driver = None;
            let storlink = place.storlink.clone();
            self.lost(&storlink, error);
        }
    }

    /// The driver of a storlink that answers, with the name of the storlink.
    fn driver(&self, id: StorlinkId) -> Option<(&dyn VolumeDriver, &str)> {
        let place = self.places.get(&id)?;
        Some((place.driver.as_deref()?, &place.storlink.name))
    }

    /// Whether a task is about to change the VM, which is said once.
    fn is_busy(&mut self, vm: VmId) -> bool {
        let Some(task) = self.rows.holder(vm) else { return false };
        let name = self.rows.vm_name(vm);
        self.note(format!("vm {name} belongs to task {task} for now; it was not compared"));
        true
    }
}
