//! The only way to a core for whoever serves strangers.

use std::net::IpAddr;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Secret, VmId};
use crate::operations::Core;
use crate::operations::pm::{self, Vitals};

use super::Caller;
use super::caller::Proof;
use super::known::Accounts;
use super::password::{Passwords, digest};

/// What somebody showed, as it came. Where no account exists it is not looked at.
#[derive(Debug, Clone)]
pub enum Credentials {
    None,
    Basic {
        name: String,
        password: Secret,
    },
    /// A bearer token.
    Token(Secret),
    /// Meant to be credentials, but none.
    Malformed,
}

/// Lets callers in. Cheap to clone.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    core: Core,
    insecure: bool,
    passwords: Passwords,
}

impl Gate {
    /// `insecure`: while no account exists, everybody is admin and not only who is on this host.
    ///
    /// # Errors
    /// `Internal` if the system has no randomness.
    pub fn new(core: Core, insecure: bool) -> Result<Self> {
        Ok(Self(Arc::new(Inner { core, insecure, passwords: Passwords::new()? })))
    }

    /// A core in the caller's name. `peer` is `None` when nobody knows the address.
    ///
    /// # Errors
    /// `Unauthenticated`; `Forbidden` for peers of other hosts while no account exists; `Unavailable` while accounts cannot
    /// be read, or too many passwords are being checked.
    pub async fn enter(&self, credentials: Credentials, peer: Option<IpAddr>) -> Result<Core> {
        let accounts = self.0.core.known.accounts().await?;
        let caller = if accounts.is_empty() {
            self.without_accounts(peer)?
        } else {
            let shown = !matches!(credentials, Credentials::None);
            let outcome = self.authenticate(&accounts, credentials).await;
            if shown && outcome.as_ref().is_err_and(|why| *why.kind() == ErrorKind::Unauthenticated) {
                // Without the name: it may be a password in the wrong place.
                tracing::info!(peer = ?peer, "credentials were refused");
            }
            outcome?
        };
        Ok(self.0.core.in_the_name_of(caller))
    }

    /// A core in the name of the caller who was given this ticket for this VM; with its account as it is now, if what it came
    /// with then would let it in now. Nothing can be done with the ticket again, whether it was good or not.
    ///
    /// # Errors
    /// `Unauthenticated`; `Unavailable` as above.
    pub async fn redeem(&self, ticket: Secret, vm: VmId) -> Result<Core> {
        let core = &self.0.core;
        let now = core.clock.now();
        let given = core.tickets.take(&ticket, vm, now);
        let caller = match given {
            Some(caller) => core.known.again(&caller, now).await?,
            None => None,
        };
        let Some(caller) = caller else {
            tracing::info!(%vm, "a ticket was refused");
            return Err(Error::new(ErrorKind::Unauthenticated));
        };
        Ok(core.in_the_name_of(caller))
    }

    /// How this host does, which the operator may show to everybody.
    ///
    /// # Errors
    /// As [`pm::vitals`].
    pub async fn vitals(&self) -> Result<Vitals> {
        self.0.core.read(pm::vitals).await
    }

    /// A core in the name of an account that the operator chose for everybody who comes this way, without credentials.
    ///
    /// # Errors
    /// `Forbidden` if there is no such account; `Unavailable` while accounts cannot be read.
    pub async fn act_as(&self, account: &str, peer: Option<IpAddr>) -> Result<Core> {
        let accounts = self.0.core.known.accounts().await?;
        let Some(user) = accounts.user(account) else {
            tracing::warn!(account, ?peer, "there is no such account to act as");
            let what = "use this API before the account that it acts as is made; run pengx user add";
            return Err(Error::new(ErrorKind::Forbidden { what: what.to_owned() }));
        };
        Ok(self.0.core.in_the_name_of(Caller::user(user, Proof::Configuration)))
    }

    fn without_accounts(&self, peer: Option<IpAddr>) -> Result<Caller> {
        if self.0.insecure {
            return Ok(Caller::anybody());
        }
        match peer {
            Some(ip) if ip.to_canonical().is_loopback() => Ok(Caller::host()),
            _ => {
                let what = "use this server from another host while no account exists; run pengx user add on its own";
                Err(Error::new(ErrorKind::Forbidden { what: what.to_owned() }))
            }
        }
    }

    async fn authenticate(&self, accounts: &Accounts, credentials: Credentials) -> Result<Caller> {
        let refused = || Error::new(ErrorKind::Unauthenticated);
        match credentials {
            Credentials::None | Credentials::Malformed => Err(refused()),
            Credentials::Token(token) => {
                // Looked up by its digest, which nobody can choose: how long that takes tells nothing of a token.
                let token = digest(&token);
                let owner = accounts.owner(token, self.0.core.clock.now()).ok_or_else(refused)?;
                Ok(Caller::user(owner, Proof::Token(token)))
            }
            Credentials::Basic { name, password } => {
                let user = accounts.user(&name);
                if !self.0.passwords.fits(user, password).await? {
                    return Err(refused());
                }
                let user = user.ok_or_else(refused)?;
                Ok(Caller::user(user, Proof::Password(user.password.clone())))
            }
        }
    }
}
