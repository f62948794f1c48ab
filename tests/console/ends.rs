//! How it ends: for each reason both ends hear of it.

use std::io::{Read, Write};
use std::time::Duration;

use pengx::dialects::console::Pace;
use pengx::dialects::pengx::Settings;
use pengx::model::{NameRules, Role, Secret};
use pengx::operations::vm::EditVm;
use pengx::server::Limits;
use tungstenite::Message;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;

use super::{Scene, hasty};
use crate::harness::http::basic;
use crate::harness::viewer::Viewer;
use crate::harness::wait::wait_until;

#[test]
fn a_viewer_that_leaves_is_answered_and_the_screen_let_go() {
    let scene = Scene::new();
    let (mut viewer, mut seat) = scene.watch();
    viewer.socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).unwrap();
    assert_eq!(viewer.ended(), Some(1000));
    seat.ended();
    // Or without a word.
    let (viewer, mut seat) = scene.watch();
    drop(viewer);
    seat.ended();
}

#[test]
fn a_screen_that_closes_ends_its_viewer() {
    let scene = Scene::new();
    let (viewer, seat) = scene.watch();
    drop(seat);
    assert_eq!(viewer.ended(), Some(1011));
}

/// The screen's own end of the connection is still there: the server knows it from the hypervisor.
#[test]
fn a_vm_that_stops_in_any_way_ends_its_viewers() {
    let scene = Scene::new();
    let id = scene.vm;
    let uri = |verb: &str| format!("/vms/{id}/{verb}/");
    let press = |verb: &str, says: &str| scene.http.post(&uri(verb), "").said(200, says);
    let fake = &scene.app.site.fake;
    type Stop<'a> = &'a dyn Fn();
    let stops: [(&str, Stop); 4] = [
        ("powered off", &|| press("poweroff", "vm web1 is powered off")),
        ("shut down", &|| press("shutdown", "vm web1 is shut down")),
        ("off by itself", &|| assert!(fake.power_off_inside(id))),
        ("crashed", &|| assert!(fake.crash(id))),
    ];
    for (how, stop) in stops {
        let (viewer, mut seat) = scene.watch();
        stop();
        assert_eq!(viewer.ended(), Some(1011), "{how}");
        seat.ended();
        scene.http.post(&uri("start"), "").said(200, "vm web1 is started");
        scene.put(scene.screen.port);
    }
    // A reset of ours is another run, with another screen; a pause is not.
    let (mut viewer, mut seat) = scene.watch();
    scene.http.post(&uri("suspend"), "").said(200, "vm web1 is suspended");
    scene.http.post(&uri("resume"), "").said(200, "vm web1 is resumed");
    seat.say(b"on");
    assert_eq!(viewer.read(2), b"on");
    scene.http.post(&uri("reset"), "").said(200, "vm web1 is reset");
    assert_eq!(viewer.ended(), Some(1011));
    seat.ended();
}

#[test]
fn a_hypervisor_that_is_away_ends_nothing() {
    let scene = Scene::new();
    let (mut viewer, mut seat) = scene.watch();
    scene.app.site.fake.set_reachable(false);
    let status = || scene.http.get(&format!("/vms/{}/", scene.vm)).element("status").to_owned();
    wait_until("its state is unknown", || Ok(status() == "UNKNOWN"));
    seat.say(b"on");
    assert_eq!(viewer.read(2), b"on");
    scene.open().map(drop).unwrap_err().said(503, "the hypervisor does not answer");
    scene.app.site.fake.heal();
    wait_until("it is back", || Ok(status() == "RUNNING"));
    viewer.send(b"on");
    assert_eq!(seat.read(), *b"on");
}

