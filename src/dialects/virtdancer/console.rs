//! The screen of a VM over a WebSocket, as noVNC speaks it.

use warp::reply::Response;
use warp::ws::Ws;

use super::Failure;
use crate::dialects::ask::Ask;
use crate::dialects::console;
use crate::model::VmId;
use crate::operations::Core;

/// 101; a VM that is off, or has no screen, is refused before that.
pub(super) async fn show(core: &Core, id: VmId, ask: &Ask, ws: Ws) -> Result<Response, Failure> {
    let screen = console::open(core, id).await?;
    Ok(screen.serve(ws, console::subprotocol(&ask.headers), ask.arrival.as_ref()))
}
