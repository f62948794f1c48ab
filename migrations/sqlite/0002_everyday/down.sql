-- Disks of snapshots and backups have no place before this migration.
CREATE TABLE owned_disks (
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

INSERT INTO owned_disks (id, vm, template, position, size, format, storlink, volume, description, created_at)
SELECT id, vm, template, position, size, format, storlink, volume, description, created_at FROM disks
WHERE vm IS NOT NULL OR template IS NOT NULL;
DROP TABLE disks;
ALTER TABLE owned_disks RENAME TO disks;

DROP TABLE backups;
DROP TABLE snapshots;

ALTER TABLE templates DROP COLUMN vnc_password;
ALTER TABLE templates DROP COLUMN iso;
ALTER TABLE templates DROP COLUMN vnc_port;
ALTER TABLE templates DROP COLUMN state;

DROP INDEX vms_pcivf;
ALTER TABLE vms DROP COLUMN iso;
ALTER TABLE vms DROP COLUMN vnc_port;
ALTER TABLE vms DROP COLUMN state;
