//! What Xen last said of all its guests, shared by whoever asks: at most one list a second, however many ask. What a change of
//! ours makes of a domain is put into it, and where that is not known the next one who asks has a new list made.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::model::{DomainStatus, HostUse, PowerState, VmId, VncEndpoint};

use super::definitions::{Kept, Known};
use super::parse::{self, Info, Row, RunState};
use super::{Inner, errors, processes};

/// A list is good for so long, unless we changed something.
pub(super) const GOOD_FOR: Duration = Duration::from_secs(1);
/// And for so long while the next one is being made, so that nobody waits for that.
const UNTIL_THE_NEXT: Duration = Duration::from_secs(3);
/// A guest whose screen is not found so often, once it is started, has none.
const SCREEN_TRIES: u32 = 20;

/// How old an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    Recent,
    /// As `Recent`, but Xen has said it, and not we.
    Said,
    /// Asked for after the call.
    Fresh,
}

/// One look at everything.
#[derive(Debug, Clone)]
pub(super) struct Sight {
    rows: Vec<Row>,
    known: BTreeMap<VmId, Known>,
    /// Not in the list for the moment and about to be again, or made anew and not running yet.
    rebooting: HashSet<VmId>,
    /// They stand still, were to go on, and cannot.
    stuck: HashSet<VmId>,
    /// They are being sent to another host.
    leaving: HashSet<VmId>,
}

impl Sight {
    /// The domain that is this VM here. Two may have one uuid; the one that runs is meant.
    pub(super) fn row(&self, id: VmId) -> Option<&Row> {
        let rows = self.rows.iter().filter(|row| row.id == id && !row.is_in_transit());
        rows.max_by_key(|row| super::is_active(row))
    }

    /// Everything of this uuid, on the way as well.
    pub(super) fn rows_of(&self, id: VmId) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.id == id)
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(super) fn is_defined(&self, id: VmId) -> bool {
        self.known.get(&id).is_some_and(|known| known.defined)
    }

    pub(super) fn has_run(&self, id: VmId) -> bool {
        self.known.get(&id).is_some_and(|known| known.run)
    }

    /// Those that stand still, and are to go on.
    pub(super) fn held(&self) -> impl Iterator<Item = VmId> {
        self.known.iter().filter(|(_, known)| known.held).map(|(id, _)| *id)
    }

    pub(super) fn is_held(&self, id: VmId) -> bool {
        self.known.get(&id).is_some_and(|known| known.held)
    }

    /// From another host.
    pub(super) fn is_expected(&self, id: VmId) -> bool {
        self.known.get(&id).is_some_and(|known| known.expected)
    }

    pub(super) fn is_rebooting(&self, id: VmId) -> bool {
        self.rebooting.contains(&id) || self.row(id).is_some_and(|row| row.state == RunState::Rebooting)
    }

    /// `None`: neither Xen nor we know it.
    pub(super) fn state(&self, id: VmId) -> Option<PowerState> {
        if self.leaving.contains(&id) && self.rows_of(id).next().is_some() {
            return Some(PowerState::Running);
        }
        if let Some(row) = self.row(id) {
            return Some(match row.state {
                RunState::Running | RunState::Rebooting => PowerState::Running,
                RunState::Paused if self.rebooting.contains(&id) => PowerState::Running,
                RunState::Paused if self.is_held(id) && !self.stuck.contains(&id) => PowerState::Running,
                RunState::Paused | RunState::Suspended => PowerState::Paused,
                RunState::Crashed => PowerState::Crashed,
                RunState::Dying if self.known.get(&id).is_some_and(|known| known.crashed) => PowerState::Crashed,
                RunState::Shutdown | RunState::Dying => PowerState::Shutdown,
            });
        }
        let known = self.known.get(&id).filter(|known| known.defined)?;
        Some(match known {
            _ if self.is_rebooting(id) => PowerState::Running,
            Known { crashed: true, .. } => PowerState::Crashed,
            _ => PowerState::Shutdown,
        })
    }

    fn take_in(&mut self, news: &News) {
        self.known.insert(news.id, news.known);
        if let Some(now) = &news.row {
            self.rows.retain(|row| row.domid != now.domid);
            self.rows.push(now.clone());
        }
    }

    fn ids(&self) -> HashSet<VmId> {
        let live = self.rows.iter().map(|row| row.id);
        live.chain(self.known.keys().copied()).collect()
    }
}

#[derive(Default)]
pub(super) struct Seen {
    last: Mutex<Last>,
    /// Held by the one who makes a list.
    turn: Mutex<()>,
    screens: Mutex<HashMap<u32, Screen>>,
    /// Domains that are being made by the monitors of guests that reboot, and since when.
    anew: Mutex<HashMap<u32, Instant>>,
    meter: Mutex<Meter>,
    info: Mutex<Option<(Instant, Info)>>,
    /// Counts our changes, for the one who watches.
    pub(super) changes: Mutex<u64>,
    pub(super) changed: Condvar,
}

