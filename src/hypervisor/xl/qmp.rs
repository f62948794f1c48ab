//! The monitor of the QEMU that serves the disks of a guest: commands and answers are lines of JSON.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::BY;
use crate::error::{Error, Result};

/// Longer than what QEMU says of all disks of a guest with the longest chains.
const MAX_LINE: u64 = 16 << 20;

/// One conversation, in which every answer comes until the deadline. QEMU talks to one at a time; others wait.
pub(super) struct Monitor {
    stream: BufReader<UnixStream>,
    deadline: Instant,
}

/// Besides answers QEMU says what happens.
#[derive(Deserialize)]
struct Said {
    #[serde(rename = "return")]
    done: Option<Value>,
    error: Option<No>,
}

#[derive(Deserialize)]
struct No {
    class: String,
    desc: String,
}

/// Why a command was not carried out.
#[derive(Debug)]
pub(super) enum Fault {
    /// There is no such device, job or node.
    Absent(Error),
    Other(Error),
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Absent(error) | Fault::Other(error) => error,
        }
    }
}

impl Monitor {
    /// `Refused` when nobody listens there.
    pub(super) fn open(path: &Path, patience: Duration) -> Result<Self> {
        let deadline = Instant::now() + patience;
        let stream = dial(path, patience).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Error::refused(BY, "no QEMU serves the disks of the guest").caused_by(e)
            }
            _ => away(e),
        })?;
        let mut monitor = Self { stream: BufReader::new(stream), deadline };
        // It greets first.
        monitor.line()?;
        monitor.ask::<Value>("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    pub(super) fn tell(&mut self, command: &str, arguments: Value) -> Result<(), Fault> {
        self.ask::<Value>(command, arguments).map(drop)
    }

    pub(super) fn ask<T: DeserializeOwned>(&mut self, command: &str, arguments: Value) -> Result<T, Fault> {
        let mut line = Value::from_iter([("execute", Value::from(command)), ("arguments", arguments)]).to_string();
        line.push('\n');
        let left = self.left().map_err(Fault::Other)?;
        let stream = self.stream.get_mut();
        let sent = stream.set_write_timeout(Some(left)).and_then(|()| stream.write_all(line.as_bytes()));
        sent.map_err(|e| Fault::Other(away(e)))?;
        loop {
            let line = self.line().map_err(Fault::Other)?;
            let strange =
                |e| Fault::Other(Error::refused(BY, format!("QEMU answered {command} strangely")).caused_by(e));
            match serde_json::from_slice(&line).map_err(strange)? {
                Said { error: Some(No { class, desc }), .. } => {
                    let why = Error::refused("QEMU", desc);
                    let absent = matches!(class.as_str(), "DeviceNotFound" | "DeviceNotActive");
                    return Err(if absent { Fault::Absent(why) } else { Fault::Other(why) });
                }
                Said { done: Some(done), .. } => return serde_json::from_value(done).map_err(strange),
                Said { .. } => {}
            }
        }
    }

    fn line(&mut self) -> Result<Vec<u8>> {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let left = self.left()?;
            self.stream.get_ref().set_read_timeout(Some(left)).map_err(away)?;
            let room = MAX_LINE - u64::try_from(line.len()).unwrap_or(MAX_LINE);
            let read = self.stream.by_ref().take(room).read_until(b'\n', &mut line).map_err(away)?;
            if read == 0 {
                return Err(away(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Ok(line)
    }

    pub(super) fn left(&self) -> Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(away(io::ErrorKind::TimedOut.into())) } else { Ok(left) }
    }
}

/// Where somebody is before us this waits, as long as it is told to.
fn dial(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(patience))?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

fn away(e: io::Error) -> Error {
    Error::unavailable("the QEMU that serves the disks of the guest").caused_by(e)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use super::*;
    use crate::error::ErrorKind;

    /// A QEMU that says these lines, whatever it is told, and then nothing.
    fn saying(lines: &'static [&'static str]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for line in lines {
                writeln!(stream, "{line}").unwrap();
            }
            drop(stream.read_to_end(&mut Vec::new()));
        });
        (dir, path)
    }

    const PATIENT: Duration = Duration::from_secs(30);

    #[test]
    fn events_are_no_answers_and_a_no_is_said() {
        let (_dir, path) = saying(&[
            r#"{"QMP": {"version": {}, "capabilities": []}}"#,
            r#"{"return": {}}"#,
            r#"{"timestamp": {}, "event": "STOP"}"#,
            r#"{"return": [1, 2]}"#,
            r#"{"error": {"class": "GenericError", "desc": "Failed to get lock"}}"#,
            r#"{"error": {"class": "DeviceNotActive", "desc": "none"}}"#,
            r#"{"return": "odd"}"#,
        ]);
        let mut monitor = Monitor::open(&path, PATIENT).unwrap();
        assert_eq!(monitor.ask::<Vec<u32>>("query-x", json!({})).unwrap(), [1, 2]);
        let no = Error::from(monitor.tell("x", json!({})).unwrap_err());
        assert_eq!(no.to_string(), "QEMU refused: Failed to get lock");
        assert!(matches!(monitor.tell("x", json!({})), Err(Fault::Absent(_))));
        let odd = Error::from(monitor.ask::<u32>("query-y", json!({})).unwrap_err());
        assert_eq!(odd.to_string(), "Xen refused: QEMU answered query-y strangely");
    }

    #[test]
    fn who_does_not_answer_is_away_and_who_is_not_there_is_named() {
        let (dir, path) = saying(&[]);
        let late = Monitor::open(&path, Duration::from_millis(50)).err().unwrap();
        assert!(matches!(late.kind(), ErrorKind::Unavailable { .. }), "{late}");
        let none = Monitor::open(&dir.path().join("none"), PATIENT).err().unwrap();
        assert_eq!(none.to_string(), "Xen refused: no QEMU serves the disks of the guest");
    }
}
