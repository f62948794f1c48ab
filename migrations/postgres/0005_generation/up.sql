-- One row, which each transaction that a document shows gives another value, so that servers notice the writes of others.
CREATE TABLE generation (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    value BIGINT NOT NULL
);

INSERT INTO generation (id, value) VALUES (1, 0);
