//! What goes through while all is well.

use std::time::Duration;

use pengx::dialects::pengx::Settings;
use pengx::server::Limits;
use tungstenite::Message;

use super::{NOBODY, Scene, hasty};
use crate::harness::proxy::{Proxy, Target};
use crate::harness::screen::Screen;
use crate::harness::viewer::Viewer;

#[test]
fn bytes_go_both_ways_as_they_are() {
    let scene = Scene::new();
    let (mut viewer, mut seat) = scene.watch();
    assert_eq!(seat.shared, 1, "whatever the viewer asked for");
    seat.say(b"\0\x01\0\x02");
    assert_eq!(viewer.read(4), b"\0\x01\0\x02");
    // A message of the WebSocket may hold several of RFB, or a part of one.
    viewer.send(b"key");
    viewer.send(b"");
    viewer.send(b"pointer and more");
    assert_eq!(seat.read(), *b"keypointer and more");
    // Long after the answer was flushed, and more than one frame may hold.
    let picture: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
    let sent = picture.clone();
    let saying = std::thread::spawn(move || {
        seat.say(&sent);
        seat
    });
    let mut seen = Vec::new();
    while seen.len() < picture.len() {
        let frame = viewer.frame();
        assert!(frame.len() <= 65_535, "{}", frame.len());
        seen.extend(frame);
    }
    assert!(seen == picture);
    drop(saying.join().unwrap());
    assert_eq!(viewer.ended(), Some(1011));
}

#[test]
fn what_comes_with_the_first_message_goes_on_to_the_screen() {
    let scene = Scene::new();
    let mut viewer = scene.open().unwrap();
    viewer.send(b"RFB 003.00");
    viewer.send(b"8\n\x01\0early");
    let mut seat = scene.screen.seat();
    assert_eq!((seat.shared, seat.read()), (1, *b"early"));
    assert_eq!(viewer.read(12 + 2 + 4), b"RFB 003.008\n\x01\x01\0\0\0\0");
}

#[test]
fn screens_of_every_version_are_opened_with_the_password_if_they_want_it() {
    for greeting in [b"RFB 003.003\n", b"RFB 003.007\n", b"RFB 003.008\n"] {
        for locked in [false, true] {
            let mut scene = Scene::new();
            let password = scene.http.get(&format!("/vms/{}/", scene.vm)).element("vnc_password").to_owned();
            scene.screen = Screen::with(greeting, locked.then_some(&password));
            scene.put(scene.screen.port);
            let (mut viewer, mut seat) = scene.watch();
            seat.say(b"hello");
            assert_eq!(viewer.read(5), b"hello", "{greeting:?} {locked}");
        }
    }
}

#[test]
fn a_screen_that_cannot_be_opened_is_told_before_the_handshake() {
    let scene = Scene::showing(Screen::with(b"RFB 003.008\n", Some("another")), Settings::default(), Limits::default());
    let vm = scene.vm;
    scene.open().map(drop).unwrap_err().refused(400, &format!("the screen of vm {vm} refused: it says no: wrong"));
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    drop(silent);
    scene.put(port);
    scene.open().map(drop).unwrap_err().refused(503, &format!("the screen of vm {vm} does not answer"));
}

#[test]
fn only_a_vm_that_runs_has_a_screen() {
    let scene = Scene::new();
    let off = "vm web1 is SHUTDOWN; start it first";
    scene.http.post(&format!("/vms/{}/poweroff/", scene.vm), "").done(200, "vm web1 is powered off");
    scene.http.post(&scene.uri(), "").refused(400, off);
    scene.open().map(drop).unwrap_err().refused(400, off);
    let nobodys = format!("/vms/{NOBODY}/console/");
    let none = format!("there is no vm {NOBODY}");
    scene.http.post(&nobodys, "").refused(404, &none);
    Viewer::open(scene.http.address, &nobodys, &[]).map(drop).unwrap_err().refused(404, &none);
}

#[test]
fn who_asks_for_no_websocket_is_told_what_is_here() {
    let scene = Scene::new();
    let says = "there is a WebSocket (RFC 6455) here; ask for an upgrade to it";
    let mut old = crate::harness::viewer::UPGRADE;
    old[2].1 = "8";
    for answer in
        [scene.http.get(&scene.uri()), Viewer::ask(scene.http.address, &scene.uri(), &old).map(drop).unwrap_err()]
    {
        answer.refused(426, says);
        assert_eq!((answer.header("upgrade"), answer.header("sec-websocket-version")), (Some("websocket"), Some("13")));
        assert_eq!(answer.header("allow"), Some("GET, POST, HEAD, OPTIONS"));
    }
    // Nor is there one anywhere else.
    let elsewhere = Viewer::open(scene.http.address, "/vms/", &[]).map(drop).unwrap_err();
    assert_eq!(elsewhere.status, 200, "{elsewhere:?}");
}

