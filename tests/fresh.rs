//! The list of VMs is kept rendered, and never stale: on SQLite, and on Postgres with another host that writes as well.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pengx::hypervisor::Hypervisor;
use pengx::model::{MiB, VmId};
use pengx::operations::disk::CreateDisk;
use pengx::operations::nic::CreateNic;
use pengx::operations::pm;
use pengx::operations::vm::{DeleteVm, EditVm, PoweroffVm, ResumeVm, StartVm, SuspendVm};
use pengx::store::pms;

use crate::harness::app::{App, Site};
use crate::harness::http::Served;
use crate::harness::postgres;
use crate::harness::wait::wait_until;

/// One server, its API, and whether others write its database.
struct Host {
    app: App,
    http: Served,
}

impl Host {
    fn start(site: Site) -> Self {
        let app = site.start();
        let http = Served::new(&app.core);
        Self { app, http }
    }

    /// Two servers with one database, each on its own hypervisor.
    fn pair() -> [Self; 2] {
        let (mut first, mut second) = (Site::new(), Site::new());
        first.database_url = postgres::database();
        second.database_url.clone_from(&first.database_url);
        second.host += 1;
        [Self::start(first), Self::start(second)]
    }

    /// The names and states that the list shows, in its order. It is asked twice, so what is kept is shown at least once.
    fn list(&self) -> Vec<(String, String)> {
        let first = self.http.get("/vms/");
        let answer = self.http.get("/vms/");
        assert_eq!((first.status, answer.status), (200, 200));
        parsed(&answer.body)
    }

    fn only(&self) -> (String, String) {
        let list = self.list();
        assert_eq!(list.len(), 1, "{list:?}");
        list.into_iter().next().unwrap()
    }

    fn rename(&self, vm: VmId, name: &str) {
        self.app.run(EditVm { vm, name: Some(name.parse().unwrap()), desc: None }).unwrap();
    }
}

fn parsed(body: &str) -> Vec<(String, String)> {
    let element = |part: &str, name: &str| {
        let rest = part.split_once(&format!("<{name}>")).unwrap().1;
        rest.split_once(&format!("</{name}>")).unwrap().0.to_owned()
    };
    body.split("<vm id=").skip(1).map(|vm| (element(vm, "name"), element(vm, "status"))).collect()
}

fn vm(name: &str, state: &str) -> (String, String) {
    (name.to_owned(), state.to_owned())
}

fn on_both(test: fn(&Host)) {
    let mut remote = Site::new();
    remote.database_url = postgres::database();
    for site in [Site::new(), remote] {
        println!("on {}", site.database_url);
        let host = Host::start(site);
        test(&host);
        host.app.assert_at_rest();
    }
}

#[test]
fn after_each_answer_the_list_shows_what_was_done() {
    on_both(|host| {
        let app = &host.app;
        let storlink = app.storlink();
        assert_eq!(host.list(), []);
        let web1 = app.run(app.vm_of(storlink, None, "web1")).unwrap();
        assert_eq!(host.only(), vm("web1", "SHUTDOWN"));
        app.run(StartVm { vm: web1 }).unwrap();
        assert_eq!(host.only(), vm("web1", "RUNNING"));
        app.run(SuspendVm { vm: web1 }).unwrap();
        assert_eq!(host.only(), vm("web1", "PAUSED"));
        app.run(ResumeVm { vm: web1 }).unwrap();
        assert_eq!(host.only(), vm("web1", "RUNNING"));
        host.rename(web1, "web2");
        assert_eq!(host.only(), vm("web2", "RUNNING"));
        let web3 = app.run(app.vm_of(storlink, None, "web3")).unwrap();
        assert_eq!(host.list(), [vm("web2", "RUNNING"), vm("web3", "SHUTDOWN")]);
        app.run(PoweroffVm { vm: web1 }).unwrap();
        assert_eq!(host.list(), [vm("web2", "SHUTDOWN"), vm("web3", "SHUTDOWN")]);
        app.run(DeleteVm { vm: web1 }).unwrap();
        assert_eq!(host.only(), vm("web3", "SHUTDOWN"));

        // What the list shows of other tables.
        let size = || host.http.get("/vms/").element("disk_size").to_owned();
        assert_eq!((size(), size()), ("6".to_owned(), "6".to_owned()));
        app.run(CreateDisk { vm: web3, storlink, size: MiB(3), format: None, desc: String::new() }).unwrap();
        assert_eq!(size(), "9");
        let nics = || host.http.get("/vms/").body.matches("<nic>").count();
        assert_eq!((nics(), nics()), (2, 2));
        app.run(CreateNic { vm: web3, network: "0".to_owned(), ip: None }).unwrap();
        assert_eq!(nics(), 3);
    });
}

