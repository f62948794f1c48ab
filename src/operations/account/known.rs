//! The accounts as the database said last. Whoever asks reads them again, at most once a second: another process may have
//! changed them. While the database is away, what is known holds for a minute.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::NaiveDateTime;

use super::Caller;
use super::caller::Proof;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{TokenDigest, User, UserId};
use crate::operations::while_moving;
use crate::store::{Store, accounts};

/// What was read is believed this long without another look.
const FRESH: Duration = Duration::from_secs(1);
/// What was read is used this long while there is nothing newer.
const USABLE: Duration = Duration::from_secs(60);
/// With something usable at hand nobody waits longer for something newer.
const PATIENCE: Duration = Duration::from_secs(1);

/// All of them at one moment.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    by_id: HashMap<UserId, User>,
    by_name: HashMap<String, UserId>,
    tokens: HashMap<TokenDigest, (UserId, Option<NaiveDateTime>)>,
}

impl Accounts {
    fn read(store: &Store) -> Result<Self> {
        let (users, tokens) = store.read(|c| Ok((accounts::users(c)?, accounts::tokens(c)?)))?;
        Ok(Self {
            by_name: users.iter().map(|u| (u.name.as_str().to_owned(), u.id)).collect(),
            by_id: users.into_iter().map(|u| (u.id, u)).collect(),
            tokens: tokens.into_iter().map(|t| (t.digest, (t.owner, t.expires_at))).collect(),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(super) fn user(&self, name: &str) -> Option<&User> {
        self.by_id.get(self.by_name.get(name)?)
    }

    /// Of a token that is valid at `now`.
    pub(super) fn owner(&self, token: TokenDigest, now: NaiveDateTime) -> Option<&User> {
        let (owner, expires_at) = self.tokens.get(&token)?;
        if expires_at.is_some_and(|end| end <= now) { None } else { self.by_id.get(owner) }
    }

    fn proves(&self, user: &User, by: &Proof, now: NaiveDateTime) -> bool {
        match by {
            Proof::Password(hash) => user.password == *hash,
            Proof::Token(token) => self.owner(*token, now).is_some_and(|owner| owner.id == user.id),
            Proof::Configuration => true,
        }
    }
}

pub(in crate::operations) struct Known {
    store: Store,
    state: Mutex<State>,
    /// One reader at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct State {
    /// With the moment before they were read.
    accounts: Option<(Arc<Accounts>, Instant)>,
    /// When the last look began, or was given up.
    looked: Option<Instant>,
    /// Why the last look failed.
    failure: Option<ErrorKind>,
}

impl State {
    fn usable(&self) -> Option<&Arc<Accounts>> {
        self.accounts.as_ref().filter(|(_, read)| read.elapsed() < USABLE).map(|(accounts, _)| accounts)
    }

    fn answer(&self) -> Result<Arc<Accounts>> {
        self.usable().cloned().ok_or_else(|| match &self.failure {
            Some(kind) => Error::new(kind.clone()).context("the accounts could not be read"),
            None => Error::unavailable("the database").context("the accounts were not read in time"),
        })
    }
}

impl Known {
    pub(in crate::operations) fn new(store: Store) -> Self {
        Self { store, state: Mutex::default(), turn: Arc::default() }
    }

    pub(super) async fn accounts(self: &Arc<Self>) -> Result<Arc<Accounts>> {
        if let Some(answer) = self.fresh() {
            return answer;
        }
        let has_usable = self.state().usable().is_some();
        if !has_usable {
            // Whether it ended or the database stands still, the state says.
            drop(while_moving(&self.store, self.look()).await);
        } else if tokio::time::timeout(PATIENCE, self.look()).await.is_err() {
            // Nobody else shall wait for it again before it is due.
            self.state().looked = Some(Instant::now());
        }
        self.state().answer()
    }

    /// Who a caller of earlier is by now; `None`: nobody any more, or what it came with is not valid any more.
    pub(in crate::operations) async fn again(
        self: &Arc<Self>,
        caller: &Caller,
        now: NaiveDateTime,
    ) -> Result<Option<Caller>> {
        let accounts = self.accounts().await?;
        Ok(match caller.proof() {
            Some((name, by)) => {
                let user = accounts.user(name).filter(|user| accounts.proves(user, by, now));
                user.map(|user| Caller::user(user, by.clone()))
            }
            None => accounts.is_empty().then(|| caller.clone()),
        })
    }

    /// What holds if nobody has to look again.
    fn fresh(&self) -> Option<Result<Arc<Accounts>>> {
        let state = self.state();
        state.looked.is_some_and(|at| at.elapsed() < FRESH).then(|| state.answer())
    }

    /// Returns when somebody has looked, this one or another.
    async fn look(self: &Arc<Self>) {
        let turn = self.turn.clone().lock_owned().await;
        if self.fresh().is_some() {
            return;
        }
        let known = self.clone();
        let blocking = move || {
            // Kept by the thread: a caller that hangs up does not start another look beside this one.
            let _turn = turn;
            known.read();
        };
        if let Err(why) = tokio::task::spawn_blocking(blocking).await {
            tracing::error!(error = %why, "reading the accounts panicked");
        }
    }

    fn read(&self) {
        let began = Instant::now();
        let read = Accounts::read(&self.store);
        let mut state = self.state();
        state.looked = Some(began);
        match read {
            Ok(accounts) => {
                state.accounts = Some((Arc::new(accounts), began));
                state.failure = None;
            }
            Err(why) => {
                // A failure took its time; the next look is due a second after it.
                state.looked = Some(Instant::now());
                if state.failure.is_none() {
                    tracing::warn!(error = why.story(), "the accounts cannot be read");
                }
                state.failure = Some(why.kind().clone());
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn while_the_database_is_away_what_was_read_is_used_for_a_minute() {
        let dir = tempfile::tempdir().unwrap();
        // Never migrated, so it does not answer.
        let store = Store::open(&format!("sqlite://{}/pengx.db", dir.path().display())).unwrap();
        for (age, usable) in [(None, false), (Some(2), true), (Some(50), true), (Some(61), false)] {
            let known = Arc::new(Known::new(store.clone()));
            let read = age.and_then(|secs| Instant::now().checked_sub(Duration::from_secs(secs)));
            known.state().accounts = read.map(|at| (Arc::default(), at));
            // The second is answered without another look.
            for _ in 0..2 {
                let answer = known.accounts().await;
                assert_eq!(answer.is_ok(), usable, "{age:?}");
                if let Err(why) = answer {
                    assert_eq!(why.to_string(), "the database does not answer");
                }
            }
        }
        store.migrate().unwrap();
        assert!(Arc::new(Known::new(store)).accounts().await.unwrap().is_empty());
    }
}
