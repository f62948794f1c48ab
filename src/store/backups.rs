//! Backups of VMs, which stay when their VM goes.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::Conn;
use super::rows::{from_mib, hit, mib, parse};
use super::schema::backups;
use crate::error::{Error, Result};
use crate::model::{Backup, BackupId, StorlinkId, VmId};

#[derive(Queryable, Insertable)]
#[diesel(table_name = backups, treat_none_as_default_value = false)]
struct BackupRow {
    id: String,
    vm: String,
    name: String,
    storlink: i32,
    size: i64,
    description: String,
    created_at: NaiveDateTime,
    config: String,
    manifest: String,
    verified_at: Option<NaiveDateTime>,
    proven_at: Option<NaiveDateTime>,
}

impl BackupRow {
    fn of(backup: &Backup) -> Result<Self> {
        Ok(Self {
            id: backup.id.to_string(),
            vm: backup.vm.to_string(),
            name: backup.name.clone(),
            storlink: backup.storlink.0,
            size: from_mib("backups.size", backup.size)?,
            description: backup.desc.clone(),
            created_at: backup.created_at,
            config: serde_json::to_string(&backup.config)
                .map_err(|e| Error::internal("the configuration in a backup").caused_by(e))?,
            manifest: backup.manifest.clone(),
            verified_at: backup.verified_at,
            proven_at: backup.proven_at,
        })
    }

    fn model(self) -> Result<Backup> {
        Ok(Backup {
            id: parse("backups.id", &self.id)?,
            vm: parse("backups.vm", &self.vm)?,
            name: self.name,
            storlink: StorlinkId(self.storlink),
            size: mib("backups.size", self.size)?,
            desc: self.description,
            created_at: self.created_at,
            config: serde_json::from_str(&self.config)
                .map_err(|e| Error::internal(format!("backups.config of {}", self.id)).caused_by(e))?,
            manifest: self.manifest,
            verified_at: self.verified_at,
            proven_at: self.proven_at,
        })
    }
}

pub fn find(c: &mut Conn, id: BackupId) -> Result<Option<Backup>> {
    backups::table.find(id.to_string()).first::<BackupRow>(&mut c.0).optional()?.map(BackupRow::model).transpose()
}

/// Deleted VMs' too, oldest first.
pub fn all(c: &mut Conn) -> Result<Vec<Backup>> {
    let rows = backups::table.order((backups::created_at, backups::id)).load::<BackupRow>(&mut c.0)?;
    rows.into_iter().map(BackupRow::model).collect()
}

/// Oldest first, whether the VM is there or not.
pub fn of_vm(c: &mut Conn, id: VmId) -> Result<Vec<Backup>> {
    let of_it = backups::table.filter(backups::vm.eq(id.to_string()));
    let rows = of_it.order((backups::created_at, backups::id)).load::<BackupRow>(&mut c.0)?;
    rows.into_iter().map(BackupRow::model).collect()
}

/// # Errors
/// `Exists` if the id is taken; `InUse` if the storlink is not there.
pub fn insert(c: &mut Conn, backup: &Backup) -> Result<()> {
    diesel::insert_into(backups::table).values(&BackupRow::of(backup)?).execute(&mut c.0)?;
    Ok(())
}

/// When every block of it was last found as it was written.
pub fn set_verified(c: &mut Conn, id: BackupId, at: Option<NaiveDateTime>) -> Result<()> {
    let rows =
        diesel::update(backups::table.find(id.to_string())).set(backups::verified_at.eq(at)).execute(&mut c.0)?;
    hit(rows, "backup", id)
}

/// When a guest last booted from it.
pub fn set_proven(c: &mut Conn, id: BackupId, at: NaiveDateTime) -> Result<()> {
    let rows = diesel::update(backups::table.find(id.to_string())).set(backups::proven_at.eq(at)).execute(&mut c.0)?;
    hit(rows, "backup", id)
}

/// # Errors
/// `InUse` while it has disks.
pub fn remove(c: &mut Conn, id: BackupId) -> Result<()> {
    let rows = diesel::delete(backups::table.find(id.to_string())).execute(&mut c.0)?;
    hit(rows, "backup", id)
}
