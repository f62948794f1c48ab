//! The console of a machine in a browser: noVNC's page, as the operator has installed it, and the WebSocket that it opens.
//!
//! The page says nothing that is not in noVNC's own package, and the WebSocket asks for a ticket. So both are open to the
//! browsers of customers, whom no allow list names.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use warp::http::Method;
use warp::reply::Response;

use super::failure::Failure;
use super::front::{Call, Front};
use crate::dialects::ask::Ask;
use crate::dialects::console;
use crate::error::{Error, ErrorKind};
use crate::model::{Secret, VmId};

pub(super) const FOLDER: &str = "console";
pub(super) const PAGE: &str = "vnc.html";
/// Of the WebSocket.
pub(super) const PATTERN: &str = "/console/:vm";

/// Whether a file of the page is looked for there.
pub(super) fn is_page(path: &str) -> bool {
    path.strip_prefix('/').and_then(|path| path.strip_prefix(FOLDER)).is_some_and(|rest| rest.starts_with('/'))
}

/// The address of a page that opens the WebSocket.
pub(super) fn url(call: &Call<'_>, vm: VmId, ticket: &Secret) -> String {
    let path = socket(&call.prefix, vm, ticket);
    let path = utf8_percent_encode(&path, NON_ALPHANUMERIC);
    format!("{}/{FOLDER}/{PAGE}?autoconnect=1&path={path}", call.base)
}

/// The path of the WebSocket, such that noVNC before 1.5, which takes it from the root of the host, comes to the same place as
/// later ones, which take it from their own page.
fn socket(prefix: &str, vm: VmId, ticket: &Secret) -> String {
    let below = prefix.split('/').filter(|part| !part.is_empty()).map(|part| format!("{part}/"));
    let (up, down) = below.fold(("../".to_owned(), String::new()), |(up, down), part| (up + "../", down + &part));
    format!("{up}{down}{FOLDER}/{vm}?ticket={}", ticket.reveal())
}

/// `None`: the request does not ask for a WebSocket here.
pub(super) async fn asked(front: &Front, ask: &mut Ask) -> Option<Result<Response, Failure>> {
    let segments = ask.segments()?;
    let [folder, vm] = segments.as_slice() else { return None };
    let vm: VmId = vm.parse().ok()?;
    if folder != FOLDER || ask.method != Method::GET {
        return None;
    }
    let ws = ask.upgrade()?;
    Some(open(front, ask, vm, ws).await)
}

async fn open(front: &Front, ask: &Ask, vm: VmId, ws: warp::ws::Ws) -> Result<Response, Failure> {
    if !console::is_own_page(&ask.headers, &[], ask.public_url()) {
        let what = "open a console from a page of another site";
        return Err(Error::new(ErrorKind::Forbidden { what: what.to_owned() }).into());
    }
    let ticket = ask.query("ticket").ok_or_else(|| Error::new(ErrorKind::Unauthenticated))?;
    let core = front.gate.redeem(Secret::new(ticket), vm).await?;
    let screen = console::open(&core, vm).await?;
    Ok(screen.serve(ws, console::subprotocol(&ask.headers), ask.arrival.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_novnc_finds_the_web_socket() {
        let vm = VmId(uuid::Uuid::nil());
        let ticket = Secret::new("T".to_owned());
        let tail = format!("console/{vm}?ticket=T");
        assert_eq!(socket("", vm, &ticket), format!("../{tail}"));
        assert_eq!(socket("/px", vm, &ticket), format!("../../px/{tail}"));
        assert_eq!(socket("/a/b", vm, &ticket), format!("../../../a/b/{tail}"));
    }

    #[test]
    fn pages_are_below_their_folder() {
        assert!(is_page("/console/vnc.html") && is_page("/console/core/rfb.js") && is_page("/console/"));
        assert!(!is_page("/console") && !is_page("/consoles/x") && !is_page("/"));
    }
}