#[test]
fn the_list_follows_what_happens_to_guests_behind_the_servers_back() {
    on_both(|host| {
        let (app, fake) = (&host.app, &host.app.site.fake);
        let storlink = app.storlink();
        let id = app.run(app.vm_of(storlink, None, "web1")).unwrap();
        let shows = |state: &str| wait_until(state, || Ok(host.only() == vm("web1", state)));
        app.run(StartVm { vm: id }).unwrap();
        assert_eq!(host.only(), vm("web1", "RUNNING"));
        assert!(fake.power_off_inside(id));
        shows("SHUTDOWN");
        app.run(StartVm { vm: id }).unwrap();
        assert_eq!(host.only(), vm("web1", "RUNNING"));
        assert!(fake.crash(id));
        shows("CRASHED");
        app.run(StartVm { vm: id }).unwrap();
        assert_eq!(host.only(), vm("web1", "RUNNING"));
        fake.set_reachable(false);
        shows("UNKNOWN");
        fake.set_reachable(true);
        shows("RUNNING");
    });
}

#[test]
fn what_another_host_wrote_is_in_the_next_list() {
    let [one, two] = Host::pair();
    let storlink = one.app.storlink();
    assert_eq!((one.list(), two.list()), (vec![], vec![]));
    let id = one.app.run(one.app.vm_of(storlink, None, "web1")).unwrap();
    assert_eq!((one.only(), two.only()), (vm("web1", "SHUTDOWN"), vm("web1", "SHUTDOWN")));
    for name in ["web2", "web3", "web4"] {
        one.rename(id, name);
        assert_eq!((two.only(), one.only()), (vm(name, "SHUTDOWN"), vm(name, "SHUTDOWN")));
    }
    // A state comes with what that host writes of it, some moments later.
    one.app.run(StartVm { vm: id }).unwrap();
    assert_eq!(one.only(), vm("web4", "RUNNING"));
    let shows = |state: &str| wait_until(state, || Ok(two.only() == vm("web4", state)));
    shows("RUNNING");
    one.app.site.fake.pause(id).unwrap();
    shows("PAUSED");
    one.app.run(PoweroffVm { vm: id }).unwrap();
    shows("SHUTDOWN");

    // Nobody writes anything when a host is lost, and the same list comes again when it is back.
    let (here, long_ago) = (one.app.site.pm().id, one.app.site.pm().heartbeat_at - chrono::Duration::minutes(2));
    for _ in 0..2 {
        one.app.store().note_tx(|tx| pms::heartbeat(tx, here, long_ago)).unwrap();
        shows("UNKNOWN");
        assert_eq!(one.only(), vm("web4", "SHUTDOWN"));
        pm::heartbeat(&one.app.core).unwrap();
        shows("SHUTDOWN");
    }
    one.app.run(DeleteVm { vm: id }).unwrap();
    assert_eq!((two.list(), one.list()), (vec![], vec![]));
    one.app.assert_at_rest();
}

const ROUNDS: usize = 40;
const WRITERS: usize = 3;
const READERS: usize = 4;

