//! The real program: `pengx user` and `pengx token` beside a server, and what must never be seen of secrets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use super::{PASSWORD, basic};
use crate::harness::http::ask;
use crate::harness::wait::wait_until;

const PENGX: &str = env!("CARGO_BIN_EXE_pengx");

/// On a data directory of its own and nothing of our environment.
fn pengx(data_dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(PENGX);
    for name in ["CONFIG", "LISTEN", "DATABASE_URL", "HYPERVISOR", "DATA_DIR"] {
        command.env_remove(format!("PENGX_{name}"));
    }
    command.args(args).args(["--config", "/dev/null", "--data-dir", data_dir.to_str().unwrap()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs to its end with this on standard input.
fn run(data_dir: &Path, args: &[&str], input: &str) -> Output {
    let mut child = pengx(data_dir, args).spawn().unwrap();
    // One that refuses its arguments does not read.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    child.wait_with_output().unwrap()
}

#[track_caller]
fn done(data_dir: &Path, args: &[&str], input: &str) -> String {
    let output = run(data_dir, args, input);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.as_str()), (Some(0), ""), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What it says when it refuses with status 2.
#[track_caller]
fn refused(data_dir: &Path, args: &[&str], input: &str) -> String {
    let output = run(data_dir, args, input);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), b"".as_slice()), "{args:?}: {said}");
    said
}

/// A server that logs everything; killed when it is dropped.
struct Server {
    child: Child,
    port: u16,
    log: std::path::PathBuf,
}

impl Server {
    fn start(data_dir: &Path, listen: &str) -> Self {
        let config = data_dir.with_extension("toml");
        std::fs::write(&config, "log_level = 'trace'\nhypervisor = 'fake:///'\n").unwrap();
        let log = data_dir.with_extension("log");
        let mut child = Command::new(PENGX)
            .args(["serve", "--config", config.to_str().unwrap(), "--listen", listen])
            .args(["--data-dir", data_dir.to_str().unwrap()])
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("pengx listening on http://");
        let address: SocketAddr = address.unwrap_or_else(|| panic!("it said {line:?}")).parse().unwrap();
        Self { child, port: address.port(), log }
    }

    fn get(&self, authorization: &str) -> u16 {
        let headers = [("Authorization", authorization)];
        ask(([127, 0, 0, 1], self.port).into(), "GET", "/vms/", &headers, "").status
    }

    fn post(&self, authorization: &str) -> String {
        let headers = [("Authorization", authorization), ("Content-Type", "application/xml")];
        let address = ([127, 0, 0, 1], self.port).into();
        ask(address, "POST", "/vms/0f6a9c1e-0000-4000-8000-00000000ffff/start/", &headers, "").body
    }

