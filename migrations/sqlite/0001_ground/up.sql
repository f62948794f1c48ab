-- Where the two databases differ: the integer ids, and nothing else. Uuids and words are text, times are UTC,
-- sizes are MiB.

CREATE TABLE pms (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    cpu INTEGER NOT NULL,
    memory BIGINT NOT NULL,
    ssh_pubkey TEXT,
    hypervisor TEXT NOT NULL,
    heartbeat_at TIMESTAMP NOT NULL,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL
);

CREATE TABLE storlinks (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    uuid TEXT NOT NULL UNIQUE,
    pm TEXT NOT NULL REFERENCES pms (id) ON DELETE RESTRICT,
    name TEXT NOT NULL,
    link TEXT NOT NULL,
    kind TEXT NOT NULL,
    level TEXT NOT NULL,
    size BIGINT NOT NULL,
    free BIGINT NOT NULL,
    description TEXT NOT NULL,
    shared BOOLEAN NOT NULL,
    UNIQUE (pm, name)
);

CREATE TABLE templates (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    os TEXT NOT NULL,
    os_arch TEXT NOT NULL,
    description TEXT NOT NULL,
    pm TEXT NOT NULL REFERENCES pms (id) ON DELETE RESTRICT,
    created_at TIMESTAMP NOT NULL,
    recent_booted_at TIMESTAMP,
    updated_at TIMESTAMP NOT NULL
);

CREATE TABLE vms (
    id TEXT NOT NULL PRIMARY KEY,
    template TEXT REFERENCES templates (id) ON DELETE RESTRICT,
    pm TEXT NOT NULL REFERENCES pms (id) ON DELETE RESTRICT,
    name TEXT NOT NULL UNIQUE,
    cpu INTEGER NOT NULL,
    memory BIGINT NOT NULL,
    maxmem BIGINT NOT NULL,
    description TEXT NOT NULL,
    pcivf TEXT,
    vnc_password TEXT NOT NULL,
    created_at TIMESTAMP NOT NULL,
    recent_booted_at TIMESTAMP,
    updated_at TIMESTAMP NOT NULL
);

CREATE INDEX vms_template ON vms (template);

-- A disk belongs to a VM or to a template; a volume is the disk of one owner only.
CREATE TABLE disks (
    id TEXT NOT NULL PRIMARY KEY,
    vm TEXT REFERENCES vms (id) ON DELETE RESTRICT,
    template TEXT REFERENCES templates (id) ON DELETE RESTRICT,
    position INTEGER NOT NULL,
    size BIGINT NOT NULL,
    format TEXT NOT NULL,
    storlink INTEGER NOT NULL REFERENCES storlinks (id) ON DELETE RESTRICT,
    volume TEXT NOT NULL,
    description TEXT,
    created_at TIMESTAMP NOT NULL,
    CHECK ((vm IS NULL) <> (template IS NULL)),
    UNIQUE (vm, position),
    UNIQUE (template, position),
    UNIQUE (storlink, volume)
);

CREATE TABLE nics (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    uuid TEXT NOT NULL UNIQUE,
    vm TEXT NOT NULL REFERENCES vms (id) ON DELETE RESTRICT,
    name TEXT NOT NULL,
    mac TEXT NOT NULL UNIQUE,
    switch TEXT NOT NULL,
    ip TEXT,
    UNIQUE (vm, name)
);

CREATE TABLE tasks (
    id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    state TEXT NOT NULL,
    percent INTEGER NOT NULL,
    step TEXT NOT NULL,
    error TEXT,
    message TEXT NOT NULL,
    pm TEXT NOT NULL REFERENCES pms (id) ON DELETE RESTRICT,
    process TEXT NOT NULL,
    created_at TIMESTAMP NOT NULL,
    started_at TIMESTAMP,
    ended_at TIMESTAMP
);

CREATE INDEX tasks_created_at ON tasks (created_at, id);
CREATE INDEX tasks_state ON tasks (state);

CREATE TABLE locks (
    resource TEXT NOT NULL,
    task TEXT NOT NULL REFERENCES tasks (id) ON DELETE RESTRICT,
    access TEXT NOT NULL,
    PRIMARY KEY (resource, task)
);

CREATE INDEX locks_task ON locks (task);

CREATE TABLE journal (
    task TEXT NOT NULL REFERENCES tasks (id) ON DELETE RESTRICT,
    seq INTEGER NOT NULL,
    direction TEXT NOT NULL,
    compensation TEXT NOT NULL,
    PRIMARY KEY (task, seq)
);
