//! Virtual machines, alone and as lists show them.

use std::collections::HashMap;

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::rows::{from_mib, hit, mib, number, parse, parse_optional};
use super::schema::{disks, templates, vms};
use super::{Conn, nics};
use crate::error::Result;
use crate::model::{MiB, Nic, Os, OsArch, PmId, Secret, Seen, SnapshotId, Vm, VmId};

/// A VM with what its document shows of other tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmListing {
    pub vm: Vm,
    /// Of all its disks.
    pub disk_size: MiB,
    /// By id.
    pub nics: Vec<Nic>,
    /// Of its template.
    pub os: Option<Os>,
    pub os_arch: Option<OsArch>,
}

#[derive(Queryable, Insertable)]
#[diesel(table_name = vms, treat_none_as_default_value = false)]
struct VmRow {
    id: String,
    template: Option<String>,
    pm: String,
    name: String,
    cpu: i32,
    memory: i64,
    maxmem: i64,
    description: String,
    pcivf: Option<String>,
    vnc_password: String,
    created_at: NaiveDateTime,
    recent_booted_at: Option<NaiveDateTime>,
    updated_at: NaiveDateTime,
    state: String,
    vnc_port: Option<i32>,
    iso: Option<String>,
    snapshot: Option<String>,
}

/// With the words of its template.
type ListedRow = (VmRow, Option<String>, Option<String>);

impl VmRow {
    fn of(vm: &Vm) -> Result<Self> {
        Ok(Self {
            id: vm.id.to_string(),
            template: vm.template.map(|id| id.to_string()),
            pm: vm.pm.to_string(),
            name: vm.name.clone(),
            cpu: number("vms.cpu", vm.cpu)?,
            memory: from_mib("vms.memory", vm.memory)?,
            maxmem: from_mib("vms.maxmem", vm.maxmem)?,
            description: vm.desc.clone(),
            pcivf: vm.pcivf.map(|address| address.to_string()),
            vnc_password: vm.vnc_password.reveal().to_owned(),
            created_at: vm.created_at,
            recent_booted_at: vm.recent_booted_at,
            updated_at: vm.updated_at,
            state: vm.seen.state.to_string(),
            vnc_port: vm.seen.vnc_port.map(i32::from),
            iso: vm.iso.as_ref().map(ToString::to_string),
            snapshot: vm.snapshot.map(|id| id.to_string()),
        })
    }

    fn model(self) -> Result<Vm> {
        Ok(Vm {
            id: parse("vms.id", &self.id)?,
            template: parse_optional("vms.template", self.template)?,
            pm: parse("vms.pm", &self.pm)?,
            name: self.name,
            cpu: number("vms.cpu", self.cpu)?,
            memory: mib("vms.memory", self.memory)?,
            maxmem: mib("vms.maxmem", self.maxmem)?,
            desc: self.description,
            pcivf: parse_optional("vms.pcivf", self.pcivf)?,
            iso: parse_optional("vms.iso", self.iso)?,
            vnc_password: Secret::new(self.vnc_password),
            snapshot: parse_optional("vms.snapshot", self.snapshot)?,
            seen: Seen {
                state: parse("vms.state", &self.state)?,
                vnc_port: self.vnc_port.map(|port| number("vms.vnc_port", port)).transpose()?,
            },
            created_at: self.created_at,
            recent_booted_at: self.recent_booted_at,
            updated_at: self.updated_at,
        })
    }
}

pub fn find(c: &mut Conn, id: VmId) -> Result<Option<Vm>> {
    vms::table.find(id.to_string()).first::<VmRow>(&mut c.0).optional()?.map(VmRow::model).transpose()
}

/// Of every VM.
pub fn names(c: &mut Conn) -> Result<HashMap<VmId, String>> {
    let rows: Vec<(String, String)> = vms::table.select((vms::id, vms::name)).load(&mut c.0)?;
    rows.into_iter().map(|(id, name)| Ok((parse("vms.id", &id)?, name))).collect()
}

pub fn find_by_name(c: &mut Conn, name: &str) -> Result<Option<Vm>> {
    let row = vms::table.filter(vms::name.eq(name)).first::<VmRow>(&mut c.0).optional()?;
    row.map(VmRow::model).transpose()
}

/// # Errors
/// `Exists` if the id or the name is taken; `InUse` if template or PM is not there.
pub fn insert(c: &mut Conn, vm: &Vm) -> Result<()> {
    diesel::insert_into(vms::table).values(&VmRow::of(vm)?).execute(&mut c.0)?;
    Ok(())
}