#[test]
fn who_speaks_no_rfb_or_no_binary_is_told_and_cut() {
    let scene = Scene::new();
    let mut viewer = scene.open().unwrap();
    viewer.send(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(viewer.ended(), Some(1003));
    let (mut viewer, mut seat) = scene.watch();
    viewer.socket.send(Message::text("hello")).unwrap();
    assert_eq!(viewer.ended(), Some(1003));
    seat.ended();
    let (mut viewer, mut seat) = scene.watch();
    // More than anybody pastes. It may be cut before all of it was sent.
    viewer.socket.send(Message::binary(vec![0; 1 << 20])).ok();
    assert_eq!(viewer.ended(), None);
    seat.ended();
}

#[test]
fn who_says_nothing_is_cut() {
    let pace = Pace { welcome: Duration::from_millis(100), ping: Duration::from_millis(100), ..Pace::default() };
    let scene = Scene::with(Settings { console: pace, ..Settings::default() }, Limits::default());
    // Within the handshake of RFB.
    let viewer = scene.open().unwrap();
    assert_eq!(viewer.ended(), None);
    // And later: a viewer that does not read answers no ping.
    let (viewer, mut seat) = scene.watch();
    seat.ended();
    drop(viewer);
}

/// Of a gigabyte only what the sockets hold is taken off the screen.
#[test]
fn a_viewer_that_does_not_read_holds_the_screen_back_and_is_cut() {
    let limits = Limits { write_timeout: Duration::from_secs(1), ..Limits::default() };
    let scene = Scene::with(Settings::default(), limits);
    let (viewer, mut seat) = scene.watch();
    let (chunk, mut taken) = (vec![7; 1 << 16], 0_u64);
    while taken < 1 << 30 {
        match seat.stream.write(&chunk) {
            Ok(n) => taken += n as u64,
            Err(_) => break,
        }
    }
    assert!(taken < 100 << 20, "{taken} bytes were taken for a viewer that does not read");
    drop(viewer);
}

/// The screen does not read; neither does the server then, and the viewer's next word waits.
#[test]
fn a_screen_that_does_not_listen_holds_the_viewer_back_and_ends_it() {
    let pace = Pace { stuck: Duration::from_secs(5), ..Pace::default() };
    let scene = Scene::with(Settings { console: pace, ..Settings::default() }, Limits::default());
    let (mut viewer, seat) = scene.watch();
    viewer.socket.get_ref().set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut sent = 0_u64;
    while viewer.socket.send(Message::binary(vec![7; 1 << 16])).is_ok() {
        sent += 1 << 16;
        assert!(sent < 100 << 20, "so much was taken for a screen that does not listen");
    }
    // Past the library, which has a message to finish first.
    let mut goodbye = [0; 4];
    viewer.socket.get_mut().read_exact(&mut goodbye).unwrap();
    assert_eq!((goodbye[0], u16::from_be_bytes([goodbye[2], goodbye[3]])), (0x88, 1011));
    drop(seat);
}

/// By account, role, rule, name and what it came with; the others look on.
#[test]
fn who_may_not_see_the_screen_any_more_is_told_and_cut() {
    let pace = Pace { look: Duration::from_millis(100), ..Pace::default() };
    let scene = Scene::with(Settings { console: pace, ..Settings::default() }, Limits::default());
    let (by_place, mut seat) = scene.watch();
    let accounts = scene.accounts();
    let admin = scene.add(&accounts, Role::Admin);
    assert_eq!(by_place.ended(), Some(1008), "there are accounts now, and it is none of them");
    seat.ended();
    let operator = scene.add(&accounts, Role::Operator);
    let watch = |who: &str| {
        let open = || Viewer::open(scene.http.address, &scene.uri(), &[("Authorization", who)]);
        let mut viewer = None;
        wait_until("it is let in", || Ok(open().map(|opened| viewer = Some(opened)).is_ok()));
        (viewer.unwrap().welcomed(), scene.screen.seat())
    };
    let (mut other, mut others_seat) = watch(&admin);
    let (name, rule) = ("operator", |text: &str| text.parse::<NameRules>().unwrap());
    let rename = || {
        let name = Some("db1".parse().unwrap());
        scene.app.run(EditVm { vm: scene.vm, name, desc: None }).unwrap();
    };
    type Change<'a> = &'a dyn Fn();
    let changes: [(&str, Change, Change); 4] = [
        ("demoted", &|| accounts.set_role(name, Role::Viewer).unwrap(), &|| {
            accounts.set_role(name, Role::Operator).unwrap()
        }),
        ("kept from seeing it", &|| accounts.set_sees(name, Some(&rule("prefix db"))).unwrap(), &|| {
            accounts.set_sees(name, Some(&rule("prefix web"))).unwrap()
        }),
        ("renamed", &rename, &|| accounts.set_sees(name, None).unwrap()),
        ("removed", &|| accounts.remove(name).unwrap(), &|| {}),
    ];
    for (how, change, back) in changes {
        let (viewer, mut seat) = watch(&operator);
        change();
        assert_eq!(viewer.ended(), Some(1008), "{how}");
        seat.ended();
        back();
    }
    // What it came with is good no more.
    let (viewer, mut seat) = watch(&scene.add(&accounts, Role::Operator));
    let (by_password, mut its_seat) = watch(&basic(name, "a password"));
    let of_it = accounts.tokens().unwrap().into_iter().find(|token| token.user.as_str() == name).unwrap();
    accounts.revoke(of_it.id).unwrap();
    assert_eq!(viewer.ended(), Some(1008), "its token is revoked");
    seat.ended();
    accounts.set_password(name, &Secret::new("another password".to_owned())).unwrap();
    assert_eq!(by_password.ended(), Some(1008), "its password is changed");
    its_seat.ended();
    others_seat.say(b"on");
    assert_eq!(other.read(2), b"on");
}

#[test]
fn a_stop_says_goodbye_to_every_viewer() {
    let scene = Scene::new();
    let (mut viewer, mut seat) = scene.watch();
    seat.say(b"on");
    assert_eq!(viewer.read(2), b"on");
    let halfway = scene.open().unwrap();
    let Scene { http, .. } = scene;
    // It waits for its viewers, and these for their goodbye.
    let stop = std::thread::spawn(move || http.stopped());
    assert_eq!(viewer.ended(), Some(1001));
    assert_eq!(halfway.ended(), Some(1001));
    seat.ended();
    assert_eq!(stop.join().unwrap().cut, 0);
}

#[test]
fn a_viewer_takes_a_place_among_the_connections_until_it_ends() {
    let scene = Scene::with(hasty(Duration::from_secs(20)), Limits { connections: 2, ..Limits::default() });
    let status = || scene.http.get("/vms/").status;
    let (one, two) = (scene.watch(), scene.watch());
    assert_eq!(status(), 503, "there is no place left");
    drop(one);
    wait_until("its place is free", || Ok(status() == 200));
    drop(two);
}