#[derive(Default)]
struct Last {
    begun: Option<Instant>,
    answer: Option<Result<Arc<Sight>, ErrorKind>>,
    /// When we last changed something and do not know how it looks now; what was asked before does not show it.
    touched: Option<Instant>,
    /// What we did since the list was begun.
    news: Vec<News>,
}

/// What a change of ours has made of a domain.
struct News {
    at: Instant,
    id: VmId,
    known: Known,
    /// `None`: as it was.
    row: Option<Row>,
}

impl Last {
    fn answer(&self, age: Age, asked: Instant, good_for: Duration) -> Option<Result<Arc<Sight>>> {
        let (begun, answer) = (self.begun?, self.answer.as_ref()?);
        let fits = match age {
            Age::Recent => true,
            Age::Said => self.news.iter().all(|news| news.row.is_none()),
            Age::Fresh => false,
        };
        let is_good = fits && answer.is_ok() && begun.elapsed() < good_for;
        let is_whole = self.touched.is_none_or(|touched| begun > touched);
        (is_whole && (begun >= asked || is_good)).then(|| answer.clone().map_err(Error::new))
    }

    fn learn(&mut self, begun: Instant, said: Result<Sight>) -> Result<Arc<Sight>> {
        // A list that was begun before does not show it.
        self.news.retain(|news| news.at >= begun);
        let answer = said.map(|mut sight| {
            self.news.iter().for_each(|news| sight.take_in(news));
            Arc::new(sight)
        });
        self.begun = Some(begun);
        self.answer = Some(answer.as_ref().map(Arc::clone).map_err(|error| error.kind().clone()));
        answer
    }
}

/// How much the CPUs have worked. What a domain did between the last list that has it and its end is not counted.
#[derive(Default)]
struct Meter {
    last: BTreeMap<u32, Duration>,
    busy: Duration,
}

impl Meter {
    fn read(&mut self, rows: &[Row]) {
        let now: BTreeMap<u32, Duration> = rows.iter().map(|row| (row.domid, row.cpu_time)).collect();
        for (domid, time) in &now {
            let before = self.last.get(domid).copied().unwrap_or_default();
            self.busy = self.busy.saturating_add(time.saturating_sub(before));
        }
        self.last = now;
    }
}

/// Where it is, or how often it was not found.
enum Screen {
    At(VncEndpoint),
    Missed(u32),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    /// After something of ours, whether it worked or not.
    pub(super) fn touch(&self) {
        lock(&self.last).touched = Some(Instant::now());
        self.wake();
    }

    fn wake(&self) {
        *lock(&self.changes) += 1;
        self.changed.notify_all();
    }

    /// How long the last list is good yet.
    pub(super) fn left(&self) -> Duration {
        let begun = lock(&self.last).begun;
        begun.map_or(Duration::ZERO, |begun| GOOD_FOR.saturating_sub(begun.elapsed()))
    }

    pub(super) fn learn_screen(&self, domid: u32, port: u16) {
        let at = VncEndpoint { host: super::config_file::VNC_LISTEN.to_owned(), port };
        lock(&self.screens).insert(domid, Screen::At(at));
    }
}

impl Inner {
    /// Blocks for one list at most: who asks while another one's is on its way, and would be served by it alone, waits for that.
    pub(super) fn look(&self, age: Age) -> Result<Arc<Sight>> {
        let asked = Instant::now();
        let answer = |good_for| lock(&self.seen.last).answer(age, asked, good_for);
        if let Some(answer) = answer(GOOD_FOR) {
            return answer;
        }
        let turn = self.seen.turn.try_lock();
        if age == Age::Recent
            && matches!(turn, Err(TryLockError::WouldBlock))
            && let Some(answer) = answer(UNTIL_THE_NEXT)
        {
            return answer;
        }
        let _turn = turn.unwrap_or_else(|_| lock(&self.seen.turn));
        if let Some(answer) = answer(GOOD_FOR) {
            return answer;
        }
        let begun = Instant::now();
        let said = self.list();
        lock(&self.seen.last).learn(begun, said)
    }

    /// After something of ours that worked: what it has made of a domain is seen without asking Xen. Who watches asks at once,
    /// for somebody else may have done something, too.
    pub(super) fn show(&self, id: VmId, row: Option<Row>) {
        let news = News { at: Instant::now(), id, known: self.definitions.known(id), row };
        let mut last = lock(&self.seen.last);
        if let Some(Ok(sight)) = &mut last.answer {
            Arc::make_mut(sight).take_in(&news);
        }
        last.news.push(news);
        drop(last);
        self.seen.wake();
    }

