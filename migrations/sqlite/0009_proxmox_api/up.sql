-- A small number for each VM, for clients that know no uuids. It goes with its VM, as does all else here.
CREATE TABLE numbers (
    number INTEGER NOT NULL PRIMARY KEY,
    vm TEXT NOT NULL UNIQUE REFERENCES vms (id) ON DELETE CASCADE
);

-- Numbers that somebody was told and that have no VM yet: until a moment, or while a task makes it.
CREATE TABLE promised_numbers (
    number INTEGER NOT NULL PRIMARY KEY,
    promised_at TIMESTAMP NOT NULL,
    expires_at TIMESTAMP NOT NULL,
    task TEXT REFERENCES tasks (id) ON DELETE CASCADE
);

-- Whom VMs are made for, as a client keeps them: no accounts, and the password opens nothing.
CREATE TABLE tenants (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    password TEXT NOT NULL,
    created_at TIMESTAMP NOT NULL,
    had_vms BOOLEAN NOT NULL DEFAULT FALSE
);

CREATE TABLE tenancies (
    vm TEXT NOT NULL PRIMARY KEY REFERENCES vms (id) ON DELETE CASCADE,
    tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    swap BIGINT NOT NULL,
    since TIMESTAMP NOT NULL
);

CREATE INDEX tenancies_tenant ON tenancies (tenant);

-- VMs that are to be deleted when somebody says so; and the task that was told to.
CREATE TABLE deletions (
    vm TEXT NOT NULL PRIMARY KEY REFERENCES vms (id) ON DELETE CASCADE,
    id TEXT NOT NULL UNIQUE,
    asked_at TIMESTAMP NOT NULL,
    task TEXT REFERENCES tasks (id) ON DELETE SET NULL
);
