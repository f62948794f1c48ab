//! How fast the API answers, beside a bare warp handler that is measured in the same run; and what the server costs at rest.
//!
//! Servers are processes of their own; the load comes from this one, over loopback, with keep-alive connections that each
//! have one request under way. `cargo bench` builds everything optimised.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement that cannot go on has failed"
)]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pengx::model::*;
use pengx::store::{Store, disks, nics, storlinks, vms};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Each figure is taken over this long.
const SPAN: Duration = Duration::from_secs(3);
/// Best of so many starts; the first ones also warm the page cache.
const STARTS: usize = 5;

fn main() {
    if std::env::args().any(|arg| arg == "bare") {
        return bare();
    }
    println!("{} cores; {} s for each figure; one request under way per connection\n", cores(), SPAN.as_secs());
    println!(
        "{:<28} {:>4} {:>10} {:>9} {:>9} {:>9} {:>8}",
        "request", "c", "req/s", "p50 us", "p99 us", "bytes", "of bare"
    );
    let server = Server::start(Command::new(std::env::current_exe().unwrap()).arg("bare"));
    let bare: Vec<f64> = [1, 32].map(|c| row("bare warp handler", &server, "/", c, None)).into();
    drop(server);
    for count in [100, 1_000] {
        let dir = tempfile::tempdir().unwrap();
        let vm = populate(dir.path(), count);
        let server = Server::pengx(dir.path());
        for (name, uri) in [("GET /vms/:vm/", format!("/vms/{vm}/")), ("GET /vms/", "/vms/".to_owned())] {
            for (c, bare) in [1, 32].into_iter().zip(&bare) {
                row(&format!("{name} of {count}"), &server, &uri, c, Some(*bare));
            }
        }
        println!("memory after it: {:.1} MB", server.rss_mb());
    }
    rest();
}

/// Start to ready, and memory when nothing has been asked yet.
fn rest() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path(), 100);
    let mut ready = Vec::new();
    let mut rss = 0.0;
    for _ in 0..STARTS {
        let begun = Instant::now();
        let server = Server::pengx(dir.path());
        ready.push(begun.elapsed());
        // Let its threads come to rest.
        std::thread::sleep(Duration::from_millis(500));
        rss = server.rss_mb();
    }
    ready.sort();
    println!("\nstart to ready: {:.0} ms (median of {STARTS})", ready[STARTS / 2].as_secs_f64() * 1e3);
    println!("memory at rest: {rss:.1} MB");
}

/// One line of the table; the rate.
fn row(name: &str, server: &Server, uri: &str, connections: usize, bare: Option<f64>) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut times, bytes) = runtime.block_on(load(server.address, uri, connections));
    times.sort_unstable();
    let rate = times.len() as f64 / SPAN.as_secs_f64();
    let share = bare.map_or_else(String::new, |bare| format!("{:.2}", rate / bare));
    let us = |q: f64| times[((times.len() - 1) as f64 * q) as usize].as_secs_f64() * 1e6;
    println!("{name:<28} {connections:>4} {rate:>10.0} {:>9.0} {:>9.0} {bytes:>9} {share:>8}", us(0.5), us(0.99));
    rate
}

async fn load(address: SocketAddr, uri: &str, connections: usize) -> (Vec<Duration>, usize) {
    let request = format!("GET {uri} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let end = Instant::now() + SPAN;
    let one = |request: String| async move {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut buffer = vec![0; 1 << 20];
        let mut times = Vec::new();
        let mut size = 0;
        while Instant::now() < end {
            let begun = Instant::now();
            stream.write_all(request.as_bytes()).await.unwrap();
            size = answer(&mut stream, &mut buffer).await;
            times.push(begun.elapsed());
        }
        (times, size)
    };
    let all = futures_util::future::join_all((0..connections).map(|_| one(request.clone()))).await;
    let size = all[0].1;
    (all.into_iter().flat_map(|(times, _)| times).collect(), size)
}

/// Reads one answer, which must be a 200; the size of its body.
async fn answer(stream: &mut tokio::net::TcpStream, buffer: &mut [u8]) -> usize {
    let mut have = 0;
    loop {
        let got = stream.read(&mut buffer[have..]).await.unwrap();
        assert!(got > 0, "the server closed the connection");
        have += got;
        let Some(head) = buffer[..have].windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&buffer[..head]).unwrap().to_ascii_lowercase();
        assert!(text.starts_with("http/1.1 200"), "{text}");
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let length: usize = length.parse().unwrap();
        assert!(head + 4 + length <= buffer.len(), "the buffer is too small");
        while have < head + 4 + length {
            let got = stream.read(&mut buffer[have..]).await.unwrap();
            assert!(got > 0, "the server closed the connection");
            have += got;
        }
        return length;
    }
}

