//! Passwords and tokens: how they are made unreadable, and how a password is checked without the machine paying for every
//! wrong one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Argon2, Params};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::error::{Error, Result};
use crate::model::{Secret, TokenDigest, User, UserId};

use super::sha_crypt::{self, ShaCrypt};

/// In bytes.
pub(super) const LENGTH: std::ops::RangeInclusive<usize> = 8..=1024;

/// Begins every token, so that people and tools can tell one in a file; and none begins with a hyphen.
const TOKEN_PREFIX: &str = "pengx_";

/// Checks at once: each takes a core and 19 MiB for some dozen milliseconds.
const CHECKS: usize = 2;
/// Checks under way or waiting; further ones are turned away.
const QUEUE: usize = 64;

/// A new token, and what is kept of it.
pub(super) fn new_token() -> Result<(Secret, TokenDigest)> {
    new_secret(TOKEN_PREFIX)
}

/// A new ticket, the same.
pub(super) fn new_ticket() -> Result<(Secret, TokenDigest)> {
    new_secret("")
}

fn new_secret(prefix: &str) -> Result<(Secret, TokenDigest)> {
    let secret = Secret::new(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random::<32>()?)));
    let kept = digest(&secret);
    Ok((secret, kept))
}

pub(super) fn digest(token: &Secret) -> TokenDigest {
    TokenDigest(Sha256::digest(token.reveal().as_bytes()).into())
}

/// The PHC string of a new password. Takes a core for some dozen milliseconds.
pub(super) fn hash(password: &Secret) -> Result<Secret> {
    let failed = |why: argon2::password_hash::Error| Error::internal(format!("a password cannot be hashed: {why}"));
    let salt = SaltString::encode_b64(&random::<16>()?).map_err(failed)?;
    let hash = Argon2::default().hash_password(password.reveal().as_bytes(), &salt).map_err(failed)?;
    Ok(Secret::new(hash.to_string()))
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let got = getrandom(&mut bytes, GetRandomFlags::empty());
    // Up to 256 bytes come whole or not at all.
    match got {
        Ok(n) if n == N => Ok(bytes),
        Ok(_) => Err(Error::internal("the system gave too little randomness")),
        Err(why) => Err(Error::internal("the system has no randomness").caused_by(why)),
    }
}

/// Checks passwords off the async threads, a few at a time. One that was right is remembered, so that a client that sends it
/// with every request pays once.
pub(super) struct Passwords {
    /// Of this process; what is remembered is worth nothing without it.
    key: [u8; 32],
    /// Of each user the digest of the password that was right, under the hash that it was right for.
    right: Arc<Mutex<HashMap<UserId, [u8; 32]>>>,
    turns: Arc<Semaphore>,
    queue: Arc<Semaphore>,
}

impl Passwords {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            key: random()?,
            right: Arc::default(),
            turns: Arc::new(Semaphore::new(CHECKS)),
            queue: Arc::new(Semaphore::new(QUEUE)),
        })
    }

    /// Whether it is the user's. That there is no such user takes as long to find out as that a password is wrong that was set
    /// here.
    pub(super) async fn fits(&self, user: Option<&User>, password: Secret) -> Result<bool> {
        let known = user.map(|user| (user.id, self.trace(user, &password)));
        if self.is_remembered(known) {
            return Ok(true);
        }
        let overloaded = |_| Error::unavailable("the check of passwords is overloaded and");
        let place = self.queue.clone().try_acquire_owned().map_err(overloaded)?;
        let turn = self.turns.clone().acquire_owned().await;
        // The client may have sent it twice.
        if self.is_remembered(known) {
            return Ok(true);
        }
        let hash = user.map(|user| user.password.clone());
        let blocking = move || {
            // Kept by the thread: a caller that hangs up does not make room for another check.
            let _held = (place, turn);
            check(hash.as_ref(), &password)
        };
        let checked = tokio::task::spawn_blocking(blocking).await;
        let fits = checked.unwrap_or_else(|why| Err(Error::internal("a check panicked").caused_by(why)))?;
        if fits && let Some((id, trace)) = known {
            self.right().insert(id, trace);
        }
        Ok(fits)
    }

    fn is_remembered(&self, known: Option<(UserId, [u8; 32])>) -> bool {
        // Digests under a secret key: how far two of them agree tells nothing of the password.
        known.is_some_and(|(id, trace)| self.right().get(&id) == Some(&trace))
    }

    /// Another password, and another hash, give another one.
    fn trace(&self, user: &User, password: &Secret) -> [u8; 32] {
        let hash = Sha256::digest(user.password.reveal().as_bytes());
        let keyed = Sha256::new().chain_update(self.key).chain_update(hash);
        keyed.chain_update(password.reveal().as_bytes()).finalize().into()
    }

    fn right(&self) -> MutexGuard<'_, HashMap<UserId, [u8; 32]>> {
        self.right.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `None`: nobody's, at the price of a password that was set here.
