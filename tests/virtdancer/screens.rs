//! A guest's screen over the WebSocket. How the gateway treats viewers is told by its own tests.

use super::{NOBODY, PASSWORD, Said, Scene, basic};
use crate::harness::screen::Screen;
use crate::harness::viewer::Viewer;

const BINARY: (&str, &str) = ("Sec-WebSocket-Protocol", "binary");

fn open(scene: &Scene, user: &str, path: &str, extra: &[(&str, &str)]) -> Result<Viewer, Said> {
    let authorization = basic(user, PASSWORD);
    let mut headers = extra.to_vec();
    if !user.is_empty() {
        headers.push(("Authorization", &authorization));
    }
    Viewer::open(scene.http.address, &scene.path(path), &headers).map_err(Said)
}

/// `web-1` runs, and its screen is the test's.
fn scene(screen: &Screen) -> Scene {
    let scene = Scene::new();
    scene.show(screen);
    scene
}

#[test]
fn a_viewer_sees_the_screen_and_is_asked_for_nothing() {
    let screen = Screen::new();
    let scene = scene(&screen);
    for path in ["/vnc/{web}", "/api/vnc/{web}"] {
        let viewer = open(&scene, "web", path, &[BINARY]).unwrap();
        assert_eq!(viewer.answer.status, 101);
        assert_eq!(viewer.answer.header("sec-websocket-protocol"), Some("binary"));
        // Its first bytes are RFB's greeting, and it is offered no security.
        let mut viewer = viewer.welcomed();
        let mut seat = screen.seat();
        seat.say(&[7; 100_000]);
        let mut seen = 0;
        while seen < 100_000 {
            let frame = viewer.frame();
            assert!(frame.len() <= 65_535 && frame.iter().all(|byte| *byte == 7), "{}", frame.len());
            seen += frame.len();
        }
        viewer.send(b"a key");
        assert_eq!(seat.read(), *b"a key");
        // Either end takes the other with it.
        drop(viewer);
        seat.ended();
    }
    let own = format!("http://{}", scene.http.address);
    let viewer = open(&scene, "root", "/vnc/{web}", &[BINARY, ("Origin", &own)]).unwrap().welcomed();
    let mut seat = screen.seat();
    scene.act(scene.web, "destroy").done();
    seat.ended();
    assert!(viewer.ended().is_some(), "it is told goodbye");
}

#[test]
fn a_screen_with_a_password_is_opened_by_the_server() {
    let scene = Scene::new();
    let row = scene.app.store().read(|c| pengx::store::vms::find(c, scene.web)).unwrap().unwrap();
    let screen = Screen::with(b"RFB 003.008\n", Some(row.vnc_password.reveal()));
    scene.show(&screen);
    let mut viewer = open(&scene, "root", "/vnc/{web}", &[BINARY]).unwrap().welcomed();
    let mut seat = screen.seat();
    seat.say(b"hello");
    assert_eq!(viewer.read(5), b"hello");
}

#[test]
fn a_viewer_that_offers_nothing_is_answered_nothing() {
    let screen = Screen::new();
    let scene = scene(&screen);
    let viewer = open(&scene, "root", "/vnc/{web}", &[]).unwrap();
    assert_eq!(viewer.answer.header("sec-websocket-protocol"), None);
    viewer.welcomed();
}

#[test]
fn who_may_not_look_is_refused_before_the_handshake() {
    let screen = Screen::new();
    let scene = scene(&screen);
    let refused = |user: &str, path: &str, extra: &[(&str, &str)]| {
        open(&scene, user, path, &[&[BINARY], extra].concat()).map(drop).unwrap_err()
    };
    for (user, path) in [("", "/vnc/{web}"), ("nobody", "/vnc/{web}"), ("", "/vnc/not-one"), ("", "/api/vnc/{db}")] {
        refused(user, path, &[]).login();
    }
    for (user, path) in [("web", "/vnc/{db}"), ("eye", "/vnc/{web}")] {
        refused(user, path, &[]).told(403, "Forbidden", "Access denied");
    }
    for origin in ["http://evil.example", "null"] {
        let answer = refused("root", "/vnc/{web}", &[("Origin", origin)]);
        answer.told(403, "Forbidden", "Access denied to pages of other sites");
    }
    let path = format!("/vnc/{NOBODY}");
    refused("root", &path, &[]).told(404, "Not Found", &path);
    refused("root", "/vnc/not-one", &[])
        .died("libvirt error code: 8, message: invalid argument: malformed uuid \"not-one\"");
    refused("root", "/vnc/{db}", &[]).invalid("domain is not running");
}

/// Nobody looks at what cannot be looked at.
#[test]
fn no_other_path_is_a_web_socket() {
    let scene = Scene::new();
    for path in ["/vm", "/vm/{web}"] {
        assert_eq!(open(&scene, "root", path, &[BINARY]).map(drop).unwrap_err().status, 200, "{path}");
    }
    assert_eq!(open(&scene, "root", "/vnc", &[BINARY]).map(drop).unwrap_err().status, 404);
}
