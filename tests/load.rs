//! Many clients, slow clients, hostile clients: everybody else is served, and nothing grows.

mod busy;
mod crowd;
mod idle;
mod slow;

use std::net::SocketAddr;
use std::time::Duration;

use crate::harness::wait::PATIENCE;
use pengx::model::*;
use pengx::store::{Store, nics, vms};
use quick_xml::events::Event;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The host whose VMs they are.
const HOST: u128 = 0xB105_F00D;

/// Rows of so many VMs without disks, each with an interface.
fn populate(store: &Store, count: u32) -> Vec<VmId> {
    let at = SystemClock.now();
    let pm = Pm {
        id: PmId(uuid::Uuid::from_u128(HOST)),
        name: "host1".to_owned(),
        cpu: 2,
        memory: MiB(4096),
        ssh_pubkey: None,
        hypervisor: "fake".to_owned(),
        heartbeat_at: at,
        created_at: at,
        updated_at: at,
    };
    let id = |n: u32| VmId(uuid::Uuid::from_u128(0x4000_8000_0000_0000_0000 | 2 << 100 | u128::from(n)));
    let vm = |n: u32| Vm {
        id: id(n),
        template: None,
        pm: pm.id,
        name: format!("vm-{n:04}"),
        cpu: 1,
        memory: MiB(64),
        maxmem: MiB(64),
        desc: "VM for something".to_owned(),
        pcivf: None,
        snapshot: None,
        iso: None,
        seen: Seen::default(),
        vnc_password: Secret::new("secret12".to_owned()),
        created_at: at,
        recent_booted_at: None,
        updated_at: at,
    };
    let nic = |n: u32| nics::NewNic {
        uuid: uuid::Uuid::new_v4(),
        vm: id(n),
        name: "eth0".to_owned(),
        mac: Mac([0x52, 0x54, 0, 0, (n >> 8) as u8, n as u8]),
        switch: "xenbr0".to_owned(),
        ip: None,
    };
    store
        .write_tx(|c| {
            pengx::store::pms::save(c, &pm)?;
            for n in 0..count {
                vms::insert(c, &vm(n))?;
                nics::insert(c, &nic(n))?;
            }
            Ok(())
        })
        .unwrap();
    (0..count).map(id).collect()
}

/// A keep-alive connection.
struct Client {
    stream: TcpStream,
    rest: Vec<u8>,
}

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        let stream = tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await.expect("no connection");
        Self { stream: stream.unwrap(), rest: Vec::new() }
    }

    /// Status and body of one answer.
    async fn get(&mut self, uri: &str) -> (u16, String) {
        self.stream.write_all(request(uri).as_bytes()).await.unwrap();
        self.answer().await
    }

    async fn answer(&mut self) -> (u16, String) {
        self.try_answer().await.expect("closed before an answer")
    }

    /// `None`: the connection ended before an answer began.
    async fn try_answer(&mut self) -> Option<(u16, String)> {
        tokio::time::timeout(PATIENCE * 2, self.read()).await.expect("no answer")
    }

    async fn read(&mut self) -> Option<(u16, String)> {
        loop {
            if let Some(at) = self.rest.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = String::from_utf8(self.rest[..at].to_vec()).unwrap();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                let end = at + 4 + length.parse::<usize>().unwrap();
                while self.rest.len() < end {
                    assert!(self.stream.read_buf(&mut self.rest).await.unwrap() > 0, "closed within a body");
                }
                let body = String::from_utf8(self.rest[at + 4..end].to_vec()).unwrap();
                self.rest.drain(..end);
                return Some((head.split(' ').nth(1).unwrap().parse().unwrap(), body));
            }
            if self.stream.read_buf(&mut self.rest).await.unwrap_or(0) == 0 {
                assert!(self.rest.is_empty(), "closed within a head");
                return None;
            }
        }
    }

    /// Reads until the server ends the connection; true if it came to that in time.
    async fn ends(&mut self) -> bool {
        let end = async { while self.stream.read_buf(&mut self.rest).await.is_ok_and(|n| n > 0) {} };
        tokio::time::timeout(PATIENCE, end).await.is_ok()
    }
}

fn request(uri: &str) -> String {
    format!("GET {uri} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// One root, and every element that opens closes.
fn assert_well_formed(xml: &str) {
    let mut reader = quick_xml::Reader::from_str(xml);
    let (mut depth, mut roots) = (0, 0);
    loop {
        match reader.read_event().unwrap_or_else(|e| panic!("{e}: {xml}")) {
            Event::Start(_) => {
                roots += usize::from(depth == 0);
                depth += 1;
            }
            Event::End(_) => depth -= 1,
            Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!((depth, roots), (0, 1), "{xml}");
}

/// Asks again and again until `others` are done.
async fn served_meanwhile<T>(address: SocketAddr, uri: &str, others: impl Future<Output = T>) -> T {
    let mut reader = Client::connect(address).await;
    let mut served = 0;
    let mut others = std::pin::pin!(others);
    loop {
        let sent = reader.stream.write_all(request(uri).as_bytes()).await;
        match reader.try_answer().await {
            Some((status, body)) => {
                assert_eq!(status, 200, "{body}");
                served += 1;
            }
            // This test, too, may be too slow for a short deadline; like any client it then connects again.
            None => reader = Client::connect(address).await,
        }
        drop(sent);
        // So that others have the machine, too.
        if let (Ok(done), true) = (tokio::time::timeout(Duration::from_millis(20), others.as_mut()).await, served > 0) {
            return done;
        }
    }
}
