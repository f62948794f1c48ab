//! Snapshots of VMs: a tree, each knowing what it was taken on.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::Conn;
use super::rows::{hit, parse, parse_optional};
use super::schema::snapshots;
use crate::error::Result;
use crate::model::{Snapshot, SnapshotId, SnapshotKind, VmId};

#[derive(Queryable, Insertable)]
#[diesel(table_name = snapshots, treat_none_as_default_value = false)]
struct SnapshotRow {
    id: String,
    vm: String,
    name: String,
    kind: String,
    parent: Option<String>,
    description: String,
    created_at: NaiveDateTime,
}

impl SnapshotRow {
    fn of(snapshot: &Snapshot) -> Self {
        Self {
            id: snapshot.id.to_string(),
            vm: snapshot.vm.to_string(),
            name: snapshot.name.clone(),
            kind: snapshot.kind.to_string(),
            parent: snapshot.parent.map(|id| id.to_string()),
            description: snapshot.desc.clone(),
            created_at: snapshot.created_at,
        }
    }

    fn model(self) -> Result<Snapshot> {
        Ok(Snapshot {
            id: parse("snapshots.id", &self.id)?,
            vm: parse("snapshots.vm", &self.vm)?,
            name: self.name,
            kind: parse("snapshots.kind", &self.kind)?,
            parent: parse_optional("snapshots.parent", self.parent)?,
            desc: self.description,
            created_at: self.created_at,
        })
    }
}

pub fn find(c: &mut Conn, id: SnapshotId) -> Result<Option<Snapshot>> {
    snapshots::table.find(id.to_string()).first::<SnapshotRow>(&mut c.0).optional()?.map(SnapshotRow::model).transpose()
}

/// The leaf among them, oldest first.
pub fn of_vm(c: &mut Conn, id: VmId) -> Result<Vec<Snapshot>> {
    let of_it = snapshots::table.filter(snapshots::vm.eq(id.to_string()));
    let rows = of_it.order((snapshots::created_at, snapshots::id)).load::<SnapshotRow>(&mut c.0)?;
    rows.into_iter().map(SnapshotRow::model).collect()
}

/// Hands what was taken on a snapshot to another one.
pub fn set_parent_of_children(c: &mut Conn, id: SnapshotId, parent: Option<SnapshotId>) -> Result<()> {
    let children = snapshots::table.filter(snapshots::parent.eq(id.to_string()));
    let parent = parent.map(|id| id.to_string());
    diesel::update(children).set(snapshots::parent.eq(parent)).execute(&mut c.0)?;
    Ok(())
}

pub fn set_kind(c: &mut Conn, id: SnapshotId, kind: SnapshotKind) -> Result<()> {
    let rows =
        diesel::update(snapshots::table.find(id.to_string())).set(snapshots::kind.eq(kind.word())).execute(&mut c.0)?;
    hit(rows, "snapshot", id)
}

/// Whether another one was taken on it.
pub fn is_parent(c: &mut Conn, id: SnapshotId) -> Result<bool> {
    let on_it = snapshots::table.filter(snapshots::parent.eq(id.to_string()));
    Ok(diesel::select(diesel::dsl::exists(on_it)).get_result(&mut c.0)?)
}

/// # Errors
/// `Exists` if the id is taken; `InUse` if the VM or the parent is not there.
pub fn insert(c: &mut Conn, snapshot: &Snapshot) -> Result<()> {
    diesel::insert_into(snapshots::table).values(&SnapshotRow::of(snapshot)).execute(&mut c.0)?;
    Ok(())
}

/// # Errors
/// `InUse` while it is a parent or has disks.
pub fn remove(c: &mut Conn, id: SnapshotId) -> Result<()> {
    let rows = diesel::delete(snapshots::table.find(id.to_string())).execute(&mut c.0)?;
    hit(rows, "snapshot", id)
}

/// Of a VM without snapshots, nothing.
///
/// # Errors
/// `InUse` while one of them has disks, or its VM runs on one.
pub fn remove_of_vm(c: &mut Conn, id: VmId) -> Result<()> {
    let of_it = || snapshots::table.filter(snapshots::vm.eq(id.to_string()));
    diesel::update(of_it()).set(snapshots::parent.eq(None::<String>)).execute(&mut c.0)?;
    diesel::delete(of_it()).execute(&mut c.0)?;
    Ok(())
}
