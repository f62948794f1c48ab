//! A deadline for system calls. On a dead network mount they never return, so they run on threads of their own.
//!
//! Law: the caller waits only so long, and a dead path holds only so many threads. Once a call at a path is overdue, the
//! path is silent: one call at a time finds out whether it still is, and all others fail at once, so that what waits for
//! dead storage does not use up the threads of those who want something else. Any call that ends there, however late, ends
//! the silence, and so does another mount in the place of the silent one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Threads at work, or stuck, for one path at a time.
const MOST: usize = 8;
/// How long one waits for a thread while all are at work.
const TURN: Duration = Duration::from_secs(5);

static AT_WORK: Mutex<BTreeMap<PathBuf, Place>> = Mutex::new(BTreeMap::new());
static ROOM: Condvar = Condvar::new();

#[derive(Default)]
struct Place {
    calls: Vec<Call>,
    /// The mount there, as the first one saw it who found the path silent.
    mount: Option<u64>,
}

impl Place {
    fn is_silent(&self, now: Instant) -> bool {
        self.calls.iter().any(|call| call.is_overdue(now))
    }

    /// Forgets calls that hang on a mount which is no longer there.
    fn look_for_another_mount(&mut self, path: &Path) {
        let now = mount_at(path);
        if self.mount.is_some() && self.mount != now {
            self.calls.clear();
        }
        self.mount = now;
    }
}

/// One that has begun and not ended.
struct Call {
    number: u64,
    begun: Instant,
    due: Instant,
    /// It began while the path was silent, to find out.
    feels: bool,
    /// Another one has ended since it was overdue.
    excused: bool,
}

impl Call {
    fn is_overdue(&self, now: Instant) -> bool {
        self.due < now && !self.excused
    }
}

/// Does `work` on the storage at `path`. If it takes longer, or no thread becomes free for it, or the path is silent, the
/// storage is unavailable; what was begun may still end later.
pub fn within<T: Send + 'static>(
    limit: Duration,
    path: &Path,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    begin(limit, path, work)?.end()
}

/// As [`within`], for who has something else to do meanwhile. Blocks only while all threads of the path are at work.
pub fn begin<T: Send + 'static>(
    limit: Duration,
    path: &Path,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<Begun<T>> {
    let due = Instant::now() + limit;
    let dead = || Error::unavailable(name(path));
    let seat = Seat::take(path, due).ok_or_else(dead)?;
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
    Ok(Begun { path: path.to_owned(), due, answered })
}

/// Work on a storage that goes on.
pub struct Begun<T> {
    path: PathBuf,
    due: Instant,
    answered: Receiver<Result<T>>,
}

impl<T> Begun<T> {
    /// Waits for its end, or for its deadline if that comes first.
    pub fn end(self) -> Result<T> {
        let left = self.due.saturating_duration_since(Instant::now());
        self.answered.recv_timeout(left).map_err(|e| Error::unavailable(name(&self.path)).caused_by(e))?
    }
}

/// The storage at a path, in sentences.
pub fn name(path: &Path) -> String {
    format!("the storage at {}", path.display())
}

/// For how long a silent path has not answered; `None` when it is not silent. Does not block.
pub fn silence(path: &Path) -> Option<Duration> {
    let now = Instant::now();
    places().get(path)?.calls.iter().filter(|call| call.is_overdue(now)).map(|call| now - call.begun).max()
}

/// The right to one of a path's threads; also given back when the work panics.
struct Seat {
    path: PathBuf,
    number: u64,
}

impl Seat {
    fn take(path: &Path, end: Instant) -> Option<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let patience = end.min(Instant::now() + TURN);
        let mut all = places();
        loop {
            let now = Instant::now();
            let here = all.entry(path.to_owned()).or_default();
            if here.is_silent(now) {
                here.look_for_another_mount(path);
            }
            let (silent, calls) = (here.is_silent(now), &mut here.calls);
            if silent && (calls.len() >= MOST || calls.iter().any(|call| call.feels && call.due >= now)) {
                return None;
            }
            if calls.len() < MOST {
                let number = NEXT.fetch_add(1, Ordering::Relaxed);
                calls.push(Call { number, begun: now, due: end, feels: silent, excused: false });
                return Some(Self { path: path.to_owned(), number });
            }
            // The first of those at work may become overdue meanwhile.
            let look_again = calls.iter().filter(|call| call.due >= now).map(|call| call.due).min().unwrap_or(patience);
            let left = patience.checked_duration_since(now).filter(|left| !left.is_zero())?;
            let nap = left.min(look_again.saturating_duration_since(now) + Duration::from_millis(1));
            (all, _) = ROOM.wait_timeout(all, nap).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut all = places();
        if let Some(here) = all.get_mut(&self.path) {
            here.calls.retain(|call| call.number != self.number);
            here.calls.iter_mut().for_each(|call| call.excused |= call.is_overdue(now));
            if here.calls.is_empty() {
                all.remove(&self.path);
            }
        }
        ROOM.notify_all();
    }
}