    fn wait(&self, authorization: &str, status: u16) {
        wait_until(&format!("it answers {status}"), || Ok(self.get(authorization) == status));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn accounts_are_kept_from_the_command_line_beside_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    // Before the first server.
    done(&data, &["user", "add", "root", "--role", "admin"], &format!("{PASSWORD}\n"));
    let server = Server::start(&data, "127.0.0.1:0");
    assert_eq!((server.get(""), server.get(&basic("root", PASSWORD))), (401, 200));

    done(&data, &["user", "add", "ann", "--role", "operator"], "ann's own secret\r\n");
    let ann = basic("ann", "ann's own secret");
    server.wait(&ann, 200);
    done(&data, &["user", "password", "ann"], "another of ann's");
    server.wait(&ann, 401);
    assert_eq!(server.get(&basic("ann", "another of ann's")), 200);

    let token = done(&data, &["token", "create", "ann", "--name", "backup job", "--expires-days", "30"], "");
    let token = token.strip_suffix('\n').unwrap();
    let bearer = format!("Bearer {token}");
    server.wait(&bearer, 200);
    let users = done(&data, &["user", "list"], "");
    let names: Vec<Vec<&str>> = users.lines().map(|l| l.split('\t').take(2).collect()).collect();
    assert_eq!(names, [["ann", "operator"], ["root", "admin"]]);
    let tokens = done(&data, &["token", "list"], "");
    let fields: Vec<&str> = tokens.trim_end().split('\t').collect();
    assert_eq!((fields.len(), fields[1], fields[4]), (5, "ann", "backup job"), "{tokens}");
    assert_ne!(fields[3], "never");
    assert!(!tokens.contains(token) && !users.contains("argon2"), "{users}{tokens}");

    done(&data, &["user", "role", "ann", "viewer"], "");
    wait_until("ann may only look", || Ok(server.post(&bearer).contains("it takes the role operator")));
    done(&data, &["token", "revoke", fields[0]], "");
    server.wait(&bearer, 401);
    done(&data, &["user", "remove", "ann"], "");
    server.wait(&basic("ann", "another of ann's"), 401);
    assert_eq!(done(&data, &["token", "list"], ""), "");

    done(&data, &["user", "add", "eve", "--role", "viewer"], "eve's own secret\n");
    for (args, input, says) in [
        (&["user", "add", "eve", "--role", "viewer"][..], "eve's own secret\n", "name: there is a user eve already"),
        (&["user", "add", "bob", "--role", "viewer"], "short\n", "password: must have 8 to 1024 bytes"),
        (&["user", "add", "bob", "--role", "viewer"], "", "password: must have 8 to 1024 bytes"),
        (&["user", "add", "a:b", "--role", "viewer"], "long enough\n", "name: must not have a colon"),
        (&["user", "add", "bob", "--role", "king"], "", "must be one of admin, operator, viewer"),
        (&["user", "add", "bob"], "", "--role"),
        (&["user", "add", "bob", "--role", "viewer", "--password", "x"], "", "--password"),
        (&["user", "password", "bob"], "", "name: there is no user \"bob\""),
        (&["user", "remove", "root"], "", "root is the last admin"),
        (&["user", "role", "root", "viewer"], "", "root is the last admin"),
        (&["token", "create", "bob"], "", "name: there is no user \"bob\""),
        (&["token", "create", "eve", "--expires-days", "0"], "", "--expires-days"),
        (&["token", "revoke", "0f6a9c1e-0000-4000-8000-00000000ffff"], "", "id: there is no token 0f6a9c1e"),
        (&["token", "revoke", "seven"], "", "must be a uuid"),
    ] {
        let said = refused(&data, args, input);
        assert!(said.contains(says), "{args:?}: {said}");
    }
    assert_eq!(done(&data, &["user", "list"], "").lines().count(), 2);
}

#[test]
fn users_come_with_a_hash_of_crypt_and_see_what_their_rules_show() {
    // Of admin:pass, with 5000 rounds and with 1000.
    const USUAL: &str =
        "$6$Vt.9/xyz$NbXg/EMRVAzyr9Mj2Rq.8c8X7ukIm0HgLoVsMcxpDIZQlXyXVq09RehI6A4TOfhPLs6J1k/mo5ie7Tf4nIX8P.";
    const FEW: &str =
        "$6$rounds=1000$Q$BBmDQK1H8PDyX0tLiaD/EXmISOUzYN7dRQK0703xTg/DrD6ijVa0xTI9NmUOMhpRKaC4Wh49kjWAYnVTVyhcH1";
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let add = |name: &str, more: &[&str], input: &str| {
        done(&data, &[&["user", "add", name, "--role", "viewer"], more].concat(), input);
    };
    add("root", &[], PASSWORD);
    done(&data, &["user", "role", "root", "admin"], "");
    add(
        "ann",
        &["--hash", "--sees-prefix", "web-", "--sees-prefix", "a b", "--sees-suffix", ".org"],
        &format!("{USUAL}\n"),
    );
    add("bob", &["--hash", "--sees-none"], FEW);
    let server = Server::start(&data, "127.0.0.1:0");
    for name in ["ann", "bob"] {
        let said = [basic(name, "admin:pass"), basic(name, "admin:pas"), basic(name, "admin"), basic(name, USUAL)];
        assert_eq!(said.map(|authorization| server.get(&authorization)), [200, 401, 401, 401]);
        // Remembered, and still the only one.
        assert_eq!([server.get(&basic(name, "admin:pass")), server.get(&basic(name, ""))], [200, 401]);
    }
    done(&data, &["user", "sees", "bob", "--sees-exact", "db"], "");
    done(&data, &["user", "sees", "root", "--all"], "");
    let sees = || {
        let users = done(&data, &["user", "list"], "");
        users.lines().map(|line| line.split('\t').nth(3).unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(sees(), ["prefix web-, prefix a b, suffix .org", "exact db", "all"]);
    done(&data, &["user", "sees", "bob", "--sees-none"], "");
    done(&data, &["user", "sees", "ann", "--all"], "");
    assert_eq!(sees(), ["all", "none", "all"]);
    // A password that is set here takes the place of the hash.
    done(&data, &["user", "password", "bob"], "bob's own secret");
    server.wait(&basic("bob", "admin:pass"), 401);
    assert_eq!(server.get(&basic("bob", "bob's own secret")), 200);

    let eve = &["user", "add", "eve", "--role", "viewer"][..];
    for (args, input, says) in [
        ([eve, &["--hash"]].concat(), "long enough\n", "hash: must be $6$salt$hash"),
        ([eve, &["--hash"]].concat(), "", "hash: must be $6$salt$hash"),
        ([eve, &["--hash"]].concat(), &FEW.replace("1000", "1000001"), "hash: must have 1000 to 1000000 rounds"),
        ([eve, &["--sees-none", "--sees-exact", "a"]].concat(), PASSWORD, "--sees-exact"),
        ([eve, &["--sees-suffix", "a\nprefix "]].concat(), PASSWORD, "sees: suffix: must be"),
        ([eve, &["--all"]].concat(), PASSWORD, "--all"),
        (vec!["user", "sees", "ann"], "", "--all"),
        (vec!["user", "sees", "ann", "--all", "--sees-none"], "", "--all"),
        (vec!["user", "sees", "eve", "--all"], "", "name: there is no user \"eve\""),
        (vec!["user", "sees", "root", "--sees-prefix", ""], "", "root is the last admin"),
    ] {
        let said = refused(&data, &args, input);
        assert!(said.contains(says), "{args:?}: {said}");
        assert!(!said.contains("1000001$") && !said.contains("long enough"), "{said}");
    }
    // One that does not see every VM is none.
    done(&data, &["user", "role", "ann", "admin"], "");
    done(&data, &["user", "sees", "ann", "--sees-prefix", ""], "");
    for args in [["user", "remove", "root"].as_slice(), &["user", "role", "root", "viewer"]] {
        assert!(refused(&data, args, "").contains("root is the last admin"));
    }
}

#[test]
fn an_open_address_is_served_from_the_first_account_on() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let open = ["serve", "--listen", "0.0.0.0:0", "--hypervisor", "fake:///"];
    let said = refused(&data, &open, "");
    assert!(said.starts_with("pengx: listen: 0.0.0.0:0 is not loopback and no account exists"), "{said}");
    assert!(said.contains("pengx user add") && said.contains("--insecure"), "{said}");
    done(&data, &["user", "add", "root", "--role", "admin"], &format!("{PASSWORD}\n"));
    let server = Server::start(&data, "0.0.0.0:0");
    assert_eq!((server.get(""), server.get(&basic("root", PASSWORD))), (401, 200));
}

#[test]
fn no_secret_is_in_the_log_in_a_process_list_or_in_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    // While it waits for the password, its command line can be read.
    let mut child = pengx(&data, &["user", "add", "root", "--role", "admin"]).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(PASSWORD.as_bytes()).unwrap();
    let mut lists = process_list(child.id());
    input.write_all(b"\n").unwrap();
    drop(input);
    assert!(child.wait().unwrap().success());
    let token = done(&data, &["token", "create", "root"], "").trim_end().to_owned();
    let server = Server::start(&data, "127.0.0.1:0");
    let (bearer, right, wrong) =
        (format!("Bearer {token}"), basic("root", PASSWORD), basic("root", "the wrong password"));
    for (authorization, status) in [(&bearer, 200), (&right, 200), (&wrong, 401), (&format!("{bearer}~"), 401)] {
        assert_eq!(server.get(authorization), status);
        let said = server.post(authorization);
        assert!(!said.contains(PASSWORD) && !said.contains("wrong password") && !said.contains(&token), "{said}");
    }
    lists.push_str(&process_list(server.child.id()));
    let log = std::fs::read_to_string(&server.log).unwrap();
    assert!(log.contains("user=\"root\"") && log.contains("user=\"\""), "the log says who asked: {log}");
    drop(server);
    let database: Vec<u8> = ["pengx.db", "pengx.db-wal"]
        .iter()
        .flat_map(|name| std::fs::read(data.join(name)).unwrap_or_default())
        .collect();
    let database = String::from_utf8_lossy(&database);
    assert!(database.contains("$argon2id$"), "the rows are in these files");
    let encoded = |authorization: &str| authorization.split(' ').nth(1).unwrap().to_owned();
    for secret in [PASSWORD, "the wrong password", &token, &encoded(&right), &encoded(&wrong)] {
        assert!(!log.contains(secret), "{secret} is in the log");
        assert!(!lists.contains(secret), "{secret} is in a process list");
        assert!(!database.contains(secret), "{secret} is in the database");
    }
    assert!(!log.contains("$argon2id$"), "a hash is in the log");
}

/// The command line, as others see it.
fn process_list(pid: u32) -> String {
    let mut line = String::new();
    wait_until("the program runs", || {
        line = String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/cmdline")).unwrap()).into_owned();
        Ok(line.contains("--data-dir"))
    });
    line
}

#[test]
fn at_a_terminal_a_password_is_asked_for_twice_and_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let type_in = |first: &str, second: &str| {
        let line =
            format!("{PENGX} user add root --role admin --config /dev/null --data-dir {}", data.to_str().unwrap());
        // It gives the program a terminal of its own.
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut shown = String::new();
        until(&mut screen, &mut shown, "Password: ");
        writeln!(keys, "{first}").unwrap();
        until(&mut screen, &mut shown, "again: ");
        writeln!(keys, "{second}").unwrap();
        screen.read_to_string(&mut shown).unwrap();
        (child.wait().unwrap().code(), shown)
    };
    let (status, shown) = type_in(PASSWORD, "something else");
    assert!(status == Some(2) && shown.contains("password: the two are not the same"), "{status:?} {shown}");
    let (status, again) = type_in(PASSWORD, PASSWORD);
    assert_eq!(status, Some(0), "{again}");
    for secret in [PASSWORD, "something else"] {
        assert!(!shown.contains(secret) && !again.contains(secret), "{shown}{again}");
    }
    let server = Server::start(&data, "127.0.0.1:0");
    assert_eq!(server.get(&basic("root", PASSWORD)), 200);
}

fn until(screen: &mut ChildStdout, shown: &mut String, end: &str) {
    let mut byte = [0];
    while !shown.ends_with(end) {
        assert_eq!(screen.read(&mut byte).unwrap(), 1, "it ended after {shown:?}");
        shown.push(char::from(byte[0]));
    }
}
