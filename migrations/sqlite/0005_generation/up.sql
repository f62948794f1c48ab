-- One row, for servers that share a database. The only server on a SQLite file counts in memory instead.
CREATE TABLE generation (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    value BIGINT NOT NULL
);

INSERT INTO generation (id, value) VALUES (1, 0);
