//! A reverse proxy, as small as one can be: one request for each connection, and another protocol if both ends want it.

use std::io::{Read, Write, copy};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// What is below a prefix, without it.
pub enum Target {
    Server(Arc<OnceLock<SocketAddr>>),
    Directory(PathBuf),
    /// Of HTML.
    Page(&'static str),
}

/// Serves until the test's process ends.
pub struct Proxy {
    pub address: SocketAddr,
}

impl Proxy {
    /// The first prefix that fits counts.
    pub fn new(targets: Vec<(&'static str, Target)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let targets = Arc::new(targets);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let targets = targets.clone();
                // A client that hangs up is no defect of the proxy's.
                std::thread::spawn(move || drop(serve(client, &targets)));
            }
        });
        Self { address }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn serve(mut client: TcpStream, targets: &[(&str, Target)]) -> std::io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let (line, headers) = head.split_once("\r\n").unwrap();
    let [method, path, _] = line.split(' ').collect::<Vec<_>>()[..] else { return Ok(()) };
    let found = targets.iter().find_map(|(prefix, target)| Some((target, path.strip_prefix(prefix)?)));
    let (kind, body) = match found {
        Some((Target::Server(server), rest)) => {
            return forward(client, *server.wait(), &format!("{method} {rest} HTTP/1.1\r\n"), headers);
        }
        Some((Target::Directory(dir), rest)) => {
            let script = if rest.ends_with(".js") { "text/javascript" } else { "application/octet-stream" };
            (script, std::fs::read(dir.join(rest.trim_start_matches('/'))).ok())
        }
        Some((Target::Page(page), _)) => ("text/html", Some(page.as_bytes().to_vec())),
        None => ("", None),
    };
    let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
    let body = body.unwrap_or_default();
    let length = body.len();
    write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    client.write_all(&body)
}

/// As nginx does it where nobody says more: another `Host`, and everything else as it is.
fn forward(mut client: TcpStream, server: SocketAddr, line: &str, headers: &str) -> std::io::Result<()> {
    let mut upstream = TcpStream::connect(server)?;
    let is = |header: &str, name: &str| header.to_lowercase().starts_with(name);
    let upgrade = headers.lines().any(|header| is(header, "upgrade:"));
    let kept = headers.split_inclusive("\r\n").filter(|header| {
        // The next request would be for another target, perhaps.
        !is(header, "host:") && (upgrade || !is(header, "connection:"))
    });
    let close = if upgrade { "" } else { "Connection: close\r\n" };
    upstream.write_all(format!("{line}Host: {server}\r\n{close}{}", kept.collect::<String>()).as_bytes())?;
    let (mut from_client, mut to_server) = (client.try_clone()?, upstream.try_clone()?);
    std::thread::spawn(move || {
        drop(copy(&mut from_client, &mut to_server));
        drop(to_server.shutdown(Shutdown::Write));
    });
    drop(copy(&mut upstream, &mut client));
    client.shutdown(Shutdown::Both)
}
