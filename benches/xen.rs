//! What pengx adds to the power operations of Xen: each through the server's HTTP port, and by `xl` itself with the very same
//! configuration file, in turns. Runs as root in a control domain: `make bench-xen` boots one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement that cannot go on has failed"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;
const LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 8099);
/// A guest that only waits.
const KERNEL: &str = "/usr/local/share/pengx-xen/stub";
const NAMES: [&str; 4] = ["start", "suspend", "resume", "poweroff"];

struct Server {
    child: Child,
    dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Status and body.
fn ask(method: &str, uri: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(SocketAddr::from(LISTEN)).unwrap();
    let head = format!("{method} {uri} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/xml\r\n");
    write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer[9..12].parse().unwrap(), answer)
}

fn post(uri: &str, body: &str) {
    let (status, answer) = ask("POST", uri, body);
    assert!(status < 300, "{uri}: {answer}");
}

fn serve() -> Server {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("store")).unwrap();
    let config = dir.path().join("pengx.toml");
    let text = format!(
        "listen = '127.0.0.1:{}'\nhypervisor = 'xl:///'\ndata_dir = '{}'\n[xl]\nguest = 'pv'\nkernel = '{KERNEL}'\n",
        LISTEN.1,
        dir.path().join("data").display()
    );
    std::fs::write(&config, text).unwrap();
    let mut pengx = Command::new(env!("CARGO_BIN_EXE_pengx"));
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    pengx.arg("serve").arg("--insecure").arg("--config").arg(&config).stderr(log);
    let child = pengx.spawn().unwrap();
    let server = Server { child, dir };
    while TcpStream::connect(SocketAddr::from(LISTEN)).is_err() {
        std::thread::sleep(Duration::from_millis(50));
    }
    server
}

/// A VM with one small disk, and the configuration file that it is started with.
fn vm(server: &Server) -> (String, PathBuf) {
    let store = server.dir.path().join("store");
    let link = format!(
        "<storlink><name>s</name><link>{}</link><type>IO</type><level>FL</level><shared>False</shared><desc>x</desc></storlink>",
        store.display()
    );
    post("/storlinks/create/", &link);
    post(
        "/vms/",
        "<vm><name>web1</name><storlink>1</storlink><cpu_core>1</cpu_core><memory>16</memory><maxmem>16</maxmem>\
         <os_disk_size>1</os_disk_size><disk_format>qcow2</disk_format></vm>",
    );
    let domains = server.dir.path().join("data/domains");
    let files = std::fs::read_dir(domains).unwrap().map(|entry| entry.unwrap().path());
    let config = files.into_iter().find(|file| file.extension().is_some_and(|end| end == "cfg")).unwrap();
    (config.file_stem().unwrap().to_str().unwrap().to_owned(), config)
}

fn tool(program: &str, args: &[&str]) {
    let done = Command::new(program).args(args).stdout(Stdio::null()).status().unwrap();
    assert!(done.success(), "{program} {args:?}");
}

fn xl(args: &[&str]) {
    tool("xl", args);
}

fn by_xl(name: &str, domain: &str, config: &Path) {
    match name {
        "start" => xl(&["create", "-q", config.to_str().unwrap()]),
        "suspend" => xl(&["pause", domain]),
        "resume" => xl(&["unpause", domain]),
        _ => xl(&["destroy", domain]),
    }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

fn timed(work: &dyn Fn()) -> Duration {
    // So that what follows an operation does not disturb the next one.
    std::thread::sleep(Duration::from_secs(1));
    let began = Instant::now();
    work();
    began.elapsed()
}

/// What every operation is made of here, whatever it does. The VM is off.
fn parts(server: &Server, vm: &str) {
    let lasts = || {
        let mut file = std::fs::File::create(server.dir.path().join("lasts")).unwrap();
        file.write_all(&[0; 4096]).unwrap();
        file.sync_all().unwrap();
    };
    let refused = || assert!(ask("POST", &format!("/vms/{vm}/resume/"), "").0 >= 400);
    let parts: [(&str, &dyn Fn()); 5] = [
        ("a process that does nothing", &|| tool("true", &[])),
        ("the same, ended with its parent", &|| tool("setpriv", &["--pdeathsig", "KILL", "--", "true"])),
        ("xl list -v", &|| xl(&["list", "-v"])),
        ("a file of 4 KiB that lasts", &lasts),
        ("a resume that is refused", &refused),
    ];
    for (name, part) in parts {
        println!("{name:<32} {:>10.1}", median((0..ROUNDS).map(|_| timed(part)).collect()));
    }
}

/// How long a guest stood still for each snapshot, as the server logged it.
fn pauses(server: &Server, vm: &str) {
    post(&format!("/vms/{vm}/start/"), "");
    for n in 0..ROUNDS {
        let body = format!("<snapshot><name>s{n}</name><storlink>1</storlink></snapshot>");
        post(&format!("/vms/{vm}/snapshots/"), &body);
    }
    let log = std::fs::read_to_string(server.dir.path().join("log")).unwrap();
    let stood = log.lines().filter(|line| line.contains("stood still")).filter_map(|line| line.split_once("ms="));
    let digits = |(_, rest): (&str, &str)| rest.chars().take_while(char::is_ascii_digit).collect::<String>();
    let mut ms: Vec<u64> = stood.map(digits).map(|ms| ms.parse().unwrap()).collect();
    ms.sort_unstable();
    assert_eq!(ms.len(), ROUNDS, "{log}");
    println!("ms that a guest stood still for a snapshot: {ms:?}");
}

fn main() {
    if !Path::new(KERNEL).exists() {
        println!("this host is not the control domain that make bench-xen boots");
        return;
    }
    let server = serve();
    let (vm, config) = vm(&server);
    let domain = format!("pengx-{vm}");
    let mut bare: [Vec<Duration>; NAMES.len()] = Default::default();
    let mut ours = bare.clone();
    for _ in 0..ROUNDS {
        for (name, times) in NAMES.into_iter().zip(&mut bare) {
            times.push(timed(&|| by_xl(name, &domain, &config)));
        }
        for (name, times) in NAMES.into_iter().zip(&mut ours) {
            times.push(timed(&|| post(&format!("/vms/{vm}/{name}/"), "")));
        }
    }
    println!("{:<10} {:>10} {:>10} {:>10}   median of {ROUNDS}", "ms", "xl", "pengx", "added");
    for ((name, bare), ours) in NAMES.into_iter().zip(bare).zip(ours) {
        let (bare, ours) = (median(bare), median(ours));
        println!("{name:<10} {bare:>10.1} {ours:>10.1} {:>10.1}", ours - bare);
    }
    parts(&server, &vm);
    pauses(&server, &vm);
}
