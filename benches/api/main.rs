//! How fast the API answers, on SQLite and on Postgres, beside a bare warp handler that is measured in the same run; what changes
//! cost, beside what they cannot do without; and what the server costs at rest.
//!
//! Servers are processes of their own; the load comes from this one, over loopback, with keep-alive connections that each
//! have one request under way. `cargo bench` builds everything optimised.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement that cannot go on has failed"
)]

#[path = "../../tests/harness/postgres.rs"]
#[allow(dead_code, reason = "the tests stop and freeze it as well")]
mod postgres;
mod server;
mod stock;

use std::hint::black_box;
use std::process::Command;
use std::time::{Duration, Instant};

use askama::Template;
use diesel::Connection;
use diesel::connection::SimpleConnection;
use pengx::dialects::pengx::style::Style;
use pengx::dialects::pengx::vms::{CreateBody, VmView, VmsView};
use pengx::dialects::pengx::{de, xml};
use pengx::model::PowerState;
use pengx::store::{pms, vms};

use server::{Client, Server, load, run};
use stock::{Stock, stock, token};

/// Each figure is taken over this long.
const SPAN: Duration = Duration::from_secs(3);
/// Those of one thing without a server.
const SHORT: Duration = Duration::from_secs(1);
/// The middle of so many starts.
const STARTS: usize = 5;
/// The list after a write, so often.
const WRITES: usize = 40;

