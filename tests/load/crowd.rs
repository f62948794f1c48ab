//! Hundreds of clients at once.

use futures_util::future::join_all;
use pengx::model::VmId;

use super::{Client, HOST, assert_well_formed, populate};
use crate::harness::server::{Place, Program};

const CLIENTS: usize = 500;
const VMS: u32 = 200;
/// What a second round of the same may add to the memory of the first, in KiB.
const GROWTH: u64 = 16 << 10;

/// Every client asks for the list or a VM, and then for another VM. How many were refused.
async fn round(program: &Program, vms: &[VmId]) -> usize {
    let address = program.address;
    let one = |n: usize| {
        let vm = |k: usize| format!("/vms/{}/", vms[k % vms.len()]);
        let uris = [if n.is_multiple_of(2) { "/vms/".to_owned() } else { vm(n) }, vm(n + 1)];
        async move {
            let mut client = Client::connect(address).await;
            let mut refused = 0;
            for uri in uris {
                let (status, body) = client.get(&uri).await;
                assert_well_formed(&body);
                match status {
                    200 if uri == "/vms/" => assert_eq!(body.matches("<vm id=").count(), VMS as usize),
                    200 => assert!(body.contains("<name>vm-"), "{body}"),
                    503 => {
                        assert!(body.contains("<result>failure</result>"), "{body}");
                        refused += 1;
                    }
                    _ => panic!("{uri}: {status} {body}"),
                }
            }
            refused
        }
    };
    join_all((0..CLIENTS).map(one)).await.into_iter().sum()
}

#[tokio::test]
async fn five_hundred_clients_at_once_are_served_and_the_memory_stays() {
    let settings = format!("log_level = 'warn'\npm_uuid = '{}'", uuid::Uuid::from_u128(HOST));
    let place = Place::new("fake:///", &settings);
    std::fs::create_dir(place.data_dir()).unwrap();
    let vms = populate(&place.store(), VMS);
    let program = place.serve();
    assert_eq!(round(&program, &vms).await, 0, "there is a place for each");
    let first = program.rss();
    assert_eq!(round(&program, &vms).await, 0);
    let second = program.rss();
    println!("resident after one round: {first} KiB, after two: {second} KiB");
    assert!(second <= first + GROWTH, "{first} KiB, then {second} KiB");
    program.terminate();
    assert!(program.wait().success());
}
