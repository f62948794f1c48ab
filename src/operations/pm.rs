//! This host's own record.

use crate::error::{Error, Result};
pub use crate::host::Interface;
use crate::model::Pm;
use crate::store::pms;

use super::Core;

/// A PM without a heartbeat for this long is down.
const HEARTBEAT_LOST: chrono::Duration = chrono::Duration::seconds(90);

/// A PM as it is shown.
#[derive(Debug, Clone)]
pub struct PmView {
    pub pm: Pm,
    pub up: bool,
    pub interfaces: Vec<Interface>,
}

/// Writes this host's row, or brings it up to date. A row that has another kind of hypervisor is an error: the host was
/// another host.
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
    })
}

/// Brings the tables up to date and writes this host's row; for a start at which the database was away.
pub fn prepare(core: &Core) -> Result<()> {
    core.store.migrate()?;
    register(core)
}

/// Says that this host is alive.
pub fn heartbeat(core: &Core) -> Result<()> {
    let now = core.clock.now();
    core.store.note_tx(|tx| pms::heartbeat(tx, core.pm.id, now))
}

/// This host.
pub fn this(core: &Core) -> Result<PmView> {
    let pm = core.store.read(|c| pms::find(c, core.pm.id))?.ok_or_else(|| Error::not_found("pm", core.pm.id))?;
    let up = core.clock.now() - pm.heartbeat_at < HEARTBEAT_LOST;
    Ok(PmView { pm, up, interfaces: crate::host::interfaces()? })
}