/// Writers rename a VM each, as fast as they can, on the first host; readers ask all of them.
fn race(hosts: &[Host]) {
    let app = &hosts[0].app;
    let storlink = app.storlink();
    let vms: Vec<VmId> =
        (0..WRITERS).map(|w| app.run(app.vm_of(storlink, None, &format!("w{w}-0"))).unwrap()).collect();
    // What each writer was answered last; and what readers have seen, whoever read it.
    let answered: [AtomicUsize; WRITERS] = Default::default();
    let (writing, lists) = (AtomicUsize::new(WRITERS), AtomicUsize::new(0));
    let failed = AtomicBool::new(false);
    std::thread::scope(|s| {
        for (w, id) in vms.iter().enumerate() {
            let (answered, writing) = (&answered, &writing);
            s.spawn(move || {
                for n in 1..=ROUNDS {
                    let name = format!("w{w}-{n}").parse().unwrap();
                    if app.run(EditVm { vm: *id, name: Some(name), desc: None }).is_err() {
                        break;
                    }
                    answered[w].store(n, Ordering::SeqCst);
                }
                writing.fetch_sub(1, Ordering::SeqCst);
            });
        }
        for r in 0..READERS {
            let (host, answered, writing, lists, failed) =
                (&hosts[r % hosts.len()], &answered, &writing, &lists, &failed);
            let ids = &vms;
            s.spawn(move || {
                let mut last = false;
                while !last && !failed.load(Ordering::SeqCst) {
                    // Once more after the last answer.
                    last = writing.load(Ordering::SeqCst) == 0;
                    let due: Vec<usize> = answered.iter().map(|n| n.load(Ordering::SeqCst)).collect();
                    let list = parsed(&host.http.get("/vms/").body);
                    let single = host.http.get(&format!("/vms/{}/", ids[r % WRITERS]));
                    let single = parsed(&single.body).remove(0).0;
                    let number = |name: &str| -> usize { name.split_once('-').unwrap().1.parse().unwrap() };
                    let shown: Vec<usize> = list.iter().map(|(name, _)| number(name)).collect();
                    let stale = shown.len() != WRITERS || shown.iter().zip(&due).any(|(shown, due)| shown < due);
                    if stale || number(&single) < due[r % WRITERS] {
                        println!("answered {due:?}, and then the list {list:?} and the vm {single}");
                        failed.store(true, Ordering::SeqCst);
                    }
                    lists.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert!(!failed.load(Ordering::SeqCst), "a reader saw less than a writer had been answered before it asked");
    assert_eq!(answered.map(AtomicUsize::into_inner), [ROUNDS; WRITERS], "every rename was done");
    assert!(lists.into_inner() > READERS);
    app.assert_at_rest();
}

#[test]
fn while_writers_and_readers_race_nobody_reads_less_than_was_answered() {
    race(&[Host::start(Site::new())]);
}

#[test]
fn nor_do_they_on_postgres_where_half_of_the_readers_ask_another_host() {
    race(&Host::pair());
}

/// Transactions of a kind since the start.
fn transactions(registry: &prometheus_client::registry::Registry, kind: &str) -> u64 {
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, registry).unwrap();
    let series = format!("pengx_database_transaction_duration_seconds_count{{kind=\"{kind}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&series)).map_or(0, |count| count.parse().unwrap())
}

#[test]
fn while_nobody_writes_a_read_on_postgres_asks_for_the_generation_alone() {
    let mut site = Site::new();
    site.database_url = postgres::database();
    let host = Host::start(site);
    let app = &host.app;
    let id = app.run(app.vm_of(app.storlink(), None, "web1")).unwrap();
    app.assert_at_rest();
    let mut registry = prometheus_client::registry::Registry::default();
    pengx::operations::metrics::register(&app.core, &mut registry).unwrap();
    for uri in [format!("/vms/{id}/"), "/vms/".to_owned()] {
        // Others look at the database now and then: there is a time when they do not.
        wait_until("ten reads of the generation, and of no rows", || {
            assert_eq!(host.http.get(&uri).status, 200);
            let before = (transactions(&registry, "generation"), transactions(&registry, "read"));
            for _ in 0..10 {
                assert_eq!(host.http.get(&uri).element("name"), "web1");
            }
            let after = (transactions(&registry, "generation"), transactions(&registry, "read"));
            Ok(after == (before.0 + 10, before.1))
        });
    }
}
