-- What each host knows of itself, for the others. A host replaces all rows of its own.
CREATE TABLE networks (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    pm TEXT NOT NULL REFERENCES pms (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    category TEXT NOT NULL,
    method TEXT NOT NULL,
    mac TEXT,
    ip TEXT,
    prefix INTEGER,
    bridge_type TEXT,
    bridge_ports TEXT,
    bond_slaves TEXT,
    bond_mode INTEGER,
    UNIQUE (pm, name)
);

CREATE TABLE dns (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    pm TEXT NOT NULL UNIQUE REFERENCES pms (id) ON DELETE CASCADE,
    ipaddress1 TEXT,
    ipaddress2 TEXT
);

CREATE TABLE sriov (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    pm TEXT NOT NULL REFERENCES pms (id) ON DELETE CASCADE,
    pf TEXT NOT NULL,
    vf TEXT NOT NULL
);

CREATE INDEX sriov_pm ON sriov (pm);

-- Volume groups, their parts and DRBD resources are not looked for yet: their columns are empty.
CREATE TABLE storages (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    pm TEXT NOT NULL REFERENCES pms (id) ON DELETE CASCADE,
    category TEXT NOT NULL,
    uuid TEXT,
    size BIGINT,
    free BIGINT,
    mount_point TEXT,
    target_ip TEXT,
    target TEXT,
    pv_ids TEXT,
    lv_no INTEGER,
    vg_id INTEGER,
    device_id INTEGER,
    drbd_rsc_name TEXT,
    drbd_disk INTEGER,
    drbd_peer_ip TEXT
);

CREATE INDEX storages_pm ON storages (pm);

-- The peers of a host in its cluster, once for each file system of the cluster that it has mounted.
CREATE TABLE ocfs2 (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    storage INTEGER REFERENCES storages (id) ON DELETE CASCADE,
    pm_uuid TEXT NOT NULL REFERENCES pms (id) ON DELETE CASCADE,
    peer_ip TEXT NOT NULL,
    peer_name TEXT NOT NULL,
    number INTEGER NOT NULL
);

CREATE INDEX ocfs2_pm_uuid ON ocfs2 (pm_uuid);
