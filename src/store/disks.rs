//! Disks of VMs, templates, snapshots and backups; each has one owner.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::Conn;
use super::rows::{from_mib, hit, mib, number, parse, parse_optional};
use super::schema::disks;
use crate::error::{Error, Result};
use crate::model::{BackupId, Disk, DiskId, DiskOwner, SnapshotId, StorlinkId, TemplateId, VmId, VolumeName};

#[derive(Queryable, Insertable)]
#[diesel(table_name = disks, treat_none_as_default_value = false)]
struct DiskRow {
    id: String,
    vm: Option<String>,
    template: Option<String>,
    snapshot: Option<String>,
    backup: Option<String>,
    position: i32,
    size: i64,
    format: String,
    storlink: i32,
    volume: String,
    description: Option<String>,
    created_at: NaiveDateTime,
    backing: Option<String>,
}

impl DiskRow {
    fn of(disk: &Disk) -> Result<Self> {
        let mut row = Self {
            id: disk.id.to_string(),
            vm: None,
            template: None,
            snapshot: None,
            backup: None,
            position: number("disks.position", disk.order)?,
            size: from_mib("disks.size", disk.size)?,
            format: disk.format.to_string(),
            storlink: disk.storlink.0,
            volume: disk.volume.to_string(),
            description: disk.desc.clone(),
            created_at: disk.created_at,
            backing: disk.backing.map(|id| id.to_string()),
        };
        match disk.owner {
            DiskOwner::Vm(id) => row.vm = Some(id.to_string()),
            DiskOwner::Template(id) => row.template = Some(id.to_string()),
            DiskOwner::Snapshot(id) => row.snapshot = Some(id.to_string()),
            DiskOwner::Backup(id) => row.backup = Some(id.to_string()),
        }
        Ok(row)
    }

    fn model(self) -> Result<Disk> {
        let owner = match (&self.vm, &self.template, &self.snapshot, &self.backup) {
            (Some(vm), None, None, None) => DiskOwner::Vm(parse("disks.vm", vm)?),
            (None, Some(template), None, None) => DiskOwner::Template(parse("disks.template", template)?),
            (None, None, Some(snapshot), None) => DiskOwner::Snapshot(parse("disks.snapshot", snapshot)?),
            (None, None, None, Some(backup)) => DiskOwner::Backup(parse("disks.backup", backup)?),
            _ => return Err(Error::internal(format!("disk {} has not exactly one owner", self.id))),
        };
        Ok(Disk {
            id: parse("disks.id", &self.id)?,
            owner,
            order: number("disks.position", self.position)?,
            size: mib("disks.size", self.size)?,
            format: parse("disks.format", &self.format)?,
            storlink: StorlinkId(self.storlink),
            volume: parse("disks.volume", &self.volume)?,
            desc: self.description,
            created_at: self.created_at,
            backing: parse_optional("disks.backing", self.backing)?,
        })
    }
}

pub fn find(c: &mut Conn, id: DiskId) -> Result<Option<Disk>> {
    disks::table.find(id.to_string()).first::<DiskRow>(&mut c.0).optional()?.map(DiskRow::model).transpose()
}

/// The oldest first.
pub fn all(c: &mut Conn) -> Result<Vec<Disk>> {
    let rows = disks::table.order((disks::created_at, disks::id)).load::<DiskRow>(&mut c.0)?;
    rows.into_iter().map(DiskRow::model).collect()
}

/// By order.
pub fn of_vm(c: &mut Conn, id: VmId) -> Result<Vec<Disk>> {
    let rows = disks::table.filter(disks::vm.eq(id.to_string())).order(disks::position).load::<DiskRow>(&mut c.0)?;
    rows.into_iter().map(DiskRow::model).collect()
}

/// By order.
pub fn of_template(c: &mut Conn, id: TemplateId) -> Result<Vec<Disk>> {
    let of_it = disks::table.filter(disks::template.eq(id.to_string()));
    let rows = of_it.order(disks::position).load::<DiskRow>(&mut c.0)?;
    rows.into_iter().map(DiskRow::model).collect()
}

/// By order.
pub fn of_snapshot(c: &mut Conn, id: SnapshotId) -> Result<Vec<Disk>> {
    let of_it = disks::table.filter(disks::snapshot.eq(id.to_string()));
    let rows = of_it.order(disks::position).load::<DiskRow>(&mut c.0)?;
    rows.into_iter().map(DiskRow::model).collect()
}

