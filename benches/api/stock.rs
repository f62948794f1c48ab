//! Databases with VMs in them.

use std::path::Path;
use std::sync::Arc;

use pengx::model::*;
use pengx::operations::Registry;
use pengx::store::{Store, disks, nics, pms, storlinks, vms};
use uuid::Uuid;

const PM: &str = "00000000-0000-4000-8000-00000000000a";

/// The data directory of a server, with the settings that lead to its database.
pub(crate) struct Stock {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) pm: Pm,
    /// One in the middle.
    pub(crate) vm: VmId,
}

/// So many VMs, each with two NICs and a disk, on a storlink; in SQLite unless there is a URL.
pub(crate) fn stock(count: u32, postgres: Option<&str>) -> Stock {
    let dir = tempfile::Builder::new().prefix("px").tempdir().unwrap();
    let url = postgres.map_or_else(|| format!("sqlite://{}", dir.path().join("pengx.db").display()), str::to_owned);
    let keys = dir.path().join("authorized_keys");
    let settings = format!(
        "log_level = 'warn'\npm_uuid = '{PM}'\ndatabase_url = '{url}'\nauthorized_keys = '{}'\n\
         [bridges]\nxenbr0 = 'user'\nxenbr1 = 'user'\n",
        keys.display()
    );
    std::fs::write(dir.path().join("pengx.toml"), settings).unwrap();
    std::fs::create_dir(dir.path().join("store")).unwrap();
    let store = Store::open(&url).unwrap();
    store.migrate().unwrap();
    let at = SystemClock.now();
    let pm = Pm {
        id: PM.parse().unwrap(),
        name: "bench".to_owned(),
        cpu: 2,
        memory: MiB(4096),
        ssh_pubkey: None,
        hypervisor: "fake".to_owned(),
        heartbeat_at: at,
        created_at: at,
        updated_at: at,
    };
    fill(&store, &pm, dir.path(), count);
    Stock { vm: VmId(id(2, count / 2)), dir, store, pm }
}

/// An account's bearer token; from now on everybody must show one.
pub(crate) fn token(store: &Store) -> String {
    let registry = Registry::new(store.clone(), Arc::new(SystemClock), Arc::new(RandomIds));
    registry.add("bench", &Secret::new("a password of the bench".to_owned()), Role::Admin).unwrap();
    registry.create_token("bench", "", None).unwrap().1.reveal().to_owned()
}

fn id(kind: u128, n: u32) -> Uuid {
    Uuid::from_u128(0x4000_8000_0000_0000_0000 | kind << 100 | u128::from(n))
}

fn fill(store: &Store, pm: &Pm, dir: &Path, count: u32) {
    let storlink = storlinks::NewStorlink {
        uuid: id(1, 0),
        pm: pm.id,
        name: "store1".to_owned(),
        link: dir.join("store").display().to_string(),
        kind: StorlinkType::Local,
        level: StorlinkLevel::File,
        usage: Usage::default(),
        desc: String::new(),
        shared: false,
    };
    store
        .write_tx(|c| {
            pms::save(c, pm)?;
            let storlink = storlinks::insert(c, &storlink)?;
            for n in 0..count {
                vms::insert(c, &vm(pm, n))?;
                nics::insert(c, &nic(n, 0))?;
                nics::insert(c, &nic(n, 1))?;
                disks::insert(c, &disk(n, storlink, pm.created_at))?;
            }
            Ok(())
        })
        .unwrap();
}

fn vm(pm: &Pm, n: u32) -> Vm {
    Vm {
        id: VmId(id(2, n)),
        template: None,
        pm: pm.id,
        name: format!("vm-{n:04}"),
        cpu: 2,
        memory: MiB(1024),
        maxmem: MiB(4096),
        desc: "VM for something".to_owned(),
        pcivf: None,
        snapshot: None,
        iso: None,
        seen: Seen::default(),
        vnc_password: Secret::new("secret12".to_owned()),
        created_at: pm.created_at,
        recent_booted_at: Some(pm.created_at),
        updated_at: pm.created_at,
    }
}

fn nic(n: u32, slot: u32) -> nics::NewNic {
    nics::NewNic {
        uuid: id(3, n * 2 + slot),
        vm: VmId(id(2, n)),
        name: format!("eth{slot}"),
        mac: Mac([0x52, 0x54, 0, slot as u8, (n >> 8) as u8, n as u8]),
        switch: format!("xenbr{slot}"),
        ip: None,
    }
}

fn disk(n: u32, storlink: StorlinkId, at: chrono::NaiveDateTime) -> Disk {
    let disk = DiskId(id(4, n));
    Disk {
        backing: None,
        id: disk,
        owner: DiskOwner::Vm(VmId(id(2, n))),
        order: 0,
        size: MiB(10_240),
        format: Format::Qcow2,
        storlink,
        volume: VolumeName::new(disk, Format::Qcow2),
        desc: None,
        created_at: at,
    }
}
