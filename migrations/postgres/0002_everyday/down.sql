-- Disks of snapshots and backups have no place before this migration.
DELETE FROM disks WHERE vm IS NULL AND template IS NULL;
ALTER TABLE disks
    DROP CONSTRAINT disks_check,
    DROP COLUMN snapshot,
    DROP COLUMN backup,
    ADD CONSTRAINT disks_check CHECK ((vm IS NULL) <> (template IS NULL));

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