/// # Errors
/// `InUse` while it has disks or NICs.
pub fn remove(c: &mut Conn, id: VmId) -> Result<()> {
    let rows = diesel::delete(vms::table.find(id.to_string())).execute(&mut c.0)?;
    hit(rows, "vm", id)
}

/// What a client may change of it: name, description, vCPUs, memory and disc.
///
/// # Errors
/// `Exists` if the name is another's.
pub fn update(c: &mut Conn, vm: &Vm) -> Result<()> {
    let row = VmRow::of(vm)?;
    let changes = (
        vms::name.eq(row.name),
        vms::description.eq(row.description),
        vms::cpu.eq(row.cpu),
        vms::memory.eq(row.memory),
        vms::maxmem.eq(row.maxmem),
        vms::iso.eq(row.iso),
        vms::updated_at.eq(row.updated_at),
    );
    let rows = diesel::update(vms::table.find(row.id)).set(changes).execute(&mut c.0)?;
    hit(rows, "vm", vm.id)
}

/// What it runs on from now on.
pub fn set_snapshot(c: &mut Conn, id: VmId, snapshot: Option<SnapshotId>) -> Result<()> {
    let snapshot = snapshot.map(|id| id.to_string());
    let rows = diesel::update(vms::table.find(id.to_string())).set(vms::snapshot.eq(snapshot)).execute(&mut c.0)?;
    hit(rows, "vm", id)
}

/// Of a PM, in no order.
pub fn ids_of(c: &mut Conn, pm: PmId) -> Result<Vec<VmId>> {
    let ids: Vec<String> = vms::table.filter(vms::pm.eq(pm.to_string())).select(vms::id).load(&mut c.0)?;
    ids.iter().map(|id| parse("vms.id", id)).collect()
}

pub fn set_created(c: &mut Conn, id: VmId, at: NaiveDateTime) -> Result<()> {
    let rows = diesel::update(vms::table.find(id.to_string())).set(vms::created_at.eq(at)).execute(&mut c.0)?;
    hit(rows, "vm", id)
}

pub fn set_booted(c: &mut Conn, id: VmId, at: NaiveDateTime) -> Result<()> {
    let rows = diesel::update(vms::table.find(id.to_string())).set(vms::recent_booted_at.eq(at)).execute(&mut c.0)?;
    hit(rows, "vm", id)
}

/// All of them, the oldest first, in three queries however many there are.
pub fn listing(c: &mut Conn) -> Result<Vec<VmListing>> {
    let rows: Vec<ListedRow> = vms::table
        .left_join(templates::table)
        .order((vms::created_at, vms::id))
        .select((vms::all_columns, templates::os.nullable(), templates::os_arch.nullable()))
        .load(&mut c.0)?;
    let mut by_vm: HashMap<VmId, (MiB, Vec<Nic>)> = HashMap::with_capacity(rows.len());
    let sizes: Vec<(Option<String>, i64)> =
        disks::table.filter(disks::vm.is_not_null()).select((disks::vm, disks::size)).load(&mut c.0)?;
    for (vm, size) in sizes {
        let sum = &mut by_vm.entry(parse("disks.vm", &vm.unwrap_or_default())?).or_default().0;
        *sum = *sum + mib("disks.size", size)?;
    }
    for nic in nics::all(c)? {
        by_vm.entry(nic.vm).or_default().1.push(nic);
    }
    rows.into_iter()
        .map(|row| {
            let id = parse("vms.id", &row.0.id)?;
            let (disk_size, nics) = by_vm.remove(&id).unwrap_or_default();
            listed(row, disk_size, nics)
        })
        .collect()
}

pub fn listing_of(c: &mut Conn, id: VmId) -> Result<Option<VmListing>> {
    let row: Option<ListedRow> = vms::table
        .left_join(templates::table)
        .filter(vms::id.eq(id.to_string()))
        .select((vms::all_columns, templates::os.nullable(), templates::os_arch.nullable()))
        .first(&mut c.0)
        .optional()?;
    let Some(row) = row else { return Ok(None) };
    let sizes: Vec<i64> = disks::table.filter(disks::vm.eq(id.to_string())).select(disks::size).load(&mut c.0)?;
    let disk_size = sizes.into_iter().map(|size| mib("disks.size", size)).sum::<Result<MiB>>()?;
    let nics = nics::of_vm(c, id)?;
    listed(row, disk_size, nics).map(Some)
}

fn listed((vm, os, os_arch): ListedRow, disk_size: MiB, nics: Vec<Nic>) -> Result<VmListing> {
    Ok(VmListing {
        vm: vm.model()?,
        disk_size,
        nics,
        os: parse_optional("templates.os", os)?,
        os_arch: parse_optional("templates.os_arch", os_arch)?,
    })
}
