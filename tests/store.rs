//! The store, on SQLite and on Postgres: one suite, run twice.

mod laws;
mod migrations;
mod outage;
mod owners;
mod tables;
mod tenants;

use chrono::NaiveDateTime;
use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection, SqliteConnection};
use pengx::model::*;
use pengx::store::{self, Conn, Store};
use uuid::Uuid;

use crate::harness::postgres;

/// A migrated, empty database.
struct Database {
    store: Store,
    url: String,
    _dir: tempfile::TempDir,
}

impl Database {
    fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/pengx.db", dir.path().display());
        Self::new(url, dir)
    }

    fn postgres() -> Self {
        Self::new(postgres::database(), tempfile::tempdir().unwrap())
    }

    fn new(url: String, _dir: tempfile::TempDir) -> Self {
        let store = Store::open(&url).unwrap();
        store.migrate().unwrap();
        Self { store, url, _dir }
    }

    fn is_sqlite(&self) -> bool {
        self.url.starts_with("sqlite:")
    }

    /// Behind the store's back.
    fn execute(&self, sql: &str) {
        self.try_execute(sql).unwrap();
    }

    /// Behind the store's back, where the database itself may refuse.
    fn try_execute(&self, sql: &str) -> diesel::QueryResult<()> {
        if self.is_sqlite() {
            let mut c = SqliteConnection::establish(&self.url).unwrap();
            c.batch_execute(&format!("PRAGMA busy_timeout = 5000; {sql}"))
        } else {
            PgConnection::establish(&self.url).unwrap().batch_execute(sql)
        }
    }

    fn write<T>(&self, f: impl FnOnce(&mut Conn) -> pengx::error::Result<T>) -> T {
        self.store.write_tx(f).unwrap()
    }

    fn read<T>(&self, f: impl FnOnce(&mut Conn) -> pengx::error::Result<T>) -> T {
        self.store.read(f).unwrap()
    }
}

fn on_both(test: fn(&Database)) {
    for database in [Database::sqlite(), Database::postgres()] {
        println!("on {}", database.url);
        test(&database);
    }
}

fn at(seconds: i64) -> NaiveDateTime {
    chrono::DateTime::from_timestamp_micros(1_700_000_000_000_000 + seconds * 1_000_000 + 123_456).unwrap().naive_utc()
}

fn pm(n: u128) -> Pm {
    Pm {
        id: PmId(Uuid::from_u128(n)),
        name: format!("pm{n}"),
        cpu: 8,
        memory: MiB(65_536),
        ssh_pubkey: None,
        hypervisor: "fake".to_owned(),
        heartbeat_at: at(0),
        created_at: at(0),
        updated_at: at(0),
    }
}

fn new_storlink(pm: &Pm, name: &str) -> store::storlinks::NewStorlink {
    store::storlinks::NewStorlink {
        uuid: Uuid::new_v4(),
        pm: pm.id,
        name: name.to_owned(),
        link: "/srv/vms".to_owned(),
        kind: StorlinkType::Nfs,
        level: StorlinkLevel::File,
        usage: Usage { size: MiB(1_000), free: MiB(400) },
        desc: String::new(),
        shared: true,
    }
}

fn template(pm: &Pm, n: u128) -> Template {
    Template {
        id: TemplateId(Uuid::from_u128(n)),
        name: format!("template{n}"),
        os: Os::Debian,
        os_arch: OsArch::X64,
        desc: String::new(),
        pm: pm.id,
        seen: Seen::default(),
        iso: None,
        vnc_password: None,
        created_at: at(i64::try_from(n).unwrap()),
        recent_booted_at: None,
        updated_at: at(0),
    }
}

fn vm(pm: &Pm, template: Option<TemplateId>, n: u128) -> Vm {
    Vm {
        id: VmId(Uuid::from_u128(n)),
        template,
        pm: pm.id,
        name: format!("vm{n}"),
        cpu: 2,
        memory: MiB(1024),
        maxmem: MiB(2048),
        desc: String::new(),
        pcivf: None,
        snapshot: None,
        iso: None,
        seen: Seen::default(),
        vnc_password: Secret::new("secret".to_owned()),
        created_at: at(0),
        recent_booted_at: None,
        updated_at: at(0),
    }
}

fn disk(owner: DiskOwner, order: u32, storlink: StorlinkId, size: u64) -> Disk {
    let id = DiskId(Uuid::new_v4());
    Disk {
        backing: None,
        id,
        owner,
        order,
        size: MiB(size),
        format: Format::Qcow2,
        storlink,
        volume: VolumeName::new(id, Format::Qcow2),
        desc: None,
        created_at: at(0),
    }
}

fn nic(vm: &Vm, name: &str, last: u8) -> store::nics::NewNic {
    store::nics::NewNic {
        uuid: Uuid::new_v4(),
        vm: vm.id,
        name: name.to_owned(),
        mac: Mac([0, 0x16, 0x3e, 0, 0, last]),
        switch: "xenbr0".to_owned(),
        ip: None,
    }
}

fn task(pm: &Pm, n: u128) -> Task {
    Task {
        id: TaskId(Uuid::from_u128(n)),
        kind: TaskKind::VmCreate,
        subject: format!("vm vm{n}"),
        state: TaskState::Queued,
        percent: 0,
        step: String::new(),
        error: None,
        message: String::new(),
        pm: pm.id,
        process: Uuid::from_u128(1),
        created_at: at(i64::try_from(n).unwrap()),
        started_at: None,
        ended_at: None,
        account: None,
    }
}
