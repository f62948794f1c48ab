//! A server of the test's own and a client that speaks raw HTTP/1.1.

use std::time::Duration;

use pengx::dialects::{Refusal, Routes};
use pengx::server::{Limits, Listener, Stopped, Traffic, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::harness::app::App;

/// No assertion is about this time; it only keeps a broken test from hanging.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Server {
    pub(super) address: String,
    stop: Option<oneshot::Sender<()>>,
    pub(super) running: JoinHandle<Stopped>,
    /// Whose database is asked for accounts.
    _app: App,
}

impl Server {
    pub(super) async fn over(app: App, routes: Routes, refusal: Refusal, limits: Limits) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel();
        let listener = Listener { socket, tls: None, limits, traffic: Traffic::default() };
        let running = tokio::spawn(serve(listener, routes, refusal, stopped));
        Self { address, stop: Some(stop), running, _app: app }
    }

    pub(super) async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(&self.address).await.unwrap(), rest: Vec::new() }
    }

    /// One request on its own connection.
    pub(super) async fn ask(&self, request: &str) -> Answer {
        let mut client = self.connect().await;
        client.ask(request).await
    }

    pub(super) fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub(super) async fn stopped(self) -> Stopped {
        tokio::time::timeout(PATIENCE, self.running).await.expect("the server goes on").unwrap()
    }
}

pub(super) struct Client {
    pub(super) stream: TcpStream,
    /// Read and not yet looked at.
    rest: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// A failure in the contract's form.
    #[track_caller]
    pub(super) fn failed(&self, status: u16, sentence: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/xml; charset=utf-8"));
        let start = "<root>\n  <result>failure</result>\n  <message>";
        let message = self.body.strip_prefix(start).and_then(|b| b.strip_suffix("</message>\n</root>\n"));
        let message = message.unwrap_or_else(|| panic!("{self:?}"));
        assert!(message.contains(sentence), "{message}");
        assert!(!message.is_empty());
    }
}

impl Client {
    pub(super) async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    pub(super) async fn ask(&mut self, request: &str) -> Answer {
        // `METHOD /path`, more header lines, and after an empty line the body.
        let (head, body) = request.split_once("\n\n").unwrap_or((request, ""));
        let (line, headers) = head.split_once('\n').unwrap_or((head, ""));
        let mut text = format!("{line} HTTP/1.1\r\nHost: localhost\r\n");
        for header in headers.lines() {
            text += &format!("{header}\r\n");
        }
        if !body.is_empty() && !headers.to_lowercase().contains("content-length") {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        self.send(&format!("{text}\r\n{body}")).await;
        self.answer(line.starts_with("HEAD")).await
    }

    pub(super) async fn answer(&mut self, head_only: bool) -> Answer {
        let read = async {
            let end = loop {
                if let Some(at) = self.rest.windows(4).position(|w| w == b"\r\n\r\n") {
                    break at + 4;
                }
                assert!(self.more().await, "closed before an answer; got {:?}", String::from_utf8_lossy(&self.rest));
            };
            let head: Vec<u8> = self.rest.drain(..end).collect();
            let head = String::from_utf8(head).unwrap();
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            let mut answer = Answer { status, head, body: String::new() };
            let length = answer.header("content-length").map_or(0, |n| n.parse().unwrap());
            if !head_only {
                while self.rest.len() < length {
                    assert!(self.more().await, "closed within a body");
                }
                answer.body = String::from_utf8(self.rest.drain(..length).collect()).unwrap();
            }
            answer
        };
        tokio::time::timeout(PATIENCE, read).await.expect("no answer")
    }

    /// False at the end.
    pub(super) async fn more(&mut self) -> bool {
        self.stream.read_buf(&mut self.rest).await.unwrap_or(0) > 0
    }

    /// Everything until the server closes.
    pub(super) async fn end(&mut self) -> String {
        let read = async { while self.more().await {} };
        tokio::time::timeout(PATIENCE, read).await.expect("the connection stays open");
        String::from_utf8(std::mem::take(&mut self.rest)).unwrap()
    }
}
