//! A Postgres that goes away and comes back.

use pengx::store::{pms, vms};

use super::*;

#[test]
fn while_postgres_is_down_it_is_unavailable_and_then_works_again() {
    let server = postgres::Server::start();
    let url = server.database();
    let store = Store::open(&url).unwrap();
    store.migrate().unwrap();
    store.write_tx(|c| pms::save(c, &pm(1))).unwrap();
    // Several idle connections, each of which dies.
    let barrier = std::sync::Barrier::new(4);
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| store.read(|_| Ok(barrier.wait())).unwrap());
        }
    });

    server.stop();
    let away = |e: pengx::error::Error| assert_eq!(e.to_string(), "the database does not answer", "{}", e.story());
    for _ in 0..3 {
        away(store.read_generation().unwrap_err());
        away(store.read(pms::all).unwrap_err());
        away(store.write_tx(|c| pms::save(c, &pm(2))).unwrap_err());
        away(Store::open(&url).unwrap().migrate().unwrap_err());
    }

    server.start_again();
    assert_eq!(store.read(pms::all).unwrap().len(), 1);
    store.write_tx(|c| pms::save(c, &pm(2))).unwrap();

    // Restarted unseen: the first call already works.
    server.stop();
    server.start_again();
    store.write_tx(|c| pms::save(c, &pm(3))).unwrap();
    assert_eq!(store.read(pms::all).unwrap().len(), 3);

    server.stop();
    server.start_again();
    let before = store.read_generation().unwrap();
    store.write_tx(|_| Ok(())).unwrap();
    assert_ne!(store.read_generation().unwrap(), before);

    // In the middle of a transaction.
    let cut = store.write_tx(|c| {
        pms::save(c, &pm(4))?;
        server.stop();
        vms::listing(c).map(drop)
    });
    away(cut.unwrap_err());
    server.start_again();
    let cut = store.write_tx(|c| {
        pms::save(c, &pm(5))?;
        server.stop();
        Ok(())
    });
    away(cut.unwrap_err());
    server.start_again();
    assert_eq!(store.read(pms::all).unwrap().len(), 3);
}
