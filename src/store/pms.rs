//! Physical machines.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::Conn;
use super::rows::{from_mib, hit, mib, number, parse};
use super::schema::pms;
use crate::error::Result;
use crate::model::{Pm, PmId};

#[derive(Queryable, Insertable, AsChangeset)]
#[diesel(table_name = pms, treat_none_as_default_value = false, treat_none_as_null = true)]
struct PmRow {
    id: String,
    name: String,
    cpu: i32,
    memory: i64,
    ssh_pubkey: Option<String>,
    hypervisor: String,
    heartbeat_at: NaiveDateTime,
    created_at: NaiveDateTime,
    updated_at: NaiveDateTime,
}

impl PmRow {
    fn of(pm: &Pm) -> Result<Self> {
        Ok(Self {
            id: pm.id.to_string(),
            name: pm.name.clone(),
            cpu: number("pms.cpu", pm.cpu)?,
            memory: from_mib("pms.memory", pm.memory)?,
            ssh_pubkey: pm.ssh_pubkey.clone(),
            hypervisor: pm.hypervisor.clone(),
            heartbeat_at: pm.heartbeat_at,
            created_at: pm.created_at,
            updated_at: pm.updated_at,
        })
    }

    fn model(self) -> Result<Pm> {
        Ok(Pm {
            id: parse("pms.id", &self.id)?,
            name: self.name,
            cpu: number("pms.cpu", self.cpu)?,
            memory: mib("pms.memory", self.memory)?,
            ssh_pubkey: self.ssh_pubkey,
            hypervisor: self.hypervisor,
            heartbeat_at: self.heartbeat_at,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

pub fn find(c: &mut Conn, id: PmId) -> Result<Option<Pm>> {
    pms::table.find(id.to_string()).first::<PmRow>(&mut c.0).optional()?.map(PmRow::model).transpose()
}

/// In the order in which they were registered.
pub fn all(c: &mut Conn) -> Result<Vec<Pm>> {
    let rows = pms::table.order((pms::created_at, pms::id)).load::<PmRow>(&mut c.0)?;
    rows.into_iter().map(PmRow::model).collect()
}

/// Updates the PM with this id, all but its `created_at`, or else inserts it.
pub fn save(c: &mut Conn, pm: &Pm) -> Result<()> {
    let mut row = PmRow::of(pm)?;
    if let Some(known) = find(c, pm.id)? {
        row.created_at = known.created_at;
        diesel::update(pms::table.find(&row.id)).set(&row).execute(&mut c.0)?;
    } else {
        diesel::insert_into(pms::table).values(&row).execute(&mut c.0)?;
    }
    Ok(())
}

pub fn heartbeat(c: &mut Conn, id: PmId, at: NaiveDateTime) -> Result<()> {
    let rows = diesel::update(pms::table.find(id.to_string())).set(pms::heartbeat_at.eq(at)).execute(&mut c.0)?;
    hit(rows, "pm", id)
}
