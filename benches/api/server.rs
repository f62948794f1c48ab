//! Servers in processes of their own, and their clients.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use warp::Filter;

use crate::stock::Stock;

/// As long as the list of 1,000 VMs.
const LARGE: usize = 710_013;

/// Ended with this value.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn pengx(stock: &Stock) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pengx"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--hypervisor", "fake:///", "--data-dir"]);
        Self::start(command.arg(stock.dir.path()).env("PENGX_CONFIG", stock.dir.path().join("pengx.toml")))
    }

    pub(crate) fn bare() -> Self {
        Self::start(Command::new(std::env::current_exe().unwrap()).arg("bare"))
    }

    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit("http://").next().unwrap().parse().expect("the line that says it is ready");
        Self { child, address }
    }

    /// Memory in MB now, and at its highest.
    pub(crate) fn memory(&self) -> (f64, f64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let mb = |name: &str| {
            let kb = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            kb.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
        };
        (mb("VmRSS:"), mb("VmHWM:"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The ceiling: handlers that answer what is there already, behind warp's own server.
pub(crate) fn bare() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("bare listening on http://{}", listener.local_addr().unwrap());
        let body = bytes::Bytes::from(vec![b'x'; LARGE]);
        let large = warp::path!("large").map(move || warp::reply::Response::new(body.clone().into()));
        let hello = warp::any().map(|| "hello");
        warp::serve(large.or(hello)).incoming(listener).run().await;
    });
}

/// A keep-alive connection with one request under way.
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    address: SocketAddr,
}

impl Client {
    pub(crate) async fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: vec![0; 1 << 20], address }
    }

    /// `headers`: whole lines. The body of the answer, whose status must be `status`.
    pub(crate) async fn ask(&mut self, status: u16, method: &str, uri: &str, headers: &str, body: &str) -> &str {
        let (address, length) = (self.address, body.len());
        let request =
            format!("{method} {uri} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
        self.send(status, &request).await
    }

    async fn send(&mut self, status: u16, request: &str) -> &str {
        self.stream.write_all(request.as_bytes()).await.unwrap();
        let mut have = 0;
        loop {
            have += self.more(have).await;
            let Some(head) = self.buffer[..have].windows(4).position(|w| w == b"\r\n\r\n") else { continue };
            let text = std::str::from_utf8(&self.buffer[..head]).unwrap().to_ascii_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
            let (from, length) = (head + 4, length.map_or(0, |length| length.parse().unwrap()));
            assert!(from + length <= self.buffer.len(), "the buffer is too small");
            while have < from + length {
                have += self.more(have).await;
            }
            let body = std::str::from_utf8(&self.buffer[from..from + length]).unwrap();
            assert!(text.starts_with(&format!("http/1.1 {status}")), "{request}: {text} {body}");
            return body;
        }
    }

    async fn more(&mut self, have: usize) -> usize {
        let got = self.stream.read(&mut self.buffer[have..]).await.unwrap();
        assert!(got > 0, "the server closed the connection");
        got
    }
}

/// How long each answer to a GET took, sorted, and the size of a body.
pub(crate) fn load(
    server: &Server,
    uri: &str,
    headers: &str,
    connections: usize,
    span: Duration,
) -> (Vec<Duration>, usize) {
    let end = Instant::now() + span;
    let address = server.address;
    let request = format!("GET {uri} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n");
    let one = || async {
        let mut client = Client::new(address).await;
        let (mut times, mut size) = (Vec::new(), 0);
        while Instant::now() < end {
            let begun = Instant::now();
            size = client.send(200, &request).await.len();
            times.push(begun.elapsed());
        }
        (times, size)
    };
    let all = run(futures_util::future::join_all((0..connections).map(|_| one())));
    let size = all[0].1;
    let mut times: Vec<_> = all.into_iter().flat_map(|(times, _)| times).collect();
    times.sort_unstable();
    (times, size)
}

pub(crate) fn run<T>(what: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(what)
}
