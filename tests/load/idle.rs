//! Thousands of connections that do nothing.

use futures_util::future::join_all;
use rustix::process::{Resource, getrlimit};

use super::{Client, HOST, populate};
use crate::harness::server::Place;
use crate::harness::wait::PATIENCE;

const WANTED: u64 = 10_000;
/// Of this process, for all that other tests do meanwhile.
const OTHERS: u64 = 2_000;

#[tokio::test]
async fn ten_thousand_idle_connections_are_held_and_one_more_is_refused() {
    pengx::server::raise_descriptors(WANTED as usize);
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let limit = WANTED.min(most.saturating_sub(OTHERS)) as usize;
    println!("{limit} connections");
    let settings = format!(
        "log_level = 'warn'\npm_uuid = '{}'\nlimits = {{ connections = {limit}, header_timeout = 600 }}",
        uuid::Uuid::from_u128(HOST)
    );
    let place = Place::new("fake:///", &settings);
    std::fs::create_dir(place.data_dir()).unwrap();
    populate(&place.store(), 1);
    let program = place.serve();
    let address = program.address;
    let mut reader = Client::connect(address).await;
    assert_eq!(reader.get("/vms/").await.0, 200);
    let mut idle = Vec::new();
    while idle.len() < limit - 1 {
        // Fewer than the kernel keeps for a server that is late; and one behind them that shows that all were taken.
        let some = (limit - 2 - idle.len()).min(250);
        idle.extend(join_all((0..some).map(|_| Client::connect(address))).await);
        let mut last = Client::connect(address).await;
        assert_eq!(last.get("/vms/").await.0, 200);
        idle.push(last);
        assert_eq!(reader.get("/vms/").await.0, 200, "with {} idle ones", idle.len());
    }
    println!("resident with them: {} KiB", program.rss());
    let (status, body) = Client::connect(address).await.answer().await;
    assert_eq!(status, 503);
    assert!(body.contains(&format!("too many connections; the limit of {limit} is reached")), "{body}");
    assert!(program.log().contains("limits.connections is reached"), "{}", program.log());
    // The idle ones are not forgotten, and their places are given away.
    for at in [0, limit / 2, limit - 2] {
        assert_eq!(idle[at].get("/vms/").await.0, 200);
    }
    idle.truncate(limit / 2);
    let served = async { while Client::connect(address).await.get("/vms/").await.0 != 200 {} };
    tokio::time::timeout(PATIENCE, served).await.expect("no place becomes free");
}

#[test]
fn the_limit_of_file_descriptors_is_raised_and_warned_of_when_it_is_too_low() {
    let place = Place::new("fake:///", "limits = { connections = 100000000 }");
    let program = place.serve();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", program.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let [soft, hard] = [3, 4].map(|at| line.split_whitespace().nth(at).unwrap());
    assert_eq!(soft, hard);
    assert!(program.log().contains("file descriptors are fewer than limits.connections needs"), "{}", program.log());
    assert_eq!(program.get("/storlinks/").status, 200);
}
