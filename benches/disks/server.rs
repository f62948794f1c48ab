//! The program in a process of its own, asked one thing at a time.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Ended with this value.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    pub(crate) fn start(dir: &Path, hypervisor: &str) -> Self {
        std::fs::write(dir.join("pengx.toml"), "[bridges]\nxenbr0 = \"user\"\n[libvirt]\ndomain_type = \"qemu\"\n")
            .unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_pengx"))
            .args(["serve", "--listen", "127.0.0.1:0", "--hypervisor", hypervisor, "--data-dir"])
            .arg(dir)
            .env("PENGX_CONFIG", dir.join("pengx.toml"))
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(dir.join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit("http://").next().unwrap().parse().expect("the line that says it is ready");
        Self { child, address }
    }

    /// The body of the answer, whose status must be `status`.
    pub(crate) fn ask(&self, method: &str, uri: &str, body: &str, status: u16) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let (address, length) = (self.address, body.len());
        let kind = if body.is_empty() { "" } else { "Content-Type: application/xml\r\n" };
        let head = format!("{method} {uri} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{kind}");
        write!(stream, "{head}Content-Length: {length}\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {uri}: {answer}");
        answer.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned())
    }

    /// Memory in MB now, and at its highest.
    pub(crate) fn memory(&self) -> (f64, f64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let mb = |name: &str| {
            let kb = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            (kb.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 102.4).round() / 10.0
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