/// A server in a process of its own, ended with this value.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn pengx(dir: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pengx"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--hypervisor", "fake:///", "--data-dir"]).arg(dir);
        Self::start(command.env("PENGX_CONFIG", dir.join("pengx.toml")))
    }

    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit("http://").next().unwrap().parse().expect("the line that says it is ready");
        Self { child, address }
    }

    fn rss_mb(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let kb = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        kb.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The ceiling: a handler that answers "hello", behind warp's own server.
fn bare() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("bare listening on http://{}", listener.local_addr().unwrap());
        let hello = warp::Filter::map(warp::any(), || "hello");
        warp::serve(hello).incoming(listener).run().await;
    });
}

/// A database with so many VMs, each with two NICs and a disk; one of the VMs.
fn populate(dir: &Path, count: u32) -> VmId {
    std::fs::write(dir.join("pengx.toml"), "log_level = 'warn'\npm_uuid = '00000000-0000-4000-8000-00000000000a'\n")
        .unwrap();
    let store = Store::open(&format!("sqlite://{}", dir.join("pengx.db").display())).unwrap();
    store.migrate().unwrap();
    let at = SystemClock.now();
    let id = |kind: u128, n: u32| uuid::Uuid::from_u128(0x4000_8000_0000_0000_0000 | kind << 100 | u128::from(n));
    let pm = Pm {
        id: "00000000-0000-4000-8000-00000000000a".parse().unwrap(),
        name: "bench".to_owned(),
        cpu: 2,
        memory: MiB(4096),
        ssh_pubkey: None,
        hypervisor: "fake".to_owned(),
        heartbeat_at: at,
        created_at: at,
        updated_at: at,
    };
    let storlink = storlinks::NewStorlink {
        uuid: id(1, 0),
        pm: pm.id,
        name: "store1".to_owned(),
        link: dir.display().to_string(),
        kind: StorlinkType::Local,
        level: StorlinkLevel::File,
        usage: Usage::default(),
        desc: String::new(),
        shared: false,
    };
    let vm = |n: u32| Vm {
        id: VmId(id(2, n)),
        template: None,
        pm: pm.id,
        name: format!("vm-{n:04}"),
        cpu: 2,
        memory: MiB(1024),
        maxmem: MiB(4096),
        desc: "VM for something".to_owned(),
        pcivf: None,
        iso: None,
        seen: Seen::default(),
        vnc_password: Secret::new("secret12".to_owned()),
        created_at: at,
        recent_booted_at: Some(at),
        updated_at: at,
    };
    let nic = |n: u32, slot: u32| nics::NewNic {
        uuid: id(3, n * 2 + slot),
        vm: VmId(id(2, n)),
        name: format!("eth{slot}"),
        mac: Mac([0x52, 0x54, 0, slot as u8, (n >> 8) as u8, n as u8]),
        switch: format!("xenbr{slot}"),
        ip: None,
    };
    store
        .write_tx(|c| {
            pengx::store::pms::save(c, &pm)?;
            let storlink = storlinks::insert(c, &storlink)?;
            for n in 0..count {
                vms::insert(c, &vm(n))?;
                nics::insert(c, &nic(n, 0))?;
                nics::insert(c, &nic(n, 1))?;
                let disk = DiskId(id(4, n));
                disks::insert(
                    c,
                    &Disk {
                        id: disk,
                        owner: DiskOwner::Vm(VmId(id(2, n))),
                        order: 0,
                        size: MiB(10_240),
                        format: Format::Qcow2,
                        storlink,
                        volume: VolumeName::new(disk, Format::Qcow2),
                        desc: None,
                        created_at: at,
                    },
                )?;
            }
            Ok(())
        })
        .unwrap();
    VmId(id(2, count / 2))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
