//! A client of WebSockets that looks at a screen.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use tungstenite::protocol::{Message, Role, WebSocket};

use super::http::{Answer, parse};
use super::wait::PATIENCE;

pub struct Viewer {
    pub socket: WebSocket<TcpStream>,
    /// That of the 101.
    pub answer: Answer,
}

/// The handshake's own headers; a test may leave some out.
pub const UPGRADE: [(&str, &str); 4] = [
    ("Connection", "keep-alive, Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    // The key of RFC 6455.
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

impl Viewer {
    /// The answer, if that is no WebSocket.
    pub fn open(address: SocketAddr, uri: &str, headers: &[(&str, &str)]) -> Result<Self, Answer> {
        Self::ask(address, uri, &[&UPGRADE[..], headers].concat())
    }

    pub fn ask(address: SocketAddr, uri: &str, headers: &[(&str, &str)]) -> Result<Self, Answer> {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut request = format!("GET {uri} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| *name == "Host") {
            request.push_str(&format!("Host: {address}\r\n"));
        }
        headers.iter().for_each(|(name, value)| request.push_str(&format!("{name}: {value}\r\n")));
        stream.write_all(format!("{request}\r\n").as_bytes()).unwrap();
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            let mut buf = [0; 1024];
            let read = stream.read(&mut buf).unwrap();
            assert!(read > 0, "no answer to GET {uri}: {:?}", String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(&buf[..read]);
        };
        let mut rest = bytes.split_off(end);
        let mut answer = parse(&String::from_utf8(bytes).unwrap());
        if answer.status != 101 {
            let length = answer.header("content-length").map_or(0, |n| n.parse().unwrap());
            let mut more = vec![0; length - rest.len()];
            stream.read_exact(&mut more).unwrap();
            rest.extend(more);
            answer.body = String::from_utf8(rest).unwrap();
            return Err(answer);
        }
        assert_eq!(answer.header("upgrade"), Some("websocket"));
        assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        Ok(Self { socket: WebSocket::from_partially_read(stream, rest, Role::Client, None), answer })
    }

    /// The handshake of RFB, as noVNC does it.
    pub fn welcomed(mut self) -> Self {
        assert_eq!(self.read(12), b"RFB 003.008\n");
        self.send(b"RFB 003.008\n");
        assert_eq!(self.read(2), [1, 1], "it is offered one kind of security, none");
        self.send(&[1]);
        assert_eq!(self.read(4), [0; 4]);
        self.send(&[0]);
        self
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.socket.send(Message::binary(bytes.to_vec())).unwrap();
    }

    /// Of the next binary message.
    pub fn frame(&mut self) -> Vec<u8> {
        loop {
            match self.socket.read().unwrap() {
                Message::Binary(bytes) => return bytes.to_vec(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Exactly so many bytes, in however many frames.
    pub fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            bytes.extend(self.frame());
        }
        assert_eq!(bytes.len(), count);
        bytes
    }

    /// Waits for the end; the code of the goodbye, if there was one.
    pub fn ended(mut self) -> Option<u16> {
        let mut code = None;
        while let Ok(message) = self.socket.read() {
            if let Message::Close(frame) = message {
                code = frame.map(|frame| frame.code.into());
            }
        }
        code
    }
}
