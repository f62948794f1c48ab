//! Physical machines: this host's own record, and what is shown of all.

mod facts;
mod keys;
mod query;

pub use facts::Measured;
pub use keys::AuthorizeKeys;
pub use query::{Performance, PmView, find, list, performance, this, vitals};

pub use crate::host::{CpuShares, NicCounters, Vitals};

use crate::error::{Error, Result};
use crate::store::pms;

use super::Core;

/// Writes this host's row and its facts, or brings them up to date. A row that has another kind of hypervisor is an error: the
/// host was another host. Blocks no longer than the database does: no mount is asked how full it is.
pub fn register(core: &Core) -> Result<()> {
    let mut pm = core.pm.clone();
    let now = core.clock.now();
    core.store.write_tx(|tx| {
        if let Some(row) = pms::find(tx, pm.id)? {
            if row.hypervisor != pm.hypervisor {
                return Err(Error::wrong_state(
                    format!("pm {}", pm.id),
                    format!("recorded with hypervisor {}", row.hypervisor),
                    format!("it cannot run with {}; give this host a pm_uuid of its own", pm.hypervisor),
                ));
            }
            pm.created_at = row.created_at;
        }
        pm.heartbeat_at = now;
        pm.updated_at = now;
        pms::save(tx, &pm)
    })?;
    facts::renew(core);
    Ok(())
}

/// Brings the tables up to date and writes this host's row; for a start at which the database was away.
pub fn prepare(core: &Core) -> Result<()> {
    core.store.migrate()?;
    register(core)
}

/// Says that this host is alive, and what has changed about it. Blocks for some seconds at most, also when a mount is dead.
pub fn heartbeat(core: &Core) -> Result<()> {
    let now = core.clock.now();
    core.store.note_tx(|tx| pms::heartbeat(tx, core.pm.id, now))?;
    // A hypervisor that is away is told where its guests are.
    if let Ok(counted) = core.hypervisor.host_use() {
        core.sampler.look_again(counted);
    }
    if facts::is_due(core) {
        facts::measure(core);
    } else {
        facts::renew(core);
    }
    Ok(())
}