fn main() {
    if std::env::args().any(|arg| arg == "bare") {
        return server::bare();
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    println!("{cores} cores; {} s for each figure; one request under way per connection\n", SPAN.as_secs());
    let postgres = postgres::Server::start();
    durable(&postgres);

    let render = processor();
    println!(
        "\n{:<36} {:>4} {:>9} {:>9} {:>9} {:>8} {:>8}",
        "request", "c", "req/s", "p50 us", "p99 us", "bytes", "of bare"
    );
    let server = Server::bare();
    let bare = [1, 32].map(|c| row("bare warp handler", &server, "/", "", c, 0.0));
    for (c, bare) in [1, 32].into_iter().zip(bare) {
        row("bare warp handler, a large body", &server, "/large", "", c, bare);
    }
    drop(server);
    for database in ["sqlite", "postgres"] {
        let new = |count| stock(count, (database == "postgres").then(|| postgres.database()).as_deref());
        reads(database, &new(100), 100, bare);
        let large = new(1_000);
        let list = reads(database, &large, 1_000, bare);
        println!("  the list is {:.2} times what it costs to render it", list.as_secs_f64() / render.as_secs_f64());
        after_a_write(database, &large, render);
        with_a_token(database, &large, bare);
        changes(database, &new(0));
    }
    rest("sqlite", &stock(100, None));
    rest("postgres", &stock(100, Some(&postgres.database())));
}

/// As a site would run it: the harness starts it for tests, which need not survive a power cut.
fn durable(server: &postgres::Server) {
    let mut conn = diesel::PgConnection::establish(&server.database()).unwrap();
    for setting in ["ALTER SYSTEM SET fsync = on", "ALTER SYSTEM SET full_page_writes = on", "SELECT pg_reload_conf()"]
    {
        conn.batch_execute(setting).unwrap();
    }
}

/// One line of the table.
fn row(name: &str, server: &Server, uri: &str, headers: &str, connections: usize, bare: f64) -> f64 {
    let (times, bytes) = load(server, uri, headers, connections, SPAN);
    line(name, &times, bytes, connections, bare)
}

/// The rate.
fn line(name: &str, times: &[Duration], bytes: usize, connections: usize, bare: f64) -> f64 {
    let rate = times.len() as f64 / SPAN.as_secs_f64();
    let share = if bare > 0.0 { format!("{:.2}", rate / bare) } else { String::new() };
    let us = |q| quantile(times, q).as_secs_f64() * 1e6;
    println!("{name:<36} {connections:>4} {rate:>9.0} {:>9.0} {:>9.0} {bytes:>8} {share:>8}", us(0.5), us(0.99));
    rate
}

/// Of sorted times.
fn quantile(times: &[Duration], q: f64) -> Duration {
    times[((times.len() - 1) as f64 * q) as usize]
}

/// The middle of what one list took that nobody else asked for.
fn reads(database: &str, stock: &Stock, count: u32, bare: [f64; 2]) -> Duration {
    let server = Server::pengx(stock);
    let one = format!("/vms/{}/", stock.vm);
    for (c, bare) in [1, 32].into_iter().zip(bare) {
        row(&format!("{database}: GET /vms/:vm/ of {count}"), &server, &one, "", c, bare);
    }
    let (times, bytes) = load(&server, "/vms/", "", 1, SPAN);
    line(&format!("{database}: GET /vms/ of {count}"), &times, bytes, 1, bare[0]);
    row(&format!("{database}: GET /vms/ of {count}"), &server, "/vms/", "", 32, bare[1]);
    let (now, most) = server.memory();
    println!("  memory after it {now:.1} MB, at most {most:.1} MB");
    quantile(&times, 0.5)
}

fn with_a_token(database: &str, stock: &Stock, bare: [f64; 2]) {
    let header = format!("Authorization: Bearer {}\r\n", token(&stock.store));
    let server = Server::pengx(stock);
    for (c, bare) in [1, 32].into_iter().zip(bare) {
        let name = format!("{database}: the same with a token");
        row(&name, &server, &format!("/vms/{}/", stock.vm), &header, c, bare);
    }
}

const XML: &str = "Content-Type: application/xml\r\n";

fn create_body(name: &str) -> String {
    format!(
        "<vm><name>{name}</name><storlink>1</storlink><cpu_core>1</cpu_core><memory>64</memory>\
         <os_disk_size>4</os_disk_size><network><list-item>0</list-item></network></vm>"
    )
}

/// The id of the VM of this name, from the list.
async fn find(client: &mut Client, name: &str) -> String {
    let list = client.ask(200, "GET", "/vms/", "", "").await;
    let (before, _) = list.split_once(&format!("<name>{name}</name>")).expect("the vm is in the list");
    let id = before.rsplit("<vm id='").next().unwrap();
    id[..36].to_owned()
}

/// The first list after each of some writes: rows are read and the list is rendered.
fn after_a_write(database: &str, stock: &Stock, render: Duration) {
    let server = Server::pengx(stock);
    let mut times = run(async {
        let mut client = Client::new(server.address).await;
        let mut times = Vec::new();
        for n in 0..WRITES {
            let name = format!("after-{n}");
            client.ask(201, "POST", "/vms/", XML, &create_body(&name)).await;
            let begun = Instant::now();
            client.ask(200, "GET", "/vms/", "", "").await;
            times.push(begun.elapsed());
            let id = find(&mut client, &name).await;
            client.ask(204, "DELETE", &format!("/vms/{id}/"), "", "").await;
        }
        times
    });
    times.sort_unstable();
    let middle = quantile(&times, 0.5);
    let times_render = middle.as_secs_f64() / render.as_secs_f64();
    println!("  {database}: the first list after a write {:.2} ms, {times_render:.1} times rendering", ms(middle));
}

/// A VM with an empty disk created, found in the list and deleted, over and over.
fn changes(database: &str, stock: &Stock) {
    let server = Server::pengx(stock);
    for connections in [1, 8] {
        let end = Instant::now() + SPAN;
        let one = |worker: usize| async move {
            let mut client = Client::new(server.address).await;
            let mut pairs = 0;
            while Instant::now() < end {
                let name = format!("worker-{worker}-{pairs}");
                client.ask(201, "POST", "/vms/", XML, &create_body(&name)).await;
                let id = find(&mut client, &name).await;
                client.ask(204, "DELETE", &format!("/vms/{id}/"), "", "").await;
                pairs += 1;
            }
            pairs
        };
        let begun = Instant::now();
        let pairs: usize = run(futures_util::future::join_all((0..connections).map(one))).into_iter().sum();
        let rate = pairs as f64 / begun.elapsed().as_secs_f64();
        println!("  {database}: create and delete of an empty vm, {connections} clients: {rate:.1} pairs/s");
    }
    let path = stock.dir.path().join("store/ceiling.qcow2");
    let image = each(|| {
        let made = Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&path).arg("4M").status();
        assert!(made.unwrap().success());
        std::fs::remove_file(&path).unwrap();
    });
    let mut at = stock.pm.created_at;
    let write = each(|| {
        // Another value each time: SQLite writes nothing where nothing changes.
        at += Duration::from_millis(1);
        stock.store.write_tx(|c| pms::heartbeat(c, stock.pm.id, at)).unwrap();
    });
    println!(
        "  {database}: one write transaction {:.2} ms; qemu-img create and unlink {:.2} ms: {:.1} pairs/s without a server",
        ms(write),
        ms(image),
        1.0 / image.as_secs_f64()
    );
}