fn check(hash: Option<&Secret>, password: &Secret) -> Result<bool> {
    let password = password.reveal().as_bytes();
    let Some(hash) = hash else {
        let mut nothing = [0; Params::DEFAULT_OUTPUT_LEN];
        let done = Argon2::default().hash_password_into(password, b"nobody's salt...", &mut nothing);
        return done.map(|()| false).map_err(|why| Error::internal(format!("a password cannot be hashed: {why}")));
    };
    let unreadable = |why: String| Error::internal(format!("users.password cannot be read: {why}"));
    if sha_crypt::is_one(hash.reveal()) {
        return ShaCrypt::read(hash.reveal()).map_err(unreadable)?.fits(password);
    }
    let parsed = PasswordHash::new(hash.reveal());
    let parsed = parsed.map_err(|why| unreadable(why.to_string()))?;
    match Argon2::default().verify_password(password, &parsed) {
        Ok(()) => Ok(true),
        Err(argon2::password_hash::Error::Password) => Ok(false),
        Err(why) => Err(Error::internal(format!("a password cannot be checked: {why}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Role;

    fn user(password: &str) -> User {
        let at = chrono::DateTime::UNIX_EPOCH.naive_utc();
        User {
            id: UserId(uuid::Uuid::from_u128(1)),
            name: "ann".parse().unwrap(),
            password: hash(&Secret::new(password.to_owned())).unwrap(),
            role: Role::Viewer,
            sees: None,
            created_at: at,
            updated_at: at,
        }
    }

    #[tokio::test]
    async fn a_password_is_remembered_until_its_hash_changes() {
        let (passwords, ann) = (Passwords::new().unwrap(), user("correct horse"));
        assert!(ann.password.reveal().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", ann.password.reveal());
        let fits = async |user: Option<&User>, text: &str| passwords.fits(user, Secret::new(text.to_owned())).await;
        assert!(!fits(Some(&ann), "wrong horse").await.unwrap());
        assert!(!fits(None, "correct horse").await.unwrap());
        assert!(passwords.right().is_empty());
        assert!(fits(Some(&ann), "correct horse").await.unwrap());
        // With nobody left to check it, only what is remembered is right.
        passwords.queue.close();
        assert!(fits(Some(&ann), "correct horse").await.unwrap());
        assert_eq!(fits(Some(&ann), "wrong horse").await.unwrap_err().kind().name(), "unavailable");
        let changed = user("correct horse");
        assert_eq!(fits(Some(&changed), "correct horse").await.unwrap_err().kind().name(), "unavailable");
    }

    #[test]
    fn tokens_are_long_plain_and_never_alike() {
        let (a, kept) = new_token().unwrap();
        let (b, _) = new_token().unwrap();
        assert_ne!(a, b);
        assert_eq!(a.reveal().len(), TOKEN_PREFIX.len() + 43);
        assert!(a.reveal().bytes().all(|c| c.is_ascii_alphanumeric() || b"_-".contains(&c)), "{}", a.reveal());
        assert_eq!(digest(&a), kept);
        // Of the standard.
        let abc = digest(&Secret::new("abc".to_owned())).to_string();
        assert_eq!(abc, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