    fn list(&self) -> Result<Sight> {
        // Before the list: what is started meanwhile has its row, what ends meanwhile is seen next time.
        let known = self.definitions.all()?;
        let starting = self.claims.holders();
        let said = self.xl(self.options.call_timeout, ["list", "-v"]).map_err(errors::explain)?;
        let mut rows = parse::list(&said.stdout)?;
        lock(&self.seen.meter).read(&rows);
        rows.retain(Row::is_guest);
        let live: HashSet<VmId> = rows.iter().map(|row| row.id).collect();
        let gone: Vec<VmId> = known
            .iter()
            .filter(|(id, known)| known.run && !live.contains(id) && !starting.contains(id))
            .map(|(id, _)| *id)
            .collect();
        let mut rebooting = self.made_anew(&rows, &known, &starting);
        if !gone.is_empty() {
            rebooting.extend(processes::monitors(&gone, |id| self.definitions.path(id, Kept::Run)));
        }
        let domids: HashSet<u32> = rows.iter().map(|row| row.domid).collect();
        lock(&self.seen.screens).retain(|domid, _| domids.contains(domid));
        Ok(Sight { rows, known, rebooting, stuck: self.holds.stuck(), leaving: self.leaving.all() })
    }

    /// Guests whose monitor has begun them again, and not let them run yet: Xen shows them as if somebody had paused them.
    fn made_anew(&self, rows: &[Row], known: &BTreeMap<VmId, Known>, starting: &HashSet<VmId>) -> HashSet<VmId> {
        let last = lock(&self.seen.last).answer.clone().and_then(Result::ok);
        let mut anew = lock(&self.seen.anew);
        anew.retain(|domid, _| rows.iter().any(|row| row.domid == *domid && row.state == RunState::Paused));
        let mut found = HashSet::new();
        let ours = |row: &&Row| known.get(&row.id).is_some_and(|known| known.run) && !starting.contains(&row.id);
        for row in rows.iter().filter(|row| row.state == RunState::Paused && !row.is_in_transit()).filter(ours) {
            let ran = |before: &Row| before.domid != row.domid && before.state == RunState::Running;
            let began = last.as_ref().is_some_and(|last| {
                let before = last.row(row.id);
                before.is_none_or(|before| before.domid != row.domid) && last.is_rebooting(row.id)
                    || before.is_some_and(ran)
            });
            if began {
                anew.entry(row.domid).or_insert_with(Instant::now);
            }
            // Whoever pauses it meanwhile is believed after that.
            if anew.get(&row.domid).is_some_and(|since| since.elapsed() < self.options.power_timeout) {
                found.insert(row.id);
            }
        }
        found
    }

    /// Of the last second.
    pub(super) fn info(&self) -> Result<Info> {
        let mut last = lock(&self.seen.info);
        match &*last {
            Some((asked, info)) if asked.elapsed() < GOOD_FOR => Ok(info.clone()),
            _ => {
                let asked = Instant::now();
                let said = self.xl(self.options.call_timeout, ["info"]).map_err(errors::explain)?;
                let info = parse::info(&said.stdout)?;
                *last = Some((asked, info.clone()));
                Ok(info)
            }
        }
    }

    pub(super) fn host_use(&self) -> Result<HostUse> {
        self.look(Age::Recent)?;
        let Info { cpus, threads_per_core, memory, free, .. } = self.info()?;
        Ok(HostUse { cpus, threads_per_core, busy: lock(&self.seen.meter).busy, memory, free })
    }

    pub(super) fn status(&self, sight: &Sight, id: VmId) -> Option<DomainStatus> {
        let state = sight.state(id)?;
        let row = sight.row(id).filter(|_| state.is_active());
        let started = row.filter(|_| !self.claims.holders().contains(&id));
        let vnc = started.and_then(|row| self.screen(row.domid, sight.is_defined(id)));
        Some(DomainStatus { id, state, vnc, number: row.map(|row| row.domid) })
    }

    pub(super) fn statuses(&self, age: Age) -> Result<Vec<DomainStatus>> {
        let sight = self.look(age)?;
        let mut ids: Vec<VmId> = sight.ids().into_iter().collect();
        ids.sort_unstable();
        Ok(ids.into_iter().filter_map(|id| self.status(&sight, id)).collect())
    }

    /// Asked of Xen once for each domain: it cannot move while that lives.
    fn screen(&self, domid: u32, ours: bool) -> Option<VncEndpoint> {
        let misses = match lock(&self.seen.screens).get(&domid) {
            Some(Screen::At(endpoint)) => return Some(endpoint.clone()),
            Some(Screen::Missed(often)) if *often >= SCREEN_TRIES => return None,
            Some(Screen::Missed(often)) => *often,
            None => 0,
        };
        let console = format!("/local/domain/{domid}/console");
        let read = |key: &str| {
            let asked = self.tool("xenstore-read", self.options.call_timeout, [format!("{console}/{key}")]);
            asked.ok().map(|said| said.stdout)
        };
        let endpoint = read("vnc-port").and_then(|said| parse::port(&said).ok()).map(|port| {
            let host = if ours { None } else { read("vnc-listen") };
            let host = host.and_then(|said| String::from_utf8(said).ok());
            let host = host.map(|host| host.trim().to_owned()).filter(|host| !host.is_empty());
            VncEndpoint { host: host.unwrap_or_else(|| super::config_file::VNC_LISTEN.to_owned()), port }
        });
        let learned = endpoint.clone().map_or(Screen::Missed(misses + 1), Screen::At);
        lock(&self.seen.screens).insert(domid, learned);
        endpoint
    }
}
