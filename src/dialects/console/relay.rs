//! Bytes between a viewer's WebSocket and a screen, both ways at once. Neither way reads on before the other side has taken
//! what was read: what a viewer does not take stays in the hypervisor, and holds one frame here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use warp::ws::{Message, WebSocket};

use super::Screen;
use super::rfb::{Inbox, SHARED, Welcome};
use crate::dialects::Stopping;
use crate::operations::console;

/// Of what is sent in one frame, in bytes: clients of old take no more.
const FRAME: usize = 65_535;

type ToViewer = SplitSink<WebSocket, Message>;
type FromViewer = SplitStream<WebSocket>;

/// Why it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    ViewerLeft,
    /// Or sends what no WebSocket allows, or more than we take.
    ViewerLost,
    ViewerSilent,
    /// Its RFB or its messages are none.
    ViewerOdd,
    ScreenClosed,
    ScreenStuck,
    VmGone,
    Forbidden,
    Stopping,
}

impl End {
    /// What the viewer is told, if it listens.
    fn goodbye(self) -> Option<(u16, &'static str)> {
        match self {
            Self::ViewerLeft | Self::ViewerLost | Self::ViewerSilent => None,
            Self::ViewerOdd => Some((1003, "RFB in binary messages is expected")),
            Self::ScreenClosed => Some((1011, "the screen was closed")),
            Self::ScreenStuck => Some((1011, "the screen does not listen")),
            Self::VmGone => Some((1011, "the vm was stopped or is elsewhere")),
            Self::Forbidden => Some((1008, "your account may not see this screen any more")),
            Self::Stopping => Some((1001, "the server stops")),
        }
    }
}

pub(super) async fn run(socket: WebSocket, screen: Screen, mut stopping: Stopping) {
    let Screen { core, vm, at, stream, pace } = screen;
    let (mut to_viewer, mut from_viewer) = socket.split();
    let (mut from_screen, mut to_screen) = stream.into_split();
    let talk = async {
        let welcomed = welcome(&mut to_viewer, &mut from_viewer, &mut to_screen);
        if let Err(end) = timeout(pace.welcome, welcomed).await.unwrap_or(Err(End::ViewerSilent)) {
            return end;
        }
        let heard = AtomicBool::new(true);
        tokio::select! {
            end = show(&mut from_screen, &mut to_viewer, &heard, pace.ping) => end,
            end = obey(&mut from_viewer, &mut to_screen, &heard, pace.stuck) => end,
        }
    };
    tracing::info!(%vm, user = %core.caller(), "a console was opened");
    let end = tokio::select! {
        end = talk => end,
        () = console::gone(&core, vm, &at) => End::VmGone,
        () = console::forbidden(&core, vm, pace.look) => End::Forbidden,
        () = stopping.asked() => End::Stopping,
    };
    tracing::info!(%vm, user = %core.caller(), ?end, "a console was closed");
    // The screen first: the viewer may take its time.
    drop((from_screen, to_screen));
    // Whether it heard us or not, it has had its time.
    drop(timeout(pace.goodbye, say_goodbye(to_viewer, from_viewer, end)).await);
}

/// The beginning of RFB; then the screen is told that somebody is there.
async fn welcome(
    to_viewer: &mut ToViewer,
    from_viewer: &mut FromViewer,
    to_screen: &mut OwnedWriteHalf,
) -> Result<(), End> {
    let (mut welcome, mut inbox, mut out) = (Welcome::new(), Inbox::default(), Vec::new());
    loop {
        let done = welcome.step(&mut inbox, &mut out).map_err(|why| {
            tracing::debug!(error = %why, "a viewer was refused");
            End::ViewerOdd
        })?;
        if !out.is_empty() {
            to_viewer.send(Message::binary(std::mem::take(&mut out))).await.map_err(|_| End::ViewerLost)?;
        }
        if done {
            let first = [&[SHARED], inbox.rest().as_slice()].concat();
            return to_screen.write_all(&first).await.map_err(|_| End::ScreenClosed);
        }
        if let Some(message) = hear(from_viewer).await? {
            inbox.push(message.as_bytes());
        }
    }
}

/// The next message, if it is one for the screen.
async fn hear(from_viewer: &mut FromViewer) -> Result<Option<Message>, End> {
    match from_viewer.next().await {
        Some(Ok(message)) if message.is_binary() => Ok(Some(message)),
        Some(Ok(message)) if message.is_text() => Err(End::ViewerOdd),
        Some(Ok(message)) if message.is_close() => Err(End::ViewerLeft),
        Some(Ok(_)) => Ok(None),
        Some(Err(_)) | None => Err(End::ViewerLost),
    }
}

async fn show(from_screen: &mut OwnedReadHalf, to_viewer: &mut ToViewer, heard: &AtomicBool, ping: Duration) -> End {
    let mut buf = BytesMut::with_capacity(FRAME);
    let mut pings = interval_at(Instant::now() + ping, ping);
    // A viewer that was kept from its turn gets a whole one.
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut room = (&mut buf).limit(FRAME);
        let message = tokio::select! {
            read = from_screen.read_buf(&mut room) => match read {
                Ok(0) | Err(_) => return End::ScreenClosed,
                Ok(_) => Message::binary(buf.split().freeze()),
            },
            _ = pings.tick() => {
                if !heard.swap(false, Ordering::Relaxed) {
                    return End::ViewerSilent;
                }
                Message::ping("")
            }
        };
        if to_viewer.send(message).await.is_err() {
            return End::ViewerLost;
        }
        buf.reserve(FRAME);
    }
}

async fn obey(
    from_viewer: &mut FromViewer,
    to_screen: &mut OwnedWriteHalf,
    heard: &AtomicBool,
    stuck: Duration,
) -> End {
    loop {
        let message = match hear(from_viewer).await {
            Ok(message) => message,
            Err(end) => return end,
        };
        heard.store(true, Ordering::Relaxed);
        let Some(message) = message else { continue };
        match timeout(stuck, to_screen.write_all(message.as_bytes())).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return End::ScreenClosed,
            Err(_) => return End::ScreenStuck,
        }
    }
}

/// Until the viewer has said goodbye, too.
async fn say_goodbye(mut to_viewer: ToViewer, mut from_viewer: FromViewer, end: End) {
    let sent = match end.goodbye() {
        Some((code, why)) => to_viewer.send(Message::close_with(code, why)).await,
        None if end == End::ViewerLeft => to_viewer.close().await,
        None => return,
    };
    if sent.is_ok() {
        while let Some(Ok(_)) = from_viewer.next().await {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_tell_who_ended_it() {
        for (end, code) in [
            (End::ViewerLeft, None),
            (End::ViewerSilent, None),
            (End::ViewerOdd, Some(1003)),
            (End::ScreenClosed, Some(1011)),
            (End::VmGone, Some(1011)),
            (End::Forbidden, Some(1008)),
            (End::Stopping, Some(1001)),
        ] {
            assert_eq!(end.goodbye().map(|(code, _)| code), code);
        }
    }
}
