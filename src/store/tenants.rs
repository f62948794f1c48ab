//! Tenants, and which VMs are whose.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::Conn;
use super::rows::{from_mib, hit, mib, parse};
use super::schema::{tenancies, tenants};
use crate::error::Result;
use crate::model::{MiB, Secret, ShortId, Tenancy, Tenant, VmId};

#[derive(Queryable, Insertable)]
#[diesel(table_name = tenants)]
struct TenantRow {
    id: String,
    name: String,
    password: String,
    created_at: NaiveDateTime,
    had_vms: bool,
}

impl TenantRow {
    fn model(self) -> Result<Tenant> {
        Ok(Tenant {
            id: parse("tenants.id", &self.id)?,
            name: self.name,
            password: Secret::new(self.password),
            created_at: self.created_at,
            had_vms: self.had_vms,
        })
    }
}

#[derive(Queryable, Insertable)]
#[diesel(table_name = tenancies)]
struct TenancyRow {
    vm: String,
    tenant: String,
    swap: i64,
    since: NaiveDateTime,
}

impl TenancyRow {
    fn model(self) -> Result<Tenancy> {
        Ok(Tenancy {
            vm: parse("tenancies.vm", &self.vm)?,
            tenant: parse("tenancies.tenant", &self.tenant)?,
            swap: mib("tenancies.swap", self.swap)?,
            since: self.since,
        })
    }
}

/// The oldest first.
pub fn all(c: &mut Conn) -> Result<Vec<Tenant>> {
    let rows = tenants::table.order((tenants::created_at, tenants::id)).load::<TenantRow>(&mut c.0)?;
    rows.into_iter().map(TenantRow::model).collect()
}

pub fn named(c: &mut Conn, name: &str) -> Result<Option<Tenant>> {
    let row = tenants::table.filter(tenants::name.eq(name)).first::<TenantRow>(&mut c.0).optional()?;
    row.map(TenantRow::model).transpose()
}

/// `Exists` if the name is taken.
pub fn insert(c: &mut Conn, tenant: &Tenant) -> Result<()> {
    let row = TenantRow {
        id: tenant.id.to_string(),
        name: tenant.name.clone(),
        password: tenant.password.reveal().to_owned(),
        created_at: tenant.created_at,
        had_vms: tenant.had_vms,
    };
    diesel::insert_into(tenants::table).values(&row).execute(&mut c.0)?;
    Ok(())
}

pub fn set_password(c: &mut Conn, id: &ShortId, password: &Secret) -> Result<()> {
    let change = tenants::password.eq(password.reveal());
    hit(diesel::update(tenants::table.find(id.as_str())).set(change).execute(&mut c.0)?, "tenant", id)
}

/// Its VMs are nobody's then.
pub fn remove(c: &mut Conn, id: &ShortId) -> Result<()> {
    hit(diesel::delete(tenants::table.find(id.as_str())).execute(&mut c.0)?, "tenant", id)
}

/// Of all tenants, in the order in which they began.
pub fn tenancies(c: &mut Conn) -> Result<Vec<Tenancy>> {
    let rows = tenancies::table.order((tenancies::since, tenancies::vm)).load::<TenancyRow>(&mut c.0)?;
    rows.into_iter().map(TenancyRow::model).collect()
}

pub fn tenancy_of(c: &mut Conn, vm: VmId) -> Result<Option<Tenancy>> {
    let row = tenancies::table.find(vm.to_string()).first::<TenancyRow>(&mut c.0).optional()?;
    row.map(TenancyRow::model).transpose()
}

/// `Exists` if the VM is somebody's; `InUse` if VM or tenant is not there.
pub fn begin_tenancy(c: &mut Conn, tenancy: &Tenancy) -> Result<()> {
    let row = TenancyRow {
        vm: tenancy.vm.to_string(),
        tenant: tenancy.tenant.to_string(),
        swap: from_mib("tenancies.swap", tenancy.swap)?,
        since: tenancy.since,
    };
    diesel::insert_into(tenancies::table).values(&row).execute(&mut c.0)?;
    let tenant = tenants::table.find(tenancy.tenant.as_str());
    diesel::update(tenant).set(tenants::had_vms.eq(true)).execute(&mut c.0)?;
    Ok(())
}

/// Whether it is anybody's.
pub fn set_swap(c: &mut Conn, vm: VmId, swap: MiB) -> Result<bool> {
    let change = tenancies::swap.eq(from_mib("tenancies.swap", swap)?);
    Ok(diesel::update(tenancies::table.find(vm.to_string())).set(change).execute(&mut c.0)? > 0)
}

/// If it is anybody's.
pub fn end_tenancy(c: &mut Conn, vm: VmId) -> Result<()> {
    diesel::delete(tenancies::table.find(vm.to_string())).execute(&mut c.0)?;
    Ok(())
}
