DROP TABLE site;
DROP TABLE reservations;
ALTER TABLE backups DROP COLUMN proven_at;
ALTER TABLE backups DROP COLUMN verified_at;
ALTER TABLE backups DROP COLUMN manifest;
ALTER TABLE backups DROP COLUMN config;
ALTER TABLE vms DROP COLUMN snapshot;
DROP INDEX disks_backing;
ALTER TABLE disks DROP COLUMN backing;
