-- Whether its directory carries the storlink's mark, so that an empty mount point is told from it.
ALTER TABLE storlinks ADD COLUMN marked BOOLEAN NOT NULL DEFAULT FALSE;
