//! How the program begins, or says that it cannot.

use std::net::TcpListener;

use crate::harness::server::Place;

/// What it said on standard error; it ended with 2 and said nothing else.
fn refused(place: &Place, args: &[&str]) -> String {
    let output = place.try_serve(args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), b"".as_slice()), "{said}");
    said
}

#[test]
fn a_second_server_on_a_data_directory_is_refused_and_names_it() {
    let place = Place::new("fake:///", "");
    let first = place.serve();
    let said = refused(&place, &[]);
    assert!(said.contains(place.data_dir().to_str().unwrap()) && said.contains("another pengx"), "{said}");
    // The first one does not mind; and a killed server leaves no lock.
    assert_eq!(first.get("/vms/").status, 200);
    first.kill();
    assert_eq!(place.serve().get("/vms/").status, 200);
}

#[test]
fn a_busy_port_is_refused_and_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = refused(&Place::new("fake:///", ""), &["--listen", &address]);
    assert!(said.contains("listen") && said.contains(&address), "{said}");
}

#[test]
fn an_open_address_without_accounts_is_refused() {
    let place = Place::new("fake:///", "");
    let said = refused(&place, &["--listen", "0.0.0.0:0"]);
    assert!(said.contains("listen: 0.0.0.0:0") && said.contains("--insecure"), "{said}");
    assert!(said.contains("pengx user add"), "{said}");
    assert_eq!(place.store().read(pengx::store::pms::all).unwrap(), [], "nothing was begun");
}
