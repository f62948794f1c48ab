//! Whose a file is, by the rows of one moment.

use std::collections::HashMap;
use std::fmt::Display;

use uuid::Uuid;

use crate::error::Result;
use crate::model::{DiskOwner, FileKind, IsoName, MARKER_PREFIX, MadeName, StorlinkId, TaskId, VolumeFile, words};
use crate::store::{Conn, journal, ledger, storlinks, tasks};

words! {
    OwnerKind {
        Disk = "disk",
        Snapshot = "snapshot",
        Backup = "backup",
        Template = "template",
        Iso = "iso",
        /// The mark of a storlink on its directory.
        Storlink = "storlink",
        Task = "task",
        /// This site made it, and nobody owns it.
        Orphan = "orphan",
        /// Anything else.
        Foreign = "foreign",
    }
}

/// Whose a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub kind: OwnerKind,
    /// Of the disk, the template, the snapshot, the backup, the task; `STORLINK/FILE.iso`. Empty for what nobody owns.
    pub id: String,
    /// `vm web1`, for people.
    pub by: String,
}

impl Owner {
    fn new(kind: OwnerKind, id: impl Display, by: impl Into<String>) -> Self {
        Self { kind, id: format!("{id}"), by: by.into() }
    }
}

/// What rows and journal said at one moment.
pub(in crate::operations) struct Owners {
    /// By the name of the file. A name that a row has is nobody's on any other storlink.
    files: HashMap<String, (StorlinkId, Owner)>,
    storlinks: HashMap<Uuid, (StorlinkId, String)>,
    tasks: HashMap<Uuid, TaskId>,
    subjects: HashMap<TaskId, String>,
}

impl Owners {
    pub(in crate::operations) fn read(c: &mut Conn) -> Result<Self> {
        let (disks, backups) = ledger::owned(c)?;
        let mut files = HashMap::with_capacity(disks.len() + backups.len());
        for ledger::Owned { disk, by, .. } in disks {
            let owner = match disk.owner {
                DiskOwner::Vm(_) => Owner::new(OwnerKind::Disk, disk.id, by),
                DiskOwner::Template(id) => Owner::new(OwnerKind::Template, id, by),
                DiskOwner::Snapshot(id) => Owner::new(OwnerKind::Snapshot, id, by),
                DiskOwner::Backup(id) => Owner::new(OwnerKind::Backup, id, by),
            };
            files.insert(disk.volume.into(), (disk.storlink, owner));
        }
        for backup in backups {
            let owner = Owner::new(OwnerKind::Backup, backup.id, backup.by);
            files.insert(manifest(backup.id.0), (backup.storlink, owner));
        }
        let storlinks = storlinks::all(c)?.into_iter().map(|row| (row.uuid, (row.id, row.name))).collect();
        let tasks = journal::mentions(c)?;
        let mut subjects = HashMap::new();
        for id in tasks.values() {
            if let Some(task) = tasks::find(c, *id)? {
                subjects.insert(*id, format!("{}: {}", task.kind, task.subject));
            }
        }
        Ok(Self { files, storlinks, tasks, subjects })
    }

    /// Whose this file on this storlink is.
    pub(in crate::operations) fn of(&self, storlink: StorlinkId, file: &VolumeFile) -> Owner {
        if let Some(made) = MadeName::parse(&file.name) {
            match self.files.get(made.whole) {
                Some((place, owner)) if *place == storlink => return owner.clone(),
                Some((place, owner)) => {
                    let by = format!("has the name of a volume of {} on storlink {place}", owner.by);
                    return Owner::new(OwnerKind::Foreign, "", by);
                }
                None => {}
            }
            if let Some(task) = made.uuid.and_then(|uuid| self.tasks.get(&uuid)) {
                let subject = self.subjects.get(task).cloned().unwrap_or_default();
                return Owner::new(OwnerKind::Task, task, subject);
            }
            if file.is_made_here() {
                return Owner::new(OwnerKind::Orphan, "", "");
            }
        }
        let marked = file.name.strip_prefix(MARKER_PREFIX).and_then(|uuid| Uuid::try_parse(uuid).ok());
        if let Some((id, name)) = marked.and_then(|uuid| self.storlinks.get(&uuid)) {
            return Owner::new(OwnerKind::Storlink, id, format!("storlink {name}"));
        }
        if file.kind == FileKind::File && file.links == 1 && file.name.parse::<IsoName>().is_ok() {
            return Owner::new(OwnerKind::Iso, format!("{storlink}/{}", file.name), "");
        }
        Owner::new(OwnerKind::Foreign, "", "")
    }

    /// The task whose journal has this uuid in it.
    pub(in crate::operations) fn task(&self, uuid: Uuid) -> Option<TaskId> {
        self.tasks.get(&uuid).copied()
    }
}

/// What the manifest of a backup is called.
pub(in crate::operations) fn manifest(backup: Uuid) -> String {
    format!("{backup}.json")
}
