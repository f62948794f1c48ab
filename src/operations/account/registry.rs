//! Keeping the accounts. Who can open the database may do so; no dialect can.
//!
//! These are rows and nothing else, so no task is needed to change them; a server that runs sees it within a second.

use std::sync::Arc;

use chrono::{Days, NaiveDateTime};

use crate::error::{Error, Problems, Result};
use crate::model::{Clock, Ids, Name, NameRules, Role, Secret, Token, TokenId, User, UserId, UserName};
use crate::store::{Conn, Store, accounts};

use super::password;
use super::sha_crypt::ShaCrypt;

pub struct Registry {
    store: Store,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
}

/// A token as it is shown: not the token itself, which nobody knows any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub id: TokenId,
    pub user: UserName,
    pub name: String,
    pub created_at: NaiveDateTime,
    pub expires_at: Option<NaiveDateTime>,
}

/// By what a new user is known again.
#[derive(Debug, Clone, Copy)]
pub enum Login<'a> {
    Password(&'a Secret),
    /// `$6$…`, of crypt(3). How long the password is that it is of, nobody knows.
    Hash(&'a Secret),
}

impl Login<'_> {
    fn hash(self) -> Result<Secret> {
        match self {
            Self::Password(password) => password::hash(password),
            Self::Hash(hash) => Ok(hash.clone()),
        }
    }

    fn check(self) -> Result<()> {
        match self {
            Self::Password(password) => acceptable(password),
            Self::Hash(hash) => ShaCrypt::read(hash.reveal()).map(drop).map_err(|why| Error::invalid("hash", why)),
        }
    }
}

/// Every error that is the caller's is `Invalid`.
impl Registry {
    pub fn new(store: Store, clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Self {
        Self { store, clock, ids }
    }

    /// Takes a core for some dozen milliseconds, as does [`Registry::set_password`].
    pub fn add(&self, name: &str, password: &Secret, role: Role) -> Result<()> {
        self.add_seeing(name, Login::Password(password), role, None)
    }

    /// One that sees the VMs that the rules show, or all.
    pub fn add_seeing(&self, name: &str, login: Login<'_>, role: Role, sees: Option<NameRules>) -> Result<()> {
        let mut bad = Problems::new();
        let name: Option<UserName> = name.parse().map_err(|why: String| bad.add("name", why)).ok();
        bad.absorb(login.check())?;
        bad.absorb(sound(sees.as_ref()))?;
        bad.done()?;
        let name = name.ok_or_else(|| Error::internal("a bad name without a problem"))?;
        let now = self.clock.now();
        let id = UserId(self.ids.uuid());
        let user = User { id, name, password: login.hash()?, role, sees, created_at: now, updated_at: now };
        self.store.note_tx(|c| {
            if accounts::user_named(c, user.name.as_str())?.is_some() {
                return Err(Error::invalid("name", format!("there is a user {} already", user.name)));
            }
            accounts::insert_user(c, &user)
        })
    }

    /// By name.
    pub fn users(&self) -> Result<Vec<User>> {
        self.store.read(accounts::users)
    }

    /// `Invalid` unless there is such a user: to say so before a password is asked for.
    pub fn find(&self, name: &str) -> Result<User> {
        self.store.read(|c| named(c, name))
    }

    pub fn set_password(&self, name: &str, password: &Secret) -> Result<()> {
        acceptable(password)?;
        let (hash, now) = (password::hash(password)?, self.clock.now());
        self.store.note_tx(|c| {
            let user = named(c, name)?;
            accounts::set_password(c, user.id, &hash, now)
        })
    }

    /// The last admin stays one while there are other accounts.
    pub fn set_role(&self, name: &str, role: Role) -> Result<()> {
        let now = self.clock.now();
        self.store.note_tx(|c| {
            let user = named(c, name)?;
            if role != Role::Admin {
                spare_the_last_admin(c, &user)?;
            }
            accounts::set_role(c, user.id, role, now)
        })
    }

    /// `None`: every VM. The last admin goes on to see them all while there are other accounts.
    pub fn set_sees(&self, name: &str, sees: Option<&NameRules>) -> Result<()> {
        sound(sees)?;
        let now = self.clock.now();
        self.store.note_tx(|c| {
            let user = named(c, name)?;
            if sees.is_some() {
                spare_the_last_admin(c, &user)?;
            }
            accounts::set_sees(c, user.id, sees, now)
        })
    }

    /// The user's tokens go too. The last admin stays while there are other accounts.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.store.note_tx(|c| {
            let user = named(c, name)?;
            spare_the_last_admin(c, &user)?;
            accounts::remove_user(c, user.id)
        })
    }

    /// The token, which is shown to nobody again.
    pub fn create_token(&self, user: &str, name: &str, expires_days: Option<u32>) -> Result<(TokenId, Secret)> {
        let name = match name.trim() {
            "" => String::new(),
            name => name.parse().map(Name::into_string).map_err(|why: String| Error::invalid("name", why))?,
        };
        let now = self.clock.now();
        let far = || Error::invalid("expires-days", "is too large");
        let end = |days: u32| now.checked_add_days(Days::new(days.into())).ok_or_else(far);
        let expires_at = expires_days.map(end).transpose()?;
        let (token, digest) = password::new_token()?;
        let id = TokenId(self.ids.uuid());
        self.store.note_tx(|c| {
            let owner = named(c, user)?.id;
            accounts::insert_token(c, &Token { id, owner, name, digest, created_at: now, expires_at })
        })?;
        Ok((id, token))
    }

    /// Oldest first.
    pub fn tokens(&self) -> Result<Vec<Listed>> {
        let (users, tokens) = self.store.read(|c| Ok((accounts::users(c)?, accounts::tokens(c)?)))?;
        let shown = |token: Token| {
            let user = users.iter().find(|user| user.id == token.owner)?.name.clone();
            let Token { id, name, created_at, expires_at, .. } = token;
            Some(Listed { id, user, name, created_at, expires_at })
        };
        Ok(tokens.into_iter().filter_map(shown).collect())
    }

    pub fn revoke(&self, id: TokenId) -> Result<()> {
        self.store.note_tx(|c| match accounts::tokens(c)?.iter().any(|token| token.id == id) {
            true => accounts::remove_token(c, id),
            false => Err(Error::invalid("id", format!("there is no token {id}"))),
        })
    }
}

fn acceptable(password: &Secret) -> Result<()> {
    let (least, most) = (password::LENGTH.start(), password::LENGTH.end());
    if password::LENGTH.contains(&password.reveal().len()) {
        Ok(())
    } else {
        Err(Error::invalid("password", format!("must have {least} to {most} bytes")))
    }
}

fn sound(sees: Option<&NameRules>) -> Result<()> {
    sees.and_then(NameRules::problem).map_or(Ok(()), |why| Err(Error::invalid("sees", why)))
}

fn named(c: &mut Conn, name: &str) -> Result<User> {
    let name = name.trim();
    accounts::user_named(c, name)?.ok_or_else(|| Error::invalid("name", format!("there is no user {name:?}")))
}

fn spare_the_last_admin(c: &mut Conn, user: &User) -> Result<()> {
    let users = accounts::users(c)?;
    let mut others = users.iter().filter(|other| other.id != user.id).peekable();
    let alone = others.peek().is_none();
    // Who does not see every VM may not administer.
    let is_admin = |user: &User| user.role == Role::Admin && user.sees.is_none();
    if !is_admin(user) || alone || others.any(is_admin) {
        return Ok(());
    }
    let why = format!("{} is the last admin; make another user admin first", user.name);
    Err(Error::invalid("name", why))
}
