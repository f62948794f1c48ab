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
    let percent = core.settings.low_water.get(&storlink.name).copied().unwrap_or(core.settings.low_water_default);
    let kept = usage.size.0 / 100 * u64::from(percent);
    let free = MiB(usage.free.0.saturating_sub(kept));
    match work.reserve(storlink.id, need, free)? {
        Ok(()) => Ok(()),
        Err(free) => Err(Error::new(ErrorKind::NoSpace { what: format!("storlink {}", storlink.name), need, free })),
    }
}