/// What needs no server and no database. The time to render the list of 1,000 VMs.
fn processor() -> Duration {
    let body = "<vm>\n  <name>test_vm</name>\n  <template>bed05d84-7c44-4720-9588-57cbd8ecef8c</template>\n  \
        <storlink>2</storlink>\n  <cpu_core>1</cpu_core>\n  <memory>512</memory>\n  <maxmem>512</maxmem>\n  \
        <os_disk_size></os_disk_size>\n  <extra_disk_size></extra_disk_size>\n  <disk_format>qcow2</disk_format>\n  \
        <network>\n    <list-item>0</list-item>\n    <list-item>1</list-item>\n  </network>\n  \
        <desc>VM for something</desc>\n</vm>\n";
    let read = each(|| {
        let body: CreateBody = de::from_node(xml::parse(black_box(body)).unwrap()).unwrap();
        body.read().1.unwrap()
    });
    let stock = stock(1_000, None);
    let listings = stock.store.read(vms::listing).unwrap();
    let style = Style::default();
    let view = |listing| {
        let vms::VmListing { vm, disk_size, nics, os, os_arch }: &vms::VmListing = listing;
        VmView { vm, status: PowerState::Running, disk_size: *disk_size, nics, os: *os, os_arch: *os_arch }
    };
    let views: Vec<_> = listings.iter().map(view).collect();
    let render = each(|| VmsView { vms: black_box(&views), style: &style }.render().unwrap());
    let rows = each(|| stock.store.read(vms::listing).unwrap());
    println!("the manual's create body read: {:.1} us", read.as_secs_f64() * 1e6);
    println!("rendering the list of 1,000 vms: {:.2} ms, so {:.2} us for each", ms(render), ms(render));
    println!("reading the rows of 1,000 vms from sqlite: {:.2} ms", ms(rows));
    render
}

/// How long it takes: the middle, as of the requests, so that others on the machine weigh on both alike.
fn each<T>(mut what: impl FnMut() -> T) -> Duration {
    black_box(what());
    let (begun, mut times) = (Instant::now(), Vec::new());
    while begun.elapsed() < SHORT {
        let begun = Instant::now();
        black_box(what());
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    quantile(&times, 0.5)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Start to ready, and memory when nothing has been asked yet.
fn rest(database: &str, stock: &Stock) {
    let mut ready = Vec::new();
    let mut memory = 0.0;
    for _ in 0..STARTS {
        let begun = Instant::now();
        let server = Server::pengx(stock);
        ready.push(begun.elapsed());
        // Let its threads come to rest.
        std::thread::sleep(Duration::from_millis(500));
        memory = server.memory().0;
    }
    ready.sort();
    let middle = ms(ready[STARTS / 2]);
    println!("{database}: start to ready {middle:.0} ms (the middle of {STARTS}), at rest {memory:.1} MB");
}