/// The number of the mount that a path is on, if it is not reached through links. While calls hang on a mount, no other one
/// gets its number. Asks the kernel alone, not the mount.
fn mount_at(path: &Path) -> Option<u64> {
    mount_of(&std::fs::read_to_string("/proc/self/mountinfo").ok()?, path)
}

fn mount_of(mountinfo: &str, path: &Path) -> Option<u64> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (number, point) = (words.next()?.parse().ok()?, words.nth(3)?);
        let point = point.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\");
        path.starts_with(&point).then_some((point.len(), number))
    });
    // Of those at the same place the last one is on top.
    mounts.max_by_key(|(length, _)| *length).map(|(_, number)| number)
}

fn places() -> MutexGuard<'static, BTreeMap<PathBuf, Place>> {
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
        assert_eq!(until_alive(dead, 8), 8);
        assert_eq!(silence(dead), None);
    }

    /// The stuck ones end on threads of their own.
    fn until_alive(path: &Path, value: i32) -> i32 {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match within(Duration::from_secs(60), path, move || Ok(value)) {
                Err(e) if Instant::now() < deadline => assert!(matches!(e.kind(), ErrorKind::Unavailable { .. })),
                done => return done.unwrap(),
            }
        }
    }

    /// Begins a call that is stuck until its end is dropped, and returns when it is overdue.
    fn stuck(path: &'static Path) -> std::sync::mpsc::Sender<()> {
        let (end, gate) = channel::<()>();
        within(Duration::from_millis(1), path, move || Ok(gate.recv().is_ok())).unwrap_err();
        end
    }

    #[test]
    fn while_one_feels_whether_a_silent_path_is_still_silent_all_others_fail_at_once() {
        let path = Path::new("/silent");
        assert_eq!(silence(path), None);
        let first = stuck(path);
        assert!(silence(path).is_some());
        let ((begun, feels), (end, gate)) = (channel(), channel::<()>());
        let feeler = std::thread::spawn(move || {
            within(Duration::from_secs(60), path, move || {
                begun.send(()).unwrap();
                Ok(gate.recv().is_ok())
            })
        });
        feels.recv().unwrap();
        for _ in 0..100 {
            let e = within(Duration::from_secs(60), path, || -> Result<()> { panic!("was begun") }).unwrap_err();
            assert!(matches!(e.kind(), ErrorKind::Unavailable { .. }));
        }
        // It ends in time, as where a mount was replaced: nobody waits for the first one any more, which still hangs.
        drop(end);
        assert!(!feeler.join().unwrap().unwrap());
        assert_eq!(silence(path), None);
        assert_eq!(within(Duration::from_secs(60), path, || Ok(7)).unwrap(), 7);
        drop(first);
    }

    #[test]
    fn who_waits_for_a_thread_fails_when_the_path_turns_out_to_be_silent() {
        let path = Path::new("/busy");
        let (ends, gates): (Vec<_>, Vec<_>) = (0..MOST).map(|_| channel::<()>()).unzip();
        let (begun, all_begun) = channel();
        let at_work: Vec<_> = gates
            .into_iter()
            .map(|gate| {
                let begun = begun.clone();
                let work = move || {
                    begun.send(()).unwrap();
                    Ok(gate.recv().is_ok())
                };
                std::thread::spawn(move || within(Duration::from_millis(500), path, work))
            })
            .collect();
        (0..MOST).for_each(|_| all_begun.recv().unwrap());
        let late = within(Duration::from_secs(60), path, || -> Result<()> { panic!("was begun") }).unwrap_err();
        assert!(matches!(late.kind(), ErrorKind::Unavailable { .. }));
        assert!(at_work.into_iter().all(|call| call.join().unwrap().is_err()));
        drop(ends);
        assert_eq!(until_alive(path, 9), 9);
    }

    #[test]
    fn a_mount_is_told_by_the_longest_way_to_it_and_the_last_one_there() {
        let table = "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                     30 21 0:40 / /srv/nfs rw - nfs a:/b rw\n\
                     31 21 0:41 / /srv/my\\040disk rw - nfs a:/c rw\n\
                     47 30 0:42 / /srv/nfs rw - nfs a:/b rw\n";
        for (path, number) in
            [("/srv/nfs/store", 47), ("/srv/nfs", 47), ("/srv/nfs2", 21), ("/srv/my disk/x", 31), ("/", 21)]
        {
            assert_eq!(mount_of(table, Path::new(path)), Some(number), "{path}");
        }
        assert_eq!(mount_of("", Path::new("/")), None);
        assert!(mount_at(Path::new("/proc/self")).is_some());
    }

    #[test]
    fn work_that_panics_gives_its_thread_back() {
        for _ in 0..=MOST {
            let e = within(Duration::from_secs(60), Path::new("/panics"), || -> Result<()> { panic!("on purpose") });
            assert!(matches!(e.unwrap_err().kind(), ErrorKind::Unavailable { .. }));
        }
    }
}
