//! A private PostgreSQL server: one for the whole test binary, a fresh database for each test.
//!
//! It lives in a directory of its own under /tmp, listens on a UNIX socket there alone, and runs as an ordinary user. A
//! watcher process waits at a pipe whose other end only this process holds; however this process ends, the pipe closes, and
//! the watcher stops the server and removes the directory.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};
use rustix::process::{Pid, Signal, kill_process};

/// The URL of a new, empty database on the server that all tests share.
pub(crate) fn database() -> String {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(Server::start).database()
}

pub(crate) struct Server {
    dir: PathBuf,
    bin: PathBuf,
    watcher: Child,
}

impl Server {
    /// A server of one's own, for a test that stops it. Dropping it removes it.
    pub(crate) fn start() -> Self {
        let bin = binaries();
        let dir = tempfile::Builder::new().prefix("pengx-pg-").tempdir_in("/tmp").unwrap().keep();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        if let Some((uid, gid)) = other_user() {
            chown(&dir, Some(uid), Some(gid)).unwrap();
        }
        let data = dir.join("data");
        let watcher = watch(&dir, &command(&bin, "pg_ctl", &["-D", text(&data), "-m", "immediate", "stop"]));
        let server = Self { dir, bin, watcher };
        server
            .run("initdb", &["-D", text(&data), "-U", "pengx", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
        let mut settings = fs::read_to_string(data.join("postgresql.conf")).unwrap();
        settings.push_str(&format!(
            "listen_addresses = ''\nunix_socket_directories = '{}'\nfsync = off\nfull_page_writes = off\n\
             shared_buffers = 16MB\nmax_connections = 200\n",
            server.dir.display()
        ));
        fs::write(data.join("postgresql.conf"), settings).unwrap();
        server.start_again();
        server
    }

    pub(crate) fn database(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut conn = PgConnection::establish(&self.url("postgres")).unwrap();
        conn.batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
        self.url(&name)
    }

    pub(crate) fn stop(&self) {
        self.run("pg_ctl", &["-D", text(&self.dir.join("data")), "-m", "fast", "-w", "-t", "60", "stop"]);
    }

    pub(crate) fn start_again(&self) {
        let (data, log) = (self.dir.join("data"), self.dir.join("log"));
        self.run("pg_ctl", &["-D", text(&data), "-l", text(&log), "-w", "-t", "60", "start"]);
    }

    /// Stops all its processes where they are, until the answer is dropped: it takes connections and says nothing.
    pub(crate) fn freeze(&self) -> Frozen {
        let pid_file = fs::read_to_string(self.dir.join("data/postmaster.pid")).unwrap();
        let first: i32 = pid_file.lines().next().unwrap().trim().parse().unwrap();
        let children = fs::read_to_string(format!("/proc/{first}/task/{first}/children")).unwrap();
        let pids = std::iter::once(first).chain(children.split_whitespace().map(|pid| pid.parse().unwrap()));
        let frozen = Frozen(pids.map(|pid| Pid::from_raw(pid).unwrap()).collect());
        frozen.signal(Signal::STOP);
        frozen
    }

    fn url(&self, database: &str) -> String {
        format!("postgres:///{database}?host={}&user=pengx&gssencmode=disable", self.dir.display())
    }

    fn run(&self, tool: &str, args: &[&str]) {
        let argv = command(&self.bin, tool, args);
        // Into a file: the server that pg_ctl starts inherits what it is given, and a pipe would stay open with it.
        let out = fs::File::create(self.dir.join("out")).unwrap();
        let status = Command::new(&argv[0])
            .args(&argv[1..])
            .current_dir(&self.dir)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .status()
            .unwrap();
        let read = |name| fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        assert!(status.success(), "{argv:?}: {status}\n{}\n{}", read("out"), read("log"));
    }
}

/// Goes on when it is dropped.
pub(crate) struct Frozen(Vec<Pid>);

impl Frozen {
    fn signal(&self, signal: Signal) {
        for pid in &self.0 {
            // A process of the server may have ended by itself.
            kill_process(*pid, signal).ok();
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.watcher.stdin.take());
        self.watcher.wait().unwrap();
    }
}

/// In a process group of its own, so that Ctrl-C at the terminal does not end it first.
fn watch(dir: &Path, stop: &[String]) -> Child {
    let script = r#"dir=$1; shift; cat; "$@"; rm -rf -- "$dir""#;
    Command::new("sh")
        .args(["-c", script, "postgres-watcher", text(dir)])
        .args(stop)
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The newest installed server.
fn binaries() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let numbered =
        versions.filter_map(|v| v.file_name().to_str()?.parse::<u32>().ok().map(|n| (n, v.path().join("bin"))));
    let newest = numbered.filter(|(_, bin)| bin.join("initdb").exists() && bin.join("pg_ctl").exists()).max();
    newest.expect("the tests need a PostgreSQL server of their own: apt-get install postgresql-15").1
}

/// The user that the server runs as, where we are root: it refuses to be.
fn other_user() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let ids = |name: &str| {
        let line = passwd.lines().find(|l| l.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Some(ids("postgres").or_else(|| ids("nobody")).expect("a user postgres or nobody, to run PostgreSQL as"))
}

fn command(bin: &Path, tool: &str, args: &[&str]) -> Vec<String> {
    let mut argv = Vec::new();
    if let Some((uid, gid)) = other_user() {
        argv = ["setpriv", &format!("--reuid={uid}"), &format!("--regid={gid}"), "--clear-groups", "--"]
            .map(str::to_owned)
            .to_vec();
    }
    argv.push(text(&bin.join(tool)).to_owned());
    argv.extend(args.iter().map(|a| (*a).to_owned()));
    argv
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
