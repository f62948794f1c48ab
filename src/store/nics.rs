//! Network interfaces of VMs.

use diesel::prelude::*;

use super::Conn;
use super::rows::{hit, parse, uuid};
use super::schema::nics;
use crate::error::Result;
use crate::model::{Mac, Nic, NicId, VmId};

/// A NIC that has no number yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNic {
    pub uuid: uuid::Uuid,
    pub vm: VmId,
    pub name: String,
    pub mac: Mac,
    pub switch: String,
    pub ip: Option<String>,
}

#[derive(Queryable)]
struct NicRow {
    id: i32,
    uuid: String,
    vm: String,
    name: String,
    mac: String,
    switch: String,
    ip: Option<String>,
}

impl NicRow {
    fn model(self) -> Result<Nic> {
        Ok(Nic {
            id: NicId(self.id),
            uuid: uuid("nics.uuid", &self.uuid)?,
            vm: parse("nics.vm", &self.vm)?,
            name: self.name,
            mac: parse("nics.mac", &self.mac)?,
            switch: self.switch,
            ip: self.ip,
        })
    }
}

/// Of every VM, by id.
pub(super) fn all(c: &mut Conn) -> Result<Vec<Nic>> {
    let rows = nics::table.order(nics::id).load::<NicRow>(&mut c.0)?;
    rows.into_iter().map(NicRow::model).collect()
}

/// By id.
pub fn of_vm(c: &mut Conn, id: VmId) -> Result<Vec<Nic>> {
    let rows = nics::table.filter(nics::vm.eq(id.to_string())).order(nics::id).load::<NicRow>(&mut c.0)?;
    rows.into_iter().map(NicRow::model).collect()
}

/// # Errors
/// `Exists` if the MAC address, or the name within the VM, is taken.
pub fn insert(c: &mut Conn, new: &NewNic) -> Result<NicId> {
    let id = diesel::insert_into(nics::table)
        .values((
            nics::uuid.eq(new.uuid.to_string()),
            nics::vm.eq(new.vm.to_string()),
            nics::name.eq(&new.name),
            nics::mac.eq(new.mac.to_string()),
            nics::switch.eq(&new.switch),
            nics::ip.eq(new.ip.as_deref()),
        ))
        .returning(nics::id)
        .get_result(&mut c.0)?;
    Ok(NicId(id))
}

pub fn mac_taken(c: &mut Conn, mac: Mac) -> Result<bool> {
    let with_it = nics::table.filter(nics::mac.eq(mac.to_string()));
    Ok(diesel::select(diesel::dsl::exists(with_it)).get_result(&mut c.0)?)
}

pub fn set_ip(c: &mut Conn, id: NicId, ip: &str) -> Result<()> {
    let rows = diesel::update(nics::table.find(id.0)).set(nics::ip.eq(ip)).execute(&mut c.0)?;
    hit(rows, "interface", id)
}

pub fn remove(c: &mut Conn, id: NicId) -> Result<()> {
    let rows = diesel::delete(nics::table.find(id.0)).execute(&mut c.0)?;
    hit(rows, "interface", id)
}

/// Of a VM without NICs, nothing.
pub fn remove_of_vm(c: &mut Conn, id: VmId) -> Result<()> {
    diesel::delete(nics::table.filter(nics::vm.eq(id.to_string()))).execute(&mut c.0)?;
    Ok(())
}
