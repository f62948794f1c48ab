//! Start, and the pulled plug. The answer says whether the VM is then as it was wanted.

use std::pin::pin;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use tokio::time::timeout;
use warp::http::header::LOCATION;
use warp::http::{HeaderValue, StatusCode};
use warp::reply::Response;

use super::front::Call;
use super::vms::gone;
use super::{Failure, accept, reply, state};
use crate::error::{Error, ErrorKind};
use crate::model::{PowerState, Right, TaskState};
use crate::operations::vm::{self, PoweroffVm, StartVm};
use crate::operations::{Core, Operation, task};

/// How long the answer waits for a task that has begun.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a name keeps in a query (RFC 3986, unreserved).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[derive(Serialize)]
struct Reached {
    status: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Active,
    Off,
}

impl Wanted {
    fn is(self, now: PowerState) -> bool {
        match self {
            Self::Active => now.is_active(),
            Self::Off => state::is_off(now),
        }
    }
}

pub(super) async fn start(call: &Call<'_>) -> Result<Response, Failure> {
    bring(call, Wanted::Active).await
}

pub(super) async fn stop(call: &Call<'_>) -> Result<Response, Failure> {
    bring(call, Wanted::Off).await
}

async fn bring(call: &Call<'_>, wanted: Wanted) -> Result<Response, Failure> {
    if !call.settings.allow_power {
        return Err(Failure::NoPower);
    }
    call.core.caller().require(Right::Operate, "start or stop a vm")?;
    let view = call.vm().await?;
    let vm = view.listing.vm.id;
    let mut status = wanted.is(view.observed.state);
    if !status {
        let done = match wanted {
            Wanted::Active => perform(&call.core, StartVm { vm }).await,
            Wanted::Off => perform(&call.core, PoweroffVm { vm }).await,
        };
        let now = vm::find(&call.core, vm).await.map_err(|error| gone(&view, error))?.observed.state;
        status = wanted.is(now);
        // Somebody else may have been faster.
        done.or_else(|why| match why.kind() {
            ErrorKind::WrongState { .. } if status => Ok(()),
            _ => Err(gone(&view, why)),
        })?;
    }
    match page(call, &view.listing.vm.name) {
        Some(location) => {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
            response.headers_mut().insert(LOCATION, location);
            Ok(response)
        }
        None => Ok(reply::ok(&Reached { status })),
    }
}

/// Runs a task, and waits no longer than [`PATIENCE`] once it has begun. Until then it waits for others, which ends by
/// itself: it is then refused as busy.
async fn perform<O: Operation>(core: &Core, operation: O) -> Result<(), Error> {
    let handle = core.submit(operation).await?;
    let id = handle.id;
    let mut ending = pin!(core.wait(handle));
    loop {
        if let Ok(done) = timeout(PATIENCE, &mut ending).await {
            return done.map(drop);
        }
        if core.read(move |core| task::find(core, id)).await?.state != TaskState::Queued {
            return Ok(());
        }
    }
}

/// The VM's page of the front end, for a browser that is on its way to one.
fn page(call: &Call<'_>, name: &str) -> Option<HeaderValue> {
    let base = call.settings.redirect_base.as_deref()?;
    if !accept::prefers_html(&call.ask.headers) {
        return None;
    }
    let location = format!("{}/vm.html?name={}", base.trim_end_matches('/'), utf8_percent_encode(name, ESCAPED));
    HeaderValue::try_from(location).ok()
}
