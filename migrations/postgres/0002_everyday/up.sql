-- What a VM's own host saw last, for the other hosts of the site; and the disc in the drive, `<storlink>/<file>`.
ALTER TABLE vms ADD COLUMN state TEXT NOT NULL DEFAULT 'SHUTDOWN';
ALTER TABLE vms ADD COLUMN vnc_port INTEGER;
ALTER TABLE vms ADD COLUMN iso TEXT;

-- A virtual function is one guest's at a time.
CREATE UNIQUE INDEX vms_pcivf ON vms (pm, pcivf);

ALTER TABLE templates ADD COLUMN state TEXT NOT NULL DEFAULT 'SHUTDOWN';
ALTER TABLE templates ADD COLUMN vnc_port INTEGER;
ALTER TABLE templates ADD COLUMN iso TEXT;
-- Made when it is started for the first time.
ALTER TABLE templates ADD COLUMN vnc_password TEXT;

-- A frozen point of a VM; `RUN` is the leaf that the VM writes to.
CREATE TABLE snapshots (
    id TEXT NOT NULL PRIMARY KEY,
    vm TEXT NOT NULL REFERENCES vms (id) ON DELETE RESTRICT,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    parent TEXT REFERENCES snapshots (id) ON DELETE RESTRICT,
    description TEXT NOT NULL,
    created_at TIMESTAMP NOT NULL
);

CREATE INDEX snapshots_vm ON snapshots (vm);

-- A backup outlives its VM, so its VM is not referenced.
CREATE TABLE backups (
    id TEXT NOT NULL PRIMARY KEY,
    vm TEXT NOT NULL,
    name TEXT NOT NULL,
    storlink INTEGER NOT NULL REFERENCES storlinks (id) ON DELETE RESTRICT,
    size BIGINT NOT NULL,
    description TEXT NOT NULL,
    created_at TIMESTAMP NOT NULL
);

CREATE INDEX backups_vm ON backups (vm);

-- A disk may be a snapshot's or a backup's as well.
ALTER TABLE disks
    DROP CONSTRAINT disks_check,
    ADD COLUMN snapshot TEXT REFERENCES snapshots (id) ON DELETE RESTRICT,
    ADD COLUMN backup TEXT REFERENCES backups (id) ON DELETE RESTRICT,
    ADD CONSTRAINT disks_check CHECK (num_nonnulls(vm, template, snapshot, backup) = 1),
    ADD UNIQUE (snapshot, position),
    ADD UNIQUE (backup, position);
