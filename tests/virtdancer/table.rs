//! One row for each line of the contract's tables that a single request shows.

use pengx::dialects::table::find;
use pengx::dialects::virtdancer::TABLE;
use serde_json::{Value, json};

use super::{NOBODY, PASSWORD, Said, Scene, basic, registry};

enum Is {
    Json(Value),
    /// Its keys and their types.
    Like(fn(&Scene, &Value)),
    /// Dancer's object with this reason and message.
    Told(&'static str, &'static str),
    /// Dancer's 500.
    Died(&'static str),
    Login,
}

struct Row {
    user: &'static str,
    method: &'static str,
    path: &'static str,
    body: &'static str,
    status: u16,
    is: Is,
}

const fn row(
    user: &'static str,
    method: &'static str,
    path: &'static str,
    body: &'static str,
    status: u16,
    is: Is,
) -> Row {
    Row { user, method, path, body, status, is }
}

const OFF: &str = "libvirt error code: 55, message: Requested operation is not valid: domain is not running";
const DESTROY: &str = "{\"action\":\"destroy\"}";

/// On two VMs that are off.
fn rows() -> Vec<Row> {
    use Is::{Died, Json, Like, Login, Told};
    vec![
        // Section 2: who asks.
        row("", "GET", "/vm", "", 401, Login),
        row("", "GET", "/vm/{web}", "", 401, Login),
        row("", "GET", "/vm/not-one", "", 401, Login),
        row("", "POST", "/vm/{web}/action", "{bad", 401, Login),
        row("", "GET", "/vm/{web}/stats/cpu", "", 401, Login),
        row("", "GET", "/vnc/{web}", "", 401, Login),
        row("", "GET", "/stats/cpu", "", 401, Login),
        row("", "GET", "/stats/mem", "", 401, Login),
        row("", "GET", "/stats/nic", "", 401, Login),
        row("", "GET", "/stats/nic/eth0", "", 401, Login),
        row("nobody", "GET", "/vm", "", 401, Login),
        // Section 2: what is not there, or not for this method.
        row("", "GET", "/", "", 404, Told("Not Found", "/")),
        row("", "GET", "/nothing", "", 404, Told("Not Found", "/nothing")),
        row("", "GET", "/api/nothing", "", 404, Told("Not Found", "/nothing")),
        row("root", "OPTIONS", "/vm", "", 404, Told("Not Found", "/vm")),
        row("root", "DELETE", "/vm", "", 404, Told("Not Found", "/vm")),
        row("root", "POST", "/vm", "{}", 404, Told("Not Found", "/vm")),
        row("root", "PUT", "/api/stats/mem", "", 404, Told("Not Found", "/stats/mem")),
        row("root", "GET", "/vms", "", 404, Told("Not Found", "/vms")),
        // Section 3: the list.
        row("root", "GET", "/vm", "", 200, Like(both)),
        row("root", "GET", "/api/vm", "", 200, Like(both)),
        row("web", "GET", "/vm", "", 200, Like(web_alone)),
        // Sections 3 and 4.2: one of them.
        row("root", "GET", "/vm/{web}", "", 200, Like(web_off)),
        row("web", "GET", "/api/vm/{web}", "", 200, Like(web_off)),
        row("eye", "GET", "/vm/{web}", "", 200, Like(web_off)),
        row("web", "GET", "/vm/{db}", "", 403, Told("Forbidden", "Access denied")),
        row("root", "GET", "/vm/not-one", "", 500, Died(BAD_UUID)),
        // Section 4.3: what is refused of actions; the rest is in the module of the actions.
        row("root", "POST", "/vm/{web}/action", DESTROY, 500, Died(OFF)),
        row("root", "POST", "/vm/{web}/action", "{\"action\":\"shutdown\"}", 500, Died(OFF)),
        row("root", "POST", "/vm/{web}/action", "{\"action\":\"stop\"}", 500, Died(OFF)),
        row("root", "POST", "/vm/{web}/action", "{\"action\":\"pause\"}", 500, Died(OFF)),
        row("root", "POST", "/api/vm/{web}/action?action=pause", "", 500, Died(OFF)),
        row("root", "POST", "/vm/not-one/action", DESTROY, 500, Died(BAD_UUID)),
        row("web", "POST", "/vm/{db}/action", DESTROY, 403, Told("Forbidden", "Access denied")),
        row("web", "POST", "/vm/{db}/action", "{\"action\":\"boot\"}", 403, Told("Forbidden", "Access denied")),
        row("eye", "POST", "/vm/{web}/action", "{\"action\":\"start\"}", 403, Told("Forbidden", "Access denied")),
        row("root", "POST", "/vm/{web}/action", "{\"action\":\"boot\"}", 500, Died(BOOT)),
        row("root", "POST", "/vm/{web}/action", "{\"action\":7}", 500, Died(SEVEN)),
        row("root", "POST", "/vm/{web}/action", "{}", 500, Died(NONE)),
        row("root", "POST", "/vm/{web}/action", "[]", 500, Died(NONE)),
        row("root", "POST", "/vm/{web}/action", "", 500, Died(NONE)),
        // Section 4.4.
        row("root", "GET", "/vm/{web}/stats/cpu", "", 200, Json(json!({"cpu_0": 0.0}))),
        row("root", "GET", "/api/vm/{web}/stats/cpu", "", 200, Json(json!({"cpu_0": 0.0}))),
        row("web", "GET", "/vm/{db}/stats/cpu", "", 403, Told("Forbidden", "Access denied")),
        row("root", "GET", "/vm/not-one/stats/cpu", "", 500, Died(BAD_UUID)),
        // Section 4.5.
        row("root", "GET", "/stats/cpu", "", 200, Json(idle())),
        row("web", "GET", "/api/stats/cpu", "", 200, Json(idle())),
        row("root", "GET", "/stats/mem", "", 200, Json(memory())),
        row("root", "GET", "/api/stats/mem", "", 200, Json(memory())),
        row("root", "GET", "/stats/nic", "", 200, Json(nics())),
        row("root", "GET", "/stats/nic?filter=all", "", 200, Json(nics())),
        row("eye", "GET", "/api/stats/nic?filter=physical", "", 200, Json(physical())),
        row("root", "GET", "/stats/nic/br0", "", 200, Json(json!({"tx": "0", "rx": "7"}))),
        row(
            "root",
            "GET",
            "/api/stats/nic/eth0",
            "",
            200,
            Json(json!({"tx": "18446744073709551615", "rx": "1193515"})),
        ),
        row("root", "GET", "/stats/nic/nope0", "", 200, Json(json!({"tx": null, "rx": null}))),
        row("root", "GET", "/stats/nic/..", "", 404, Told("Not Found", "/stats/nic/..")),
        row("root", "GET", "/stats/nic/a%2Fb", "", 404, Told("Not Found", "/stats/nic/a%2Fb")),
        row("root", "GET", "/stats/nic/%2e%2e", "", 404, Told("Not Found", "/stats/nic/%2e%2e")),
        row("root", "GET", "/stats/nic/a/b", "", 404, Told("Not Found", "/stats/nic/a/b")),
        row("root", "GET", "/stats/disk", "", 404, Told("Not Found", "/stats/disk")),
        // Section 5, where nobody asks for a WebSocket.
        row("root", "GET", "/vnc/{web}", "", 404, Told("Not Found", "")),
    ]
}

const BAD_UUID: &str = "libvirt error code: 8, message: invalid argument: malformed uuid \"not-one\"";
const BOOT: &str = "Unknown action \"boot\"; it is one of start, pause, shutdown and destroy";
const SEVEN: &str = "Unknown action \"7\"; it is one of start, pause, shutdown and destroy";
const NONE: &str = "Unknown action \"\"; it is one of start, pause, shutdown and destroy";

fn idle() -> Value {
    json!({"usr": "0.00", "sys": "0.00", "steal": "0.00", "iowait": "0.00", "irq": "0.00", "total": "0.00"})
}

fn memory() -> Value {
    json!({"memTotal": 1_024_000, "memFree": 204_800, "memBuffer": 30_720, "swapTotal": 51_200, "swapFree": 40_960})
}

fn physical() -> Value {
    json!({"eth0_rx": "1193515", "eth0_tx": "18446744073709551615"})
}

fn nics() -> Value {
    json!({"eth0_rx": "1193515", "eth0_tx": "18446744073709551615", "br0_rx": "7", "br0_tx": "0"})
}

fn both(scene: &Scene, list: &Value) {
    let one = |id: pengx::model::VmId, name: &str| json!({"uuid": id.to_string(), "name": name, "active": false});
    assert_eq!(*list, json!([one(scene.web, "web-1"), one(scene.db, "db-2")]));
}

fn web_alone(scene: &Scene, list: &Value) {
    assert_eq!(*list, json!([{"uuid": scene.web.to_string(), "name": "web-1", "active": false}]));
}

fn web_off(scene: &Scene, detail: &Value) {
    let is = json!({
        "id": -1,
        "uuid": scene.web.to_string(),
        "name": "web-1",
        "active": false,
        "persistent": true,
        "updated": false,
        "os": "hvm",
        "autostart": false,
        "info": {"maxMem": 65_536, "memory": 65_536, "cpuTime": 0, "nrVirtCpu": 1, "state": 5},
    });
    assert_eq!(*detail, is);
}

#[test]
fn every_row_is_answered_as_the_contract_says() {
    let scene = Scene::new();
    for row in rows() {
        let said = format!("{} {} by {:?} with {:?}", row.method, row.path, row.user, row.body);
        println!("{said}");
        let answer = scene.ask(row.user, row.method, row.path, row.body);
        assert_eq!(answer.status, row.status, "{said}: {answer:?}");
        match row.is {
            Is::Json(value) => assert_eq!(answer.ok(), value, "{said}"),
            Is::Like(check) => check(&scene, &answer.ok()),
            Is::Told(reason, "") => answer.told(row.status, reason, &scene.path(row.path)),
            Is::Told(reason, message) => answer.told(row.status, reason, message),
            Is::Died(exception) => answer.died(exception),
            Is::Login => answer.login(),
        }
    }
    scene.app.assert_at_rest();
}

/// Each resource of the table has a row, and each row that is let in is one of the table.
#[test]
fn the_rows_are_those_that_are_routed() {
    let reached = |row: &Row| {
        let path = row.path.split('?').next().unwrap();
        let path = path.strip_prefix("/api").unwrap_or(path);
        find(TABLE, &pengx::dialects::table::segments(path).unwrap()).map(|resource| resource.pattern)
    };
    let seen: Vec<_> = rows().iter().filter_map(reached).collect();
    for resource in TABLE {
        assert!(seen.contains(&resource.pattern), "{} has no row", resource.pattern);
    }
    for row in rows().iter().filter(|row| row.status == 200) {
        assert!(reached(row).is_some(), "{}", row.path);
    }
}

#[test]
fn head_is_get_without_the_body() {
    let scene = Scene::new();
    for path in ["/vm", "/vm/{web}", "/vm/{web}/stats/cpu", "/stats/cpu", "/stats/mem", "/stats/nic", "/stats/nic/eth0"]
    {
        let (get, head) = (scene.get(path), scene.ask("root", "HEAD", path, ""));
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        for name in ["content-type", "content-length"] {
            assert_eq!(head.header(name), get.header(name), "{name} of {path}");
        }
    }
    let refused = scene.ask("", "HEAD", "/vm", "");
    assert_eq!((refused.status, refused.header("content-length")), (401, Some("0")));
}

#[test]
fn nothing_but_the_basic_scheme_lets_in() {
    let scene = Scene::new();
    let with = |authorization: &str| scene.send("GET", "/vm", &[("Authorization", authorization)], "");
    assert_eq!(with(&basic("root", PASSWORD)).status, 200);
    for bad in [
        "Bearer x".to_owned(),
        "Token x".to_owned(),
        "Digest username=\"root\"".to_owned(),
        "Basic".to_owned(),
        "Basic ****".to_owned(),
        basic("root", "a"),
        basic("root", &format!("{PASSWORD}:")),
        basic("Root", PASSWORD),
        basic("", ""),
    ] {
        with(&bad).login();
    }
    // A token of the account is good elsewhere.
    let registry = registry(&scene.app.store());
    let token = registry.create_token("root", "", None).unwrap().1;
    with(&format!("Bearer {}", token.reveal())).login();
}

#[test]
fn an_unknown_uuid_is_404_with_the_object() {
    let scene = Scene::new();
    for (method, rest) in [("GET", ""), ("GET", "/stats/cpu"), ("POST", "/action")] {
        let path = format!("/vm/{NOBODY}{rest}");
        scene.ask("root", method, &path, "{\"action\":\"start\"}").told(404, "Not Found", &path);
    }
}

#[test]
fn bodies_are_json_whatever_they_are_called() {
    let scene = Scene::new();
    let send = |kind: &str, body: &str| -> Said {
        let headers = [("Authorization", basic("root", PASSWORD)), ("Content-Type", kind.to_owned())];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        scene.send("POST", "/vm/{web}/action", &headers, body)
    };
    for (kind, body) in [
        ("application/json", "{bad"),
        ("application/x-www-form-urlencoded", "action=start"),
        ("text/plain", "\u{feff}{}"),
        ("application/json", "{\"action\":\"start\"} x"),
    ] {
        let answer = send(kind, body);
        let told = answer.json();
        assert_eq!((answer.status, &told["title"]), (400, &json!("Error 400 - Bad Request")), "{body}");
        let message = told["message"].as_str().unwrap();
        assert!(message.starts_with("Failed to deserialize content: "), "{message}");
        assert_eq!(told.as_object().unwrap().len(), 3, "{told}");
    }
    assert_eq!(scene.state(scene.web), 5);
    send("text/plain", "{\"action\":\"start\"}").done();
    let large = format!("{{\"action\":\"{}\"}}", "x".repeat(2 << 20));
    send("application/json", &large).told(413, "Payload Too Large", "the body is larger than 1048576 bytes");
}
