//! A deadline for system calls. On a dead network mount they never return, so they run on threads of their own.
//!
//! Law: the caller waits only so long, and a dead path holds only so many threads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Threads at work, or stuck, for one path at a time.
const MOST: usize = 8;

static AT_WORK: Mutex<BTreeMap<PathBuf, usize>> = Mutex::new(BTreeMap::new());
static ROOM: Condvar = Condvar::new();

/// Does `work` on the storage at `path`. If it takes longer, or no thread becomes free for it, the storage is unavailable;
/// what was begun may still end later.
pub fn within<T: Send + 'static>(
    limit: Duration,
    path: &Path,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let end = Instant::now() + limit;
    let dead = || Error::unavailable(format!("the storage at {}", path.display()));
    let seat = Seat::take(path, end).ok_or_else(dead)?;
    let (answer, answered) = sync_channel(1);
    std::thread::Builder::new()
        .name("storage".to_owned())
        .spawn(move || {
            let done = work();
            drop(seat);
            // The caller may have given up.
            answer.send(done).ok();
        })
        .map_err(|e| dead().caused_by(e))?;
    answered.recv_timeout(end.saturating_duration_since(Instant::now())).map_err(|e| dead().caused_by(e))?
}

/// The right to one of a path's threads; also given back when the work panics.
struct Seat(PathBuf);

impl Seat {
    fn take(path: &Path, end: Instant) -> Option<Self> {
        let mut seats = seats();
        loop {
            let taken = seats.entry(path.to_owned()).or_default();
            if *taken < MOST {
                *taken += 1;
                return Some(Self(path.to_owned()));
            }
            let left = end.checked_duration_since(Instant::now())?;
            (seats, _) = ROOM.wait_timeout(seats, left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = seats();
        if let Some(taken) = seats.get_mut(&self.0) {
            *taken -= 1;
            if *taken == 0 {
                seats.remove(&self.0);
            }
        }
        ROOM.notify_all();
    }
}

fn seats() -> MutexGuard<'static, BTreeMap<PathBuf, usize>> {
    AT_WORK.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use std::sync::mpsc::channel;

    #[test]
    fn a_dead_storlink_costs_its_own_callers_a_deadline_and_nobody_else() {
        let (dead, well) = (Path::new("/dead"), Path::new("/well"));
        let (ends, stuck): (Vec<_>, Vec<_>) = (0..MOST).map(|_| channel::<()>()).unzip();
        for gate in stuck {
            let e = within(Duration::from_millis(1), dead, move || Ok(gate.recv().is_ok())).unwrap_err();
            assert_eq!(*e.kind(), ErrorKind::Unavailable { what: "the storage at /dead".into() });
        }
        // No thread is left for this one: its work is not begun.
        let e = within(Duration::from_millis(1), dead, || -> Result<()> { panic!("was begun") }).unwrap_err();
        assert!(matches!(e.kind(), ErrorKind::Unavailable { .. }));
        assert_eq!(within(Duration::from_secs(60), well, || Ok(7)).unwrap(), 7);
        // The mount comes back: so do the threads.
        drop(ends);
        assert_eq!(within(Duration::from_secs(60), dead, || Ok(8)).unwrap(), 8);
    }

    #[test]
    fn work_that_panics_gives_its_thread_back() {
        for _ in 0..=MOST {
            let e = within(Duration::from_secs(60), Path::new("/panics"), || -> Result<()> { panic!("on purpose") });
            assert!(matches!(e.unwrap_err().kind(), ErrorKind::Unavailable { .. }));
        }
    }
}
