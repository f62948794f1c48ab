//! How long tests wait for what comes by itself.

use std::time::{Duration, Instant};

use pengx::error::Result;

/// No condition that a test waits for takes longer, on a machine that others keep busy, too.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// But what an emulated guest does, on a loaded machine.
pub const BOOT: Duration = Duration::from_secs(150);

/// Waits for a condition, and fails the test at its deadline.
pub fn wait_until(what: &str, holds: impl FnMut() -> Result<bool>) {
    wait_within(PATIENCE, what, holds);
}

/// For what a guest does, which takes longer.
pub fn wait_within(patience: Duration, what: &str, mut holds: impl FnMut() -> Result<bool>) {
    let deadline = Instant::now() + patience;
    let mut last = Ok(false);
    while Instant::now() < deadline {
        let asked = Instant::now();
        last = holds();
        if matches!(last, Ok(true)) {
            return;
        }
        // On an emulated host, asking takes the time that what is waited for needs.
        std::thread::sleep(asked.elapsed().max(Duration::from_millis(10)));
    }
    panic!("not within {patience:?}: {what} (last: {last:?})");
}
