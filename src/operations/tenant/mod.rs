//! Tenants: whom VMs are made for. Rows and nothing else, so no task is needed to change them. They are no accounts, and
//! their passwords open nothing.

mod create;

pub use create::{CreateForTenant, MadeForTenant};

use crate::error::{Error, ErrorKind, Result};
use crate::model::{MiB, Right, Secret, ShortId, Tenancy, Tenant, VmId};
use crate::store::{Conn, tenants};

use super::{Core, guard};

/// No password of a tenant is shorter.
pub const SHORTEST_PASSWORD: usize = 6;
/// Names and passwords have no more characters.
const MOST_CHARS: usize = 255;

/// A tenant as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantView {
    pub tenant: Tenant,
    /// Those that the caller sees, the oldest first.
    pub vms: Vec<VmId>,
}

/// The oldest first. Their passwords are secrets, so a caller must be one who may see the passwords of screens.
pub fn list(core: &Core) -> Result<Vec<TenantView>> {
    core.caller().require(Right::Operate, "look at the passwords of tenants")?;
    let (all, tenancies) = core.store.read(|c| {
        let seen = guard::Sight::of(c, core)?;
        let mut tenancies = tenants::tenancies(c)?;
        tenancies.retain(|tenancy| seen.shows(tenancy.vm));
        Ok((tenants::all(c)?, tenancies))
    })?;
    Ok(all.into_iter().map(|tenant| view(tenant, &tenancies)).collect())
}

/// As [`list`], the one of this name.
pub fn find(core: &Core, name: &str) -> Result<Option<TenantView>> {
    Ok(list(core)?.into_iter().find(|view| view.tenant.name == name))
}

fn view(tenant: Tenant, tenancies: &[Tenancy]) -> TenantView {
    let vms = tenancies.iter().filter(|tenancy| tenancy.tenant == tenant.id).map(|tenancy| tenancy.vm).collect();
    TenantView { tenant, vms }
}

/// Whose a VM is, if it is anybody's.
pub fn tenancy(core: &Core, vm: VmId) -> Result<Option<Tenancy>> {
    core.store.read(|c| {
        guard::seen_vm(c, core, vm)?;
        tenants::tenancy_of(c, vm)
    })
}

/// Again with the same password it changes nothing.
///
/// # Errors
/// `Exists` if there is one of this name with another password; `Invalid` for what cannot be a name or a password.
pub fn add(core: &Core, name: &str, password: &Secret) -> Result<()> {
    core.caller().require(Right::Operate, "add a tenant")?;
    acceptable(name, password)?;
    let tenant = Tenant {
        id: ShortId::new(core.ids.uuid()),
        name: name.to_owned(),
        password: password.clone(),
        created_at: core.clock.now(),
        had_vms: false,
    };
    core.store.note_tx(|tx| match tenants::named(tx, name)? {
        Some(known) if known.password == *password => Ok(()),
        Some(_) => Err(Error::new(ErrorKind::Exists { what: "tenant", name: name.to_owned() })),
        None => tenants::insert(tx, &tenant),
    })
}

/// # Errors
/// `NotFound`; `Invalid` for what cannot be a password.
pub fn set_password(core: &Core, name: &str, password: &Secret) -> Result<()> {
    core.caller().require(Right::Operate, "change the password of a tenant")?;
    core.store.note_tx(|tx| {
        let tenant = named(tx, name)?;
        acceptable(name, password)?;
        tenants::set_password(tx, &tenant.id, password)
    })
}

/// Its VMs stay, and are nobody's then.
///
/// # Errors
/// `NotFound`.
pub fn remove(core: &Core, name: &str) -> Result<()> {
    core.caller().require(Right::Operate, "remove a tenant")?;
    core.store.note_tx(|tx| {
        let tenant = named(tx, name)?;
        tenants::remove(tx, &tenant.id)
    })
}

/// What the tenant of a VM was promised. Nobody's VM was promised none.
pub fn set_swap(core: &Core, vm: VmId, swap: MiB) -> Result<()> {
    core.caller().require(Right::Operate, "change a vm")?;
    core.store.note_tx(|tx| {
        guard::vm(tx, core, vm)?;
        tenants::set_swap(tx, vm, swap).map(drop)
    })
}

fn named(c: &mut Conn, name: &str) -> Result<Tenant> {
    tenants::named(c, name)?.ok_or_else(|| Error::not_found("tenant", name))
}

fn acceptable(name: &str, password: &Secret) -> Result<()> {
    let plain = |text: &str| text.chars().count() <= MOST_CHARS && !text.chars().any(char::is_control);
    if name.is_empty() || !plain(name) {
        return Err(Error::invalid(
            "name",
            format!("must have 1 to {MOST_CHARS} characters, none of them control ones"),
        ));
    }
    let password = password.reveal();
    if password.chars().count() < SHORTEST_PASSWORD || !plain(password) {
        let why = format!("must have {SHORTEST_PASSWORD} to {MOST_CHARS} characters, none of them control ones");
        return Err(Error::invalid("password", why));
    }
    Ok(())
}
