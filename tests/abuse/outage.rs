//! The database is away: at the start of the real program, and later.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::harness::http::ask;
use crate::harness::postgres::Server;
use crate::harness::wait::wait_until;

/// The real program on the fake hypervisor; killed and waited for when it is dropped.
struct Program {
    child: Child,
    address: SocketAddr,
}

impl Program {
    fn start(database_url: &str, data_dir: &std::path::Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pengx"))
            .args(["serve", "--config", "/dev/null", "--listen", "127.0.0.1:0", "--hypervisor", "fake:///"])
            .args(["--database-url", database_url, "--data-dir", data_dir.to_str().unwrap()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("pengx listening on http://").unwrap().parse().unwrap();
        Self { child, address }
    }

    fn get(&self, uri: &str) -> (u16, String) {
        let answer = ask(self.address, "GET", uri, &[], "");
        (answer.status, answer.body)
    }

    fn post(&self, uri: &str, body: &str) -> (u16, String) {
        let answer = ask(self.address, "POST", uri, &[("Content-Type", "text/xml")], body);
        (answer.status, answer.body)
    }

    /// SIGTERM, and its status.
    fn stop(mut self) -> std::process::ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn a_database_that_is_connected_and_silent_costs_nobody_more_than_a_bounded_wait() {
    let server = Server::start();
    let url = server.database();
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let storlink =
        format!("<s><name>s</name><link>{}</link><type>LO</type><level>FL</level></s>", store.to_str().unwrap());
    let vm = "<vm><name>web1</name><storlink>1</storlink><cpu_core>1</cpu_core><memory>64</memory>\
              <os_disk_size>4</os_disk_size></vm>";
    let program = Program::start(&url, dir.path());
    assert_eq!(program.post("/storlinks/create/", &storlink).0, 201);
    assert_eq!(program.post("/vms/", vm).0, 201);

    let frozen = server.freeze();
    // More at once than there are connections and threads for reads; each has an end, or the client's patience has.
    std::thread::scope(|scope| {
        for n in 0..40 {
            let (program, vm) = (&program, vm.replace("web1", &format!("late{n}")));
            scope.spawn(move || {
                let (status, body) = if n % 4 == 0 { program.post("/vms/", &vm) } else { program.get("/vms/") };
                assert_eq!(status, 503, "{body}");
                assert!(body.contains("<message>the database does not answer</message>"), "{body}");
            });
        }
    });
    assert_eq!(program.post("/vms/", "<vm/>").0, 400, "what is bad in itself is told all the same");
    assert_eq!(program.get("/nope/").0, 404);

    drop(frozen);
    wait_until("it serves again", || Ok(program.get("/vms/").0 == 200));
    // What was told to be unavailable may have happened, or not; but wholly.
    wait_until("no task is under way", || {
        let (_, tasks) = program.get("/tasks/");
        Ok(!tasks.contains("<state>queued<") && !tasks.contains("<state>running<"))
    });
    let (_, list) = program.get("/vms/");
    assert_eq!(list.matches("<name>").count(), std::fs::read_dir(&store).unwrap().count(), "{list}");
    assert_eq!(program.post("/vms/", &vm.replace("web1", "after")).0, 201);
}

#[test]
fn two_servers_on_one_sqlite_file_are_one_too_many() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let url = format!("sqlite://{}", first.path().join("site.db").display());
    let program = Program::start(&url, first.path());
    // Its own data directory does not help it.
    let refused = Command::new(env!("CARGO_BIN_EXE_pengx"))
        .args(["serve", "--config", "/dev/null", "--listen", "127.0.0.1:0", "--hypervisor", "fake:///"])
        .args(["--database-url", &url, "--data-dir", second.path().to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("database_url") && said.contains("another pengx serves from it"), "{said}");
    assert_eq!(program.get("/vms/").0, 200);
    assert!(program.stop().success());
    assert!(Program::start(&url, second.path()).stop().success());
}

#[test]
fn while_the_database_is_away_the_program_says_so_and_recovers_by_itself() {
    let server = Server::start();
    let url = server.database();
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let storlink =
        format!("<s><name>s</name><link>{}</link><type>LO</type><level>FL</level></s>", store.to_str().unwrap());
    let vm = "<vm><name>web1</name><storlink>1</storlink><cpu_core>1</cpu_core><memory>64</memory>\
              <os_disk_size>4</os_disk_size></vm>";
    let away = |program: &Program| {
        for uri in ["/vms/", "/storlinks/", "/templates/", "/tasks/"] {
            let (status, body) = program.get(uri);
            assert_eq!(status, 503, "{uri}: {body}");
            assert!(body.contains("<message>the database does not answer</message>"), "{body}");
        }
        for (uri, body) in [("/storlinks/create/", storlink.as_str()), ("/vms/", vm)] {
            let (status, body) = program.post(uri, body);
            assert!(status == 503 && body.contains("the database does not answer"), "{status} {body}");
        }
    };

    server.stop();
    let program = Program::start(&url, dir.path());
    away(&program);
    // Who asks, nobody can say, so no body is looked at; what needs no caller is judged all the same.
    assert_eq!(program.post("/vms/", "<vm/>").0, 503);
    assert_eq!(program.get("/nope/").0, 404);
    server.start_again();
    wait_until("it serves", || Ok(program.get("/vms/").0 == 200));
    wait_until("it knows its own host", || Ok(program.post("/storlinks/create/", &storlink).0 == 201));
    assert_eq!(program.post("/vms/", vm).0, 201);

    server.stop();
    away(&program);
    server.start_again();
    wait_until("it serves again", || Ok(program.get("/vms/").0 == 200));
    let (_, list) = program.get("/vms/");
    assert!(list.contains("<name>web1</name>"), "{list}");
    assert_eq!(program.post("/vms/", &vm.replace("web1", "web2")).0, 201);
    assert_eq!(std::fs::read_dir(&store).unwrap().count(), 2);

    // Asked to stop while the database is away, it stops in order.
    server.stop();
    assert!(program.stop().success());
    server.start_again();
}
