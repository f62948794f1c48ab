//! The real program as a child of the test.

use std::collections::BTreeSet;
use std::fs::{DirEntry, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;

use pengx::model::{Task, TaskState};
use pengx::store::Store;
use rustix::process::{Pid, Signal, kill_process};

use super::app::assert_at_rest;
use super::http::{Answer, ask};
use super::wait::wait_until;

/// A data directory, a storlink directory and a configuration; outlives any number of servers on it.
pub struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// `settings`: more lines for the top of the configuration file. `xenbr0` and `xenbr1` are user networks.
    pub fn new(hypervisor: &str, settings: &str) -> Self {
        let networks = "[bridges]\nxenbr0 = 'user'\nxenbr1 = 'user'";
        Self::with(hypervisor, settings, &format!("{networks}\n[libvirt]\ndomain_type = 'qemu'\ncall_timeout = 3"))
    }

    /// `sections`: what follows that.
    pub fn with(hypervisor: &str, settings: &str, sections: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("px").tempdir().unwrap();
        let place = Self { dir };
        std::fs::create_dir(place.store_dir()).unwrap();
        let text = format!(
            "listen = '127.0.0.1:0'\nhypervisor = '{hypervisor}'\ndata_dir = '{}'\nauthorized_keys = '{}'\n\
             recover_interval = 1\n{settings}\n{sections}\n",
            place.data_dir().display(),
            place.dir.path().join("authorized_keys").display()
        );
        std::fs::write(place.config(), text).unwrap();
        place
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn store_dir(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("pengx.toml")
    }

    /// Another line for the top of the configuration file, for servers that are started from now on.
    pub fn set(&self, line: &str) {
        let text = std::fs::read_to_string(self.config()).unwrap();
        std::fs::write(self.config(), format!("{line}\n{text}")).unwrap();
    }

    /// Starts a server here and waits until it listens.
    pub fn serve(&self) -> Program {
        self.serve_by(program(&[]))
    }

    /// The same by way of a program that becomes the server, as another user say: for him it is copied to a place that he
    /// can read.
    pub fn serve_through(&self, words: &[&str]) -> Program {
        let copy = self.dir.path().join("pengx");
        if !copy.exists() {
            std::fs::copy(env!("CARGO_BIN_EXE_pengx"), &copy).unwrap();
        }
        let mut command = bare(Command::new(words[0]));
        command.args(&words[1..]).arg(copy);
        self.serve_by(command)
    }

    fn serve_by(&self, mut command: Command) -> Program {
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let mut child = command
            .args(["serve", "--config", self.config().to_str().unwrap()])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let (told, line) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            out.read_line(&mut line).unwrap();
            // The test may have given up.
            drop(told.send(line));
        });
        let (address, log) = (([127, 0, 0, 1], 0).into(), self.dir.path().join("log"));
        let mut program = Program { child, scheme: String::new(), address, log };
        let line = line.recv_timeout(super::wait::PATIENCE).unwrap();
        let said = line.trim().strip_prefix("pengx listening on ").and_then(|url| url.split_once("://"));
        let (scheme, address) = said.unwrap_or_else(|| panic!("it said {line:?}"));
        program.address = address.parse().unwrap();
        program.scheme = scheme.to_owned();
        program
    }

    /// For a start that is refused: its whole output.
    pub fn try_serve(&self, args: &[&str]) -> Output {
        self.run("serve", args)
    }

    /// A command that ends by itself.
    pub fn run(&self, command: &str, args: &[&str]) -> Output {
        let config = self.config();
        let all = [&[command, "--config", config.to_str().unwrap()], args].concat();
        let mut child = program(&all).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_until("the program ends", || Ok(child.try_wait().unwrap().is_some()));
        child.wait_with_output().unwrap()
    }

    /// A second handle to the database.
    pub fn store(&self) -> Store {
        let store = Store::open(&format!("sqlite://{}", self.data_dir().join("pengx.db").display())).unwrap();
        store.migrate().unwrap();
        store
    }

    /// The names in the storlink directory.
    pub fn files(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.store_dir()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// What the unfinished volumes take together; 0 while there is none.
    pub fn unfinished_bytes(&self) -> u64 {
        let entries = std::fs::read_dir(self.store_dir()).unwrap().flatten();
        let parts = entries.filter(|entry| entry.path().extension().is_some_and(|ext| ext == "part"));
        // One that is renamed meanwhile is finished.
        parts.filter_map(|entry| Some(entry.metadata().ok()?.blocks() * 512)).sum()
    }

    /// Tools that work on the storlink directory.
    pub fn tools(&self) -> Vec<String> {
        let here = self.store_dir().to_str().unwrap().to_owned();
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
        lines.filter(|line| line.contains("qemu-img") && line.contains(&here)).collect()
    }

    /// The process of the one tool that works on the storlink directory, once it is itself.
    pub fn tool(&self) -> Option<Pid> {
        let here = self.store_dir().to_str().unwrap().to_owned();
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let read = |entry: &DirEntry, name| std::fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        let mut tools = processes
            .filter(|entry| read(entry, "comm") == "qemu-img\n" && read(entry, "cmdline").contains(&here))
            .map(|entry| Pid::from_raw(entry.file_name().to_str().unwrap().parse().unwrap()).unwrap());
        let tool = tools.next();
        assert!(tools.next().is_none(), "there are more than one");
        tool
    }

    pub fn last_task(&self) -> Task {
        self.store().read(|c| pengx::store::tasks::recent(c, 1)).unwrap().remove(0)
    }

    /// No open task, no lock, no journal entry, no unfinished or set-aside volume, no tool.
    pub fn assert_at_rest(&self) {
        assert_at_rest(&self.store());
        let odd = |name: &String| name.ends_with(".part") || name.ends_with(".deleted") || name.starts_with('.');
        let left: Vec<_> = self.files().into_iter().filter(odd).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
        wait_until("no tool runs", || Ok(self.tools().is_empty()));
        let tasks = self.store().read(|c| pengx::store::tasks::recent(c, 1000)).unwrap();
        assert!(tasks.iter().all(|task| task.state == TaskState::Success || !task.message.is_empty()), "{tasks:#?}");
    }
}