#[test]
fn the_subprotocol_of_old_viewers_is_answered() {
    let scene = Scene::new();
    let protocol = |offer: &str| {
        let viewer = Viewer::open(scene.http.address, &scene.uri(), &[("Sec-WebSocket-Protocol", offer)]).unwrap();
        viewer.answer.header("sec-websocket-protocol").map(str::to_owned)
    };
    assert_eq!(protocol("binary"), Some("binary".to_owned()));
    assert_eq!(protocol("base64, binary"), Some("binary".to_owned()));
    assert_eq!(protocol("base64"), None);
    assert_eq!(scene.open().unwrap().answer.header("sec-websocket-protocol"), None);
}

#[test]
fn many_look_at_one_screen() {
    let scene = Scene::new();
    let mut all: Vec<_> = (0..20).map(|_| scene.watch()).collect();
    for (n, (viewer, seat)) in all.iter_mut().enumerate() {
        let n = u8::try_from(n).unwrap();
        seat.say(&[n]);
        viewer.send(&[100 + n]);
        assert_eq!((viewer.read(1), seat.read()), (vec![n], [100 + n]));
    }
    scene.http.post(&format!("/vms/{}/poweroff/", scene.vm), "").done(200, "vm web1 is powered off");
    for (viewer, mut seat) in all {
        assert_eq!(viewer.ended(), Some(1011));
        seat.ended();
    }
}

#[test]
fn who_answers_pings_stays() {
    let scene = Scene::with(hasty(Duration::from_millis(50)), Limits::default());
    let (mut viewer, mut seat) = scene.watch();
    let mut pings = 0;
    while pings < 5 {
        match viewer.socket.read().unwrap() {
            Message::Ping(_) => pings += 1,
            other => panic!("{other:?}"),
        }
    }
    seat.say(b"still here");
    assert_eq!(viewer.read(10), b"still here");
}

/// As behind nginx with `location /pengx/ { proxy_pass http://…/; }` and the two lines for upgrades, and nothing else.
#[test]
fn behind_a_proxy_with_a_prefix_the_url_of_a_ticket_leads_back() {
    let server = std::sync::Arc::default();
    let proxy = Proxy::new(vec![("/pengx", Target::Server(std::sync::Arc::clone(&server)))]);
    let public_url = format!("{}/pengx/", proxy.url()).parse().unwrap();
    let scene = Scene::with(Settings { public_url: Some(public_url), ..Settings::default() }, Limits::default());
    server.set(scene.http.address).unwrap();
    for prefix in ["", "/api/v1"] {
        let uri = format!("/pengx{prefix}/vms/{}/console/", scene.vm);
        let made = crate::harness::http::ask(proxy.address, "POST", &uri, &[], "");
        assert_eq!(made.status, 201, "{made:?}");
        let path = made.element("url").strip_prefix(&format!("ws://{}", proxy.address)).unwrap();
        assert_eq!(path, format!("{uri}?ticket={}", made.element("ticket")));
        // The page that opens it came from the proxy, whose name the server does not see.
        let mut viewer = Viewer::open(proxy.address, path, &[("Origin", &proxy.url())]).unwrap().welcomed();
        let mut seat = scene.screen.seat();
        seat.say(b"through");
        viewer.send(b"and back");
        assert_eq!((viewer.read(7), seat.read()), (b"through".to_vec(), *b"and back"));
        drop(seat);
        assert_eq!(viewer.ended(), Some(1011));
    }
}

#[test]
fn below_a_mount_the_url_is_there() {
    let scene = Scene::new();
    let gate = pengx::operations::Gate::new(scene.app.core.clone(), false).unwrap();
    let http = crate::harness::http::Served::dialect("/xml", pengx::dialects::pengx::mount(gate, Settings::default()));
    let uri = format!("/xml{}", scene.uri());
    let made = http.post(&uri, "");
    assert_eq!(made.element("url"), format!("ws://{}{uri}?ticket={}", http.address, made.element("ticket")));
    let mut viewer = Viewer::open(http.address, &format!("{uri}?ticket={}", made.element("ticket")), &[]).unwrap();
    assert_eq!(viewer.read(12), b"RFB 003.008\n");
}
