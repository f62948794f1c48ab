//! Two web pages in a browser that ask as the original's two do, which are not ours to ship: `tests/browser/virtdancer`.

use std::io::Read;
use std::path::Path;

use pengx::config::VirtDancer;
use serde_json::json;

use super::Scene;
use crate::harness::browser::{browse, scripts};
use crate::harness::screen::{Screen, Seat};
use crate::harness::wait::PATIENCE;

const SIZE: (u16, u16) = (64, 48);

fn copied(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A guest whose screen is red, and blue from the second look on.
fn paint(mut seat: Seat) {
    let (width, height) = SIZE;
    let mut init = [width.to_be_bytes(), height.to_be_bytes()].concat();
    // 32 bits a pixel in true colour, as the viewer will ask for.
    init.extend([32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 0, 8, 16, 0, 0, 0]);
    init.extend(4_u32.to_be_bytes());
    init.extend(b"test");
    seat.say(&init);
    let (mut looks, mut kind) = (0, [0]);
    while seat.stream.read_exact(&mut kind).is_ok() {
        match kind {
            [0] => drop(seat.read::<19>()),
            [2] => {
                let head = seat.read::<3>();
                for _ in 0..u16::from_be_bytes([head[1], head[2]]) {
                    seat.read::<4>();
                }
            }
            [3] => {
                seat.read::<9>();
                looks += 1;
                if looks <= 2 {
                    let mut update = vec![0, 0, 0, 1, 0, 0, 0, 0];
                    update.extend([width.to_be_bytes(), height.to_be_bytes()].concat());
                    update.extend([0; 4]);
                    let pixel = if looks == 1 { [255, 0, 0, 0] } else { [0, 0, 255, 0] };
                    update.extend(pixel.repeat(usize::from(width) * usize::from(height)));
                    seat.say(&update);
                }
            }
            [4] => drop(seat.read::<7>()),
            [5] => drop(seat.read::<5>()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn pages_that_ask_as_the_originals_do_work() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    copied(&scripts().join("virtdancer/old"), &old);
    copied(&scripts().join("virtdancer/new"), &new);
    std::os::unix::fs::symlink(scripts().join("node_modules/@novnc/novnc"), old.join("noVNC")).unwrap();
    let settings = VirtDancer { ui: Some(old), ui_new: Some(new), ..VirtDancer::default() };
    let scene = Scene::with(settings, "");
    let (web, db) = (scene.web.to_string(), scene.db.to_string());
    let screen = Screen::new();
    scene.show(&screen);
    let guest = std::thread::spawn(move || paint(screen.seat()));

    let address = scene.http.address;
    let given = json!({
        "base": format!("http://{address}"),
        "web": web,
        "db": db,
        "patience": PATIENCE.as_millis(),
    });
    // Here the browser is told the password, and then keeps it for all that is below.
    let seen = browse("virtdancer.mjs", &format!("http://root:a%3Apass%3Aword@{address}/vm"), &given);

    assert_eq!(seen["landed"], format!("http://{address}/index.html"));
    assert_eq!(seen["listed"], json!(["web-1", "db-2"]), "what runs stands first");
    let mut asked: Vec<_> = seen["firstRequests"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    asked.retain(|request| request.starts_with("GET /vm"));
    assert_eq!(asked, ["GET /vm".to_owned(), format!("GET /vm/{web}"), format!("GET /vm/{db}")]);
    let pressed = |action: &str| json!([action, format!("{{\"action\":\"{action}\"}}"), 200, "{\"result\":\"done\"}"]);
    let said = seen["pressed"].as_array().unwrap();
    assert_eq!(said[1..], ["start", "pause", "start", "shutdown"].map(pressed));
    assert_eq!((&said[0][0], &said[0][2]), (&json!("destroy"), &json!(500)));
    let log = seen["log"].to_string();
    assert!(log.contains("domain is not running"), "the page shows what it was told: {log}");

    // What the host's files say, which stand still.
    let dashboard = &seen["dashboard"];
    let line =
        |url: &str, key: &str| dashboard[url][key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    let all = |url: &str, key: &str, value: f64| {
        let values: Vec<f64> = line(url, key);
        assert!(values.len() >= 3 && values.iter().all(|v| *v == value), "{key} of {url}: {values:?}");
    };
    all("/stats/cpu", "usr", 0.0);
    all("/stats/cpu", "sys", 0.0);
    all("/stats/mem", "memFree", 204_800.0);
    all("/stats/mem", "memBuffer", 30_720.0);
    all("/stats/mem", "swapFree", 40_960.0);
    all("/stats/nic?filter=physical", "eth0_rx", 0.0);
    all("/stats/nic?filter=physical", "eth0_tx", 0.0);
    assert_eq!(dashboard["/stats/nic?filter=physical"].as_object().unwrap().len(), 2);
    assert_eq!(seen["newListed"], json!(["on web-1", "off db-2"]));
    let asks = |list: &str, wanted: &[String]| {
        let list = seen[list].as_array().unwrap();
        for request in wanted {
            assert!(list.contains(&json!(format!("GET {request}"))), "{request} is not in {list:?}");
        }
    };
    asks("dashboardRequests", &["/ui/dashboard", "/api/vm", "/api/stats/cpu", "/api/stats/mem"].map(str::to_owned));
    asks("dashboardRequests", &["/api/stats/nic?filter=physical".to_owned()]);
    asks("detailRequests", &[format!("/api/vm/{web}"), format!("/api/vm/{web}/stats/cpu")]);
    let detail = json!(["web-1", web, "true", "true", "false", "hvm", "64 MiB", "64 MiB", "1"]);
    assert_eq!(seen["detail"], detail);
    let lines = seen["vm"][format!("/vm/{web}/stats/cpu")].as_object().unwrap();
    assert_eq!(lines.keys().collect::<Vec<_>>(), ["cpu_0"]);
    let worked: Vec<_> = lines["cpu_0"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert!(worked.iter().any(|share| *share > 0.0) && worked.iter().all(|share| *share <= 100.0), "{worked:?}");

    assert_eq!(seen["socket"], format!("ws://{address}/vnc/{web}"));
    assert_eq!(seen["size"], json!([SIZE.0, SIZE.1]));
    guest.join().unwrap();
    scene.app.assert_at_rest();
}
