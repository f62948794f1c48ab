ALTER TABLE storlinks DROP COLUMN marked;
