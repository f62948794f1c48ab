//! What monitoring sees: `/metrics`, `/health`, and what systemd is told.

mod page;

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pengx::dialects::monitor;
use pengx::dialects::pengx::{Settings, mount, refusal};
use pengx::hypervisor::{FakeHypervisor, Timed, Verb};
use pengx::model::{Compensation, RandomIds, Role, Secret, SystemClock, VmId};
use pengx::operations::{Gate, health, metrics};
use pengx::server::{Limits, Mounts, Traffic};
use pengx::store::{journal, tasks};
use prometheus_client::registry::Registry;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::app::{App, Site};
use crate::harness::http::{Served, ask};
use crate::harness::postgres;
use crate::harness::wait::{PATIENCE, wait_until};
use page::Page;

/// A server with both pages, over a core that a test can break.
struct Watched {
    http: Served,
    app: App,
    fake: FakeHypervisor,
    runtime: tokio::runtime::Runtime,
}

impl Watched {
    fn new(database_url: Option<String>) -> Self {
        let (fake, mut registry) = (FakeHypervisor::new(), Registry::default());
        let mut site =
            Site::on(std::sync::Arc::new(Timed::new(std::sync::Arc::new(fake.clone()), &mut registry)), fake.clone());
        site.database_url = database_url.unwrap_or(site.database_url);
        let app = site.start();
        metrics::register(&app.core, &mut registry).unwrap();
        let traffic = Traffic::new(&mut registry);
        let (gate, settings) = (Gate::new(app.core.clone(), false).unwrap(), Settings::default());
        let refusal = refusal(&settings);
        let pages = monitor::mount(app.core.clone(), gate.clone(), std::sync::Arc::new(registry));
        let mounts = Mounts::new([(String::new(), pages), (String::new(), mount(gate, settings))]);
        let http = Served::over(mounts, refusal, Limits::default(), None, traffic);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { http, app, fake, runtime }
    }

    fn look(&self) {
        self.runtime.block_on(health::look(&self.app.core));
    }

    /// Status and body.
    fn health(&self) -> (u16, String) {
        let answer = self.http.get("/health");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        (answer.status, answer.body)
    }

    fn page(&self) -> Page {
        let answer = self.http.get("/metrics");
        assert_eq!(answer.status, 200, "{answer:?}");
        let kind = answer.header("content-type").unwrap();
        assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
        Page::parse(&answer.body)
    }
}

#[test]
fn metrics_count_requests_by_their_pattern() {
    let server = Watched::new(None);
    let id = "bed05d84-7c44-4720-9588-57cbd8ecef8c";
    let asked = |page: &Page, route, method, status| {
        page.value("pengx_http_requests_total", &[("route", route), ("method", method), ("status", status)])
    };
    let before = server.page();
    for (method, uri) in [
        ("GET", format!("/vms/{id}/")),
        ("GET", format!("/api/v2/vms/{id}/?format=xml")),
        ("HEAD", "/vms/".to_owned()),
        ("DELETE", "/vms/".to_owned()),
        ("GET", "/no/such/thing/".to_owned()),
        ("GET", "/another".to_owned()),
        ("BREW", "/vms/".to_owned()),
        ("HEAD", "/health".to_owned()),
    ] {
        server.http.ask(method, &uri, &[], "");
    }
    let after = server.page();
    assert_eq!(asked(&before, "/vms/:vm/", "GET", "404"), None);
    assert_eq!(asked(&after, "/vms/:vm/", "GET", "404"), Some(2.0));
    assert_eq!(asked(&after, "/vms/", "HEAD", "200"), Some(1.0));
    assert_eq!(asked(&after, "/vms/", "DELETE", "405"), Some(1.0));
    assert_eq!(asked(&after, "/vms/", "other", "405"), Some(1.0));
    assert_eq!(asked(&after, "unknown", "GET", "404"), Some(2.0));
    assert_eq!(asked(&after, "/metrics", "GET", "200"), Some(1.0));
    let time = [("route", "/vms/:vm/"), ("method", "GET")];
    assert_eq!(after.value("pengx_http_request_duration_seconds_count", &time), Some(2.0));
    assert!(after.text.lines().all(|line| !line.contains(id) && !line.contains("/no/such")), "a raw path is a label");
    assert_eq!(after.value("pengx_http_requests_in_flight", &[]), Some(1.0));
    assert!(after.value("pengx_http_connections_accepted_total", &[]) >= Some(9.0));
}

