//! `/user`: the panel's customers, and which machines are whose.

use std::collections::HashMap;

use serde::Serialize;

use super::failure::Failure;
use super::front::{Answer, Call};
use super::reply::Reply;
use crate::error::{Error, ErrorKind};
use crate::model::{Secret, VmId, VmNumber};
use crate::operations::number;
use crate::operations::tenant::{self, SHORTEST_PASSWORD, TenantView};

/// In place of a password, where they are masked.
const MASK: &str = "********";

#[derive(Serialize)]
struct Shown<'a> {
    username: &'a str,
    password: &'a str,
    #[serde(rename = "_id")]
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    machines: Option<String>,
}

/// GET.
pub(super) async fn list(call: Call<'_>) -> Answer {
    let read = |core: &crate::operations::Core| Ok((tenant::list(core)?, number::all(core)?));
    let (all, numbers) = call.core.read(read).await?;
    let numbers: HashMap<VmId, VmNumber> = numbers.into_iter().map(|(number, vm)| (vm, number)).collect();
    let wanted = call.fields.given("username");
    let chosen = all.iter().filter(|view| wanted.is_none_or(|name| view.tenant.name == name));
    let shown = chosen.map(|view| Shown {
        username: &view.tenant.name,
        password: if call.settings.mask_passwords { MASK } else { view.tenant.password.reveal() },
        id: view.tenant.id.as_str(),
        machines: view.tenant.had_vms.then(|| machines(view, &numbers)),
    });
    Reply::json(&shown.collect::<Vec<_>>())
}

fn machines(view: &TenantView, numbers: &HashMap<VmId, VmNumber>) -> String {
    let ids: Vec<_> = view.vms.iter().filter_map(|vm| numbers.get(vm)).map(ToString::to_string).collect();
    ids.join(":")
}

fn named(call: &Call<'_>) -> Result<String, Failure> {
    call.fields.given("username").map(str::to_owned).ok_or(Failure::Said("Username must be provided"))
}

fn with_password(call: &Call<'_>) -> Result<(String, Secret), Failure> {
    let name = named(call)?;
    let password = call.fields.given("password").ok_or(Failure::Said("Password must be provided"))?;
    Ok((name, Secret::new(password.to_owned())))
}

fn told(why: Error) -> Failure {
    match why.kind() {
        ErrorKind::Exists { .. } => Failure::Said("The user already exists, please use PUT method to update it."),
        ErrorKind::NotFound { .. } => Failure::Word("Target was not found."),
        ErrorKind::Invalid { problems } if problems.iter().any(|problem| problem.field == "name") => {
            Failure::Said("Username must have 1 to 255 characters, none of them control characters.")
        }
        ErrorKind::Invalid { .. } => {
            Failure::Said("Password must have at most 255 characters, none of them control ones.")
        }
        _ => why.into(),
    }
}

fn is_short(password: &Secret) -> bool {
    password.reveal().chars().count() < SHORTEST_PASSWORD
}

const SHORT: Failure = Failure::Said("Password must have at least 6 characters.");

/// POST. The same again is no error.
pub(super) async fn add(call: Call<'_>) -> Answer {
    let (name, password) = with_password(&call)?;
    if is_short(&password) {
        return Err(SHORT);
    }
    call.core.read(move |core| tenant::add(core, &name, &password)).await.map_err(told)?;
    Ok(Reply::done())
}

/// PUT.
pub(super) async fn change(call: Call<'_>) -> Answer {
    let (name, password) = with_password(&call)?;
    let short = is_short(&password);
    let changed = call.core.read(move |core| tenant::set_password(core, &name, &password)).await;
    match changed.map_err(|why| (matches!(why.kind(), ErrorKind::Invalid { .. }), why)) {
        Ok(()) => Ok(Reply::done()),
        Err((true, _)) if short => Err(SHORT),
        Err((_, why)) => Err(told(why)),
    }
}

/// DELETE. One that is not there is gone as well.
pub(super) async fn remove(call: Call<'_>) -> Answer {
    if let Some(name) = call.fields.given("username").map(str::to_owned) {
        match call.core.read(move |core| tenant::remove(core, &name)).await {
            Err(why) if !matches!(why.kind(), ErrorKind::NotFound { .. }) => return Err(why.into()),
            _ => {}
        }
    }
    Ok(Reply::done())
}
