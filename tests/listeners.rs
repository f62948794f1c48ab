//! Several listeners of the real program, each with its dialects.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use pengx::dialects::pengx::{Settings, mount};
use pengx::operations::Gate;

use crate::harness::app::Site;
use crate::harness::http::{Served, ask};
use crate::harness::proxy::{Proxy, Target};

const PENGX: &str = env!("CARGO_BIN_EXE_pengx");

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn command(dir: &Path, listeners: &str) -> Command {
    let config = dir.join("pengx.toml");
    let data = dir.join("data");
    std::fs::write(&config, format!("hypervisor = 'fake:///'\ndata_dir = '{}'\n{listeners}", data.display())).unwrap();
    let mut command = Command::new(PENGX);
    command.args(["serve", "--config", config.to_str().unwrap()]).stdin(Stdio::null());
    command
}

/// The base URLs that it prints, by dialect.
fn start(dir: &Path, listeners: &str, lines: usize) -> (Server, Vec<(String, String)>) {
    let mut child = command(dir, listeners).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let server = Server(child);
    let said = |line: std::io::Result<String>| {
        let line = line.unwrap();
        let (name, url) = line.split_once(" listening on ").unwrap_or_else(|| panic!("it said {line:?}"));
        (name.to_owned(), url.to_owned())
    };
    (server, out.lines().take(lines).map(said).collect())
}

fn add_user(dir: &Path, name: &str) {
    let url = format!("sqlite://{}", dir.join("data/pengx.db").display());
    std::fs::create_dir_all(dir.join("data")).unwrap();
    let store = pengx::store::Store::open(&url).unwrap();
    store.migrate().unwrap();
    let (clock, ids) = (std::sync::Arc::new(pengx::model::SystemClock), std::sync::Arc::new(pengx::model::RandomIds));
    let password = pengx::model::Secret::new("a password".to_owned());
    let registry = pengx::operations::Registry::new(store, clock, ids);
    registry.add(name, &password, pengx::model::Role::Operator).unwrap();
}

fn get(url: &str, path: &str) -> u16 {
    let (address, prefix) = url.strip_prefix("http://").unwrap().split_once('/').unwrap_or((&url[7..], ""));
    let address: SocketAddr = address.parse().unwrap();
    let slash = if prefix.is_empty() { "" } else { "/" };
    ask(address, "GET", &format!("{slash}{prefix}{path}"), &[], "").status
}

#[test]
fn each_listener_serves_its_own_dialects() {
    let dir = tempfile::tempdir().unwrap();
    add_user(dir.path(), "ann");
    let listeners = "[[listener]]\naddress = '127.0.0.1:0'\ndialects = [{ name = 'pengx' }, { name = 'virtdancer', prefix = '/vd' }]\n\
         [[listener]]\naddress = '127.0.0.1:0'\ndialects = [{ name = 'libvirt-json', act_as = 'ann' }]\n";
    let (_server, said) = start(dir.path(), listeners, 3);
    let names: Vec<_> = said.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["pengx", "virtdancer", "libvirt-json"]);
    let [native, virtdancer, json] = [0, 1, 2].map(|n: usize| said[n].1.as_str());
    assert_eq!(virtdancer, format!("{native}/vd"));
    assert_ne!(json, native);
    assert_eq!(get(native, "/metrics"), 401);
    assert_eq!(get(native, "/vms/"), 401, "the native API, which asks who it is");
    assert_eq!(get(json, "/metrics"), 404, "it goes with the native API");
    assert_eq!(get(json, "/vms/"), 307, "the other API at the same path");
    assert_eq!(get(virtdancer, "/vm"), 401);
}

#[test]
fn whom_a_dialect_acts_as_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let listeners = "[[listener]]\naddress = '127.0.0.1:0'\ndialects = [{ name = 'libvirt-json', act_as = 'ann' }]\n";
    let output = command(dir.path(), listeners).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said, "pengx: listener[0].dialects[0].act_as: there is no account ann; run pengx user add\n");
}

#[test]
fn settings_that_only_a_dialect_can_judge_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let listeners = "[[listener]]\naddress = '127.0.0.1:0'\ndialects = [{ name = 'libvirt-json', act_as = 'ann', \
         disabled = { '/vm_stop' = 404, vm_start = 404 }, redirect_base = 'panel.example' }]\n";
    let output = command(dir.path(), listeners).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("listener[0].dialects[0].disabled.vm_start: is no endpoint, as /vm_stop is"), "{said}");
    assert!(said.contains("listener[0].dialects[0].redirect_base: must be a URL"), "{said}");
    assert!(!said.contains("disabled./vm_stop"), "{said}");
}

#[test]
fn an_address_that_is_taken_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let listeners = format!("[[listener]]\naddress = '{address}'\ndialects = [{{ name = 'pengx' }}]\n");
    let output = command(dir.path(), &listeners).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && said.contains(&format!("listen: {address}: ")), "{said}");
}

/// The proxy gives another `Host`, and takes a prefix off the path.
#[test]
fn behind_a_proxy_what_is_handed_out_leads_through_it() {
    let dir = tempfile::tempdir().unwrap();
    add_user(dir.path(), "ann");
    std::fs::write(dir.path().join("index.html"), "<p>page").unwrap();
    let server = std::sync::Arc::default();
    let proxy = Proxy::new(vec![("/outside", Target::Server(std::sync::Arc::clone(&server)))]);
    let (outside, ui) = (proxy.url() + "/outside", dir.path().display());
    let listeners = format!(
        "[[listener]]\naddress = '127.0.0.1:0'\npublic_url = '{outside}'\ndialects = [\
         {{ name = 'virtdancer', prefix = '/vd', ui = '{ui}' }}, \
         {{ name = 'libvirt-json', prefix = '/json', act_as = 'ann' }}]\n"
    );
    let (_server, said) = start(dir.path(), &listeners, 2);
    server.set(said[0].1[7..].trim_end_matches("/vd").parse().unwrap()).unwrap();
    let get = |path: &str, headers: &[(&str, &str)]| ask(proxy.address, "GET", path, headers, "");
    let root = get("/outside/vd/", &[]);
    assert_eq!((root.status, root.header("location")), (302, Some("/outside/vd/index.html")));
    assert_eq!(get("/outside/vd/index.html", &[]).body, "<p>page");
    let slash = get("/outside/json/host/", &[]);
    assert_eq!((slash.status, slash.header("location")), (307, Some(format!("{outside}/json/host").as_str())));
    let openapi: serde_json::Value = serde_json::from_str(&get("/outside/json/openapi.json", &[]).body).unwrap();
    assert_eq!(openapi["servers"], serde_json::json!([{ "url": "/outside/json" }]));
    // Pages from there are its own, and others are not.
    let from = |origin: &str| get("/outside/json/vms?type=all", &[("Origin", origin)]).status;
    assert_eq!((from(&proxy.url()), from("http://evil.example")), (200, 403));
}

#[test]
fn the_native_api_below_a_prefix_stays_below_it() {
    let app = Site::new().start();
    let gate = Gate::new(app.core.clone(), false).unwrap();
    let http = Served::dialect("/xml", mount(gate, Settings::default()));
    assert_eq!(http.get("/xml/vms/").status, 200);
    let moved = http.get("/xml/api/vms?a=%20");
    assert_eq!((moved.status, moved.header("location")), (301, Some("/xml/api/vms/?a=%20")));
    let none = http.get("/vms/");
    assert_eq!((none.status, none.body.as_str()), (404, ""));
}
