//! A server over an [`App`]'s core on a port of its own, and a client that shows answers as they are on the wire.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;

use base64::Engine;

use super::wait::PATIENCE;
use pengx::config::PublicUrl;
use pengx::dialects::pengx::{Settings, refusal, routes};
use pengx::dialects::{Mounted, Refusal, plain_refusal};
use pengx::operations::{Core, Gate};
use pengx::server::{Limits, Listener, Mounts, Stopped, Tls, Traffic};

/// Serves until it is dropped.
pub struct Served {
    pub address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<Stopped>>,
}

/// One answer, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Served {
    /// Without accounts every test is an admin, because it comes from this host.
    pub fn new(core: &Core) -> Self {
        Self::with(core, Settings::default(), Limits::default(), None)
    }

    pub fn with(core: &Core, settings: Settings, limits: Limits, tls: Option<Tls>) -> Self {
        let refusal = refusal(&settings);
        let gate = Gate::new(core.clone(), false).unwrap();
        Self::over(routes(gate, settings), refusal, limits, tls, Traffic::default())
    }

    /// A dialect below a prefix, without a document for what cannot be read.
    pub fn dialect(prefix: &str, dialect: Mounted) -> Self {
        Self::dialect_found_at(None, prefix, dialect)
    }

    /// The same where clients find the root at `public_url`.
    pub fn dialect_found_at(public_url: Option<PublicUrl>, prefix: &str, dialect: Mounted) -> Self {
        let mounts = Mounts::found_at(public_url, [(prefix.to_owned(), dialect)]);
        Self::over(mounts, plain_refusal(), Limits::default(), None, Traffic::default())
    }

    pub fn over(
        mounts: impl Into<Mounts>,
        refusal: Refusal,
        limits: Limits,
        tls: Option<Tls>,
        traffic: Traffic,
    ) -> Self {
        let mounts = mounts.into();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (told, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                told.send(socket.local_addr().unwrap()).unwrap();
                let stop = async { drop(stopped.await) };
                let listener = Listener { socket, tls, limits, traffic };
                pengx::server::serve(listener, mounts, refusal, stop).await
            })
        });
        Self { address: address.recv().unwrap(), stop: Some(stop), thread: Some(thread) }
    }

    /// Stops it in order.
    pub fn stopped(mut self) -> Stopped {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap()
    }

    pub fn get(&self, uri: &str) -> Answer {
        ask(self.address, "GET", uri, &[], "")
    }

    pub fn post(&self, uri: &str, xml: &str) -> Answer {
        self.send("POST", uri, xml)
    }

    pub fn delete(&self, uri: &str) -> Answer {
        self.send("DELETE", uri, "")
    }

    pub fn send(&self, method: &str, uri: &str, xml: &str) -> Answer {
        ask(self.address, method, uri, &[("Content-Type", "application/xml")], xml)
    }

    pub fn ask(&self, method: &str, uri: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        ask(self.address, method, uri, headers, body)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The text of the first element of this name, as it is in the document.
    pub fn element(&self, name: &str) -> &str {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let from = self.body.find(&open).unwrap_or_else(|| panic!("no <{name}> in {self:?}")) + open.len();
        let len = self.body[from..].find(&close).unwrap_or_else(|| panic!("no </{name}> in {self:?}"));
        &self.body[from..from + len]
    }

    /// The ids of all elements of this name.
    pub fn ids(&self, name: &str) -> Vec<String> {
        let mut found = Vec::new();
        for part in self.body.split(&format!("<{name} id=")).skip(1) {
            let quote = part.chars().next().unwrap();
            found.push(part[1..].split(quote).next().unwrap().to_owned());
        }
        found
    }

    pub fn message(&self) -> &str {
        self.element("message")
    }
}

/// The value of `Authorization` for a name and a password.
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// One request on a connection of its own.
pub fn ask(address: SocketAddr, method: &str, uri: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let (mut answer, body) = ask_bytes(address, method, uri, headers, body);
    answer.body = String::from_utf8(body).unwrap();
    answer
}

/// The same for a body that is no text: it stands beside the answer.
pub fn ask_bytes(
    address: SocketAddr,
    method: &str,
    uri: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (Answer, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE * 4)).unwrap();
    let mut request = format!("{method} {uri} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer to {method} {uri}: {:?}", String::from_utf8_lossy(&bytes)));
    let body = bytes.split_off(end + 4);
    (parse(&String::from_utf8(bytes).unwrap()), body)
}

/// A head, and a body as it is.
pub fn parse(text: &str) -> Answer {
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let header = |line: &str| line.split_once(": ").map(|(n, v)| (n.to_lowercase(), v.to_owned())).unwrap();
    Answer { status, headers: lines.map(header).collect(), body: body.to_owned() }
}