#[test]
fn metrics_show_tasks_vms_storlinks_and_neighbours() {
    let server = Watched::new(None);
    let storlink = server.app.storlink();
    let vm = server.app.vm_of(storlink, None, "web1");
    server.app.run(vm).unwrap();
    let twice = server.app.vm_of(storlink, None, "web1");
    server.app.run(twice).unwrap_err();
    server.look();
    let label = [("id", &*storlink.to_string()), ("name", "store1")];
    wait_until("the storlink has answered", || Ok(server.page().value("pengx_storlink_up", &label) == Some(1.0)));
    let page = server.page();
    let created = |outcome| page.value("pengx_tasks_ended_total", &[("kind", "vm.create"), ("outcome", outcome)]);
    assert_eq!((created("success"), created("failure")), (Some(1.0), Some(1.0)));
    assert_eq!(page.value("pengx_task_duration_seconds_count", &[("kind", "vm.create")]), Some(2.0));
    assert_eq!(page.value("pengx_tasks", &[("state", "running")]), Some(0.0));
    assert_eq!(page.value("pengx_vms", &[("state", "SHUTDOWN")]), Some(1.0));
    assert_eq!(page.value("pengx_vms", &[("state", "RUNNING")]), Some(0.0));
    let (size, free) =
        (page.value("pengx_storlink_size_bytes", &label), page.value("pengx_storlink_free_bytes", &label));
    assert!(size > free && free > Some(0.0), "{size:?} {free:?}");
    // One percent, unless it is set otherwise.
    let kept = page.value("pengx_storlink_low_water_bytes", &label).unwrap();
    assert!((size.unwrap() / 100.0 - kept).abs() < 2.0 * 1024.0 * 1024.0, "{size:?} {kept}");
    assert_eq!(page.value("pengx_storlink_reserved_bytes", &label), Some(0.0));
    let task = server.app.store().read(|c| tasks::recent(c, 1)).unwrap().remove(0).id;
    let size = pengx::model::MiB(3);
    server.app.store().note_tx(|tx| pengx::store::reservations::set(tx, task, storlink, size)).unwrap();
    server.look();
    assert_eq!(server.page().value("pengx_storlink_reserved_bytes", &label), Some(3.0 * 1024.0 * 1024.0));
    server.app.store().note_tx(|tx| pengx::store::reservations::release(tx, task)).unwrap();
    assert_eq!(page.value("pengx_hypervisor_call_duration_seconds_count", &[("verb", "define")]), Some(1.0));
    assert_eq!((page.value("pengx_database_up", &[]), page.value("pengx_hypervisor_up", &[])), (Some(1.0), Some(1.0)));
    assert!(page.value("pengx_database_transaction_duration_seconds_count", &[("kind", "write")]) > Some(4.0));
    assert_eq!(page.value("pengx_database_connections_max", &[("pool", "read")]), Some(8.0));
    assert!(page.value("process_resident_memory_bytes", &[]) > Some(1e6));
    assert!(page.value("process_open_fds", &[]) > Some(3.0));
    assert_eq!(page.value("pengx_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), Some(1.0));
    server.app.assert_at_rest();
}

#[test]
fn pages_answer_while_database_and_hypervisor_hang_and_the_storlink_is_gone() {
    let postgres = postgres::Server::start();
    let server = Watched::new(Some(postgres.database()));
    server.app.storlink();
    server.runtime.spawn(health::watch(server.app.core.clone()));
    wait_until("health is ok", || Ok(server.health() == (200, "ok\n".to_owned())));
    std::fs::rename(server.app.site.store_dir(), server.app.site.dir.path().join("gone")).unwrap();
    server.http.get("/storlinks/");
    wait_until("the storlink is missed", || {
        Ok(server.health() == (200, "ok\nwarning: storlinks that do not answer: 1 of 1\n".to_owned()))
    });

    server.fake.hold(Verb::Domains);
    server.fake.set_reachable(false);
    let frozen = postgres.freeze();
    // All that may read at once does, and hangs.
    let address = server.http.address;
    let stuck: Vec<_> = (0..20).map(|_| std::thread::spawn(move || ask(address, "GET", "/vms/", &[], ""))).collect();
    assert!(server.fake.wait_held(Verb::Domains, 1, PATIENCE));
    wait_until("the requests hang", || Ok(server.page().value("pengx_http_requests_in_flight", &[]) >= Some(21.0)));
    wait_until("health tells", || {
        let (status, text) = server.health();
        Ok(status == 503 && text.lines().any(|line| line.starts_with("the database has not answered for ")))
    });
    let page = server.page();
    assert_eq!(page.value("pengx_database_up", &[]), Some(0.0));
    assert!(page.value("pengx_rows_age_seconds", &[]) > Some(1.0));

    drop(frozen);
    server.fake.heal();
    server.fake.set_reachable(true);
    for client in stuck {
        client.join().unwrap();
    }
    wait_until("health is ok but for the storlink", || Ok(server.health().0 == 200));
    assert_eq!(server.page().value("pengx_database_up", &[]), Some(1.0));
}

#[test]
fn health_is_503_while_the_hypervisor_is_away_and_errors_are_counted() {
    let server = Watched::new(None);
    assert_eq!(server.health().0, 503, "nobody has looked at the database yet");
    server.look();
    wait_until("the hypervisor has been asked", || Ok(server.health() == (200, "ok\n".to_owned())));
    server.fake.set_reachable(false);
    wait_until("health tells", || {
        let (status, text) = server.health();
        Ok(status == 503 && text.starts_with("the hypervisor has not answered for ") && text.lines().count() == 1)
    });
    let label = [("verb", "domains"), ("error", "unavailable")];
    assert!(server.page().value("pengx_hypervisor_errors_total", &label) >= Some(1.0));
    let head = server.http.ask("HEAD", "/health", &[], "");
    assert_eq!((head.status, head.body.as_str()), (503, ""));
    server.fake.set_reachable(true);
    wait_until("it is back", || Ok(server.health().0 == 200));
}

#[test]
fn health_warns_of_tasks_that_wait_to_be_undone() {
    let server = Watched::new(None);
    server.app.storlink();
    let store = server.app.store();
    server.fake.set_reachable(false);
    let undo = Compensation::Undefine { vm: VmId(uuid::Uuid::from_u128(7)) };
    store
        .write_tx(|c| {
            let over = tasks::recent(c, 1)?.remove(0).id;
            journal::push(c, over, 0, journal::Direction::Undo, &undo)
        })
        .unwrap();
    server.look();
    let (_, text) = server.health();
    assert!(text.contains("\nwarning: tasks that wait to be undone or finished: 1;"), "{text}");
    assert_eq!(server.page().value("pengx_tasks_unclean", &[]), Some(1.0));
    server.fake.set_reachable(true);
    wait_until("it is undone", || {
        server.look();
        Ok(server.health() == (200, "ok\n".to_owned()))
    });
    server.app.assert_at_rest();
}

#[test]
fn both_pages_are_at_the_root_alone_and_only_read() {
    let server = Watched::new(None);
    for uri in ["/api/v2/metrics", "/v1/health", "/metrics/", "/healthy"] {
        assert_eq!(server.http.get(uri).status, 404, "{uri}");
    }
    for uri in ["/metrics", "/health"] {
        for method in ["POST", "PUT", "DELETE"] {
            let answer = server.http.ask(method, uri, &[], "x");
            assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method} {uri}");
        }
        assert_eq!(server.http.ask("HEAD", uri, &[], "").body, "");
    }
}

/// Killed when a test fails.
struct Notifying(Child);

impl Drop for Notifying {
    fn drop(&mut self) {
        drop(self.0.kill().and_then(|()| self.0.wait()));
    }
}

#[test]
fn systemd_is_told_of_the_start_of_life_and_of_the_stop() {
    let dir = tempfile::Builder::new().prefix("px").tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).expect("the program says nothing");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let until = |word: &str| loop {
        let said = next();
        if said.lines().any(|line| line == word) {
            return said;
        }
    };
    let mut program = Notifying(
        Command::new(env!("CARGO_BIN_EXE_pengx"))
            .args(["serve", "--listen", "127.0.0.1:0", "--hypervisor", "fake:///", "--data-dir"])
            .arg(dir.path().join("data"))
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", Duration::from_millis(300).as_micros().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let ready = until("READY=1");
    let address = ready.lines().find_map(|line| line.strip_prefix("STATUS=serving on ")).unwrap();
    assert_eq!(ask(address.parse().unwrap(), "GET", "/vms/", &[], "").status, 200);
    until("WATCHDOG=1");
    kill_process(Pid::from_child(&program.0), Signal::TERM).unwrap();
    until("STOPPING=1");
    wait_until("it ends", || Ok(program.0.try_wait().unwrap().is_some_and(|status| status.success())));
}

#[test]
fn with_accounts_metrics_are_for_who_may_look_and_health_is_for_everybody() {
    let watched = Watched::new(None);
    let rebound = watched.http.get("http://rebound.example/metrics");
    assert_eq!(rebound.status, 403, "a page of another site may be behind it");
    let registry = pengx::operations::Registry::new(
        watched.app.store(),
        std::sync::Arc::new(SystemClock),
        std::sync::Arc::new(RandomIds),
    );
    registry.add("eve", &Secret::new("correct horse".to_owned()), Role::Viewer).unwrap();
    let token = registry.create_token("eve", "", None).unwrap().1.reveal().to_owned();
    wait_until("the server knows of it", || Ok(watched.http.get("/vms/").status == 401));
    let refused = watched.http.get("/metrics");
    assert_eq!((refused.status, refused.body.as_str()), (401, "credentials are missing or wrong\n"));
    assert_eq!(refused.header("www-authenticate"), Some("Basic realm=\"pengx\""));
    let with = |credentials: &str| watched.http.ask("GET", "/metrics", &[("Authorization", credentials)], "").status;
    assert_eq!((with("Bearer nobody"), with(&format!("Bearer {token}"))), (401, 200));
    watched.look();
    assert_eq!(watched.health(), (200, "ok\n".to_owned()));
}