/// A server; killed when it is dropped.
pub struct Program {
    child: Child,
    /// What it said: `http` or `https`.
    pub scheme: String,
    pub address: SocketAddr,
    log: PathBuf,
}

impl Program {
    pub fn get(&self, uri: &str) -> Answer {
        ask(self.address, "GET", uri, &[], "")
    }

    pub fn post(&self, uri: &str, xml: &str) -> Answer {
        ask(self.address, "POST", uri, &[("Content-Type", "application/xml")], xml)
    }

    pub fn put(&self, uri: &str, xml: &str) -> Answer {
        ask(self.address, "PUT", uri, &[("Content-Type", "application/xml")], xml)
    }

    /// Answers at once with where the task is.
    pub fn post_async(&self, uri: &str, xml: &str) -> Answer {
        let headers = [("Content-Type", "application/xml"), ("Prefer", "respond-async")];
        ask(self.address, "POST", uri, &headers, xml)
    }

    pub fn delete(&self, uri: &str) -> Answer {
        ask(self.address, "DELETE", uri, &[], "")
    }

    /// `kill -9`, and the process is gone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// In KiB.
    pub fn rss(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    pub fn wait(mut self) -> ExitStatus {
        // More than all the time that it gives to connections and to tasks.
        let patience = std::time::Duration::from_secs(90);
        super::wait::wait_within(patience, "the server ends", || Ok(self.child.try_wait().unwrap().is_some()));
        self.child.wait().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill().and_then(|()| self.child.wait()));
        if std::thread::panicking() {
            println!("the server's log:\n{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

fn program(args: &[&str]) -> Command {
    let mut command = bare(Command::new(env!("CARGO_BIN_EXE_pengx")));
    command.args(args);
    command
}

/// Nothing of our own environment reaches it as a setting.
fn bare(mut command: Command) -> Command {
    for name in ["CONFIG", "LISTEN", "DATABASE_URL", "HYPERVISOR", "DATA_DIR"] {
        command.env_remove(format!("PENGX_{name}"));
    }
    command.stdin(Stdio::null());
    command
}
