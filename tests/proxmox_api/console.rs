//! The address of a machine's console, what it leads to, and who may open it.

use std::sync::Arc;

use pengx::config::{ProxmoxApi, PublicUrl};
use percent_encoding::percent_decode_str;

use super::{NO_CONTAINER, Panel, Read, settings};
use crate::harness::app::Site;
use crate::harness::http::{Answer, ask};
use crate::harness::proxy::{Proxy, Target};
use crate::harness::screen::Screen;
use crate::harness::viewer::Viewer;
use crate::harness::wait::wait_until;

/// A panel below a prefix, with a machine whose screen the test has.
struct Scene {
    panel: Panel,
    screen: Screen,
    _novnc: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self::found_at(None)
    }

    fn found_at(public_url: Option<PublicUrl>) -> Self {
        let novnc = tempfile::tempdir().unwrap();
        std::fs::create_dir(novnc.path().join("core")).unwrap();
        std::fs::write(novnc.path().join("vnc.html"), "<title>noVNC</title>").unwrap();
        std::fs::write(novnc.path().join("core/rfb.js"), "export default 1;").unwrap();
        let settings = ProxmoxApi { novnc: novnc.path().to_owned(), ..settings() };
        let panel = Panel::found_at(public_url, "/px", Site::new().start(), settings);
        let storlink = panel.app.storlink();
        panel.app.template(storlink, pengx::model::Format::Qcow2);
        panel.form("POST", "/px/user", "username=bob&password=secret1").is_ok();
        let template = panel.get("/px/template").value()["host1"]["data"][0]["volid"].as_str().unwrap().to_owned();
        let body = format!("username=bob&template={template}&memory=64");
        panel.form("POST", "/px/container", &body).is(200, "application/json; charset=utf-8", "{\"id\":100}");
        let scene = Self { panel, screen: Screen::new(), _novnc: novnc };
        let vm = scene.panel.app.site.fake.states()[0].0;
        assert!(scene.panel.app.site.fake.put_screen(vm, scene.screen.port));
        wait_until("the machine has a screen", || Ok(scene.vnc()["url"].is_string()));
        scene
    }

    fn vnc(&self) -> serde_json::Value {
        self.panel.get("/px/utils/vnc?id=100").value()
    }

    /// The path of the page, and that of the WebSocket as noVNC finds it: by what is relative to the page, or to the root.
    fn address(&self) -> (String, String) {
        let url = self.vnc()["url"].as_str().unwrap().to_owned();
        let page = url.strip_prefix(&format!("http://{}", self.panel.http.address)).unwrap_or_else(|| panic!("{url}"));
        let (page, query) = page.split_once("?autoconnect=1&path=").unwrap_or_else(|| panic!("{url}"));
        let socket = percent_decode_str(query).decode_utf8().unwrap();
        let resolved = socket.strip_prefix("../../px/").unwrap_or_else(|| panic!("{socket}"));
        (page.to_owned(), format!("/px/{resolved}"))
    }

    fn open(&self, uri: &str, headers: &[(&str, &str)]) -> Result<Viewer, Answer> {
        Viewer::open(self.panel.http.address, uri, headers)
    }
}

#[test]
fn the_address_shows_the_screen_once() {
    let scene = Scene::new();
    let (page, socket) = scene.address();
    let shown = scene.panel.get(&page);
    assert_eq!(
        (page.as_str(), shown.status, shown.body.as_str()),
        ("/px/console/vnc.html", 200, "<title>noVNC</title>")
    );
    // It is opened from a page of the panel's, which is another site.
    let from_a_link = scene.panel.http.ask("GET", &page, &[("Sec-Fetch-Site", "cross-site")], "");
    assert_eq!(from_a_link.status, 200);
    let script = scene.panel.get("/px/console/core/rfb.js");
    assert!(
        script.status == 200 && script.header("content-type").unwrap().starts_with("text/javascript"),
        "{script:?}"
    );
    let origin = format!("http://{}", scene.panel.http.address);
    let mut viewer = scene.open(&socket, &[("Origin", &origin)]).unwrap().welcomed();
    let mut seat = scene.screen.seat();
    seat.say(b"picture");
    assert_eq!(viewer.read(7), b"picture");
    let again = scene.open(&socket, &[]).err().unwrap();
    assert_eq!((again.status, again.value()["Error"].is_string()), (401, true), "{again:?}");
}

#[test]
fn without_a_ticket_of_ours_nobody_sees_anything() {
    let scene = Scene::new();
    let (_, socket) = scene.address();
    let (bare, _) = socket.split_once('?').unwrap();
    assert_eq!(scene.open(bare, &[]).err().unwrap().status, 401);
    assert_eq!(scene.open(&format!("{bare}?ticket=x"), &[]).err().unwrap().status, 401);
    let foreign = scene.open(&socket, &[("Origin", "http://evil.example")]).err().unwrap();
    assert_eq!(foreign.status, 403);
    assert_eq!(scene.open("/px/console/vnc.html", &[]).err().unwrap().status, 200, "no WebSocket, but a page");
    for none in ["/px/console/none.js", "/px/console/..%2f..%2fetc/passwd", "/px/console/.git", bare] {
        assert_eq!(scene.panel.get(none).status, 404, "{none}");
    }
}

/// The proxy gives another `Host`, and takes a prefix off the path.
#[test]
fn behind_a_proxy_the_address_leads_through_it() {
    let server = Arc::default();
    let proxy = Proxy::new(vec![("/pengx", Target::Server(Arc::clone(&server)))]);
    let scene = Scene::found_at(Some(format!("{}/pengx", proxy.url()).parse().unwrap()));
    server.set(scene.panel.http.address).unwrap();
    // The panel asks past the proxy.
    let url = scene.vnc()["url"].as_str().unwrap().to_owned();
    let path = url.strip_prefix(&proxy.url()).unwrap_or_else(|| panic!("{url}"));
    let (page, query) = path.split_once("?autoconnect=1&path=").unwrap();
    let shown = ask(proxy.address, "GET", page, &[], "");
    assert_eq!((page, shown.body.as_str()), ("/pengx/px/console/vnc.html", "<title>noVNC</title>"));
    let socket = percent_decode_str(query).decode_utf8().unwrap();
    let socket = socket.strip_prefix("../../..").unwrap_or_else(|| panic!("{socket}"));
    assert!(socket.starts_with("/pengx/px/console/"), "{socket}");
    let open = |origin: &str| Viewer::open(proxy.address, socket, &[("Origin", origin)]);
    assert_eq!(open("http://evil.example").err().unwrap().status, 403);
    let mut viewer = open(&proxy.url()).unwrap().welcomed();
    let mut seat = scene.screen.seat();
    seat.say(b"picture");
    assert_eq!(viewer.read(7), b"picture");
}

#[test]
fn a_machine_without_a_screen_has_no_address() {
    let scene = Scene::new();
    scene.panel.form("POST", "/px/manage/off", "id=100").value();
    let off = scene.vnc();
    assert!(off["host1"].as_str().unwrap().ends_with("start it first - {\"data\":null}"), "{off}");
    assert!(off.get("url").is_none());
    let unknown = scene.panel.json("GET", "/px/utils/vnc", r#"{"id":"101"}"#).value();
    assert_eq!(unknown, serde_json::json!({ "host1": NO_CONTAINER.replace("100", "101") }));
    let panel = Panel::new();
    assert_eq!(panel.get("/console/vnc.html").status, 404, "where there is no noVNC");
}