/// By order.
pub fn of_backup(c: &mut Conn, id: BackupId) -> Result<Vec<Disk>> {
    let of_it = disks::table.filter(disks::backup.eq(id.to_string()));
    let rows = of_it.order(disks::position).load::<DiskRow>(&mut c.0)?;
    rows.into_iter().map(DiskRow::model).collect()
}

/// # Errors
/// `Exists` if the id, the owner's order or the volume is taken; `InUse` if owner or storlink is not there.
pub fn insert(c: &mut Conn, disk: &Disk) -> Result<()> {
    diesel::insert_into(disks::table).values(&DiskRow::of(disk)?).execute(&mut c.0)?;
    Ok(())
}

pub fn remove(c: &mut Conn, id: DiskId) -> Result<()> {
    let rows = diesel::delete(disks::table.find(id.to_string())).execute(&mut c.0)?;
    hit(rows, "disk", id)
}

/// Of a VM without disks, nothing.
pub fn remove_of_vm(c: &mut Conn, id: VmId) -> Result<()> {
    diesel::delete(disks::table.filter(disks::vm.eq(id.to_string()))).execute(&mut c.0)?;
    Ok(())
}

/// What reads from this disk, by owner and order.
pub fn on(c: &mut Conn, id: DiskId) -> Result<Vec<Disk>> {
    let on_it = disks::table.filter(disks::backing.eq(id.to_string()));
    let rows = on_it.order((disks::vm, disks::snapshot, disks::position)).load::<DiskRow>(&mut c.0)?;
    rows.into_iter().map(DiskRow::model).collect()
}

/// What a disk reads from: its backing disk, that one's, and so on.
///
/// # Errors
/// `Internal` if the rows go in a circle.
pub fn below(c: &mut Conn, disk: &Disk) -> Result<Vec<Disk>> {
    let mut chain: Vec<Disk> = Vec::new();
    let mut next = disk.backing;
    while let Some(id) = next {
        if id == disk.id || chain.iter().any(|known| known.id == id) {
            return Err(Error::internal(format!("the backing disks of disk {} go in a circle", disk.id)));
        }
        let below = find(c, id)?.ok_or_else(|| Error::internal(format!("disk {id} is backing and not there")))?;
        next = below.backing;
        chain.push(below);
    }
    Ok(chain)
}

/// Gives a disk to another owner, in an order that is free there, on another backing disk.
///
/// # Errors
/// `Exists` if the owner has a disk in that order.
pub fn hand_over(c: &mut Conn, id: DiskId, owner: DiskOwner, order: u32, backing: Option<DiskId>) -> Result<()> {
    let (mut vm, mut template, mut snapshot, mut backup) = (None, None, None, None);
    match owner {
        DiskOwner::Vm(id) => vm = Some(id.to_string()),
        DiskOwner::Template(id) => template = Some(id.to_string()),
        DiskOwner::Snapshot(id) => snapshot = Some(id.to_string()),
        DiskOwner::Backup(id) => backup = Some(id.to_string()),
    }
    let changes = (
        disks::vm.eq(vm),
        disks::template.eq(template),
        disks::snapshot.eq(snapshot),
        disks::backup.eq(backup),
        disks::position.eq(number::<i32, _>("disks.position", order)?),
        disks::backing.eq(backing.map(|id| id.to_string())),
    );
    let rows = diesel::update(disks::table.find(id.to_string())).set(changes).execute(&mut c.0)?;
    hit(rows, "disk", id)
}

/// Of a VM's snapshots, of all of them at once: they read from one another.
pub fn remove_of_snapshots(c: &mut Conn, ids: &[SnapshotId]) -> Result<()> {
    let ids = ids.iter().map(ToString::to_string);
    diesel::delete(disks::table.filter(disks::snapshot.eq_any(ids))).execute(&mut c.0)?;
    Ok(())
}

/// Of a template without disks, nothing.
pub fn remove_of_template(c: &mut Conn, id: TemplateId) -> Result<()> {
    diesel::delete(disks::table.filter(disks::template.eq(id.to_string()))).execute(&mut c.0)?;
    Ok(())
}

/// The disk that a volume is.
pub fn holder(c: &mut Conn, storlink: StorlinkId, volume: &VolumeName) -> Result<Option<Disk>> {
    disks::table
        .filter(disks::storlink.eq(storlink.0).and(disks::volume.eq(volume.as_str())))
        .first::<DiskRow>(&mut c.0)
        .optional()?
        .map(DiskRow::model)
        .transpose()
}
