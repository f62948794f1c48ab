-- The disk that an overlay reads what it does not hold itself from; and the snapshot that a VM runs on.
ALTER TABLE disks ADD COLUMN backing TEXT REFERENCES disks (id);
CREATE INDEX disks_backing ON disks (backing);
ALTER TABLE vms ADD COLUMN snapshot TEXT REFERENCES snapshots (id);

-- What it takes to make the VM again, as JSON; the SHA-256 of the manifest beside the images; when they were last read
-- again, and when a guest last booted from them.
ALTER TABLE backups ADD COLUMN config TEXT NOT NULL DEFAULT '{}';
ALTER TABLE backups ADD COLUMN manifest TEXT NOT NULL DEFAULT '';
ALTER TABLE backups ADD COLUMN verified_at TIMESTAMP;
ALTER TABLE backups ADD COLUMN proven_at TIMESTAMP;

-- What a task may still write to a storlink, in MiB.
CREATE TABLE reservations (
    task TEXT NOT NULL REFERENCES tasks (id) ON DELETE RESTRICT,
    storlink INTEGER NOT NULL REFERENCES storlinks (id) ON DELETE RESTRICT,
    size BIGINT NOT NULL,
    PRIMARY KEY (task, storlink)
);

-- One row: what the files of this site are marked with.
CREATE TABLE site (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    uuid TEXT NOT NULL
);
