//! Clients that read or write slowly or never: each ends by its deadline, and others are served meanwhile.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use pengx::dialects::pengx::Settings;
use pengx::server::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Client, populate, request, served_meanwhile};
use crate::harness::app::App;
use crate::harness::http::Served;
use crate::harness::wait::PATIENCE;

const DEADLINE: Duration = Duration::from_millis(500);

/// A server with a list of 200 VMs.
fn serve(app: &App, limits: Limits) -> Served {
    populate(&app.store(), 200);
    let settings = Settings { body_deadline: DEADLINE, ..Settings::default() };
    Served::with(&app.core, settings, limits, None)
}

#[tokio::test]
async fn half_sent_heads_end_by_their_deadline() {
    let app = App::new();
    let server = serve(&app, Limits { header_timeout: DEADLINE, ..Limits::default() });
    let address = server.address;
    let heads = ["", "G", "GET /vms/ HTTP/1.1\r\n", "GET /vms/ HTTP/1.1\r\nHost: loc", "POST /vms/ HTTP/1.1\r\nX: "];
    let one = |n: usize| async move {
        let mut client = Client::connect(address).await;
        // It may be over already.
        client.stream.write_all(heads[n % heads.len()].as_bytes()).await.ok();
        assert!(client.ends().await, "{:?} keeps its connection", heads[n % heads.len()]);
        assert!(client.rest.is_empty());
    };
    // Byte by byte is no way around it.
    let dribble = async {
        let mut client = Client::connect(address).await;
        client.stream.write_all(b"GET /vms/ HTTP/1.1\r\nX: ").await.ok();
        let begun = Instant::now();
        while client.stream.write_all(b"x").await.is_ok() {
            assert!(begun.elapsed() < PATIENCE, "a head may dribble for ever");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let others = async { tokio::join!(join_all((0..100).map(one)), dribble) };
    served_meanwhile(address, "/storlinks/", others).await;
}

#[tokio::test]
async fn bodies_that_dribble_are_given_up() {
    let app = App::new();
    let server = serve(&app, Limits::default());
    let address = server.address;
    let one = |_| async move {
        let Client { stream, rest } = Client::connect(address).await;
        let (read, mut write) = stream.into_split();
        let head = "POST /vms/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml\r\nContent-Length: 100000\r\n\r\n";
        write.write_all(head.as_bytes()).await.unwrap();
        let dribble = async {
            while write.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let (mut read, mut bytes) = (read, rest);
        let answer = async { while read.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {} };
        tokio::time::timeout(PATIENCE, async { tokio::join!(dribble, answer) })
            .await
            .expect("a body may dribble for ever");
        String::from_utf8(bytes).unwrap()
    };
    let answers = served_meanwhile(address, "/storlinks/", join_all((0..50).map(one))).await;
    for answer in answers {
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("did not arrive within 0.5 s"), "{answer}");
    }
    app.assert_at_rest();
}

/// Asks for far more than the kernel keeps for a client.
async fn greedy(address: std::net::SocketAddr) -> Client {
    let mut client = Client::connect(address).await;
    let requests = request("/vms/").repeat(300);
    client.stream.write_all(requests.as_bytes()).await.unwrap();
    client
}

#[tokio::test]
async fn clients_that_never_read_are_cut() {
    let app = App::new();
    let server = serve(&app, Limits { write_timeout: DEADLINE, ..Limits::default() });
    let address = server.address;
    let one = |_| async move {
        let mut client = greedy(address).await;
        // It learns of its end by writing, because it does not read.
        let begun = Instant::now();
        while client.stream.write_all(b"\r\n").await.is_ok() {
            assert!(begun.elapsed() < PATIENCE * 2, "a client that does not read stays");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    served_meanwhile(address, "/storlinks/", join_all((0..4).map(one))).await;
}

#[tokio::test]
async fn clients_that_read_byte_by_byte_are_cut() {
    let app = App::new();
    let server = serve(&app, Limits { write_timeout: DEADLINE, ..Limits::default() });
    let address = server.address;
    let one = |_| async move {
        let mut client = greedy(address).await;
        let begun = Instant::now();
        let mut byte = [0; 1];
        // What the kernel has for it already it could read for hours; so it learns of its end by writing.
        while client.stream.write_all(b"\r\n").await.is_ok() {
            assert_eq!(client.stream.read(&mut byte).await.unwrap_or(1), 1);
            assert!(begun.elapsed() < PATIENCE * 2, "a client that hardly reads stays");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    served_meanwhile(address, "/storlinks/", join_all((0..4).map(one))).await;
}

/// Whether a client that takes longer than this for all of it, and never that long for a part, gets all of it.
async fn reads_on(write_timeout: Duration) -> bool {
    const ANSWERS: u32 = 100;
    let app = App::new();
    let server = serve(&app, Limits { write_timeout, ..Limits::default() });
    let mut client = Client::connect(server.address).await;
    client.stream.write_all(request("/vms/").repeat(100).as_bytes()).await.unwrap();
    let pause = write_timeout * 5 / 4 / ANSWERS;
    for _ in 0..ANSWERS {
        let Some((status, body)) = client.try_answer().await else { return false };
        assert_eq!((status, body.matches("<vm id=").count()), (200, 200));
        tokio::time::sleep(pause).await;
    }
    true
}

#[tokio::test]
async fn a_slow_reader_that_does_read_gets_all_of_it() {
    for seconds in [1, 4, 16] {
        if reads_on(Duration::from_secs(seconds)).await {
            return;
        }
        // Who knows what else this machine does; a longer time-out tells.
    }
    panic!("slow readers are cut although they read");
}
