//! Free space, taken before the first byte is written, so that two tasks never count on the same.

use crate::error::{Error, ErrorKind, Result};
use crate::model::{MiB, Storlink};
use crate::storage::VolumeDriver;
use crate::tasks::Work;

use super::Core;

/// Reserves so much of a storlink until the task ends. The low-water mark stays free.
///
/// # Errors
/// `NoSpace` with what is needed and what is free for it.
pub(super) fn reserve(
    core: &Core,
    work: &mut Work<'_>,
    storlink: &Storlink,
    driver: &dyn VolumeDriver,
    need: MiB,
) -> Result<()> {
    let usage = driver.usage()?;
    let free = MiB(usage.free.0.saturating_sub(low_water(core, storlink, usage.size).0));
    match work.reserve(storlink.id, need, free)? {
        Ok(()) => Ok(()),
        Err(free) => Err(Error::new(ErrorKind::NoSpace { what: format!("storlink {}", storlink.name), need, free })),
    }
}

/// How much of a storlink of this size is never given to a copy.
pub(super) fn low_water(core: &Core, storlink: &Storlink, size: MiB) -> MiB {
    let percent = core.settings.low_water.get(&storlink.name).copied().unwrap_or(core.settings.low_water_default);
    MiB(size.0.saturating_mul(u64::from(percent)) / 100)
}
