//! A screen that speaks VNC, with the test in the place of a guest.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use des::Des;
use des::cipher::{BlockEncrypt, KeyInit};

use super::wait::PATIENCE;

const CHALLENGE: [u8; 16] = *b"0123456789abcdef";

/// Gives each client that it has let in to the test.
pub struct Screen {
    pub port: u16,
    seats: Receiver<Seat>,
}

/// The screen's end of one connection, after the handshake.
pub struct Seat {
    pub stream: TcpStream,
    /// What the client's first message said.
    pub shared: u8,
}

impl Screen {
    /// Speaks RFB 3.8, and wants nothing to be proven.
    pub fn new() -> Self {
        Self::with(b"RFB 003.008\n", None)
    }

    pub fn with(greeting: &'static [u8; 12], password: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let proof = password.map(proof);
        let (given, seats) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let given = given.clone();
                std::thread::spawn(move || {
                    // One that hangs up within the handshake is none.
                    if let Ok(seat) = let_in(stream.unwrap(), greeting, proof) {
                        drop(given.send(seat));
                    }
                });
            }
        });
        Self { port, seats }
    }

    /// The next one.
    pub fn seat(&self) -> Seat {
        self.seats.recv_timeout(PATIENCE).expect("nobody looks at the screen")
    }
}

impl Seat {
    pub fn read<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    pub fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Waits until the other end has hung up.
    pub fn ended(&mut self) {
        let mut scrap = [0; 4096];
        while matches!(self.stream.read(&mut scrap), Ok(n) if n > 0) {}
    }
}

fn let_in(mut stream: TcpStream, greeting: &[u8; 12], proof: Option<[u8; 16]>) -> std::io::Result<Seat> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(greeting)?;
    let mut version = [0; 12];
    stream.read_exact(&mut version)?;
    assert_eq!(version, *greeting);
    let kind = if proof.is_some() { 2 } else { 1 };
    let mut byte = [0];
    if greeting == b"RFB 003.003\n" {
        stream.write_all(&[0, 0, 0, kind])?;
    } else {
        stream.write_all(&[1, kind])?;
        stream.read_exact(&mut byte)?;
        assert_eq!(byte, [kind]);
    }
    if let Some(proof) = proof {
        stream.write_all(&CHALLENGE)?;
        let mut shown = [0; 16];
        stream.read_exact(&mut shown)?;
        if shown != proof {
            stream.write_all(b"\0\0\0\x01\0\0\0\x05wrong")?;
            return Err(std::io::ErrorKind::PermissionDenied.into());
        }
    }
    if proof.is_some() || greeting == b"RFB 003.008\n" {
        stream.write_all(&[0; 4])?;
    }
    stream.read_exact(&mut byte)?;
    Ok(Seat { stream, shared: byte[0] })
}

fn proof(password: &str) -> [u8; 16] {
    let mut key = [0; 8];
    key.iter_mut().zip(password.bytes()).for_each(|(to, from)| *to = from.reverse_bits());
    let mut proof = CHALLENGE;
    proof.chunks_exact_mut(8).for_each(|block| Des::new(&key.into()).encrypt_block(block.into()));
    proof
}
